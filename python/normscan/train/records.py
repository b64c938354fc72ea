"""Which pictures a run learns from: the data folder's parts, generated pictures, and known abnormal ones."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from normscan.data.generated import generated_records
from normscan.data.histology import DENSITIES, is_histology, placed, read_histology, split_patients
from normscan.data.layouts import find_images, read_layout
from normscan.data.read import PathLike
from normscan.data.sample import Record
from normscan.data.splits import check_disjoint, split, split_abnormal
from normscan.errors import InputError, UsageError
from normscan.families.config import Config
from normscan.families.family import Family
from normscan.progress import say
from normscan.scoring.calibrate import needed

PARTS = ("train", "validation", "calibration")
ABNORMAL = "abnormal"
"""The origin of the pictures that `--abnormal` names."""
MOST_CALIBRATION = 0.4
"""The calibration share is raised so far, where that is what a threshold takes."""


def gather(
    card: Family, config: Config, root: Path, *, generated: PathLike | None = None, abnormal: PathLike | None = None
) -> list[Record]:
    """Every picture with its part; only a family that learns from labels trains on what is labelled abnormal.

    generated  a table of generated pictures, or its folder: they join the training part, except those made from a
               picture of another part, which would carry it into the training
    abnormal   known abnormal pictures for a stage that asks for them (`Schedule.abnormal`); nothing else sees them
    """
    records = _real(card, config, root)
    more = [] if generated is None else _generated(generated, records)
    if abnormal is not None:
        more += [Record(path, label=1, split="train", origin=ABNORMAL) for path in find_images(abnormal)]
    if more:
        records += more
        check_disjoint(records)
    return records


def changes_for(card: Family, abnormal: PathLike | None) -> dict[str, object]:
    """The config fields that known abnormal pictures set; a `UsageError` for a family that has no use for them."""
    if abnormal is None:
        return {}
    if card.abnormal is None:
        raise UsageError(f"--abnormal {abnormal}: {card.name} learns normals alone; leave the option out")
    return dict(card.abnormal)


def check_given(card: Family, config: Config, abnormal: PathLike | None) -> None:
    """Raise a `UsageError` where the config asks for abnormal pictures that were not given."""
    wanted = card.abnormal or {}
    if abnormal is None and wanted and all(getattr(config, name) == value for name, value in wanted.items()):
        fields = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise UsageError(f"{card.name} with {fields} needs abnormal pictures; name their folder with --abnormal")


def _real(card: Family, config: Config, root: Path) -> list[Record]:
    labels = card.supervision == "supervised"
    records = cohort_records(card, config, root) if is_histology(root) else read_layout(root)
    check_disjoint(records)
    if lacking := config.lacking(Counter(r.split for r in records if r.split is not None)):
        raise InputError(f"{root}: {lacking}")
    if not labels:
        dropped = [r for r in records if r.split == "train" and r.label != 0]
        if dropped:
            learnt = "normals" if card.supervision == "one_class" else "normals and unlabelled pictures"
            say(f"{len(dropped)} pictures in train that are not normal are left out: {card.name} learns {learnt}")
        records = [r for r in records if not (r.split == "train" and r.label != 0)]
    share = _calibration_share(config, sum(r.split == "train" and r.label == 0 for r in records))
    records = split(records, seed=config.seed, validation=config.validation, calibration=share)
    if labels:
        records = split_abnormal(records, seed=config.seed, validation=config.validation)
    else:
        records = [r for r in records if r.split != "validation" or r.label == 0]  # anomalies are planted, not given
    counts = Counter(r.split for r in records if r.label == 0 or r.split in ("train", "unlabelled"))
    if missing := [part for part in PARTS if not counts[part]]:
        raise InputError(f"{root}: no normal pictures for {', '.join(missing)}; add some, or change the shares")
    shown = (*PARTS, "unlabelled") if card.supervision == "unlabelled" else PARTS
    say("  ".join(f"{part} {counts[part]}" for part in shown))
    return records


def cohort_records(card: Family, config: Config, root: Path) -> list[Record]:
    """A cohort's pictures, its patients divided: `config.test` of them are kept for test, the others train.

    A family that learns from labels takes the annotated patches, any other the cropped ones; those of infected patients
    in the training part are unlabelled. The test part has both, as far as their label is known.
    """
    cohort = read_histology(root)
    for line in cohort.unmatched.lines():
        say(line)
    parts = split_patients(cohort.patients, seed=config.seed, shares={"test": config.test})
    cohort = placed(cohort, parts)
    for part, patients in parts.items():
        counts = Counter(cohort.patients[patient] for patient in patients)
        say(f"{part}: {len(patients)} patients, " + ", ".join(f"{counts[d]} {d}" for d in DENSITIES))
    learnt = cohort.annotated if card.supervision == "supervised" else cohort.cropped
    if not learnt:
        raise InputError(f"{root}: holds no annotated patches; {card.name} learns from them")
    test = [r for r in (*cohort.cropped, *cohort.annotated) if r.split == "test" and r.label is not None]
    kept = (r for r in learnt if r.split != "test")
    return [*(r if r.label is not None else replace(r, split="unlabelled") for r in kept), *test]


def _generated(table: PathLike, records: list[Record]) -> list[Record]:
    """The table's pictures, without those that were made from a picture outside the training part."""
    held_out = {os.path.realpath(r.path) for r in records if r.split not in ("train", "unlabelled")}
    found = generated_records(table)
    kept = [r for r in found if r.group is None or os.path.realpath(r.group) not in held_out]
    if not kept:
        raise InputError(f"{table}: each of its {len(found)} pictures was made from one outside the training part")
    if len(kept) < len(found):
        say(f"{len(found) - len(kept)} generated pictures are left out: made from pictures outside the training part")
    origins = Counter(r.origin for r in kept)
    say("  ".join(f"{origin} {count}" for origin, count in sorted(origins.items())))
    return kept


def _calibration_share(config: Config, count: int) -> float:
    """The configured share, or a larger one (said) where that is what the threshold takes and 40 % suffice."""
    wanted = needed(config.target_specificity) / max(count, 1)
    if not config.calibration < wanted <= MOST_CALIBRATION or config.validation + wanted >= 1:
        return config.calibration
    say(
        f"calibration takes {wanted:.1%} of the normals instead of {config.calibration:.1%}: a threshold of "
        f"specificity {config.target_specificity} needs {needed(config.target_specificity)}"
    )
    return wanted
