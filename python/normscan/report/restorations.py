"""What a network makes of pictures, beside them, for models that are judged by what they change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.data.read import read_image, write_image
from normscan.data.sample import Record
from normscan.deploy.session import Session
from normscan.report.pictures import Map, Picture, eight_bit, heat
from normscan.scoring.spec import Input, ScoringSpec

EACH = 10
"""Columns of abnormal pictures, and of normals."""
MOST = 100
"""Pictures of a kind that a mean is over."""
SIDE = 128
"""Pixels of a tile."""
GAP = 6
_INPUT = "image"
"""The output that is what the network was given."""


def restored_output(spec: ScoringSpec) -> str | None:
    """The output that a term compares with the network's own input; None: the model restores nothing."""
    pairs = [term.of for term in spec.terms if len(term.of) == 2 and _INPUT in term.of]
    return next((name for pair in pairs for name in pair if name != _INPUT), None)


def as_picture(output: npt.NDArray[np.float32], size: Input) -> Picture:
    """A picture as the network knows it, [C,H,W], as people do: uint8 [H,W,3]."""
    unit = _unit(output, size).transpose(1, 2, 0)
    return eight_bit(unit if unit.shape[2] == 3 else unit[:, :, 0])


def restored(session: Session, pixels: npt.NDArray[Any]) -> Picture | None:
    """What the model makes of a picture, at the network's size; None where it makes none."""
    spec = session.scorer.spec
    name = restored_output(spec)
    return None if name is None else as_picture(session.outputs(pixels)[name], spec.input)


def write_restorations(path: Path, session: Session, ranked: Sequence[Record]) -> dict[str, float]:
    """Write a PNG and return the mean change by kind, in shares of the range from black to white.

    ranked  test pictures in the order of their scores. Of each kind `EACH` are shown, evenly over the ranks: as the
            network sees them, restored, and |difference|, one scale for all. In the last column is the mean
            |difference| of up to `MOST` of that kind: of normals, where the model cannot give back what is healthy.
    """
    size, name = session.scorer.spec.input, restored_output(session.scorer.spec)
    if name is None:
        return {}
    rows, means = [], {}
    for kind, label in (("abnormal", 1), ("normal", 0)):
        records = [r for r in ranked if r.label == label]
        if not records:
            continue
        found = [session.outputs(read_image(r.path)) for r in _spread(records, MOST)]
        changes = [np.abs(_unit(o[name], size) - _unit(o[_INPUT], size)).mean(axis=0) for o in found]
        shown = _spread(list(zip(found, changes, strict=True)), EACH)
        panes = [(as_picture(o[_INPUT], size), as_picture(o[name], size), change) for o, change in shown]
        means[kind] = float(np.mean(changes))
        rows.append((panes, np.mean(changes, axis=0)))
    top = max(float(np.quantile([change for panes, _ in rows for *_, change in panes], 0.995)), 1e-6)
    bands = [_band(panes, mean, top) for panes, mean in rows]
    write_image(path, _stacked(bands, 4 * GAP))
    return means


def _unit(output: npt.NDArray[np.float32], size: Input) -> npt.NDArray[np.float32]:
    """[C,H,W] as prepared -> in 0..1."""
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (size.mean, size.std))
    unit: npt.NDArray[np.float32] = np.clip(output * std + mean, 0, 1)
    return unit


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in places]


def _band(panes: Sequence[tuple[Picture, Picture, Map]], mean: Map, top: float) -> Picture:
    """Three rows of tiles; the mean stands right of the last."""
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    columns = [[_tile(image), _tile(again), _tile(heat(change, 0.0, top))] for image, again, change in panes]
    columns.append([blank, blank, _tile(heat(mean, 0.0, top))])
    return _stacked([_stacked([column[row] for column in columns], GAP, axis=1) for row in range(3)], GAP)


def _tile(picture: Picture) -> Picture:
    import cv2

    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), np.uint8)


def _stacked(parts: Sequence[Picture], gap: int, axis: int = 0) -> Picture:
    """Below (or, along axis 1, beside) each other, with white between; narrower ones are filled up with white."""
    side = max(part.shape[1 - axis] for part in parts)
    filled = []
    for part in parts:
        after = [(0, 0), (0, 0), (0, 0)]
        after[1 - axis] = (0, side - part.shape[1 - axis])
        after[axis] = (0, gap)
        filled.append(np.pad(part, after, constant_values=255))
    whole: Picture = np.concatenate(filled, axis=axis)
    return whole[:-gap] if axis == 0 else whole[:, :-gap]
