"""Training of one look: the loop, its step, what it is judged by, and how it survives being killed."""

from cinetune.training.augment import regrade
from cinetune.training.data import WindowFile, check_finite, load_empty, window_file
from cinetune.training.fingerprint import code_fingerprint
from cinetune.training.loop import Finished, load_of, train
from cinetune.training.parallel import World, alone, arrange
from cinetune.training.validate import HeldShot, Validator, each, own_net

__all__ = [
    "Finished",
    "HeldShot",
    "Validator",
    "WindowFile",
    "World",
    "alone",
    "arrange",
    "check_finite",
    "code_fingerprint",
    "each",
    "load_empty",
    "load_of",
    "own_net",
    "regrade",
    "train",
    "window_file",
]
