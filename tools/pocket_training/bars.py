"""What a person would ask of generated clips, measured on held-out scenes against the true ones.

A small reader learns from true frames alone to name what a caption names: subject, set and time of day off one frame,
direction and camera off a clip. It then reads the last generated frame (the generated clip), and is as often right as
the model has kept what was asked for. Beside it: sharpness, colour speckle, motion, colour and distance to the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cinetune.backlot.camera import CAMERAS
from cinetune.backlot.light import TIMES
from cinetune.backlot.scenes import LOTS
from pocket_training.common import pixels, psnr

SUBJECTS = tuple(subject.noun for lot in LOTS.values() for subject in lot.subjects.values())
PLACES = tuple(place.phrase for lot in LOTS.values() for place in lot.places.values())
FACTS: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "place": PLACES,
    "time": tuple(f"at {time}," for time in TIMES),
    "direction": ("to the left", "to the right"),
    "camera": tuple(CAMERAS.values()),
}
"""What is read, and the words of a caption that name it."""
OFF_A_FRAME = ("subject", "place", "time")
LOOKS = (0, 8, 16, 24, 32)
"""Frames of a clip that the reader sees for direction and camera."""
READER_STEPS, READER_BATCH = 700, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The range in which a figure must lie."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == np.inf:
            return f"≥ {self.low:g}"
        return f"≤ {self.high:g}" if self.low == -np.inf else f"{self.low:g} to {self.high:g}"


BARS: dict[str, Bar] = {
    **{f"{fact} read off generated clips over true ones": Bar(low=0.85, high=np.inf) for fact in FACTS},
    "sharpness of the last frame over the true one's": Bar(low=0.7, high=1.2),
    "colour speckle of the last frame over the true one's": Bar(low=-np.inf, high=1.5),
    "generated clip against the true one, PSNR, dB": Bar(low=24, high=np.inf),
    "motion of generated clips over motion of true ones": Bar(low=0.9, high=1.1),
    "mean colour error of the last generated frame (0 to 1)": Bar(low=-np.inf, high=0.0075),
}


def labels(captions: Sequence[str]) -> dict[str, Tensor]:
    """For each fact the number of the phrase that each caption holds. Raises `ValueError` if it holds none."""
    found: dict[str, Tensor] = {}
    for fact, phrases in FACTS.items():
        rows: list[int] = []
        for text in captions:
            hits = [number for number, phrase in enumerate(phrases) if phrase in text]
            if not hits:
                raise ValueError(f"no {fact} in {text!r}")
            rows.append(max(hits, key=lambda number: len(phrases[number])))
        found[fact] = torch.tensor(rows)
    return found


class Reader(nn.Module):
    """A small convolutional classifier with a head for each fact. It keeps where things are (a 2x3 grid), as direction
    and camera are a matter of place.
    """

    def __init__(self, channels: int, facts: Sequence[str]) -> None:
        super().__init__()
        widths = (channels, 32, 48, 64, 96)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({fact: nn.Linear(widths[-1] * 6, len(FACTS[fact])) for fact in facts})

    def forward(self, x_BCHW: Tensor) -> dict[str, Tensor]:
        seen = self.trunk(x_BCHW)
        return {fact: head(seen) for fact, head in self.heads.items()}


def _side_by_side(frames_NCTHW: Tensor) -> Tensor:
    return frames_NCTHW.transpose(1, 2).flatten(1, 2)


def views(clips_NCTHW: Tensor) -> tuple[Tensor, Tensor]:
    """What the two readers see: the last frame `N3HW`, and five frames side by side in channels `N15HW`."""
    return clips_NCTHW[:, :, -1], _side_by_side(clips_NCTHW[:, :, list(LOOKS)])


def teach(
    clips_NTHWC: np.ndarray,
    captions: Sequence[str],
    *,
    seed: int,
    device: str,
    steps: int,
    batch: int = READER_BATCH,
) -> list[Reader]:
    """The frame reader and the clip reader, trained on true clips (uint8). The frame reader sees every moment of a
    clip, both a little blurred or brightened at random, so that softness alone does not blind them.
    """
    goals = labels(captions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readers = [
            Reader(3, OFF_A_FRAME).to(device),
            Reader(3 * len(LOOKS), ("direction", "camera")).to(device),
        ]
        for reader in readers:
            optimiser = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.02)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            for _ in range(steps):
                index = torch.randint(len(clips_NTHWC), (batch,))
                moment = torch.randint(clips_NTHWC.shape[1], (batch, 1))
                times = moment if reader is readers[0] else torch.tensor(LOOKS)[None]
                chosen = pixels(clips_NTHWC[index[:, None].numpy(), times.numpy()]).to(device)
                found = reader(_disturbed(_side_by_side(chosen)))
                loss = torch.stack(
                    [F.cross_entropy(found[fact], goals[fact][index].to(device)) for fact in found]
                ).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            reader.eval()
    return readers


def _disturbed(x_BCHW: Tensor) -> Tensor:
    size = len(x_BCHW)
    blur = F.avg_pool2d(F.pad(x_BCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.rand(size, 1, 1, 1).to(x_BCHW) * 0.7
    gain = 1 + 0.06 * torch.randn(size, 1, 1, 1).to(x_BCHW)
    return torch.lerp(x_BCHW, blur, amount) * gain


@torch.no_grad()
def read(readers: Sequence[Reader], clips_NCTHW: Tensor) -> dict[str, Tensor]:
    """The number of the phrase that is read for each fact, `N` each."""
    found: dict[str, Tensor] = {}
    for reader, view in zip(readers, views(clips_NCTHW), strict=True):
        found |= {fact: scores.argmax(1).cpu() for fact, scores in reader(view).items()}
    return found


def sharpness(frames_NCHW: Tensor) -> float:
    """Mean squared difference of neighbours in both directions."""
    return (frames_NCHW.diff(dim=2).pow(2).mean() + frames_NCHW.diff(dim=3).pow(2).mean()).item()


def speckle(frames_NCHW: Tensor) -> float:
    """Variance of colour difference (R-Y, B-Y) that a Gaussian blur of one pixel takes away."""
    weight = frames_NCHW.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)
    luma = (frames_NCHW * weight).sum(1, keepdim=True)
    chroma = frames_NCHW[:, [0, 2]] - luma
    taps = torch.exp(-0.5 * torch.arange(-3, 4, dtype=chroma.dtype, device=chroma.device) ** 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(chroma, (3, 3, 3, 3), mode="replicate")
    blurred = F.conv2d(padded, kernel.expand(2, 1, 7, 7), groups=2)
    return (chroma - blurred).pow(2).mean().item()


def motion(clips_NCTHW: Tensor) -> float:
    """Mean absolute difference of following frames."""
    return clips_NCTHW.diff(dim=2).abs().mean().item()


def figures(readers: Sequence[Reader], clips: Tensor, truth: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """All figures of generated clips `NCTHW` in [-1, 1] against the true ones, the readers' own accuracy first."""
    goals = labels(captions)
    on_truth, on_made = read(readers, truth), read(readers, clips)
    out: dict[str, float] = {}
    for fact, goal in goals.items():
        right_true, right_made = ((seen[fact] == goal).float().mean().item() for seen in (on_truth, on_made))
        out[f"{fact} read off true clips"] = right_true
        out[f"{fact} read off generated clips over true ones"] = right_made / max(right_true, 1e-9)
    last, true_last = clips[:, :, -1], truth[:, :, -1]
    colour = (last.mean((-1, -2)) - true_last.mean((-1, -2))).abs().mean().item() / 2
    frozen = truth[:, :, :1].expand_as(truth)
    return out | {
        "sharpness of the last frame over the true one's": sharpness(last) / sharpness(true_last),
        "colour speckle of the last frame over the true one's": speckle(last) / speckle(true_last),
        "generated clip against the true one, PSNR, dB": _mean_psnr(clips, truth),
        "frozen first frame against the true clip, PSNR, dB": _mean_psnr(frozen, truth),
        "motion of generated clips over motion of true ones": motion(clips) / motion(truth),
        "mean colour error of the last generated frame (0 to 1)": colour,
    }


def worst_classes(readers: Sequence[Reader], clips: Tensor, captions: Sequence[str]) -> dict[str, str]:
    """For each fact the class that is read off generated clips least often, with its counts; empty if all are right."""
    goals, made = labels(captions), read(readers, clips)
    found: dict[str, str] = {}
    for fact, goal in goals.items():
        shares = {}
        for number in goal.unique().tolist():
            right = made[fact][goal == number] == number
            shares[number] = (right.float().mean().item(), int(right.sum()), len(right))
        number = min(shares, key=lambda key: shares[key][0])
        share, right, count = shares[number]
        if share < 1:
            found[fact] = f"{FACTS[fact][number]} ({right} of {count})"
    return found


def _mean_psnr(a_NCTHW: Tensor, b_NCTHW: Tensor) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(a_NCTHW, b_NCTHW, strict=True)]))
