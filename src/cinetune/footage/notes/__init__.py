"""What people wrote beside their films: captions, sidecar files, datasets."""
