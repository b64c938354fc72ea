"""Two runs on the same test pictures: their numbers, ROC curves and maps side by side, and whether they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.read import read
from normscan.data.sample import Record
from normscan.deploy.session import Result, Session, load
from normscan.errors import InputError
from normscan.files import check_free, temporary_folder, write_bytes, write_json
from normscan.report.compare_page import SHOWN, Pair, Pane, compare_page
from normscan.report.evaluate import Scored, measured, records_of, refuse_seen, score_pictures
from normscan.report.pictures import eight_bit
from normscan.scoring.metrics import average_precision, roc_curve
from normscan.scoring.paired import Paired, bootstrap_difference, compare_aurocs

FILES = {"comparison.json", "index.html"}


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    session: Session
    scored: list[Scored]
    metrics: dict[str, Any]


def compare(
    models: tuple[Path, Path],
    data: Path,
    output: Path,
    *,
    batch_size: int = 16,
    device: str = "auto",
    threads: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Score the labelled test pictures of `data` with two models; write numbers and one page to `output`.

    Returns both metrics and the paired comparison (second minus first). Raises `InputError` where a test picture cannot
    be read, one of them made one of the detectors, or only one kind of picture is there.
    """
    check_free(output.absolute(), force=force or is_comparison(output), ours=is_comparison)
    names = _names(models)
    sessions = [load(model, device=device, threads=threads) for model in models]
    _, test = records_of(data, {digest for session in sessions for digest in session.seen})
    if len({r.label for r in test}) < 2:
        raise InputError(f"{data}: the test pictures are all of one kind, expected normal and abnormal ones")
    first, second = (
        _side(name, session, test, data, batch_size) for name, session in zip(names, sessions, strict=True)
    )
    groups = [s.record.group for s in first.scored]
    labels = [int(r.label or 0) for r in test]
    one, other = ([s.score for s in side.scored] for side in (first, second))
    paired = compare_aurocs(labels, one, other, groups)
    precision = bootstrap_difference(average_precision, labels, one, other, groups)
    sides = [{"name": side.name, "metrics": side.metrics} for side in (first, second)]
    found = {"data": data.resolve().name, "runs": sides, "paired": asdict(paired), "paired_auprc": asdict(precision)}
    with temporary_folder(output, force=force or is_comparison(output), ours=is_comparison) as folder:
        write_json(folder / "comparison.json", found)
        write_bytes(folder / "index.html", _page(data, labels, (first, second), paired, precision).encode())
    return found


def is_comparison(folder: Path) -> bool:
    """An earlier comparison may be replaced: it can be made again."""
    return folder.is_dir() and {p.name for p in folder.iterdir()} <= FILES


def _names(models: tuple[Path, Path]) -> tuple[str, str]:
    """The folders' names; where those are equal, with the folder above."""
    first, second = (model.resolve() for model in models)
    if first == second:
        raise InputError(f"{models[0]} is compared with itself; name two runs or bundles")
    if first.name != second.name:
        return first.name, second.name
    return f"{first.parent.name}/{first.name}", f"{second.parent.name}/{second.name}"


def _side(name: str, session: Session, test: Sequence[Record], data: Path, batch_size: int) -> Side:
    refuse_seen(session, test)
    scored = score_pictures(session, test, data, batch_size)
    return Side(name, session, scored, measured(session, scored))


def _page(data: Path, labels: Sequence[int], sides: tuple[Side, Side], paired: Paired, precision: Paired) -> str:
    curves = []
    for side in sides:
        false, true, _ = roc_curve(labels, [s.score for s in side.scored])
        curves.append((side.name, false, true, float(side.metrics["image_auroc"])))
    return compare_page(
        title=f"{sides[0].name} and {sides[1].name} on {data.resolve().name}",
        names=(sides[0].name, sides[1].name),
        metrics=(sides[0].metrics, sides[1].metrics),
        paired=paired,
        precision=precision,
        curves=(curves[0], curves[1]),
        pairs=[_pair(i, sides) for i in disagreements(*([s.score for s in side.scored] for side in sides))],
        scales=(sides[0].session.map_scale, sides[1].session.map_scale),
    )


def disagreements(first: Sequence[float], second: Sequence[float]) -> list[int]:
    """Indices of the pictures whose rank among all differs most between two scorings, the largest difference first."""
    ranks = [np.argsort(np.argsort(np.asarray(scores), kind="stable"), kind="stable") for scores in (first, second)]
    return np.argsort(-abs(ranks[0] - ranks[1]), kind="stable")[:SHOWN].tolist()  # type: ignore[no-any-return]


def _pair(index: int, sides: tuple[Side, Side]) -> Pair:
    sample = read(sides[0].scored[index].record)
    return Pair(
        name=sides[0].scored[index].name,
        label=int(sides[0].scored[index].record.label or 0),
        image=eight_bit(sample.pixels),
        mask=sample.mask,
        panes=(_pane(index, sides[0], sample.pixels), _pane(index, sides[1], sample.pixels)),
    )


def _pane(index: int, side: Side, pixels: np.ndarray) -> Pane:
    result: Result = side.session.score(pixels)
    scores = np.array([s.score for s in side.scored])
    return Pane(result.map, result.score, side.scored[index].decision, float((scores < scores[index]).mean()))
