"""`normscan verify`: does the bundle still give torch's scores, here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normscan.cli.common import Device, Json, emit


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle (x.normscan).", show_default=False)],
    data: Annotated[
        Path | None, typer.Option("-i", "--input", help="Compare on these pictures too (needs --run and torch).")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder that the bundle was made from.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="An engine; may be given again. Default: all here.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Replay the golden inputs through every engine here; exit code 5 where a score or decision disagrees."""
    from normscan.deploy.verify import verify

    found = verify(bundle, engines=engine or None, data=data, run=run, device=device)
    emit([c.as_dict() for c in found], "\n".join(c.explain() for c in found), as_json=as_json)
