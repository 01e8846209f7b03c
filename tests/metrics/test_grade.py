"""Colour: published dE2000 pairs, scikit-image as a second opinion, and the laws of each grade distance."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance

from cinetune.errors import ScoreError
from cinetune.metrics import (
    colour_curve,
    colour_error,
    delta_e2000,
    film_spread,
    lab,
    lab_cloud,
    lab_frechet,
    nearest_scenes,
    palette,
    palette_distance,
    shrink,
    split_tone,
    tone_curve,
    tone_distance,
)

# Sharma, Wu, Dalal 2005, table 1: a selection that covers hue wrap, greys, the blue rotation and large differences.
SHARMA = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((50, 2.5, 0), (56, -27, -3), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.441), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
]


def clip(seed: int = 0, *, t: int = 5) -> np.ndarray:
    """A soft random picture with colour and a full tone range, the same in every frame but for a little grain."""
    rng = np.random.default_rng(seed)
    picture = gaussian_filter(rng.random((48, 64, 3)), (5, 5, 0))
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return np.clip(picture[None] + rng.normal(0, 0.01, (t, 48, 64, 3)), 0, 1)


def graded(x: np.ndarray, amount: float) -> np.ndarray:
    return np.clip(x ** (1 + 0.5 * amount) * (1 + amount * np.array([0.1, 0, -0.2])), 0, 1)


def test_delta_e2000_published_pairs_and_symmetry():
    x, y, expected = (np.array(column) for column in zip(*SHARMA, strict=True))
    np.testing.assert_allclose(delta_e2000(x, y), expected, atol=5e-5)
    np.testing.assert_allclose(delta_e2000(y, x), expected, atol=5e-5)
    assert np.abs(delta_e2000(x, x)).max() == 0


def test_lab_of_known_colours():
    np.testing.assert_allclose(lab([1.0, 1, 1]), [100, 0, 0], atol=1e-9)
    np.testing.assert_allclose(lab([0.0, 0, 0]), [0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(lab([1.0, 0, 0]), [53.24, 80.09, 67.20], atol=0.02)
    np.testing.assert_allclose(lab([0.0, 0, 1]), [32.30, 79.19, -107.86], atol=0.02)
    grey = lab(np.repeat(np.linspace(0, 1, 50)[:, None], 3, axis=1))
    assert np.abs(grey[:, 1:]).max() < 1e-9 and (np.diff(grey[:, 0]) > 0).all()
    # 18 % grey is L* 49.5; each transfer curve reaches it at its own code value.
    assert lab([0.18 ** (1 / 2.4)] * 3, transfer="bt1886")[0] == pytest.approx(49.496, abs=1e-3)
    assert lab([0.46135612950044164] * 3)[0] == pytest.approx(49.496, abs=1e-3)


def test_lab_and_delta_e_agree_with_scikit_image():
    colour = pytest.importorskip("skimage.color")
    rng = np.random.default_rng(0)
    rgb = rng.random((200, 3))
    np.testing.assert_allclose(lab(rgb), colour.rgb2lab(rgb), atol=0.02)
    x, y = rng.uniform([0, -90, -90], [100, 90, 90], (2, 5000, 3))
    np.testing.assert_allclose(delta_e2000(x, y), colour.deltaE_ciede2000(x, y), atol=1e-8)


def test_shrink_is_a_box_mean():
    x = np.random.default_rng(1).random((2, 7, 9, 3))
    small = shrink(x, 3)
    assert small.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(small[1, 1, 2], x[1, 3:6, 6:9].mean((0, 1)))
    np.testing.assert_array_equal(shrink(x, 0), x)


@pytest.mark.parametrize(
    "distance",
    [tone_distance, lab_frechet, palette_distance, colour_error, lambda x, y: split_tone(x, y).mean],
    ids=["tone", "frechet", "palette", "pixel", "split"],
)
def test_each_distance_is_zero_for_itself_and_grows_with_the_grade(distance):
    x = clip()
    values = [distance(graded(x, amount), x) for amount in (0, 0.2, 0.6, 1.2)]
    assert values[0] == pytest.approx(0, abs=1e-4)
    assert values == sorted(values) and values[1] > 0.1
    assert distance(graded(x, 0.6), x) == values[2]


def test_tone_curve_is_signed_and_its_mean_is_the_wasserstein_distance():
    x = lab_cloud(clip())
    brighter = x + np.array([4, 0, 0])
    np.testing.assert_allclose(tone_curve(brighter, x), 4)
    assert tone_distance(brighter, x) == pytest.approx(4)
    y = lab_cloud(graded(clip(1), 0.5))
    assert tone_distance(x, y) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=0.02)


def test_lab_frechet_of_a_shift_is_its_length():
    x = lab_cloud(clip())
    assert lab_frechet(x + np.array([0, 3, 4]), x) == pytest.approx(5)


def test_split_tone_finds_the_zone_and_ignores_exposure():
    ramp = np.stack([np.linspace(1, 99, 3000), np.zeros(3000), np.zeros(3000)], axis=1)
    teal = ramp.copy()
    teal[:1000, 1] -= 5
    teal[:1000, 2] -= 10
    score = split_tone(teal, ramp)
    assert score.shadows is not None and score.shadows > 5
    assert (score.mids, score.highlights) == (0, 0) and score.mean == pytest.approx(score.shadows / 3)
    assert split_tone(ramp + np.array([6, 0, 0]), ramp).mean == pytest.approx(0, abs=1e-9)
    night = ramp * [0.2, 1, 1]
    assert split_tone(night, ramp).highlights is None
    with pytest.raises(ScoreError, match="tone zone"):
        split_tone(np.full((10, 3), [50.0, 0, 0]), np.full((10, 3), [20.0, 0, 0]))


def test_palette_recovers_flat_colours_and_their_shares():
    colours = np.array([[20.0, 10, -10], [50, -20, 30], [90, 0, 5]])
    x = np.repeat(colours, [300, 600, 100], axis=0)
    found = palette(x)
    np.testing.assert_allclose(found.colours_K3, colours)
    np.testing.assert_allclose(found.share_K, [0.3, 0.6, 0.1])
    one = np.repeat(colours[:1], 100, axis=0)
    expected = (delta_e2000(colours[0], colours) * [0.3, 0.6, 0.1]).sum()
    assert palette_distance(x, one) == pytest.approx(expected)
    again = palette(lab_cloud(clip()), seed=3)
    np.testing.assert_array_equal(again.colours_K3, palette(lab_cloud(clip()), seed=3).colours_K3)
    assert again.share_K.sum() == pytest.approx(1) and len(again.share_K) == 6


def test_colour_curve_follows_a_fade_frame_by_frame_and_ignores_grain():
    x = clip(t=4)
    fading = np.clip(x * np.linspace(1, 0.6, 4)[:, None, None, None], 0, 1)
    curve = colour_curve(fading, x)
    assert curve[0] == 0 and (np.diff(curve) > 1).all()
    assert colour_error(fading, x) == pytest.approx(curve.mean())
    grainy = np.clip(x + np.random.default_rng(2).normal(0, 0.03, x.shape), 0, 1)
    assert colour_error(grainy, x) < 0.25 * colour_error(grainy, x, factor=1)
    with pytest.raises(ScoreError, match="shape"):
        colour_error(x, x[:2])


def test_nearest_scenes_are_the_most_alike_in_colour_and_take_the_content_out():
    """A dark shot in the film's grade is near the film's dark scene; against the film pooled it would seem far off."""
    day, night = clip(1), clip(1) * 0.3
    film = [lab_cloud(graded(day, 1.3), pixels=2000), lab_cloud(graded(night, 1.3), pixels=2000)]
    shot, ungraded = (lab_cloud(x, pixels=2000) for x in (graded(clip(4) * 0.3, 1.3), clip(4) * 0.3))
    np.testing.assert_array_equal(nearest_scenes(shot, film, count=1), film[1])
    assert len(nearest_scenes(shot, film)) == 4000
    near = [tone_distance(x, nearest_scenes(x, film, count=1)) for x in (shot, ungraded)]
    assert near[0] < near[1] and near[0] < tone_distance(shot, np.concatenate(film))
    with pytest.raises(ScoreError, match="no scenes"):
        nearest_scenes(shot, [])


def test_clouds_weigh_clips_alike_and_film_spread_finds_the_odd_one():
    clouds = [lab_cloud(clip(seed, t=t), pixels=2000) for seed, t in enumerate((2, 5, 9, 3))]
    assert {c.shape for c in clouds} == {(2000, 3)}
    np.testing.assert_array_equal(clouds[0], lab_cloud(clip(0, t=2), pixels=2000))
    spread = film_spread(tone_distance, [*clouds, lab_cloud(graded(clip(9), 1.5), pixels=2000)])
    assert spread.argmax() == 4
    with pytest.raises(ScoreError):
        film_spread(tone_distance, clouds[:1])


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 4, 4, 3), dtype=np.uint8),
        np.full((2, 4, 4, 3), 128.0),
        np.full((2, 4, 4, 3), np.nan),
        np.zeros((2, 3, 4, 4)),
        np.zeros((0, 4, 4, 3)),
    ],
    ids=["uint8", "0-255", "nan", "channels-first", "empty"],
)
def test_frames_of_the_wrong_kind_are_refused(bad):
    with pytest.raises(ScoreError):
        lab_cloud(bad)
