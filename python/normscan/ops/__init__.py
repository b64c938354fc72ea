"""The operations that the package exists for, over the native kernels.

Each takes torch tensors (differentiable, exportable, compilable: `torch.library` custom ops) or numpy arrays (no torch
needed) and returns the same kind. Importing this package imports neither.
"""

from normscan.ops.attention import attention
from normscan.ops.distance import distance, distance_map
from normscan.ops.gaussian import gaussian, gaussian_mixture, gaussian_positions

__all__ = ["attention", "distance", "distance_map", "gaussian", "gaussian_mixture", "gaussian_positions"]
