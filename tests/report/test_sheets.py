from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cinetune.pages.sheets import SURROUND, Cell, candidates_sheet, film_sheet, shot_strip, to_image

RED, BLUE = (200, 20, 20), (20, 20, 200)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(-1).sum())


def test_pictures_are_enlarged_to_the_cell_in_a_neutral_surround() -> None:
    sheet = film_sheet([Cell(plain(RED), "a rider at dawn")], cell_width=192)
    assert count(sheet, RED) == 192 * 128
    assert sheet.getpixel((0, 0)) == SURROUND
    red, green, blue = SURROUND
    assert red == green == blue


def test_a_strip_has_a_row_for_each_arm_and_a_gap_where_nothing_is_known() -> None:
    rows = [("Base", [plain(RED)] * 3), ("Film", [None, plain(BLUE), plain(BLUE)])]
    sheet = shot_strip(rows, columns=["reference", "frame 0", "frame 8"], cell_width=96)
    assert count(sheet, RED) == 3 * 96 * 64
    assert count(sheet, BLUE) == 2 * 96 * 64


def test_the_picked_candidate_is_framed() -> None:
    def framed(picked: int) -> tuple[int, int]:
        cells = [Cell(plain(RED), "4.2", picked == 0), Cell(plain(RED), "5.5", picked == 1)]
        sheet = np.asarray(candidates_sheet([("Base", cells)], cell_width=96))
        frame = (sheet[: 22 + 32] == (236, 190, 110)).all(-1).nonzero()[1]
        return int(frame.min()), int(frame.max())

    assert framed(0)[1] < framed(1)[0]


def test_odd_shapes_keep_their_proportions() -> None:
    sheet = film_sheet([Cell(plain(RED)), Cell(plain(BLUE, (64, 64)))], cell_width=96)
    assert (count(sheet, RED), count(sheet, BLUE)) == (96 * 64, 96 * 96)


@pytest.mark.parametrize("text", ["", "word " * 60, "oneverylongwordwithoutanyspace" * 4])
def test_captions_never_change_the_size_of_the_sheet(text: str) -> None:
    assert film_sheet([Cell(plain(RED), text)]).size == film_sheet([Cell(plain(RED), "short")]).size


def test_to_image_reads_every_kind_of_frame_alike() -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    wide = levels.astype(np.uint16) * 257
    for frame in (levels, wide, levels.astype(np.float32) / 255):
        assert np.array_equal(np.asarray(to_image(frame)), levels)
