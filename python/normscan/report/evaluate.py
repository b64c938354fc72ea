"""Evaluation: the test pictures through a session, their metrics, and the files that people read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.histology import is_histology, read_histology
from normscan.data.layouts import read_layout
from normscan.data.read import read, read_image, read_mask
from normscan.data.sample import Record
from normscan.data.splits import check_disjoint
from normscan.deploy.session import SEEN_DIGITS, Session, load
from normscan.errors import InputError
from normscan.files import check_free, sha256, temporary_folder, write_bytes, write_json
from normscan.progress import say, track
from normscan.report.diagnose import unseen
from normscan.report.overview import chosen, write_overview
from normscan.report.page import Row, pictured, write_page
from normscan.report.pictures import eight_bit, scale_of
from normscan.report.restorations import restored, write_restorations
from normscan.scoring import baselines as floor
from normscan.scoring import metrics
from normscan.scoring.calibrate import Calibration

FILES = {"metrics.json", "scores.csv", "overview.png", "restorations.png", "index.html"}
"""What an evaluation leaves."""


@dataclass(frozen=True)
class Scored:
    """A test picture with its score; the map only where pixels are measured."""

    record: Record
    name: str
    score: float
    decision: bool | None
    map: np.ndarray | None
    mask: np.ndarray | None


def evaluate(
    model: Path,
    data: Path,
    output: Path,
    *,
    baselines: bool = False,
    batch_size: int = 16,
    device: str = "auto",
    threads: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Score the labelled test pictures of `data`; write numbers, table, overview and page to `output`.

    A model that restores pictures leaves a sheet of them, too, and the mean change by kind ("restoration"). Returns the
    metrics. Raises `InputError` where there are no labelled test pictures or one of them is unreadable: a figure over
    the readable half would flatter.
    """
    check_free(output.absolute(), force=force or is_evaluation(output), ours=is_evaluation)
    session = load(model, device=device, threads=threads)
    records, test = records_of(data, session.seen)
    refuse_seen(session, test)
    scored = score_pictures(session, test, data, batch_size)
    found = measured(session, scored)
    if baselines:
        found["baselines"] = _baselines(records, test)
    found["engine"] = session.engine.fingerprint()
    with temporary_folder(output, force=force or is_evaluation(output), ours=is_evaluation) as folder:
        ranked = [s.record for s in sorted(scored, key=lambda s: s.score)]
        if changes := write_restorations(folder / "restorations.png", session, ranked):
            found["restoration"] = changes
        write_json(folder / "metrics.json", found)
        write_bytes(folder / "scores.csv", _table(scored).encode())
        rows = _rows(session, scored)
        map_scale = _map_scale(session, rows)
        write_overview(folder / "overview.png", [rows[i] for i in chosen(rows)], map_scale)
        write_page(
            folder,
            title=f"{session.scorer.spec.family}: {data.resolve().name}",
            metrics=found,
            calibration=_calibration(session.scorer.spec.calibration),
            rows=rows,
            map_scale=map_scale,
            provenance={"model": model.name, **session.engine.fingerprint(), "test pictures": len(test)},
        )
    return found


def records_of(data: Path, seen: Iterable[str] = ()) -> tuple[list[Record], list[Record]]:
    """(all pictures of a data folder, those of its labelled test set); an `InputError` where there is none.

    Of a cohort of patients the test set is the annotated patches of those of whom the model has `seen` no picture.
    """
    records = _patches(data, seen) if is_histology(data) else read_layout(data, training=False)
    check_disjoint(records)
    test = [r for r in records if r.split == "test" and r.label is not None]
    if not test:
        raise InputError(f"{data} has no labelled test pictures; expected test/normal and test/<anything else>")
    return records, test


def _patches(data: Path, seen: Iterable[str]) -> list[Record]:
    """Annotated patches of new patients as test, negative patients' patches of the others as train."""
    cohort = read_histology(data)
    fresh, _ = unseen(cohort, seen)
    if not fresh.annotated:
        raise InputError(
            f"{data}: no annotated patch of a patient that the model has not seen; to measure patients: "
            "normscan diagnose"
        )
    return [
        *(replace(r, split="test") for r in fresh.annotated),
        *(replace(r, split="train") for r in cohort.cropped if r.label == 0 and r.group not in fresh.patients),
    ]


def is_evaluation(folder: Path) -> bool:
    """An earlier evaluation may be replaced: it can be made again from the model and the data."""
    return folder.is_dir() and {p.name for p in folder.iterdir()} <= FILES


def refuse_seen(session: Session, test: Sequence[Record]) -> None:
    """A picture that made the detector cannot test it, in whichever folder it lies now."""
    seen = [r.path for r in test if sha256(r.path)[:SEEN_DIGITS] in session.seen]
    if seen:
        raise InputError(
            f"{seen[0]} and {len(seen) - 1} other test pictures were in the detector's training, validation or "
            "calibration; test on others"
        )


