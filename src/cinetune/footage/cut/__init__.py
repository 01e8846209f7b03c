"""Where shots begin and end, which of them can be trained on, and which windows of them are."""
