"""`normscan`: assembles the verbs, and turns every error into one line and an exit code.

0 ok, 1 failure, 2 usage, 3 bad input data, 4 partial (some inputs failed, listed), 5 parity failed, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import typer

from normscan.cli import (
    bench,
    compare,
    demo,
    diagnose,
    doctor,
    evaluate,
    export,
    generate,
    inspect,
    score,
    segment,
    train,
    verify,
)
from normscan.errors import Error

app = typer.Typer(
    name="normscan",
    help="Learn what healthy looks like, then score the rest. Research use only, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (train, score, evaluate, diagnose, compare, export, verify, bench, inspect, segment, doctor, demo):
    app.command(verb.__name__.rpartition(".")[2])(verb.command)
app.add_typer(generate.app, name="generate")


_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Typer's own class for a wrong command line; it has no public name."""


def main() -> None:
    """Run, and end with the documented exit code."""
    as_json = "--json" in sys.argv
    for name in ("SIGTERM", "SIGHUP"):  # end as Ctrl-C does: nothing half-written stays
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
    try:
        code = app(standalone_mode=False, prog_name="normscan")
        sys.stdout.flush()
    except Error as error:
        code = _tell(str(error), error.exit_code, as_json)
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        code = _tell(f"{message} (see normscan --help)", 2, as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = _tell("interrupted", 130, as_json)
    except BrokenPipeError:  # the reader of our stdout went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:  # what no layer below could name better
        code = _tell(
            f"{error.filename or 'a file'}: {error.strerror or error}; check the path, rights and space", 3, as_json
        )
    sys.exit(code or 0)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _tell(message: str, code: int, as_json: bool) -> int:
    sys.stderr.write(f"normscan: {message}\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}) + "\n")
    return code


if __name__ == "__main__":
    main()
