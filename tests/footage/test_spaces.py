"""The colour suite: known patches through every path, against truth computed here in float64 from the makers' published
curves and matrices. The patches are whole code values, so nothing but the reading can be wrong.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import av
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from cinetune.artifacts import Colour
from cinetune.errors import FootageError
from cinetune.footage.read import spaces
from cinetune.footage.read.spaces import SPACES, rule_for, to_display
from cinetune.footage.video import probe, read_frames
from cinetune.sections import ColourRule
from films import patches

pytest.importorskip("PyOpenColorIO")
WEIGHTS = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}

# RGB to XYZ of D65 as the makers print them.
TO_XYZ = {
    "bt709": [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    "bt2020": [[0.636958, 0.144617, 0.168881], [0.262700, 0.677998, 0.059302], [0.0, 0.028073, 1.060985]],
    "p3": [[0.486571, 0.265668, 0.198217], [0.228975, 0.691739, 0.079287], [0.0, 0.045113, 1.043944]],
    "awg3": [[0.638008, 0.214704, 0.097744], [0.291954, 0.823841, -0.115795], [0.002798, -0.067034, 1.153294]],
    "awg4": [[0.7048583, 0.1297603, 0.1158373], [0.2545242, 0.7814777, -0.0360019], [0.0, 0.0, 1.0890578]],
    "sg3c": [
        [0.5990839, 0.2489255, 0.1024465],
        [0.2150758, 0.8850685, -0.1001443],
        [-0.0320658, -0.0276584, 1.1487820],
    ],
    "vgamut": [[0.679644, 0.152211, 0.118600], [0.260686, 0.774894, -0.035580], [-0.009310, -0.004612, 1.102980]],
    "rwg": [[0.735275, 0.068609, 0.146571], [0.286694, 0.842979, -0.129673], [-0.079681, -0.347343, 1.516082]],
}


def logc3(v):
    """ARRI LogC3, EI 800, to scene light."""
    cut, a, b, c, d, e, f = 0.010591, 5.555556, 0.052272, 0.247190, 0.385537, 5.367655, 0.092809
    return np.where(v > e * cut + f, (10 ** ((v - d) / c) - b) / a, (v - f) / e)


def logc4(v):
    a, b, c = (2**18 - 16) / 117.45, (1023 - 95) / 1023, 95 / 1023
    s = 7 * np.log(2) * 2 ** (7 - 14 * c / b) / (a * b)
    t = (2 ** (14 * (-c / b) + 6) - 64) / a
    return np.where(v >= 0, (2 ** (14 * (v - c) / b + 6) - 64) / a, v * s + t)


def slog3(v):
    bend = 171.2102946929 / 1023
    return np.where(
        v >= bend,
        10 ** ((v * 1023 - 420) / 261.5) * (0.18 + 0.01) - 0.01,
        (v * 1023 - 95) * 0.01125 / (171.2102946929 - 95),
    )


def vlog(v):
    return np.where(v < 0.181, (v - 0.125) / 5.6, 10 ** ((v - 0.598206) / 0.241514) - 0.00873)


def log3g10(v):
    a, b, c, g = 0.224282, 155.975327, 0.01, 15.1927
    return np.where(v < 0, v / g - c, (10 ** (v / a) - 1) / b - c)


def pq(v):
    """SMPTE ST 2084, with 203 cd/m2 as 1."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    p = np.clip(v, 0, None) ** (1 / m2)
    return 10000 * (np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1) / 203


