"""One module per verb of the story. They meet only through records on disk, and never import each other."""
