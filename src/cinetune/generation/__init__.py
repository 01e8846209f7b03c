"""From a planned shot to pictures: keyframes, chains of segments, and who computes them."""

from cinetune.generation.chain import Opening, anchored, chain, drift, plan_segments, shot_frames, worst_seam
from cinetune.generation.executors import Cast, run_tasks
from cinetune.generation.keyframe import Candidate, candidate_seed, film_clouds, look_distance, make_candidate, pick
from cinetune.generation.segment import Recipe, centre_box, fit_picture, generate, pictures, starting_noise

__all__ = [
    "Candidate",
    "Cast",
    "Opening",
    "Recipe",
    "anchored",
    "candidate_seed",
    "centre_box",
    "chain",
    "drift",
    "film_clouds",
    "fit_picture",
    "generate",
    "look_distance",
    "make_candidate",
    "pick",
    "pictures",
    "plan_segments",
    "run_tasks",
    "shot_frames",
    "starting_noise",
    "worst_seam",
]