def score_pictures(session: Session, test: Sequence[Record], root: Path, batch_size: int) -> list[Scored]:
    """Score every test picture; one that cannot be is raised, for a figure over the others would flatter."""
    with_masks = any(r.mask is not None for r in test)
    stream = session.stream([r.path for r in test], batch_size=batch_size)
    scored = []
    for record, (path, result) in zip(test, track(stream, "score", len(test)), strict=True):
        if isinstance(result, InputError):
            raise result
        mask = None
        if with_masks and record.mask is not None:
            mask = read_mask(record.mask, result.map.shape)
        elif with_masks and record.label == 0:
            mask = np.zeros(result.map.shape, bool)
        kept = result.map if mask is not None else None
        name = path.relative_to(root).as_posix()
        scored.append(Scored(record, name, result.score, result.decision, kept, mask))
    return scored


def measured(session: Session, scored: Sequence[Scored]) -> dict[str, Any]:
    """`metrics.summary` of the scores, by groups and pixels where there are any."""
    calibration = session.scorer.spec.calibration
    groups = [s.record.group for s in scored]
    known = any(group is not None for group in groups)
    # Where a group has several pictures, the counts are not of independent images, and no interval is promised.
    repeated = len({g for g in groups if g is not None}) < sum(g is not None for g in groups)
    masked = any(s.mask is not None for s in scored)
    labels, scores = [s.record.label for s in scored], [s.score for s in scored]
    found = metrics.summary(
        labels,
        scores,
        groups=groups if known else None,
        threshold=None if calibration is None else calibration.threshold,
        target_specificity=None if calibration is None else calibration.target_specificity,
        n_calibration=None if calibration is None or repeated else calibration.n,
        maps=[s.map for s in scored] if masked else None,
        masks=[s.mask for s in scored] if masked else None,
    )
    if session.scorer.spec.group is not None and known:
        found["group_auroc"] = _group_auroc(session, scored)
    return found


def _group_auroc(session: Session, scored: Sequence[Scored]) -> float | None:
    """AUROC over groups (patients, lesions); a group is abnormal if one of its pictures is."""
    names = [s.name if s.record.group is None else f"group {s.record.group}" for s in scored]
    scores = session.scorer.group(np.asarray([s.score for s in scored]), names)
    labels = dict.fromkeys(scores, 0)
    for s, name in zip(scored, names, strict=True):
        labels[name] |= int(s.record.label or 0)
    if len(set(labels.values())) < 2:
        return None
    return metrics.auroc(list(labels.values()), list(scores.values()))


def _baselines(records: Sequence[Record], test: Sequence[Record]) -> dict[str, float | None]:
    """AUROC of what needs no training; a detector that does not beat these has learnt nothing."""
    train = [r for r in records if r.split in ("train", "validation", "calibration") and r.label == 0]
    labels = [r.label for r in test]
    if not train or len(set(labels)) < 2:
        return {}
    found: dict[str, float | None] = {}
    for name in floor.BASELINES:
        say(f"baseline {name}")
        scores = floor.score(name, (read_image(r.path) for r in train), (read_image(r.path) for r in test))
        found[name] = metrics.auroc(labels, scores)
    return found


def _rows(session: Session, scored: Sequence[Scored]) -> list[Row]:
    """Every picture for the plots; pixels and maps for those that the gallery shows, read and scored once more."""
    rows = [Row(s.name, s.record.label, s.score, s.decision) for s in scored]
    for i in {*pictured(rows), *chosen(rows)}:
        sample = read(scored[i].record)
        result = session.score(sample.pixels)
        image = eight_bit(sample.pixels)
        again = restored(session, sample.pixels)
        rows[i] = replace(rows[i], image=image, map=result.map, mask=sample.mask, restored=again)
    return rows


def _map_scale(session: Session, rows: Sequence[Row]) -> tuple[float, float]:
    """Colours begin at the usual value of a normal map; they end at what 95 % of normals never reach, or, where the
    maps on the page go far beyond, at the geometric mean of the two: strong anomalies then still show their inside."""
    low, high = session.map_scale
    top = scale_of([row.map for row in rows if row.map is not None])[1]
    return low, (high if top <= high else low + math.sqrt((high - low) * (top - low)))


def _table(scored: Sequence[Scored]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "label", "score", "decision"])
    for s in scored:
        decision = "" if s.decision is None else ("anomalous" if s.decision else "normal")
        table.writerow([s.name, s.record.label, repr(s.score), decision])
    return text.getvalue()


def _calibration(calibration: Calibration | None) -> dict[str, Any] | None:
    return None if calibration is None else vars(calibration)
