"""The part of `normscan score` that is about whole slides: its options, and a row for each slide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normscan.cli.common import scores_row

if TYPE_CHECKING:
    from normscan.data.slides import Tiling
    from normscan.deploy.session import Session
    from normscan.deploy.slides import SlideScore

Mpp = Annotated[
    float | None,
    typer.Option("--tile-mpp", min=0.01, help="Of slides: microns per pixel of a tile; default 0.5 (20x)."),
]
Magnification = Annotated[
    float | None, typer.Option("--magnification", min=0.1, help="The same as a power; 10 is 1 um/px.")
]
LevelZero = Annotated[bool, typer.Option("--level-0", help="Take a slide's finest pixels as they are.")]
Overlap = Annotated[float, typer.Option("--overlap", min=0, max=0.9, help="Share of a tile's side that the next has.")]
Tissue = Annotated[float, typer.Option("--tissue", min=0, max=1, help="Least share of tissue in a tile; 0: all tiles.")]


def tiling(mpp: float | None, magnification: float | None, level_0: bool, overlap: float, tissue: float) -> Tiling:
    """What the options say."""
    from normscan.data.slides import Tiling
    from normscan.errors import UsageError

    if (mpp is not None) + (magnification is not None) + level_0 > 1:
        raise UsageError("--tile-mpp, --magnification and --level-0 each set the resolution of tiles; give one of them")
    if magnification is not None:
        mpp = 10 / magnification
    elif mpp is None and not level_0:
        mpp = 0.5
    return Tiling(mpp, overlap, tissue)


def sorted_out(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Pictures and slides. Slides need OpenSlide, and without it TIFFs can only be pictures."""
    from importlib.util import find_spec

    from normscan.data.slides import TIFF_SUFFIXES, is_slide, load_openslide
    from normscan.progress import say

    pictures: list[Path] = []
    slides: list[Path] = []
    for path in paths:
        (slides if is_slide(path) else pictures).append(path)
    if slides:
        load_openslide()
    elif find_spec("openslide") is None and any(path.suffix.lower() in TIFF_SUFFIXES for path in pictures):
        say("TIFFs are read as pictures; if any are slides: pip install 'normscan[wsi]'")
    return pictures, slides


def rows(
    session: Session, paths: list[Path], root: Path, tiling: Tiling, batch: int, folder: Path | None
) -> Iterator[dict[str, Any]]:
    """Score slides one by one; with a folder, write a picture and a table of tiles for each."""
    from normscan.deploy.slides import score_slide
    from normscan.errors import InputError
    from normscan.progress import say
    from normscan.report.slides import sentence, write_slide, write_tiles

    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            found = score_slide(session, path, tiling, batch_size=batch)
        except InputError as error:
            say(str(error))
            yield scores_row(name, error=str(error))
            continue
        say(f"{name}: {sentence(found)}")
        if folder is not None:
            write_tiles(folder / f"{name}.tiles.csv", found)
            write_slide(folder / f"{name}.png", found, session.spread)
        yield slide_row(name, found)


def slide_row(name: str, found: SlideScore) -> dict[str, Any]:
    """A slide's score, and its density as decision; the model's threshold is for pictures, which its tiles are."""
    return scores_row(name, found.score, found.density)