def hlg(v):
    """ITU-R BT.2100 HLG on a display of 1000 cd/m2, with 203 cd/m2 as 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(v <= 0.5, v**2 / 3, (np.exp((v - c) / a) + b) / 12)
    luma = scene @ np.array([0.2627, 0.6780, 0.0593])
    return 1000 * luma[..., None] ** 0.2 * scene / 203


def shown(code):
    """The stated view: up to 0.8 as it is, above it towards 1."""
    return np.where(code <= 0.8, code, 0.8 + 0.2 * (1 - np.exp(4 - 5 * np.maximum(code, 0.8))))


def scene_view(light):
    light = np.maximum(light, 0)
    return shown(np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099))


def hdr_view(light):
    return shown(np.maximum(light, 0) ** (1 / 2.4))


def sdr_view(light):
    return np.clip(light, 0, 1) ** (1 / 2.4)


def power(v):
    return np.clip(v, 0, 1) ** 2.4


PATHS = {
    "LogC3": (logc3, "awg3", scene_view),
    "LogC4": (logc4, "awg4", scene_view),
    "S-Log3": (slog3, "sg3c", scene_view),
    "V-Log": (vlog, "vgamut", scene_view),
    "Log3G10": (log3g10, "rwg", scene_view),
    "PQ": (pq, "bt2020", hdr_view),
    "HLG": (hlg, "bt2020", hdr_view),
    "Rec2020": (power, "bt2020", sdr_view),
    "P3-D65": (power, "p3", sdr_view),
}


def truth(code, space):
    """Display R'G'B' of R'G'B' code values of a space, all in float64."""
    curve, gamut, view = PATHS[space]
    light = curve(code) @ np.array(TO_XYZ[gamut]).T
    return view(light @ np.linalg.inv(np.array(TO_XYZ["bt709"])).T)


def coded(rgb, *, matrix, full, bits):
    """Whole Y'CbCr codes nearest to R'G'B', and the R'G'B' that those codes mean exactly; both in float64."""
    kr, kb = WEIGHTS[matrix]
    step, low = (2**bits - 1, 0) if full else (219 * 2 ** (bits - 8), 16 * 2 ** (bits - 8))
    chroma, mid = (2**bits - 1 if full else 224 * 2 ** (bits - 8)), 2 ** (bits - 1)
    rgb = rgb.astype(np.float64)
    luma = kr * rgb[..., 0] + (1 - kr - kb) * rgb[..., 1] + kb * rgb[..., 2]
    blue, red = (rgb[..., 2] - luma) / (2 - 2 * kb), (rgb[..., 0] - luma) / (2 - 2 * kr)
    codes = np.stack([luma * step + low, blue * chroma + mid, red * chroma + mid])
    codes = np.clip(np.rint(codes), 0, 2**bits - 1)
    luma, blue, red = (codes[0] - low) / step, (codes[1] - mid) / chroma, (codes[2] - mid) / chroma
    r, b = luma + (2 - 2 * kr) * red, luma + (2 - 2 * kb) * blue
    return codes, np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], axis=-1)


