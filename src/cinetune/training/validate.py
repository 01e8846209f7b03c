"""What training is judged by: velocity loss on held-out windows, and a few generated clips against the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cinetune.footage.video import write_video
from cinetune.metrics import PerceptualNet, lpips_curve, motion
from cinetune.models import flow
from cinetune.models.family import Batch, VideoModel
from cinetune.models.lora import use_lora
from cinetune.models.sample import sample
from cinetune.runtime import generator
from cinetune.sections import TrainSection
from cinetune.training.data import WindowFile, load_batch
from cinetune.training.parallel import World, alone
from cinetune.training.step import flow_loss

__all__ = ["QUANTILES", "Evaluation", "HeldShot", "Levels", "Plateau", "Validator", "quantile_sigmas"]

T = TypeVar("T")

QUANTILES = (0.125, 0.375, 0.625, 0.875)
"""Where on the training distribution of noise levels the held-out loss is taken: the middles of four equal shares."""

NO_EFFECT = 1e-3
"""Relative change of velocity under which an adapter does nothing a person could see (an untrained adapter gives
exactly 0).
"""

FROZEN = 0.1
"""Share of the real clips' motion under which generated clips count as frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldShot:
    """A held-out window that clips are generated for, with the film's own frames `TCHW` in [-1, 1]."""

    file: WindowFile
    truth_TCHW: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The scale of the distances. `floor`: the real clip through the VAE and back; `ceiling`: its first frame, frozen.

    `motion` is the real clips' speed in % of the short side per frame.
    """

    floor: float
    ceiling: float
    motion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation.

    `v_loss` is the velocity loss from the film's own first frames. From re-graded ones, `v_loss_regraded` shows what
    the look adds: a first frame that has the look leaves little of it to learn. `distance` is the mean perceptual
    distance over frames t > 0, shots and conditions; lower is better, >= 0. `distance_film` is for clips that start
    from the film's own first frame, `distance_regraded` for those that start from the re-graded one. `curve` is the
    distance of each frame, averaged over both. `motion` is the generated speed over the real one.
    """

    v_loss: float
    v_loss_at: dict[str, float]
    distance: float
    distance_film: float
    distance_regraded: float | None
    curve: list[float]
    motion: float
    v_loss_regraded: float | None = None


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


class Validator:
    """Evaluates one adapter on fixed held-out windows, with the same noise every time.

    `held` windows give the velocity loss, and of `shots` clips are generated, without guidance. Both start from the
    window's own first frame and, where all have one, also from re-graded variant 1. A film of truth beside samples goes
    to `folder/step_NNNNNN.mp4`.
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
        world: World | None = None,
    ) -> None:
        assert held and shots, "validation needs at least one window"
        self.world = world or alone()
        self.model, self.net, self.net_name, self.recipe, self.folder = model, net, net_name, recipe, folder
        self.held, self.shots = tuple(held), tuple(shots)
        regraded = all(file.variants for file in (*held, *(shot.file for shot in shots)))
        self.variants = (0, 1) if regraded else (0,)
        self.device = next(model.denoiser.parameters()).device
        self.sigmas = quantile_sigmas(recipe.timesteps, recipe.shift)
        self.levels = self._levels()

    @torch.no_grad()
    def __call__(self, step: int) -> Evaluation:
        """Evaluate the adapter in use. Leaves every random state as it was."""
        asked = [(number, variant) for variant in self.variants for number in range(len(self.sigmas))]
        losses = self.world.map(lambda pair: self._held_loss(*pair), asked)
        per_sigma, *regraded = _rows(losses, len(self.sigmas))
        wanted = [(shot, variant) for shot in self.shots for variant in self.variants]
        clips = _rows(self.world.map(lambda pair: self._generate(*pair), wanted), len(self.variants))
        if self.world.main:
            self._write(step, clips)
        curves = np.array(
            [[self._distance(clip, shot) for clip in row] for row, shot in zip(clips, self.shots, strict=True)]
        )  # [shots, variants, T]
        by_variant = curves[..., 1:].mean((0, 2))
        speed = float(np.mean([motion(_display(clip)).speed for row in clips for clip in row]))
        return Evaluation(
            v_loss=float(np.mean(per_sigma)),
            v_loss_at={f"{float(sigma):.4f}": loss for sigma, loss in zip(self.sigmas, per_sigma, strict=True)},
            distance=float(by_variant.mean()),
            distance_film=float(by_variant[0]),
            distance_regraded=float(by_variant[1]) if len(by_variant) > 1 else None,
            curve=[float(value) for value in curves.mean((0, 1))],
            motion=speed / max(self.levels.motion, 1e-6),
            v_loss_regraded=float(np.mean(regraded[0])) if regraded else None,
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
            use_lora(self.model, None)
            base = self.model.velocity(noisy, level, batch.cond).float()
            use_lora(self.model, adapter)
            moved += float((self.model.velocity(noisy, level, batch.cond).float() - base).square().sum())
            length += float(base.square().sum())
        return (moved / max(length, 1e-12)) ** 0.5

    def alarms(self, adapter: str, first: Evaluation, last: Evaluation) -> list[str]:
        """What a person must know before using the adapter: in words, empty when all is well."""
        found = []
        effect = self.effect(adapter)
        if effect < NO_EFFECT:
            found.append(
                f"no effect: the adapter changes the velocity by {effect:.1e} of its length (under {NO_EFFECT:.0e})"
            )
        if last.motion < FROZEN <= first.motion:
            found.append(
                f"frozen motion: samples move {last.motion:.2f} as much as the film, {first.motion:.2f} before training"
            )
        if last.distance >= first.distance:
            found.append(f"no gain: distance to the film is {last.distance:.4f}, {first.distance:.4f} before training")
        return found

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

    def _held_loss(self, number: int, variant: int) -> float:
        losses: list[Tensor] = []
        for start in range(0, len(self.held), self.recipe.batch):
            files = self.held[start : start + self.recipe.batch]
            batch = self._batch(files, variant)
            noise = self._noise(f"validate/noise/{number}", batch.latents_BCfhw.shape, *files)
            losses.append(flow_loss(self.model, batch, self.sigmas[number].expand(len(files)).to(self.device), noise))
        return float(torch.cat(losses).double().mean())

    def _generate(self, shot: HeldShot, variant: int) -> Tensor:
        batch = self._batch([shot.file], variant)
        noise = self._noise("validate/sample", batch.latents_BCfhw.shape, shot.file)
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
        floor, ceiling, speed = [], [], []
        for shot in self.shots:
            real = shot.truth_TCHW
            floor.append(self._distance(self._decode(self._batch([shot.file], 0).latents_BCfhw), shot)[1:].mean())
            ceiling.append(self._distance(real[:1].expand_as(real), shot)[1:].mean())
            speed.append(motion(_display(real)).speed)
        return Levels(floor=float(np.mean(floor)), ceiling=float(np.mean(ceiling)), motion=float(np.mean(speed)))

    def _write(self, step: int, clips: list[list[Tensor]]) -> None:
        rows = [torch.cat([shot.truth_TCHW, *row], dim=3) for shot, row in zip(self.shots, clips, strict=True)]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_video(self.folder / f"step_{step:06d}.mp4", _display(torch.cat(rows, dim=2)), rate=self.model.info.rate)


def _rows(items: list[T], width: int) -> list[list[T]]:
    return [items[start : start + width] for start in range(0, len(items), width)]


def _display(clip_TCHW: Tensor) -> NDArray[np.float32]:
    return ((clip_TCHW.permute(0, 2, 3, 1).float() + 1) / 2).clamp(0, 1).numpy()
