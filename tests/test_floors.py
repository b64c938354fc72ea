"""Imports go down only, and the top of the package stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "normscan"
# Highest first; a module may import from floors below, and to the right within its own.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["report", "deploy", "train"],
    ["families", "generate"],
    ["nn"],
    ["ops", "scoring", "data"],
    ["checkpoint", "config", "progress", "files", "packages", "threads"],
    ["_native"],
    ["errors"],
]
RANK = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 30
    return found


def imports(path: Path) -> list[tuple[str, int]]:
    """Every `normscan.<part>` that a module imports, wherever in the file, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "normscan":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found += [(name, node.lineno) for name in names if name in RANK]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found += [(n[1], node.lineno) for n in names if n[0] == "normscan" and len(n) > 1 and n[1] in RANK]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    for name, line in imports(path):
        assert RANK[name] >= RANK[part], f"{path.relative_to(ROOT)}:{line}: {part} imports {name}, which lies above it"


def test_every_part_has_a_floor() -> None:
    parts = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in modules()} - {"__init__"}
    assert parts <= set(RANK)


def test_native_core_knows_no_python() -> None:
    for folder in ("core", "ops", "include"):
        for path in (ROOT / "csrc" / folder).rglob("*.?pp"):
            text = path.read_text("utf-8")
            assert "Python.h" not in text, path
            assert "pybind11" not in text, path


def test_native_includes_go_down_only() -> None:
    floors = {"include": 0, "ops": 1, "engines": 1, "core": 2, "bindings": 3, "capi": 3, "examples": 3}
    root = ROOT / "csrc"
    assert {path.name for path in root.iterdir() if path.is_dir()} == set(floors)
    for path in (p for p in root.rglob("*") if p.is_file() and p.suffix != ".md"):
        part = path.relative_to(root).parts[0]
        for below in re.findall(r'#include "(\w+)/', path.read_text("utf-8")):
            known = below if below in floors else "include"
            assert known == part or floors[known] < floors[part], f"{path.relative_to(ROOT)}: {part} includes {below}"


@pytest.mark.parametrize(
    "statement", ["import normscan", "import normscan.cli.__main__", "import normscan.deploy.session"]
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    heavy = {"torch", "cv2", "onnxruntime", "onnx", "matplotlib", "scipy", "openslide"}
    code = f"{statement}\nimport sys\nprint(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