def write_codes(path, codes, *, bits, tags):
    """Lossless 4:4:4 FFV1 of whole codes [3, H, W], tagged (matrix, primaries, transfer, range)."""
    name = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width = codes.shape[1:]
        stream.pix_fmt = name
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        for number in range(2):
            frame = av.VideoFrame(codes.shape[2], codes.shape[1], name)
            for plane, values in zip(frame.planes, codes, strict=True):
                kind = np.uint8 if bits == 8 else np.uint16
                rows = np.frombuffer(memoryview(cast(Any, plane)), kind).reshape(plane.height, -1)
                rows[:, : codes.shape[2]] = values
            frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = tags
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def worst(got, want):
    """Largest dE2000 over all pixels."""
    return float(deltaE_ciede2000(rgb2lab(np.clip(got, 0, 1)), rgb2lab(np.clip(want, 0, 1))).max())


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.5), (10, 0.2), (12, 0.2)], ids=["8 bit", "10 bit", "12 bit"])
@pytest.mark.parametrize(
    ("height", "matrix", "full", "tags"),
    [
        (96, "bt709", False, (1, 1, 1, 1)),
        (96, "bt709", True, (1, 1, 1, 2)),
        (96, "bt601", False, (6, 6, 6, 1)),
        (96, "bt601", True, (5, 5, 6, 2)),
        (96, "bt601", False, (2, 2, 2, 0)),
        (720, "bt709", False, (2, 2, 2, 0)),
        (720, "bt709", True, (2, 2, 2, 2)),
    ],
    ids=["709", "709 full", "601", "601 full", "untagged SD", "untagged HD", "untagged HD full"],
)
def test_sdr_patches(tmp_path, height, matrix, full, tags, bits, limit):
    codes, want = coded(patches(height, 96), matrix=matrix, full=full, bits=bits)
    write_codes(tmp_path / "a.mkv", codes, bits=bits, tags=tags)
    facts = probe(tmp_path / "a.mkv")
    assert (facts.colour.matrix, facts.colour.full_range, facts.colour.space) == (matrix, full, "")
    got = read_frames(tmp_path / "a.mkv", [1], colour=facts.colour)[0]
    assert worst(got, want) < limit
    if tags[0] == 2:
        assert facts.colour.decided.startswith(f"untagged, height {height}")


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("space", ["LogC3", "LogC4", "S-Log3", "V-Log", "Log3G10"])
def test_camera_logs(tmp_path, space, full, bits):
    """Stated by a rule: a camera's file carries BT.709 tags or none, whatever its curve."""
    codes, meant = coded(0.1 + 0.6 * patches(), matrix="bt709", full=full, bits=bits)
    write_codes(tmp_path / "a.mkv", codes, bits=bits, tags=(1, 2, 2, 1 + full))
    facts = probe(tmp_path / "a.mkv", rule=ColourRule(match="*", space=space))
    assert facts.colour.decided.endswith(f"{space} (stated)")
    got = read_frames(tmp_path / "a.mkv", [0], colour=facts.colour)[0]
    assert worst(got, truth(meant, space)) < (0.5 if bits == 8 else 0.2)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize(
    ("space", "tags", "words"),
    [
        ("PQ", (9, 9, 16, 1), "tagged PQ: tone-mapped"),
        ("HLG", (9, 9, 18, 1), "tagged HLG: tone-mapped"),
        ("Rec2020", (9, 9, 14, 1), "tagged Rec2020 primaries: converted"),
        ("P3-D65", (1, 12, 1, 1), "tagged P3-D65 primaries: converted"),
    ],
)
def test_hdr_and_wide_gamut_by_their_tags(tmp_path, space, tags, words, bits):
    codes, meant = coded(
        patches() * (0.75 if space == "PQ" else 1), matrix="bt2020" if tags[0] == 9 else "bt709", full=False, bits=bits
    )
    write_codes(tmp_path / "a.mkv", codes, bits=bits, tags=tags)
    facts = probe(tmp_path / "a.mkv")
    assert facts.colour.space == space and words in facts.colour.decided
    got = read_frames(tmp_path / "a.mkv", [0], colour=facts.colour)[0]
    assert worst(got, truth(np.clip(meant, 0, None), space)) < 0.2


@pytest.mark.parametrize("space", sorted(set(SPACES) - {"PQ", "HLG", "Rec2020", "P3-D65"}))
def test_grey_stays_grey_and_brighter_stays_brighter(space):
    ramp = np.linspace(0.08, 1, 400, dtype=np.float32)[None, :, None].repeat(3, axis=2)
    got = to_display(ramp, Colour(matrix="rgb", primaries="", transfer="", full_range=True, decided="", space=space))
    assert np.ptp(got, axis=2).max() < 2e-3
    assert (np.diff(got[0, :, 1]) > -1e-6).all() and got.min() >= 0 and got.max() <= 1


def test_the_view_puts_grey_and_white_where_a_camera_does():
    """18 % grey, and white at 1 and at 8 times as much light."""
    light = np.array([0.18, 1.0, 8.0], np.float32).reshape(1, 3, 1).repeat(3, axis=2)
    colour = Colour(matrix="rgb", primaries="", transfer="", full_range=True, decided="", space="linear")
    assert to_display(light, colour)[0, :, 0] == pytest.approx([0.4090, 0.9264, 0.99997], abs=2e-4)


