"""Colour grade in numbers: CIE Lab, dE2000, tone curve, split-tone and palette distances.

Frames are display-referred R'G'B' with BT.709/sRGB primaries, `[T, H, W, 3]` float in [0, 1]. Every `x`, `y` below
may instead be a Lab cloud `[N, 3]` from `lab_cloud`, so that a whole film is converted once and pooled by
concatenation. Compare a shot with the scenes of the film that are nearest in colour (`nearest_scenes`), or the distance
tells what is in the picture. Read it against the film's own spread (`film_spread`): two shots of one film are not at
distance 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from cinetune.errors import ScoreError
from cinetune.metrics.checks import Array, film_frames, same_shape
from cinetune.metrics.distances import frechet

__all__ = [
    "Palette",
    "SplitTone",
    "colour_curve",
    "colour_error",
    "delta_e2000",
    "film_spread",
    "lab",
    "lab_cloud",
    "lab_frechet",
    "nearest_scenes",
    "palette",
    "palette_distance",
    "shrink",
    "split_tone",
    "tone_curve",
    "tone_distance",
]

Transfer = Literal["srgb", "bt1886"]

NEAREST = 2
"""Scenes of a film that a shot is compared with: one may resemble it by chance."""

# Linear BT.709/sRGB primaries to XYZ (IEC 61966-2-1); white is the image of (1, 1, 1), so that grey has a* = b* = 0.
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(rgb: ArrayLike, *, transfer: Transfer = "srgb") -> Array:
    """CIE L*a*b* (D65) of display R'G'B' `[..., 3]` in [0, 1]; clipped. L* in [0, 100], a*, b* about +-128.

    `transfer` is how the display decodes: the sRGB curve (IEC 61966-2-1) or a pure 2.4 power (BT.1886, ideal black).
    """
    code = np.clip(np.asarray(rgb, dtype=np.float64), 0, 1)
    if transfer == "srgb":
        linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    else:
        linear = code**2.4
    ratio = linear @ _XYZ.T / _XYZ.sum(1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    fx, fy, fz = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def delta_e2000(lab_x: ArrayLike, lab_y: ArrayLike) -> Array:
    """CIEDE2000 colour difference of Lab arrays `[..., 3]` (broadcast), kL = kC = kH = 1 (Sharma, Wu, Dalal 2005).

    Range [0, inf); 1 is about the smallest difference seen side by side.
    """
    x, y = np.asarray(lab_x, dtype=np.float64), np.asarray(lab_y, dtype=np.float64)
    chroma_mean = (np.hypot(x[..., 1], x[..., 2]) + np.hypot(y[..., 1], y[..., 2])) / 2
    stretch = 1 + 0.5 * (1 - np.sqrt(chroma_mean**7 / (chroma_mean**7 + 25.0**7)))
    ax, ay = x[..., 1] * stretch, y[..., 1] * stretch
    cx, cy = np.hypot(ax, x[..., 2]), np.hypot(ay, y[..., 2])
    hx, hy = np.degrees(np.arctan2(x[..., 2], ax)) % 360, np.degrees(np.arctan2(y[..., 2], ay)) % 360
    grey = cx * cy == 0
    turn = np.where(grey, 0.0, (hy - hx + 180) % 360 - 180)
    # Opposite hues are exactly 180 apart: the standard keeps the sign of the plain difference there.
    turn = np.where(~grey & (np.abs(hy - hx) == 180), hy - hx, turn)
    d_l, d_c, d_h = y[..., 0] - x[..., 0], cy - cx, 2 * np.sqrt(cx * cy) * np.sin(np.radians(turn / 2))
    l_mean, c_mean = (x[..., 0] + y[..., 0]) / 2, (cx + cy) / 2
    around = np.where(hx + hy < 360, (hx + hy + 360) / 2, (hx + hy - 360) / 2)
    h_mean = np.where(grey, hx + hy, np.where(np.abs(hx - hy) <= 180, (hx + hy) / 2, around))
    t = (
        1
        - 0.17 * np.cos(np.radians(h_mean - 30))
        + 0.24 * np.cos(np.radians(2 * h_mean))
        + 0.32 * np.cos(np.radians(3 * h_mean + 6))
        - 0.20 * np.cos(np.radians(4 * h_mean - 63))
    )
    s_l = 1 + 0.015 * (l_mean - 50) ** 2 / np.sqrt(20 + (l_mean - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c_mean, 1 + 0.015 * c_mean * t
    rotation = (
        -2 * np.sqrt(c_mean**7 / (c_mean**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((h_mean - 275) / 25) ** 2))))
    )
    square = (d_l / s_l) ** 2 + (d_c / s_c) ** 2 + (d_h / s_h) ** 2 + rotation * (d_c / s_c) * (d_h / s_h)
    return np.sqrt(np.maximum(square, 0))


def shrink(frames: ArrayLike, factor: int) -> Array:
    """Box-average `[T, H, W, 3]` by `factor` both ways; rows and columns that do not fill a box are dropped."""
    film = film_frames(frames, name="shrink")
    factor = max(1, min(factor, film.shape[1], film.shape[2]))
    t, h, w = film.shape[0], film.shape[1] // factor, film.shape[2] // factor
    boxes = film[:, : h * factor, : w * factor].reshape(t, h, factor, w, factor, 3)
    return boxes.mean((2, 4), dtype=np.float64)


def lab_cloud(frames: ArrayLike, *, short_side: int = 128, pixels: int = 20_000, transfer: Transfer = "srgb") -> Array:
    """Lab pixels `[N, 3]` of a clip: frames box-averaged to about `short_side`, at most `pixels` taken at even steps.

    The same clip always gives the same cloud, and clips of any length weigh alike when clouds are concatenated.
    """
    film = film_frames(frames, name="lab_cloud")
    small = shrink(film, min(film.shape[1:3]) // short_side).reshape(-1, 3)
    keep = np.linspace(0, len(small) - 1, min(pixels, len(small))).round().astype(np.intp)
    return lab(small[keep], transfer=transfer)


def tone_curve(x: ArrayLike, y: ArrayLike) -> Array:
    """Signed tone difference `Q_x(p) - Q_y(p)` of L*, p = 0.5 ... 99.5 %, `[100]`: positive where x is brighter."""
    p = np.arange(0.5, 100) / 100
    return np.quantile(_cloud(x)[:, 0], p) - np.quantile(_cloud(y)[:, 0], p)


def tone_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Tone-curve distance: `mean_p |Q_x(p) - Q_y(p)|` of L*, the 1-D Wasserstein distance. Range [0, 100] L* units."""
    return float(np.abs(tone_curve(x, y)).mean())


