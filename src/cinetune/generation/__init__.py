"""From a planned shot to pictures: keyframes, chains of segments, and who computes them."""

from cinetune.generation.arms import ArmModel
from cinetune.generation.chain import (
    ChainRules,
    Opening,
    State,
    Take,
    advanced,
    anchored,
    drift,
    plan_segments,
    prompted,
    shoot,
    shot_frames,
)
from cinetune.generation.executors import Work, run_tasks
from cinetune.generation.gate import MEASURES, limits_of, measured, true_reading
from cinetune.generation.keyframe import (
    Candidate,
    candidate_quality,
    candidate_seed,
    film_clouds,
    look_distance,
    make_candidate,
)
from cinetune.generation.partition import Partition, partition, partition_for
from cinetune.generation.preview import StepCached, as_run, checked_preview_adapter, preview_size
from cinetune.generation.reel import Reel
from cinetune.generation.segment import Recipe, centre_box, coded, fit_picture, generate, pictures, starting_noise
from cinetune.generation.settle import SETTLED, colour_map, led, regraded, settled_pixels

__all__ = [
    "MEASURES",
    "SETTLED",
    "ArmModel",
    "Candidate",
    "ChainRules",
    "Opening",
    "Partition",
    "Recipe",
    "Reel",
    "State",
    "StepCached",
    "Take",
    "Work",
    "advanced",
    "anchored",
    "as_run",
    "candidate_quality",
    "candidate_seed",
    "centre_box",
    "checked_preview_adapter",
    "coded",
    "colour_map",
    "drift",
    "film_clouds",
    "fit_picture",
    "generate",
    "led",
    "limits_of",
    "look_distance",
    "make_candidate",
    "measured",
    "partition",
    "partition_for",
    "pictures",
    "plan_segments",
    "preview_size",
    "prompted",
    "regraded",
    "run_tasks",
    "settled_pixels",
    "shoot",
    "shot_frames",
    "starting_noise",
    "true_reading",
]
