"""What training is judged by: velocity loss on held-out windows, and a few generated clips against the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cinetune.footage.video import write_video
from cinetune.metrics import ClipMaps, PerceptualNet, colour_drift, colour_error, lpips_curve, motion
from cinetune.models import model_folder
from cinetune.models.adapters.lora import use_lora
from cinetune.models.family import Batch, VideoModel
from cinetune.models.wan import flow
from cinetune.models.wan.sample import sample
from cinetune.runtime import generator
from cinetune.sections import ModelSection, TrainSection
from cinetune.training.data import WindowFile, load_batch
from cinetune.training.parallel import World, alone
from cinetune.training.step import flow_loss

__all__ = ["QUANTILES", "Evaluation", "HeldShot", "Levels", "Plateau", "Validator", "own_net", "quantile_sigmas"]

QUANTILES = (0.125, 0.375, 0.625, 0.875)
"""Where on the training distribution of noise levels the held-out loss is taken: the middles of four equal shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldShot:
    """A held-out window that clips are generated for, with the film's own frames `TCHW` in [-1, 1]."""

    file: WindowFile
    truth_TCHW: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The scale of the distances. `floor`: the real clip through the VAE and back; `ceiling`: its first frame, frozen.

    `motion` is the real clips' speed in % of the short side per frame, `jump` how far their own colour moves right
    after the first frame (dE2000, see `Evaluation.jump`).
    """

    floor: float
    ceiling: float
    motion: float
    jump: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation.

    `v_loss` is the velocity loss from the film's own first frames. From re-graded ones, `v_loss_regraded` shows what
    the look adds: a first frame that has the look leaves little of it to learn. `distance` is the mean perceptual
    distance over frames t > 0, shots and conditions; lower is better, >= 0. `distance_film` is for clips that start
    from the film's own first frame, `distance_regraded` for those that start from the re-graded one. `curve` is the
    distance of each frame, averaged over both. `motion` is the generated speed over the real one.

    `v_loss_at` and `v_loss_regraded_at` split the loss by noise level, `v_loss_windows` by held-out window (both kinds
    of first frame together). `v_loss_seen` is the same loss on windows that are trained on: the two drift apart when
    windows are memorised. `colour` is the colour error against the film in dE2000, of clips from re-graded first
    frames where there are such. `jump` is the change of mean colour from the first frame to the four after it, dE2000,
    of clips that start from the film's own first frames: shots start from a keyframe that wears the look, as those do.
    `jump_regraded` is that of clips from re-graded ones, of which frame 0 keeps something; how far shots really jump
    is measured on every shot (`cinetune.generation.gate`). `effect` is the relative change of velocity by the adapter.
    `noise`, known at step 0 alone, is the A/A noise of `distance`: its standard deviation when only the sampling seed
    changes.
    """

    v_loss: float
    v_loss_at: dict[str, float]
    distance: float
    distance_film: float
    distance_regraded: float | None
    curve: list[float]
    motion: float
    v_loss_regraded: float | None = None
    v_loss_regraded_at: dict[str, float] | None = None
    v_loss_windows: list[float] = field(default_factory=list)
    v_loss_seen: float | None = None
    colour: float = 0.0
    jump: float = 0.0
    jump_regraded: float | None = None
    effect: float = 0.0
    noise: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """Early stopping: `patience` evaluations in a row without a gain of `min_delta` over the best value so far (lower
    is better).
    """

    patience: int
    min_delta: float
    best: float | None = None
    best_step: int = 0
    waited: int = 0

    def seen(self, step: int, value: float) -> Plateau:
        """The state after one more evaluation."""
        if self.best is None or value < self.best - self.min_delta:
            return replace(self, best=value, best_step=step, waited=0)
        return replace(self, waited=self.waited + 1)

    @property
    def stalled(self) -> bool:
        return self.waited >= self.patience


