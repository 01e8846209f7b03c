"""Which networks a project measures with: those of `score.features` that are here, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.errors import ConfigError, ScoreError
from cinetune.store import Project, sha256_file

if TYPE_CHECKING:
    from cinetune.metrics.networks import FeatureNet, Network
    from cinetune.metrics.similarity import PerceptualNet

__all__ = ["Net", "Nets", "choose_nets", "network_folder"]


@dataclass
class Net:
    """A network that is here. It is read from disk when it is first needed: with all features kept it never is."""

    name: str
    per: str
    identity: str
    """What makes two features comparable: weights and preprocessing."""
    label: str
    knows_words: bool
    _load: Any = field(repr=False)

    @cached_property
    def net(self) -> FeatureNet:
        return self._load()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nets:
    """In the order of `score.features`. `perceptual` is LPIPS, or the maps of the model's own encoder, with its label;
    `missing` has a reason for each named network that is not here.
    """

    frames: tuple[Net, ...] = ()
    clips: tuple[Net, ...] = ()
    lpips: Net | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> Net | None:
        """The first network that knows words."""
        return next((net for net in self.frames if net.knows_words), None)

    @property
    def perceptual(self) -> tuple[str, str]:
        """Label and identity of the perceptual distance; empty without one."""
        if self.lpips is not None:
            return self.lpips.label, self.lpips.identity
        maps = self._maps
        return (f"maps of {maps.label}, not LPIPS", f"maps {maps.identity}") if maps else ("", "")

    @property
    def _maps(self) -> Net | None:
        return next((net for net in self.frames if net.name in ("own", "clip-l", "clip-b")), None)

    def perceptual_net(self) -> PerceptualNet | None:
        """The network itself, loaded."""
        from cinetune.metrics.features import ClipMaps

        if self.lpips is not None:
            return self.lpips.net.model
        return ClipMaps(self._maps.net.model) if self._maps else None

    def __iter__(self) -> Any:
        yield from self.frames
        yield from self.clips


def network_folder(project: Project, name: str) -> Path:
    """Where a network of the table is looked for: `score.networks`, one folder each, by name."""
    return project.root / Path(project.config.score.networks).expanduser() / name


def choose_nets(project: Project, *, device: str) -> Nets:
    """The networks of `score.features`; nothing is loaded and nothing downloaded.

    Raises `ConfigError` for a name that is not in the table or is named twice.
    """
    from cinetune.metrics.networks import problems, row_of

    frames: list[Net] = []
    clips: list[Net] = []
    lpips: Net | None = None
    missing: dict[str, str] = {}
    names = project.config.score.features
    if len(set(names)) < len(names):
        raise ConfigError(f"score.features names a network twice: {', '.join(names)}")
    for name in names:
        try:
            row = row_of(name)
        except ScoreError as error:
            raise ConfigError(error.what, where="score.features", remedy=error.remedy) from error
        if name == "own":
            own = _own(project, device)
            if own is None:
                missing[name] = "the base model came without its image encoder"
            else:
                frames.append(own)
            continue
        folder = network_folder(project, name)
        if why := problems(row, folder):
            missing[name] = why
            continue
        net = _of_table(project, row, folder, device)
        if row.per == "map":
            lpips = net
        else:
            (frames if row.per == "frame" else clips).append(net)
    return Nets(frames=tuple(frames), clips=tuple(clips), lpips=lpips, missing=missing)


def _of_table(project: Project, row: Network, folder: Path, device: str) -> Net:
    from cinetune.metrics.networks import FILE, load_network

    digest = project.store.sha256(folder / FILE)
    return Net(
        name=row.name, per=row.per, identity=f"{row.name} {digest} {row.preprocessing}",
        label=f"{row.name}: {row.title}, sha256 {digest[:12]}", knows_words=row.kind == "clip",
        _load=lambda: load_network(row, folder, device=device),
    )  # fmt: skip


def _own(project: Project, device: str) -> Net | None:
    """The image encoder that ships with the base model: for pocket its whole tiny CLIP, words included."""
    if project.config.model.family == "pocket" and not project.config.model.path:
        return _pocket(device)
    from cinetune.metrics.networks import own_tower
    from cinetune.models import model_folder, model_ref

    folder = model_folder(project.config.model)
    if not (folder / "image_encoder" / "config.json").is_file():
        return None
    digest = model_ref(project.config.model).weights_sha256
    title = f"image encoder of {project.config.model.family}"
    return Net(
        name="own", per="frame", identity=f"own {digest}", label=f"own: {title}, model sha256 {digest[:12]}",
        knows_words=False, _load=lambda: own_tower(folder, sha256=digest, title=title, device=device),
    )  # fmt: skip


def _pocket(device: str) -> Net | None:
    from cinetune.models.wan import pocket

    file = pocket.weights_folder() / "clip" / "model.safetensors"
    if not file.is_file():
        return None
    digest = sha256_file(file)
    title = "pocket CLIP, never to be compared with published figures"

    def load() -> FeatureNet:
        from cinetune.metrics.networks import wrap_clip

        model, tokenizer = pocket.load_clip()
        module: Any = model
        return wrap_clip(module.to(device), tokenizer=tokenizer, sha256=digest, title=title)

    return Net(
        name="own", per="frame", identity=f"pocket {digest}", label=f"own: {title}, sha256 {digest[:12]}",
        knows_words=True, _load=load,
    )  # fmt: skip


def missing_needs(nets: Nets, names: Sequence[str]) -> dict[str, str]:
    """Reasons by need of `metrics.suite`, for rows that cannot be measured with these networks."""
    lost = "; ".join(f"{name}: {why}" for name, why in nets.missing.items())
    found = {}
    if not nets.frames:
        found["clip"] = lost or "score.features names no network for frames"
    if nets.text is None:
        known = ", ".join(net.name for net in nets.frames) or ", ".join(names)
        found["text"] = lost or f"{known} knows no words; add clip-l to score.features"
    if not nets.perceptual[0]:
        found["perceptual"] = lost or "neither LPIPS nor a CLIP is here"
    return found
