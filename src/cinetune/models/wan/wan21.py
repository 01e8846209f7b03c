"""Wan2.1 image-to-video (arXiv 2503.20314) through diffusers' and transformers' classes; pocket is one in miniature.

The conditioning is the one of diffusers' `WanImageToVideoPipeline`, and equal to it (tests/parity); it is written out
here because the pipeline cannot be given cached parts, several clips, or the original model's CLIP preprocessing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionModel, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from cinetune.catalogue import Release, find_release
from cinetune.cost.shooting import clips_at_once
from cinetune.errors import ModelError, WeightsError
from cinetune.models.family import Conditioning, ModelInfo
from cinetune.models.files import weights
from cinetune.models.memory.fit import release
from cinetune.models.memory.share import Share, read_share
from cinetune.models.prompts import TEXT_TOKENS, clean_prompt
from cinetune.models.wan.conv import use_fast_conv3d
from cinetune.models.wan.pads import fold_pads, folded_text
from cinetune.models.wan.repeats import repeats_kept
from cinetune.models.wan.rotary import turn_as_complex
from cinetune.models.wan.tiles import in_tiles
from cinetune.models.wan.told import Remembered, remember_what_is_told
from cinetune.timecode import nearest_legal_frames

__all__ = ["WanVideo", "pad_text"]


TOLD = 16
"""Batches of prompts that are remembered, of at most 4 MB for each prompt."""

Preprocess = Literal["squash", "crop"]
Parts = Literal["all", "encoders", "denoiser"]


def pad_text(rows: Sequence[Tensor], length: int = TEXT_TOKENS) -> Tensor:
    """Rows `[n, D]` of different lengths as one `BLD`, exact zeros behind each: the denoiser sees the pads."""
    assert all(len(row) <= length for row in rows)
    return torch.stack([F.pad(row, (0, 0, 0, length - len(row))) for row in rows])


class WanVideo:
    """A `VideoModel`; `text`, `image_tokens` and `condition_latent` give the parts of its conditioning for caching.

    The VAE and CLIP compute in float32, the denoiser and text encoder in the dtype they were loaded with.
    """

    def __init__(
        self,
        *,
        info: ModelInfo,
        dtype: torch.dtype,
        vae: AutoencoderKLWan,
        transformer: WanTransformer3DModel | None,
        text_encoder: UMT5EncoderModel | None,
        tokenizer: Any,
        image_encoder: CLIPVisionModel | None,
        clip_mean_std: tuple[Sequence[float], Sequence[float]],
        clip_preprocess: Preprocess,
        short_ways: bool = False,
    ) -> None:
        self._info = info
        self._dtype = dtype
        self._vae = vae
        self._transformer = transformer
        self._text_encoder = text_encoder
        self._tokenizer = tokenizer
        self._image_encoder = image_encoder
        self.together = False
        self.tile = 0
        self._told: dict[tuple[str, ...], list[Tensor]] = {}
        self._clip_preprocess = clip_preprocess
        self._clip_mean, self._clip_std = (torch.tensor(v).view(1, 3, 1, 1) for v in clip_mean_std)
        shape = (1, info.latent_channels, 1, 1, 1)
        self._mean = torch.tensor(vae.config["latents_mean"]).view(shape)
        # the reciprocal, as in the pipeline: division by the deviation itself differs in the last bit
        self._scale = 1.0 / torch.tensor(vae.config["latents_std"]).view(shape)
        for part in (vae, transformer, text_encoder, image_encoder):
            if part is not None:
                part.eval().requires_grad_(False)
        use_fast_conv3d(vae)
        self._folded = fold_pads(transformer) if transformer is not None and short_ways else None
        if self._folded is not None:
            turn_as_complex(transformer)
        self._words = Remembered(self._as_seen)
        if transformer is not None:
            remember_what_is_told(transformer)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        family: str,
        release: str = "",
        device: str = "cpu",
        dtype: str = "float32",
        clip_preprocess: Preprocess = "squash",
        parts: Parts = "all",
        place: Callable[[Any], Any] | None = None,
        tile: int = 0,
        short_ways: bool = False,
        share: Share | None = None,
        storage: str = "plain",
    ) -> WanVideo:
        """Read a folder in diffusers layout, from disk only.

        `tile` is the side of the VAE's tiles in pixels, 0 = whole pictures.
        `place` brings the denoiser from the CPU to its device in its own way (`cinetune.models.memory.fit`).
        `short_ways`: what is faster on a CPU and equal but for rounding (`cinetune.models.wan.pads`, `rotary`).
        Of the denoiser only `share` is read where there is one, to be kept in `storage`.
        `parts` leaves out the denoiser (for caching) or the text and image encoders (for training on a cache).
        Raises `WeightsError` when files are missing, damaged or of another model, `ConfigError` when nothing says which
        release of the family they are.
        """
        weights.need_folder(folder)
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        kind = getattr(torch, dtype)
        named = find_release(family, release=release, folder=folder)
        with weights.built_from(folder), torch.random.fork_rng(devices=[]):  # some loaders draw random numbers first
            read = None if share is None else partial(read_share, kind=kind, share=share, storage=storage)
            modules = _load(folder, kind, device, parts, place, read)
            processor = weights.read_config(folder, "image_processor/preprocessor_config.json")
            model = cls(
                info=_info(folder, named),
                dtype=kind,
                clip_mean_std=(processor["image_mean"], processor["image_std"]),
                clip_preprocess=clip_preprocess,
                short_ways=short_ways,
                **modules,
            )
        model.tile = tile
        return model

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def device(self) -> torch.device:
        return self._vae.device

    @property
    def vae(self) -> AutoencoderKLWan:
        return self._vae

    @property
    def denoiser(self) -> WanTransformer3DModel:
        """The network that LoRA, checkpointing and sharding wrap. Raises `ModelError` if it was not loaded."""
        if self._transformer is None:
            raise ModelError(
                "this model was loaded without its denoiser", remedy='load it with parts="all" or parts="denoiser"'
            )
        return self._transformer

    @contextmanager
    def _called(self, part: Any) -> Iterator[Any]:
        """An encoder on the device for as long as it is asked. Beside a denoiser it waits in host memory: it is needed
        for a second of a shot that takes minutes, and there is no card of 24 GB that holds both.
        """
        if self._transformer is None:
            yield part
            return
        release(self._transformer)
        part.to(self.device)
        try:
            yield part
        finally:
            part.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @torch.no_grad()
    def encode_video(self, x_BCTHW: Tensor) -> Tensor:
        """Normalised latents `BCfhw` in float32 (posterior mode) of pixels in [-1, 1].

        Raises `ModelError` unless T is 4n+1 (the VAE would drop the last frames without a word) and the size fits.
        """
        self._check_size(x_BCTHW.shape[-2:], frames=x_BCTHW.shape[2])
        if self._transformer is not None:
            release(self._transformer)
        if self.tile and max(x_BCTHW.shape[-2:]) > self.tile:
            scale = Fraction(1, self._info.stride_space)
            latents = in_tiles(x_BCTHW, self.tile, scale, self._posterior).to(self.device)
        else:
            latents = self._posterior(x_BCTHW)
        return (latents - self._mean.to(latents.device)) * self._scale.to(latents.device)

    def _posterior(self, x_BCTHW: Tensor) -> Tensor:
        return self._vae.encode(x_BCTHW.to(self.device, torch.float32), return_dict=False)[0].mode()

    @torch.no_grad()
    def condition_latent(self, first_BCHW: Tensor, frames: int) -> Tensor:
        """Mask (4 channels) and latents of [first frame, mid-grey, mid-grey...] as one `BCfhw`.

        Grey frames are encoded, not latents zeroed: the latent of grey is not zero. The mask is 1 on latent frame 0.
        """
        parts: list[Tensor] = []
        for part_BCHW in first_BCHW.split(clips_at_once(frames, *first_BCHW.shape[2:])):
            video = part_BCHW.new_zeros(*part_BCHW.shape[:2], frames, *part_BCHW.shape[2:])
            video[:, :, 0] = part_BCHW
            # what the layers answered last stays in memory, which at 720p would be gigabytes to save a second of a shot
            with repeats_kept(self._vae.encoder) if self._info.release.small else nullcontext():
                parts.append(self.encode_video(video))
        latents = torch.cat(parts)
        mask = latents.new_zeros(len(latents), self._info.stride_time, *latents.shape[2:])
        mask[:, :, 0] = 1
        return torch.cat([mask, latents], dim=1)

    @torch.no_grad()
    def image_tokens(self, first_BCHW: Tensor) -> Tensor:
        """CLIP's last hidden layer but one, `BLD` (257 tokens of 1280 for Wan2.1), of pictures in [-1, 1]."""
        if self._image_encoder is None:
            raise _freed("image")
        size: int = self._image_encoder.config.image_size  # pyright: ignore[reportAssignmentType]
        if self._clip_preprocess == "squash":
            pixels = F.interpolate(first_BCHW.float() / 2 + 0.5, size=(size, size), mode="bicubic", antialias=True)
        else:
            pixels = torch.stack([_centre_crop(picture, size) for picture in first_BCHW])
        pixels = (pixels.cpu() - self._clip_mean) / self._clip_std
        with self._called(self._image_encoder) as eye:
            return eye(pixel_values=pixels.to(self.device), output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> list[Tensor]:
        """umT5 embeddings `[n, D]` of each prompt without padding, n <= 512; `pad_text` makes one batch of them. The
        last prompts are remembered: all segments and seeds of a shot are told the same.
        """
        asked = tuple(clean_prompt(prompt) for prompt in prompts)
        if asked not in self._told:
            while len(self._told) >= TOLD:
                del self._told[next(iter(self._told))]
            self._told[asked] = self._encoded(asked)
        return list(self._told[asked])

    def _encoded(self, prompts: Sequence[str]) -> list[Tensor]:
        if self._text_encoder is None:
            raise _freed("text")
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask
        with self._called(self._text_encoder) as encoder:
            hidden = encoder(tokens.input_ids.to(self.device), mask.to(self.device)).last_hidden_state
        return [row[: int(used)] for row, used in zip(hidden, mask.sum(dim=1), strict=True)]

    def condition(
        self,
        prompts: Sequence[str],
        first_BCHW: Tensor,
        frames: int,
        *,
        last_BCHW: Tensor | None = None,
        negative: Sequence[str] | None = None,
    ) -> Conditioning:
        """Everything the denoiser is told about clips of `frames` frames that start at `first_BCHW` ([-1, 1]).

        Raises `ModelError` on sizes the model cannot take, on different numbers of prompts and pictures, and for
        `last_BCHW`: Wan2.1 image-to-video was never taught to arrive at a given picture.
        """
        if last_BCHW is not None:
            raise ModelError(f"{self._info.name} does not support a last keyframe", remedy="leave out the last picture")
        if len(prompts) != len(first_BCHW) or (negative is not None and len(negative) != len(prompts)):
            raise ModelError(
                f"{len(prompts)} prompts for {len(first_BCHW)} pictures "
                f"(and {len(negative or prompts)} negative prompts)"
            )
        return Conditioning(
            text_BLD=pad_text(self.text(prompts)),
            image_BLD=self.image_tokens(first_BCHW),
            latent_BCfhw=self.condition_latent(first_BCHW, frames),
            negative_BLD=None if negative is None else pad_text(self.text(negative)),
        )

    def velocity(self, x_BCfhw: Tensor, sigma_B: Tensor, cond: Conditioning) -> Tensor:
        """Predicted velocity `n - x0` in float32 at noise level `sigma_B` in [0, 1]."""
        kind, device = self._dtype, x_BCfhw.device
        video = torch.cat([x_BCfhw, cond.latent_BCfhw.to(device, x_BCfhw.dtype)], dim=1)
        # scaled in sigma's own precision: from float64 the sampler's whole-number times come out exact
        time = (sigma_B * 1000).to(device, torch.float32)
        text, image, added = self._words(cond.text_BLD.to(device), cond.image_BLD.to(device))
        if self._folded is not None:
            self._folded.added = added
        return self.denoiser(
            hidden_states=video.to(kind),
            timestep=time,
            encoder_hidden_states=text,
            encoder_hidden_states_image=image,
            return_dict=False,
        )[0].float()

    def _as_seen(self, text_BLD: Tensor, image_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Text and picture in the denoiser's type, and what is added to the scores of the text."""
        text, image = text_BLD.to(self._dtype), image_BLD.to(self._dtype)
        if self._folded is None:
            return text, image, None
        text, added = folded_text(text)
        return text, image, added

    def velocities(
        self, x_BCfhw: Tensor, sigma_B: Tensor, cond: Conditioning, negative: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """The two passes of guidance, in turn; with `together` as one batch of two, where there is memory for it."""
        if not self.together:
            return self.velocity(x_BCfhw, sigma_B, cond), self.velocity(x_BCfhw, sigma_B, negative)
        both = Conditioning(
            text_BLD=torch.cat([cond.text_BLD, negative.text_BLD]), image_BLD=cond.image_BLD.repeat(2, 1, 1),
            latent_BCfhw=cond.latent_BCfhw.repeat(2, 1, 1, 1, 1),
        )  # fmt: skip
        velocity, base = self.velocity(x_BCfhw.repeat(2, 1, 1, 1, 1), sigma_B.repeat(2), both).chunk(2)
        return velocity, base

    def decode(self, z_BCfhw: Tensor) -> Iterator[Tensor]:
        """Pixel chunks `BCtHW` in [-1, 1], one latent frame at a time (1 frame, then 4, 4...): constant memory for any
        length, and joined they equal a whole decode bit for bit. The convolution history is this call's own, so calls
        may be interleaved. With a `tile` (pixels) smaller than the picture, tile by tile, and one chunk of all frames:
        see `cinetune.models.wan.tiles`.
        """
        if self._transformer is not None:
            release(self._transformer)
        if self.tile and self.tile < max(z_BCfhw.shape[-2:]) * self._info.stride_space:
            stride = self._info.stride_space
            yield in_tiles(
                z_BCfhw,
                self.tile // stride,
                Fraction(stride),
                lambda z: torch.cat([c.cpu() for c in self._stream(z)], dim=2),
            )
        else:
            yield from self._stream(z_BCfhw)

    def _stream(self, z_BCfhw: Tensor) -> Iterator[Tensor]:
        decoder = self._vae.decoder
        history: list[Any] = [None] * sum(isinstance(module, WanCausalConv3d) for module in decoder.modules())
        z = z_BCfhw.to(self.device, torch.float32) / self._scale.to(self.device) + self._mean.to(self.device)
        with torch.no_grad():
            z = self._vae.post_quant_conv(z)
        for index in range(z.shape[2]):
            with torch.no_grad():
                chunk = decoder(z[:, :, index : index + 1], feat_cache=history, feat_idx=[0], first_chunk=index == 0)
            yield chunk.clamp(-1, 1)

    def _check_size(self, size: Sequence[int], *, frames: int) -> None:
        low, high = nearest_legal_frames(frames, self._info.stride_time)
        if low != frames:
            raise ModelError(
                f"{frames} frames do not fit the rule {self._info.stride_time}n+1", remedy=f"use {low} or {high}"
            )
        if any(side % self._info.multiple for side in size):
            raise ModelError(
                f"a picture of {size[1]}x{size[0]} does not fit {self._info.name}",
                remedy=f"width and height must be multiples of {self._info.multiple}",
            )
        longest, most = self._info.positions * self._info.multiple, (self._info.positions - 1) * self._info.stride_time
        if max(size) > longest or frames > most + 1:
            raise ModelError(
                f"{frames} frames of {size[1]}x{size[0]} are more than {self._info.name} has positions for",
                remedy=f"sides up to {longest} pixels and {most + 1} frames can be made",
            )


def _centre_crop(picture_CHW: Tensor, size: int) -> Tensor:
    """CLIP's own preprocessing in 8 bits: the short side resized to `size` (bicubic), the centre cut out; [0, 1]."""
    pixels = ((picture_CHW.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    height, width = pixels.shape[:2]
    scale = size / min(height, width)
    inside = (max(size, int(width * scale)), max(size, int(height * scale)))
    resized = np.asarray(Image.fromarray(pixels).resize(inside, Image.Resampling.BICUBIC))
    top, left = (inside[1] - size) // 2, (inside[0] - size) // 2
    return torch.from_numpy(resized[top : top + size, left : left + size].copy()).permute(2, 0, 1).float() / 255


def _load(
    folder: Path, kind: torch.dtype, device: str, parts: Parts, place: Callable[[Any], Any] | None,
    read: Callable[[Any, Path], Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """The networks of a folder, each moved to the device before the next is read. `read` reads the denoiser in its own
    way, from its class and folder.
    """
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    networks: dict[str, Any] = {"vae": (AutoencoderKLWan, torch.float32)}
    if parts != "encoders":
        networks["transformer"] = (WanTransformer3DModel, kind)
    if parts != "denoiser":
        networks |= {"text_encoder": (UMT5EncoderModel, kind), "image_encoder": (CLIPVisionModel, torch.float32)}
    loaded: dict[str, Any] = dict.fromkeys(weights.COMPONENTS)
    for name, (network, dtype) in networks.items():
        weights.read_config(folder, f"{name}/config.json")  # the libraries would take what is none for a network's name
        which = "torch_dtype" if network in (AutoencoderKLWan, WanTransformer3DModel) else "dtype"
        if read is not None and name == "transformer":
            part: Any = read(network, folder / name)
        else:
            part = network.from_pretrained(folder, subfolder=name, **{which: dtype}, **options)
        waits = name in ("text_encoder", "image_encoder") and "transformer" in networks  # until it is called
        loaded[name] = place(part) if place and name == "transformer" else part.to("cpu" if waits else device)
    loaded["tokenizer"] = None
    if loaded["text_encoder"] is not None:
        _check_embedding(loaded["text_encoder"], folder)
        loaded["tokenizer"] = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return loaded


def _freed(which: str) -> ModelError:
    return ModelError(
        f"this model has no {which} encoder any more", remedy='load it with parts="all" or parts="encoders"'
    )


def _check_embedding(encoder: UMT5EncoderModel, folder: Path) -> None:
    # some transformers releases left this table at zero when loading Wan's files: every prompt then means the same
    table = encoder.encoder.embed_tokens.weight
    if not bool(table[:64].any()):
        raise WeightsError(
            "the text encoder's word table is all zeros",
            where=str(folder / "text_encoder"),
            remedy="upgrade transformers, or download the weights again",
        )


def _info(folder: Path, release: Release) -> ModelInfo:
    vae, transformer = (weights.read_config(folder, f"{part}/config.json") for part in ("vae", "transformer"))
    return ModelInfo(
        release=release,
        latent_channels=vae["z_dim"],
        stride_time=2 ** sum(vae["temperal_downsample"]),
        stride_space=vae["scale_factor_spatial"],
        patch_space=transformer["patch_size"][1],
        positions=transformer.get("rope_max_seq_len", 1024),
        weights_sha256=weights.weights_sha256(folder),
        location=str(folder),
    )
