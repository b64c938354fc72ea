"""A picture as a grid of windows in the batch, and the place of each in binary."""

from __future__ import annotations

import torch
from torch import Tensor

from normscan.errors import ArgumentError

Grid = tuple[int, int]
"""Rows and columns of windows."""


def split(x: Tensor, grid: Grid) -> Tensor:
    """x [N,C,H,W] -> [N*rows*cols,C,H/rows,W/cols], the windows of a picture one after the other, row by row."""
    (rows, cols), (height, width) = grid, x.shape[2:]
    if height % rows or width % cols:
        raise ArgumentError(f"split: x is {height} x {width} pixels, expected multiples of the grid {rows} x {cols}")
    cut = torch.unflatten(torch.unflatten(x, 3, (cols, width // cols)), 2, (rows, height // rows))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # from [N,C,rows,h,cols,w]


def merge(windows: Tensor, grid: Grid) -> Tensor:
    """windows [N*rows*cols,C,h,w] -> [N,C,rows*h,cols*w]: the exact inverse of `split`."""
    rows, cols = grid
    # In an export, the size is a symbol and `len` would make it a number.
    if windows.shape[0] % (rows * cols):
        raise ArgumentError(
            f"merge: found {windows.shape[0]} windows, expected a multiple of {rows * cols}, the grid {rows} x {cols}"
        )
    cut = torch.unflatten(windows, 0, (-1, rows, cols)).permute(0, 3, 1, 4, 2, 5)  # [N,C,rows,h,cols,w]
    return cut.flatten(4, 5).flatten(2, 3)


def position_planes(grid: Grid) -> Tensor:
    """The number of each window in binary, counted from 1, lowest digit first  ->  [rows*cols, planes] of 0 and 1.

    A digit is a plane: one value all over the window. There are log2(windows) + 1 of them where that is whole.
    """
    count = grid[0] * grid[1]
    digits = range(count.bit_length())
    return torch.tensor([[number >> digit & 1 for digit in digits] for number in range(1, count + 1)]).float()