def quantile_sigmas(timesteps: str, shift: float) -> Tensor:
    """Noise levels at `QUANTILES` of the training distribution (`logit-normal` or `uniform`, shifted), `[4]`."""
    share = torch.tensor(QUANTILES)
    plain = torch.sigmoid(torch.special.ndtri(share)) if timesteps == "logit-normal" else share
    return torch.as_tensor(flow.shift_sigma(plain, shift))


Pieces = Mapping[str, Callable[[], list[float]]]
"""Parts of an evaluation by name, each of which can be worked out by anybody."""


def each(pieces: Pieces) -> dict[str, list[float]]:
    """Every piece worked out here, one after the other."""
    return {name: make() for name, make in pieces.items()}


class Validator:
    """Evaluates one adapter on fixed held-out windows, with the same noise every time.

    `held` windows give the velocity loss, `seen` the same for windows that are trained on, and of `shots` clips are
    generated, without guidance. All start from the window's own first frame and, where all have one, also from
    re-graded variant 1. A film of truth beside samples goes to `folder/step_NNNNNN.mp4`. `first` works out the pieces
    of the evaluation at step 0, which is that of the model without an adapter and so the same in every arm.
    """

    def __init__(
        self,
        model: VideoModel,
        held: Sequence[WindowFile],
        shots: Sequence[HeldShot],
        *,
        net: PerceptualNet,
        net_name: str,
        recipe: TrainSection,
        folder: Path,
        seen: Sequence[WindowFile] = (),
        world: World | None = None,
        first: Callable[[Pieces], dict[str, list[float]]] = each,
    ) -> None:
        assert held and shots, "validation needs at least one window"
        self.world = world or alone()
        self.model, self.net, self.net_name, self.recipe, self.folder = model, net, net_name, recipe, folder
        self.held, self.shots, self.seen = tuple(held), tuple(shots), tuple(seen)
        self.first = first
        regraded = all(file.variants for file in (*held, *seen, *(shot.file for shot in shots)))
        self.variants = (0, 1) if regraded else (0,)
        self.device = next(model.denoiser.parameters()).device
        self.sigmas = quantile_sigmas(recipe.timesteps, recipe.shift)
        self.levels = self._levels()
        self._base: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, step: int) -> Evaluation:
        """Evaluate the adapter in use. Leaves every random state as it was."""
        clips = self._clips()
        pieces: dict[str, Callable[[], list[float]]] = {"held": partial(self._losses, self.held)}
        if self.seen:
            pieces["seen"] = partial(self._losses, self.seen)
        if step == 0:
            seeds = range(1, self.recipe.validation_seeds)
            pieces |= {f"luck {seed}": partial(self._again, seed) for seed in seeds}
        found = (self.first if step == 0 else each)(pieces)
        held_VSW = np.array(found["held"]).reshape(len(self.variants), len(self.sigmas), len(self.held))
        if self.world.main:
            self._write(step, clips)
        curves = self._curves(clips)  # [shots, variants, T]
        by_variant = curves[..., 1:].mean((0, 2))
        seen_by_eye = [[_display(clip) for clip in row] for row in clips]
        speed = float(np.mean([motion(film).speed for row in seen_by_eye for film in row]))
        jumps = np.array([[_jump(film) for film in row] for row in seen_by_eye])
        real = [_display(shot.truth_TCHW) for shot in self.shots]
        distance = float(by_variant.mean())
        return Evaluation(
            v_loss=float(held_VSW[0].mean()),
            v_loss_at=self._by_level(held_VSW[0]),
            distance=distance,
            distance_film=float(by_variant[0]),
            distance_regraded=float(by_variant[1]) if len(by_variant) > 1 else None,
            curve=[float(value) for value in curves.mean((0, 1))],
            motion=speed / max(self.levels.motion, 1e-6),
            v_loss_regraded=float(held_VSW[1].mean()) if len(held_VSW) > 1 else None,
            v_loss_regraded_at=self._by_level(held_VSW[1]) if len(held_VSW) > 1 else None,
            v_loss_windows=[float(value) for value in held_VSW.mean((0, 1))],
            v_loss_seen=float(np.mean(found["seen"])) if self.seen else None,
            colour=float(np.mean([colour_error(row[-1], film) for row, film in zip(seen_by_eye, real, strict=True)])),
            jump=float(jumps[:, 0].mean()),
            jump_regraded=float(jumps[:, 1].mean()) if jumps.shape[1] > 1 else None,
            noise=_luck([distance, *(found[name][0] for name in found if name.startswith("luck "))]),
        )

    @torch.no_grad()
    def effect(self, adapter: str) -> float:
        """How far the adapter moves the velocity, relative to its length, over the held-out windows at the median
        noise level.
        """
        moved = length = 0.0
        sigma = quantile_sigmas(self.recipe.timesteps, self.recipe.shift)[1:3].mean()
        for file in self.held:
            batch = self._batch([file], 0)
            noise = self._noise("validate/effect", batch.latents_BCfhw.shape, file)
            level = sigma.reshape(1).to(self.device)
            noisy = flow.add_noise(batch.latents_BCfhw, noise, level)
            if file.id not in self._base:  # the same at every evaluation
                use_lora(self.model, None)
                self._base[file.id] = self.model.velocity(noisy, level, batch.cond).float()
                use_lora(self.model, adapter)
            base = self._base[file.id]
            moved += float((self.model.velocity(noisy, level, batch.cond).float() - base).square().sum())
            length += float(base.square().sum())
        return (moved / max(length, 1e-12)) ** 0.5

    def clear(self) -> None:
        """Remove the films of an earlier run."""
        for path in self.folder.glob("step_*.mp4") if self.world.main else ():
            path.unlink()

    def describe(self) -> dict[str, Any]:
        """What the log says about how values were measured."""
        return asdict(self.levels) | {
            "distance": f"LPIPS formula on {self.net_name}",
            "held": [file.id for file in self.held],
            "shots": [shot.file.id for shot in self.shots],
            "steps": self.recipe.validation_steps,
            "guidance": 1.0,
            "regraded": len(self.variants) > 1,
        }

    def _batch(self, files: Sequence[WindowFile], variant: int) -> Batch:
        batch = load_batch(files, [variant] * len(files))
        return Batch(
            latents_BCfhw=batch.latents_BCfhw.to(self.device),
            cond=batch.cond.to(self.device, batch.cond.image_BLD.dtype),
        )

    def _noise(self, name: str, shape: torch.Size, *files: WindowFile) -> Tensor:
        rows = [torch.randn(shape[1:], generator=generator(self.recipe.seed, name, file.id)) for file in files]
        return torch.stack(rows).to(self.device)

    def _losses(self, files: Sequence[WindowFile]) -> list[float]:
        """Velocity losses, variant by variant, in each level by level, in each window by window."""
        asked = [(number, variant) for variant in self.variants for number in range(len(self.sigmas))]
        found = self.world.map(lambda pair: self._loss(files, *pair), asked)
        return [loss for losses in found for loss in losses]

    def _loss(self, windows: Sequence[WindowFile], number: int, variant: int) -> list[float]:
        losses: list[Tensor] = []
        for start in range(0, len(windows), self.recipe.batch):
            files = windows[start : start + self.recipe.batch]
            batch = self._batch(files, variant)
            noise = self._noise(f"validate/noise/{number}", batch.latents_BCfhw.shape, *files)
            losses.append(flow_loss(self.model, batch, self.sigmas[number].expand(len(files)).to(self.device), noise))
        return torch.cat(losses).double().tolist()

    def _by_level(self, loss_SW: NDArray[np.float64]) -> dict[str, float]:
        return {f"{float(sigma):.4f}": float(row.mean()) for sigma, row in zip(self.sigmas, loss_SW, strict=True)}

    def _again(self, seed: int) -> list[float]:
        """The distance when nothing but the seed of the samples changes."""
        return [float(self._curves(self._clips(seed))[..., 1:].mean())]

    def _clips(self, seed: int = 0) -> list[list[Tensor]]:
        """A clip of each shot (rows) from each kind of first frame."""
        asked = [(shot, variant) for shot in self.shots for variant in self.variants]
        found = self.world.map(lambda pair: self._generate(*pair, seed=seed), asked)
        width = len(self.variants)
        return [found[start : start + width] for start in range(0, len(found), width)]

    def _curves(self, clips: list[list[Tensor]]) -> NDArray[np.float64]:
        return np.array(
            [[self._distance(clip, shot) for clip in row] for row, shot in zip(clips, self.shots, strict=True)]
        )

    def _generate(self, shot: HeldShot, variant: int, *, seed: int = 0) -> Tensor:
        batch = self._batch([shot.file], variant)
        name = f"validate/sample/{seed}" if seed else "validate/sample"
        noise = self._noise(name, batch.latents_BCfhw.shape, shot.file)
        latents = sample(
            self.model, batch.cond, noise, steps=self.recipe.validation_steps, guidance=1.0, shift=self.recipe.shift
        )
        return self._decode(latents)

    def _decode(self, latents_1Cfhw: Tensor) -> Tensor:
        chunks = list(self.model.decode(latents_1Cfhw))
        return torch.cat(chunks, dim=2)[0].transpose(0, 1).float().cpu().clamp(-1, 1)

    def _distance(self, clip_TCHW: Tensor, shot: HeldShot) -> NDArray[np.float64]:
        return lpips_curve(self.net, clip_TCHW, shot.truth_TCHW)

    @torch.no_grad()
    def _levels(self) -> Levels:
        floor, ceiling, speed, jumps = [], [], [], []
        for shot in self.shots:
            real = shot.truth_TCHW
            floor.append(self._distance(self._decode(self._batch([shot.file], 0).latents_BCfhw), shot)[1:].mean())
            ceiling.append(self._distance(real[:1].expand_as(real), shot)[1:].mean())
            speed.append(motion(_display(real)).speed)
            jumps.append(_jump(_display(real)))
        return Levels(
            floor=float(np.mean(floor)),
            ceiling=float(np.mean(ceiling)),
            motion=float(np.mean(speed)),
            jump=float(np.mean(jumps)),
        )

    def _write(self, step: int, clips: list[list[Tensor]]) -> None:
        rows = [torch.cat([shot.truth_TCHW, *row], dim=3) for shot, row in zip(self.shots, clips, strict=True)]
        self.folder.mkdir(parents=True, exist_ok=True)
        path, film = self.folder / f"step_{step:06d}.mp4", _display(torch.cat(rows, dim=2))
        write_video(path, film, rate=self.model.info.rate, codec="h264_quick")


def _luck(distances: Sequence[float]) -> float | None:
    """A/A noise: the deviation of distances that differ in nothing but the seed. None with a single one."""
    return float(np.std(distances, ddof=1)) if len(distances) > 1 else None


def _jump(film_THWC: NDArray[np.float32]) -> float:
    return float(colour_drift(film_THWC[:5])[1:].mean())


def _display(clip_TCHW: Tensor) -> NDArray[np.float32]:
    return ((clip_TCHW.permute(0, 2, 3, 1).float() + 1) / 2).clamp(0, 1).numpy()


def own_net(model: VideoModel, section: ModelSection) -> tuple[PerceptualNet, str]:
    """A network to measure distances with, and its name: the image encoder that comes with the model."""
    from transformers import CLIPVisionModel

    folder = model_folder(section)
    encoder: Any = CLIPVisionModel.from_pretrained(folder, subfolder="image_encoder", local_files_only=True)
    device = next(model.denoiser.parameters()).device
    net = ClipMaps(encoder.eval().requires_grad_(False).to(device))
    return net, f"the layer maps of {model.info.name}'s image encoder"
