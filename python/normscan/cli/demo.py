"""`normscan demo`: watch a detector being trained, calibrated, exported, verified and used, on pictures made here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from normscan.cli.common import Force, Json, Seed, emit
from normscan.cli.evaluate import describe
from normscan.cli.train import require_torch

HISTOLOGY = {"stain_ae": 20, "patch_cnn": 8}
"""Families and their epochs, of `--histology`."""
PATIENTS = {"patients": 32, "patches": 30, "annotated": 20}
"""Enough to choose thresholds on, and to see that it works."""


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    family: Annotated[str | None, typer.Option(help="The method to show; default: ocad.")] = None,
    histology: Annotated[
        bool, typer.Option("--histology", help="Stained biopsies of made-up patients instead.")
    ] = False,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make pictures (skin with planted lesions), learn the healthy, score the rest, and write a page to look at."""
    require_torch()
    from normscan.errors import UsageError

    if histology and family is not None:
        raise UsageError("--histology shows stain_ae and patch_cnn together; leave --family out")
    (_histology if histology else partial(_skin, family or "ocad"))(output, seed, force, as_json)


def _skin(family: str, output: Path, seed: int, force: bool, as_json: bool) -> None:
    from normscan.data.synthetic import write_demo
    from normscan.deploy.export import export
    from normscan.files import temporary_folder
    from normscan.progress import say
    from normscan.report.evaluate import evaluate
    from normscan.train.run import train

    with temporary_folder(output, force=force, ours=_is_demo) as folder:
        say("1/5 making pictures")
        write_demo(folder / "data", seed=seed)
        say(f"2/5 training {family} on normal pictures")
        train(family, folder / "data", folder / "run", preset="small", overrides={"seed": seed})
        say("3/5 exporting")
        bundle = export(folder / "run", folder / f"{family}.normscan")
        say("4/5 verifying")
        _verify(bundle.folder)
        say("5/5 scoring the test pictures from the bundle")
        found = evaluate(bundle.folder, folder / "data", folder / "evaluation", baselines=True)
        _lift(folder / "evaluation", folder)
    emit(found, describe(found, output), as_json=as_json)


def _histology(output: Path, seed: int, force: bool, as_json: bool) -> None:
    from normscan.cli import diagnose as verb
    from normscan.data.synthetic_histology import write_cohort
    from normscan.deploy.export import export
    from normscan.files import temporary_folder
    from normscan.progress import say
    from normscan.report.diagnose import diagnose
    from normscan.train.run import train

    with temporary_folder(output, force=force, ours=_is_demo) as folder:
        say(f"1/5 making the patches of {PATIENTS['patients']} patients")
        write_cohort(folder / "data", seed=seed, **PATIENTS)
        for number, (family, epochs) in enumerate(HISTOLOGY.items(), start=2):
            say(f"{number}/5 training {family}")
            run = train(family, folder / "data", folder / f"run-{family}", overrides={"seed": seed, "epochs": epochs})
            export(run.folder, folder / f"{family}.normscan")
        say("4/5 verifying")
        for family in HISTOLOGY:
            _verify(folder / f"{family}.normscan")
        say("5/5 diagnosing the patients that neither has seen")
        models = [folder / f"{family}.normscan" for family in HISTOLOGY]
        found = diagnose(models, folder / "data", folder / "diagnosis", seed=seed)
        _lift(folder / "diagnosis", folder)
    emit(found, verb.describe(found, output), as_json=as_json)


def _verify(bundle: Path) -> None:
    from normscan.deploy.verify import verify
    from normscan.progress import say

    for comparison in verify(bundle):
        say(comparison.explain())


def _lift(report: Path, folder: Path) -> None:
    """A demo's report is the demo: its files lie at the top."""
    for path in report.iterdir():
        path.rename(folder / path.name)
    report.rmdir()


def _is_demo(folder: Path) -> bool:
    """An earlier demo, and nothing beside it."""
    from normscan.report import diagnose, evaluate

    made = {"data", "run", *(f"run-{family}" for family in HISTOLOGY), *evaluate.FILES, *diagnose.FILES}
    return all(path.name in made or path.suffix == ".normscan" for path in folder.iterdir())
