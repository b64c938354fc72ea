"""Diagnose a made cohort of patients, as stained as in training and as another laboratory would: figures per patient.

The cohort is that of `EVALUATION_SEED`, on which no method was tuned. Each family is trained with and without stain
jitter on half of the patients; the others are diagnosed by thresholds that other folds chose, by each family alone and
by both, first with the staining of the training, then (the same tissue) with that of another laboratory.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import records

from normscan.cli.diagnose import describe
from normscan.data.histology import HistologyLayout, read_histology
from normscan.data.synthetic_histology import EVALUATION_SEED, write_cohort
from normscan.deploy.export import export
from normscan.report.diagnose import diagnose
from normscan.train.folder import Run
from normscan.train.run import train

FAMILIES = ("stain_ae", "patch_cnn")
FIGURES = (
    "patients",
    "infected",
    "auroc",
    "auroc_ci",
    "sensitivity",
    "sensitivity_ci",
    "specificity",
    "specificity_ci",
)


def main() -> None:
    """Make, train, diagnose, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/cohort"))
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of the cohort; others are for tuning")
    parser.add_argument("--patients", type=int, default=60)
    options = parser.parse_args()
    out: Path = options.output
    cohorts = {name: made(out / name, options.seed, options.patients, shift) for name, shift in STAININGS.items()}
    rows, kept = [], {}
    for jitter in (True, False):
        for family in FAMILIES:
            kept[family, jitter] = bundle(family, cohorts["same"], out / f"{family}-{jitter}", jitter)
    only(cohorts["shifted"], held_out(out / f"{FAMILIES[0]}-True"))
    for jitter in (True, False):
        for methods in ((FAMILIES[0],), (FAMILIES[1],), FAMILIES):
            for staining, cohort in cohorts.items():
                models = [kept[family, jitter][0] for family in methods]
                report = out / f"{'-'.join(methods)}-{jitter}-{staining}"
                found = diagnose(models, cohort, report, force=True)
                rows.append(
                    {
                        "methods": list(methods),
                        "stain_jitter": jitter,
                        "staining": staining,
                        "seed": options.seed,
                        **{name: found[name] for name in FIGURES},
                        "confusion": found["confusion"],
                        "patches": {name: its["auroc"] for name, its in found["patches"].items()},
                        "train_seconds": {family: kept[family, jitter][1] for family in methods},
                    }
                )
                print(f"\n{' and '.join(methods)}, stain jitter {jitter}, staining {staining}")
                print(describe(found, report), flush=True)
    others = [r for r in records.stored().get("cohort", []) if r["seed"] != options.seed]
    records.store(cohort=[*others, *rows])


STAININGS = {"same": 0.0, "shifted": 1.0}


def made(folder: Path, seed: int, patients: int, shift: float) -> Path:
    """A cohort on disk, made once."""
    if not folder.exists():
        write_cohort(folder, seed=seed, patients=patients, stain_shift=shift)
    return folder


def bundle(family: str, cohort: Path, folder: Path, jitter: bool) -> tuple[Path, float]:
    """(a verified bundle of the preset `small`, the seconds that its training took)."""
    started = time.monotonic()
    run = train(family, cohort, folder, overrides={} if jitter else {"stain_jitter": 0.0}, force=True)
    seconds = round(time.monotonic() - started, 1)
    return export(run.folder, folder / f"{family}.normscan", force=True).folder, seconds


def held_out(run: Path) -> set[str]:
    """Patients of whom the run has seen no picture."""
    opened = Run.open(run)
    with (run / "splits.csv").open(encoding="utf-8") as file:
        files = {opened.data() / row["file"] for row in csv.DictReader(file) if row["split"] == "test"}
    return {str(r.group) for r in read_histology(opened.data()).records() if r.path in files}


def only(cohort: Path, patients: set[str]) -> None:
    """Leave these patients' rows in the tables: folders without a diagnosis are in no list."""
    layout = HistologyLayout()
    for name, column in ((layout.diagnoses, layout.patient), (layout.patches, layout.patch_patient)):
        with (cohort / name).open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = [row for row in csv.DictReader(file) if row[column] in patients]
        with (cohort / name).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
