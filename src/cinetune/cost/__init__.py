"""What training and shooting cost in operations, memory and time, from the shape of a model alone: plain arithmetic,
no torch."""
