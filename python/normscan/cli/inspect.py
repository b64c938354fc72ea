"""`normscan inspect`: what a data folder or a bundle holds, before anyone trains or scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normscan.cli.common import Json, emit

if TYPE_CHECKING:
    from normscan.deploy.bundle import Bundle


def command(
    target: Annotated[Path, typer.Argument(help="A data folder or a bundle.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Counts by part, label and group, sizes, duplicates and unreadable files; or a bundle's spec and calibration."""
    from normscan.deploy.bundle import Bundle, is_bundle

    if is_bundle(target):
        bundle = Bundle.open(target)
        emit(bundle.manifest, _bundle_text(bundle), as_json=as_json)
        return
    from normscan.data.summary import summarise

    found = summarise(target)
    emit(found, _data_text(found), as_json=as_json)


def _bundle_text(bundle: Bundle) -> str:
    manifest, spec = bundle.manifest, bundle.spec
    size = spec.input
    lines = [
        f"{manifest['family']} bundle, normscan {manifest['normscan']}: {manifest['paper']}",
        f"input {size.channels}x{size.height}x{size.width}, resize {size.resize}",
        *(f"term {t.op}({', '.join(t.of)}) {t.kind} weight {t.weight:g} scale {t.scale}" for t in spec.terms),
        f"calibration: {'none, scores carry no decision' if spec.calibration is None else vars(spec.calibration)}",
        f"trained on {manifest['training']['counts']}",
        *(f"{name}: {len(data)} bytes, hash verified" for name, data in bundle.files.items()),
        manifest["notice"],
    ]
    return "\n".join(lines)


def _data_text(found: dict[str, Any]) -> str:
    lines = [f"{found['images']} pictures in {found['folder']}"]
    for split, labels in found["counts"].items():
        lines.append(f"  {split:<12}" + "  ".join(f"{label} {count}" for label, count in labels.items()))
    lines.append(f"  groups      {found['groups'] or 'not known (add groups.csv: file,group)'}")
    if found["patients"]:
        lines.append("  patients    " + "  ".join(f"{density} {count}" for density, count in found["patients"].items()))
    lines.append(f"  masks       {found['masks']}")
    lines += [f"  size        {size}: {count}" for size, count in found["sizes"].items()]
    lines += [f"  duplicate   {' = '.join(names)}" for names in found["duplicates"]]
    lines += [f"  problem     {problem}" for problem in found["problems"]]
    return "\n".join(lines)
