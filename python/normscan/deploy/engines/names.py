"""What every engine that opens a `model.onnx` checks of it."""

from __future__ import annotations

from collections.abc import Sequence

from normscan.deploy.bundle import Bundle
from normscan.errors import BundleError


def check_names(bundle: Bundle, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise a `BundleError` where the model's inputs and outputs are not those that the manifest names."""
    if list(inputs) != ["x"] or sorted(outputs) != sorted(bundle.manifest["outputs"]):
        raise BundleError(
            f"{bundle.folder / 'model.onnx'} has inputs {list(inputs)} and outputs {list(outputs)}, expected ['x'] and "
            f"{bundle.manifest['outputs']}; export the bundle again"
        )