def write_cube(path, function, size=33):
    steps = np.linspace(0, 1, size)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    table = function(np.stack([red, green, blue], axis=-1).reshape(-1, 3))
    lines = [f"LUT_3D_SIZE {size}", *(" ".join(f"{value:.7f}" for value in row) for row in table)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


@pytest.mark.parametrize("bits", [8, 10])
def test_a_cube_lut(tmp_path, bits):
    """A LUT that a straight line between its points follows exactly: channels swapped, contrast lowered."""
    write_cube(tmp_path / "film.cube", lambda rgb: 0.1 + 0.7 * rgb[:, ::-1])
    codes, meant = coded(patches(), matrix="bt709", full=False, bits=bits)
    write_codes(tmp_path / "a.mkv", codes, bits=bits, tags=(1, 1, 1, 1))
    facts = probe(tmp_path / "a.mkv", rule=ColourRule(match="*", lut=str(tmp_path / "film.cube")))
    assert facts.colour.decided.endswith("through the LUT film.cube (stated)")
    got = read_frames(tmp_path / "a.mkv", [0], colour=facts.colour)[0]
    assert worst(got, 0.1 + 0.7 * np.clip(meant, 0, 1)[..., ::-1]) < (0.5 if bits == 8 else 0.2)


@pytest.mark.parametrize(("text", "words"), [(None, "is not there"), ("not a LUT", "cannot be read")])
def test_a_bad_lut_is_a_reason_not_a_traceback(tmp_path, text, words):
    path = tmp_path / "bad.cube"
    if text:
        path.write_text(text)
    colour = Colour(matrix="bt709", primaries="", transfer="", full_range=False, decided="", lut=str(path))
    with pytest.raises(FootageError, match=words):
        to_display(np.zeros((2, 2, 3), np.float32), colour)


def test_without_opencolorio_the_remedy_is_the_command(monkeypatch):
    spaces._curve.cache_clear()
    monkeypatch.setitem(sys.modules, "PyOpenColorIO", None)
    colour = Colour(matrix="bt709", primaries="", transfer="", full_range=False, decided="", space="LogC3")
    with pytest.raises(FootageError, match="OpenColorIO, which is not installed") as caught:
        to_display(np.zeros((2, 2, 3), np.float32), colour)
    assert caught.value.remedy == 'pip install "cinetune[color]"'


def test_the_first_rule_that_fits_a_path_or_a_name_holds():
    rules = (ColourRule(match="day1/*", space="LogC4"), ColourRule(match="A*.mov", space="LogC3"))
    found = [rule_for(rules, name) for name in ("day1/A1.mov", "day2/A1.mov", "B1.mov", "a1.mov")]
    assert [rule.space if rule else None for rule in found] == ["LogC4", "LogC3", None, None]


@pytest.mark.parametrize("levels", ["full", "limited"])
def test_a_rule_goes_before_the_tags(tmp_path, levels):
    codes, meant = coded(patches(), matrix="bt601", full=levels == "full", bits=10)
    write_codes(tmp_path / "a.mkv", codes, bits=10, tags=(9, 9, 16, 1))
    rule = ColourRule(match="*", space="Rec709", matrix="bt601", levels=levels)
    facts = probe(tmp_path / "a.mkv", rule=rule)
    assert facts.colour.decided == f"stated bt601, {levels} range (stated), Rec709 (stated)"
    assert worst(read_frames(tmp_path / "a.mkv", [0], colour=facts.colour)[0], meant) < 0.2


CUBE = 'TITLE "caf\u00e9"\nLUT_3D_SIZE 2\n' + "".join(f"{r} {g} {b}\n" for b in (0, 1) for g in (0, 1) for r in (0, 1))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_lut_in_any_encoding(tmp_path, encoding):
    path = tmp_path / "film.cube"
    path.write_bytes(CUBE.replace("\n", "\r\n").encode(encoding))
    colour = Colour(matrix="rgb", primaries="", transfer="", full_range=True, decided="", lut=str(path))
    rgb = np.random.default_rng(0).random((3, 4, 3), np.float32)
    assert np.abs(to_display(rgb, colour) - rgb).max() < 1e-6


@pytest.mark.parametrize(
    "data",
    [
        b'TITLE "caf\xe9"\nLUT_3D_SIZE 1000\n0 0 0\n',
        b"\xe9" * 3000,
        CUBE.replace("1 1 1", "1 nan 1").encode(),
        CUBE.replace("1 1 1", "-inf 0 0").encode(),
        b"LUT_1D_SIZE 999999999\n0 0 0\n",
        b"\0" * 50,
    ],
    ids=lambda data: str(data[:18]),
)
def test_a_broken_lut_in_latin_1_is_a_reason(tmp_path, data):
    path = tmp_path / "film.cube"
    path.write_bytes(data)
    colour = Colour(matrix="rgb", primaries="", transfer="", full_range=True, decided="", lut=str(path))
    with pytest.raises(FootageError):
        to_display(np.zeros((1, 1, 3), np.float32), colour)
