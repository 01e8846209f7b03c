"""Structure measures: scikit-image as the reference, and the laws they must obey."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from skimage.metrics import structural_similarity

from cinetune.errors import ScoreError
from cinetune.metrics import gradient_correlation, standardised_luma, structure_similarity, warp_error


def texture(frames: int = 3, height: int = 64, width: int = 80, *, seed: int = 0, grain: float = 0.0) -> np.ndarray:
    """A textured picture that pans by one pixel a frame."""
    rng = np.random.default_rng(seed)
    wide = gaussian_filter(rng.random((height, width + frames, 3)), (2, 2, 0))
    wide = (wide - wide.min()) / (wide.max() - wide.min()) * 0.8 + 0.1
    film = np.stack([wide[:, t : t + width] for t in range(frames)])
    return (film + rng.normal(0, grain, film.shape)).clip(0, 1).astype(np.float32)


def test_ssim_equals_scikit_image_on_the_same_planes() -> None:
    x, y = texture(seed=0), texture(seed=1)
    planes = [standardised_luma(film) for film in (x, y)]
    want = [
        structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=4.0)
        for a, b in zip(*planes, strict=True)
    ]
    np.testing.assert_allclose(structure_similarity(x, y), want, rtol=1e-9)


@pytest.mark.parametrize("measure", [structure_similarity, gradient_correlation])
def test_itself_is_one_and_a_grade_changes_nothing(measure) -> None:
    x = texture()
    np.testing.assert_allclose(measure(x, x), 1, atol=1e-12)
    np.testing.assert_allclose(measure(x, 0.6 * x + 0.2), 1, atol=1e-6)
    tinted = x * np.array([0.9, 1.0, 0.8], dtype=np.float32)
    assert (measure(x, tinted) > 0.98).all()


@pytest.mark.parametrize("measure", [structure_similarity, gradient_correlation])
def test_more_damage_reads_worse_step_by_step(measure) -> None:
    x = texture()
    blur = [measure(x, gaussian_filter(x, (0, s, s, 0))).mean() for s in (0, 0.5, 1, 2, 4)]
    noise = [measure(x, texture(grain=s)).mean() for s in (0, 0.02, 0.05, 0.1)]
    moved = [measure(x, shift(x, (0, 0, s, 0), mode="reflect", order=1)).mean() for s in (0, 1, 3)]
    for ladder in (blur, noise, moved):
        assert (np.diff(ladder) < 0).all(), ladder


def test_another_picture_has_next_to_nothing_in_common() -> None:
    assert abs(structure_similarity(texture(seed=0), texture(seed=1)).mean()) < 0.1
    assert abs(gradient_correlation(texture(seed=0), texture(seed=1)).mean()) < 0.15


@pytest.mark.parametrize("measure", [structure_similarity, gradient_correlation])
def test_what_cannot_be_compared_is_refused(measure) -> None:
    x = texture()
    with pytest.raises(ScoreError, match="differ in shape"):
        measure(x, x[:2])
    with pytest.raises(ScoreError, match="differ in shape"):
        measure(x, texture(width=64))
    black = x.copy()
    black[1] = 0
    with pytest.raises(ScoreError, match="frame 1 is black"):
        measure(black, x)
    with pytest.raises(ScoreError):
        measure(np.full_like(x, np.nan), x)


def test_a_clean_pan_warps_onto_itself_and_flicker_does_not() -> None:
    pan = texture(6, 96, 128)
    frozen = np.repeat(pan[:1], 6, axis=0)
    flicker = (pan * (1 + 0.04 * (np.arange(6) % 2))[:, None, None, None]).clip(0, 1).astype(np.float32)
    assert warp_error(frozen) < 1e-7
    assert warp_error(pan) < 1e-4
    assert warp_error(flicker) > 5 * warp_error(pan)
    assert warp_error(flicker) == warp_error(flicker)


def test_warp_error_grows_with_grain() -> None:
    ladder = [warp_error(texture(4, 96, 128, grain=g)) for g in (0, 0.02, 0.05, 0.1)]
    assert (np.diff(ladder) > 0).all()
    with pytest.raises(ScoreError):
        warp_error(texture(1))
    with pytest.raises(ScoreError, match="too small"):
        warp_error(texture(3, 12, 12))
