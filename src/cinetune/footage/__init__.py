"""Film in and out: files, colour, shots, captions, edits, deliveries. Knows no model and no stage."""
