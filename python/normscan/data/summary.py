"""What a data folder holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from normscan.data.histology import DENSITIES, is_histology, read_histology
from normscan.data.layouts import read_layout
from normscan.data.read import read_image
from normscan.data.sample import Record
from normscan.data.splits import check_disjoint
from normscan.errors import InputError
from normscan.files import sha256
from normscan.progress import track

LABELS = {0: "normal", 1: "abnormal", None: "unlabelled"}
SHOWN = 20
"""At most so many sizes, duplicates and problems are listed."""


def summarise(root: Path) -> dict[str, Any]:
    """Counts by part and label, groups, sizes, duplicates by content, and every problem that training would meet.

    A cohort of biopsies (`data.histology`) has its folders for parts, and `patients` by density.
    """
    cohort = read_histology(root) if is_histology(root) else None
    records = cohort.records() if cohort else read_layout(root)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        part = record.path.relative_to(root).parts[0] if cohort else str(record.split)
        counts[part][LABELS[record.label]] += 1
    sizes: Counter[str] = Counter()
    same: dict[str, list[str]] = defaultdict(list)
    problems = cohort.unmatched.lines() if cohort else []
    with ThreadPoolExecutor(2) as pool:
        for record, (size, digest) in zip(
            records, track(pool.map(_look, records), "inspect", len(records)), strict=True
        ):
            if digest is None:
                problems.append(size)
                continue
            sizes[size] += 1
            same[digest].append(record.path.relative_to(root).as_posix())
    try:
        check_disjoint(records)
    except InputError as error:
        problems.append(str(error))
    densities = Counter(cohort.patients.values()) if cohort else None
    return {
        "folder": str(root),
        "images": len(records),
        "counts": {split: dict(labels) for split, labels in counts.items()},
        "groups": len({r.group for r in records if r.group is not None}),
        "patients": None if densities is None else {density: densities[density] for density in DENSITIES},
        "masks": sum(r.mask is not None for r in records),
        "sizes": dict(sizes.most_common(SHOWN)),
        "duplicates": [names for names in same.values() if len(names) > 1][:SHOWN],
        "problems": problems[:SHOWN],
    }


def _look(record: Record) -> tuple[str, str | None]:
    """(size and kind, hash), or (what is wrong, None)."""
    try:
        pixels = read_image(record.path)
        kind = "grey" if pixels.ndim == 2 else "colour"
        return f"{pixels.shape[1]}x{pixels.shape[0]} {kind} {pixels.dtype}", sha256(record.path)
    except InputError as error:
        return str(error), None
