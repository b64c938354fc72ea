"""`normscan demo`: watch a detector being trained, calibrated, exported, verified and used, on pictures made here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normscan.cli.common import Force, Json, Seed, emit
from normscan.cli.evaluate import describe
from normscan.cli.train import require_torch


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    family: Annotated[str, typer.Option(help="The method to show.")] = "ocad",
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make skin pictures with planted lesions, learn the healthy ones, score the rest, and write a page to look at."""
    require_torch()
    from normscan.data.synthetic import write_demo
    from normscan.deploy.export import export
    from normscan.deploy.verify import explain, verify
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
        for comparison in verify(bundle.folder):
            say(explain(comparison))
        say("5/5 scoring the test pictures from the bundle")
        found = evaluate(bundle.folder, folder / "data", folder / "evaluation", baselines=True)
        for name in ("index.html", "metrics.json", "overview.png", "scores.csv"):
            (folder / "evaluation" / name).rename(folder / name)
        (folder / "evaluation").rmdir()
    emit(found, describe(found, output), as_json=as_json)


def _is_demo(folder: Path) -> bool:
    """An earlier demo, and nothing beside it."""
    made = {"data", "run", "index.html", "metrics.json", "overview.png", "scores.csv"}
    return all(path.name in made or path.suffix == ".normscan" for path in folder.iterdir())
