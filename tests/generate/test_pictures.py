"""Pictures to tensors and back, and the contact sheet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from normscan.data.read import write_image
from normscan.generate.pictures import CELL, contact_sheet, read_picture, to_pixels


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_eight_bits_survive(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_image(tmp_path / "a.png", pixels)
    x = read_picture(tmp_path / "a.png")
    assert x.shape == (1, 1 if len(shape) == 2 else 3, 5, 7)
    assert x.min() >= -1
    assert x.max() <= 1
    np.testing.assert_array_equal(to_pixels(x), pixels)


def test_sixteen_bits_and_alpha(tmp_path: Path) -> None:
    write_image(tmp_path / "deep.png", np.array([[0, 32768, 65535]], np.uint16))
    assert read_picture(tmp_path / "deep.png").flatten().tolist() == pytest.approx([-1, 0, 1], abs=1e-4)
    clear = np.full((2, 2, 4), 255, np.uint8)
    clear[0, 0, 3] = 0
    assert cv2.imwrite(str(tmp_path / "clear.png"), clear)
    assert read_picture(tmp_path / "clear.png")[0, 0].tolist() == [[-1, 1], [1, 1]]


def test_what_lies_outside_is_clipped() -> None:
    assert to_pixels(torch.tensor([[[[-9.0, 0.0, 9.0]]]])).tolist() == [[0, 128, 255]]


def test_the_contact_sheet() -> None:
    grey, wide = np.full((4, 4), 1, np.uint8), np.full((100, 300, 3), (10, 20, 30), np.uint8)
    sheet = contact_sheet({"real": [wide], "made": [grey, wide, grey]})
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 2 * CELL
    assert 3 * CELL < sheet.shape[1] < 4 * CELL
    assert int((sheet == 1).all(axis=2).sum()) == 2 * CELL * CELL  # enlarged by repeating pixels
    assert int((sheet == (10, 20, 30)).all(axis=2).sum()) == 2 * CELL * round(CELL / 3)  # shrunk, its shape kept