def lab_frechet(x: ArrayLike, y: ArrayLike) -> float:
    """2-Wasserstein distance of Gaussians fitted to the Lab pixels (root of `frechet`), Lab units, [0, inf)."""
    return float(np.sqrt(frechet(_cloud(x), _cloud(y))))


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitTone:
    """dE2000 of the mean tint per tone zone and over them; None where a clip has under 0.5 % of its pixels."""

    shadows: float | None
    mids: float | None
    highlights: float | None
    mean: float


def split_tone(x: ArrayLike, reference: ArrayLike) -> SplitTone:
    """Tint difference by tone zone, zones cut at the L* terciles of `reference`.

    Mean (a*, b*) of x and reference per zone, both placed at the reference's mean L* of that zone, then dE2000: a pure
    exposure change inside a zone costs nothing, a teal-orange shift does. Raises `ScoreError` if no zone is shared.
    """
    film, other = _cloud(x), _cloud(reference)
    cuts = np.quantile(other[:, 0], [1 / 3, 2 / 3])
    zone_x, zone_y = np.searchsorted(cuts, film[:, 0]), np.searchsorted(cuts, other[:, 0])
    found: list[float | None] = []
    for zone in range(3):
        px, py = film[zone_x == zone], other[zone_y == zone]
        if len(px) < 0.005 * len(film) or len(py) < 0.005 * len(other):
            found.append(None)
            continue
        mean_x, mean_y = px.mean(0), py.mean(0)
        found.append(float(delta_e2000([mean_y[0], mean_x[1], mean_x[2]], mean_y)))
    present = [value for value in found if value is not None]
    if not present:
        raise ScoreError("the clips share no tone zone", where="split_tone", remedy="compare tone_distance instead")
    return SplitTone(shadows=found[0], mids=found[1], highlights=found[2], mean=float(np.mean(present)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Main colours of a clip: `colours_K3` in Lab, their `share_K` of the pixels (sums to 1), darkest first."""

    colours_K3: Array
    share_K: Array


def palette(x: ArrayLike, *, k: int = 6, seed: int = 0) -> Palette:
    """Main colours by k-means in Lab (k-means++ start, 4096 pixels, 50 rounds); under `k` for flat clips."""
    points = _cloud(x)
    points = points[np.linspace(0, len(points) - 1, min(4096, len(points))).round().astype(np.intp)]
    rng = np.random.default_rng(seed)
    centres = points[[int(rng.integers(len(points)))]]
    while len(centres) < k:
        nearest = _squares(points, centres).min(1)
        if nearest.max() <= 1e-12:
            break
        centres = np.vstack([centres, points[rng.choice(len(points), p=nearest / nearest.sum())]])
    owner = _squares(points, centres).argmin(1)
    for _ in range(50):
        used = np.unique(owner)
        centres = np.stack([points[owner == i].mean(0) for i in used])
        moved = _squares(points, centres).argmin(1)
        if np.array_equal(moved, owner):
            break
        owner = moved
    share = np.bincount(owner, minlength=len(centres)) / len(points)
    order = np.argsort(centres[:, 0], kind="stable")
    return Palette(colours_K3=centres[order], share_K=share[order])


def palette_distance(x: ArrayLike, y: ArrayLike, *, k: int = 6, seed: int = 0) -> float:
    """Cheapest way to turn one palette into the other: optimal transport of the shares, cost dE2000. Range [0, inf).

    Depends on what is in the picture, not only on the grade: compare with the film's own spread.
    """
    a, b = palette(x, k=k, seed=seed), palette(y, k=k, seed=seed)
    cost = delta_e2000(a.colours_K3[:, None], b.colours_K3[None])
    n, m = cost.shape
    leaves = np.kron(np.eye(n), np.ones((1, m)))
    arrives = np.kron(np.ones((1, n)), np.eye(m))
    # One arrival row is implied by the others; leaving it out keeps rounding of the shares from making it infeasible.
    plan = linprog(
        cost.ravel(),
        A_eq=np.vstack([leaves, arrives[:-1]]),
        b_eq=np.concatenate([a.share_K, b.share_K[:-1]]),
        method="highs",
    )
    if plan.status != 0:
        raise ScoreError(f"optimal transport failed: {plan.message}", where="palette_distance")
    return float(plan.fun)


def colour_curve(x: ArrayLike, y: ArrayLike, *, factor: int = 8) -> Array:
    """Mean dE2000 per frame, `[T]`, of two aligned clips box-averaged by `factor` (grain does not count)."""
    film, truth = film_frames(x, name="colour_curve x"), film_frames(y, name="colour_curve y")
    same_shape(film.shape, truth.shape)
    return delta_e2000(lab(shrink(film, factor)), lab(shrink(truth, factor))).mean((1, 2))


def colour_error(x: ArrayLike, y: ArrayLike, *, factor: int = 8) -> float:
    """Mean of `colour_curve`: colour error against a known, pixel-aligned truth, in dE2000. Range [0, inf)."""
    return float(colour_curve(x, y, factor=factor).mean())


def nearest_scenes(x: ArrayLike, scenes: Sequence[Array], *, count: int = NEAREST) -> Array:
    """The `count` scenes of a film nearest to `x` by `lab_frechet`, pooled into one Lab cloud `[N, 3]`.

    A film has days and nights, deserts and harbours; a shot in its look resembles some of them and not their average.
    Against all scenes pooled, shots with the right grade can read further away than ungraded ones
    (`benchmarks/film_distance.py`).
    """
    if not scenes:
        raise ScoreError("the film has no scenes to compare with", where="nearest_scenes")
    cloud = _cloud(x)
    apart = np.asarray([lab_frechet(cloud, scene) for scene in scenes])
    return np.concatenate([scenes[i] for i in np.argsort(apart, kind="stable")[:count]])


def film_spread(distance: Callable[[Array, Array], float], scenes: Sequence[Array]) -> Array:
    """`distance` of each scene of a film to its nearest others, `[N]`: what "the same grade" reads like here."""
    if len(scenes) < 2:
        raise ScoreError("the spread of a film needs two scenes or more", where="film_spread")
    others = [[*scenes[:i], *scenes[i + 1 :]] for i in range(len(scenes))]
    return np.asarray(
        [distance(scene, nearest_scenes(scene, rest)) for scene, rest in zip(scenes, others, strict=True)]
    )


def _cloud(x: ArrayLike) -> Array:
    array = np.asarray(x)
    if array.ndim == 2 and array.shape[1] == 3 and len(array) >= 2:
        return array.astype(np.float64, copy=False)
    return lab_cloud(array)


def _squares(points_N3: Array, centres_K3: Array) -> NDArray[np.float64]:
    return ((points_N3[:, None] - centres_K3[None]) ** 2).sum(-1)
