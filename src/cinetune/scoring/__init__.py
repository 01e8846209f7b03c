"""What `score` measures: networks, the clips they see, the evidence of each shot, sets of shots, copies of the film.

The statistics lie in `cinetune.metrics`, the words in its cards; here numbers are taken, each clip read and embedded
once.
"""
