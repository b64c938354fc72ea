"""`normscan verify`: does the bundle still give torch's scores, here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normscan.cli.common import Json, emit


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle (x.normscan).", show_default=False)],
    data: Annotated[
        Path | None, typer.Option("-i", "--input", help="Compare on these pictures too (needs --run and torch).")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder that the bundle was made from.")] = None,
    as_json: Json = False,
) -> None:
    """Replay the golden inputs through every engine here; exit code 5 where a score or decision disagrees."""
    from normscan.deploy.verify import as_dict, explain, verify

    found = verify(bundle, data=data, run=run)
    emit([as_dict(c) for c in found], "\n".join(explain(c) for c in found), as_json=as_json)
