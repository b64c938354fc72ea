"""The torch side of the ops: custom ops with fake kernels, backward and ONNX translation."""

from normscan.ops.autograd.onnx import translation_table

__all__ = ["translation_table"]
