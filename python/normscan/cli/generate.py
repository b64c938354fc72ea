"""`normscan generate NAME train|sample`: image generators that feed a family; every discovered one has both verbs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from normscan.cli.common import Device, Force, Json, Output, Seed, Threads, emit, parse_overrides
from normscan.cli.train import require_torch
from normscan.errors import UsageError
from normscan.generate import names

Changes = Annotated[list[str] | None, typer.Option("--set", help="Override one field: --set name=value. Repeatable.")]


def train(
    context: typer.Context,
    output: Output,
    data: Annotated[Path | None, typer.Option("-i", "--input", help="Picture or folder of OK pictures.")] = None,
    template: Annotated[Path | None, typer.Option(help="The one good template, a picture.")] = None,
    preset: Annotated[str, typer.Option(help="A named configuration: paper, small.")] = "small",
    changes: Changes = None,
    device: Device = "auto",
    threads: Threads = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train on OK pictures, on a template, or on both; look at OUTPUT/sheets, one contact sheet a scale or epoch."""
    require_torch()
    import torch

    from normscan.generate.train import train as run
    from normscan.train.run import resolve_device

    if threads:
        torch.set_num_threads(threads)
    name, overrides, place = _name(context), parse_overrides(changes or []), resolve_device(device)
    model = run(
        name,
        data,
        output,
        template=template,
        preset=preset,
        overrides=overrides,
        device=place,
        resume=resume,
        force=force,
    )
    text = f"{name} trained in {output}; next: normscan generate {name} sample {output} -o OUT"
    emit({"model": model.folder, **model.manifest}, text, as_json=as_json)


def sample(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="The folder that `train` wrote.", show_default=False)],
    output: Output,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many pictures.")] = 16,
    seed: Seed = 0,
    data: Annotated[Path | None, typer.Option("-i", "--input", help="What to start from, where not noise.")] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Height x width of the pictures.")] = None,
    start_scale: Annotated[int | None, typer.Option(min=0, help="First scale that noise changes.")] = None,
    changes: Changes = None,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw pictures: OUTPUT/images/*.png, and OUTPUT/generated.csv with origin, seed and parent of each."""
    require_torch()
    import torch

    from normscan.generate.model import Model
    from normscan.generate.sample import sample as run
    from normscan.train.run import resolve_device

    if threads:
        torch.set_num_threads(threads)
    given = {"input": data, "size": None if size is None else parse_size(size), "start_scale": start_scale}
    options = {key: value for key, value in given.items() if value is not None} | parse_overrides(changes or [])
    place, name = resolve_device(device), _name(context)
    if (found := Model.open(model).generator.name) != name:
        raise UsageError(f"{model} is a model of {found}: normscan generate {found} sample {model}")
    table = run(model, output, count=count, seed=seed, options=options, device=place, force=force)
    value: dict[str, Any] = {"table": table, "generator": name, "images": count, "seed": seed}
    emit(value, f"{count} pictures in {output}, listed in {table}", as_json=as_json)


def parse_size(text: str) -> tuple[int, int]:
    """ "96x128" -> (96, 128), height and width."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise UsageError(f"--size {text!r}: expected height x width in pixels, as in --size 96x128")
    return int(match[1]), int(match[2])


def _name(context: typer.Context) -> str:
    """The generator whose group the verb was called in."""
    parent = context.parent
    assert parent is not None
    assert parent.info_name is not None
    return parent.info_name


app = typer.Typer(help="Train an image generator, and sample from it.", no_args_is_help=True)
for each in names():
    group = typer.Typer(help=f"The generator {each}.", no_args_is_help=True)
    group.command("train")(train)
    group.command("sample")(sample)
    app.add_typer(group, name=each)
