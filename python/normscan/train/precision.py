"""In which float a network trains: bfloat16 halves the time of a step where the hardware multiplies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """auto -> bfloat16 where the device multiplies it (AVX512-BF16, AMX, Arm's BF16, GPUs from sm_80), else float32.

    Weights, optimiser, statistics and scores are float32 in any case; bfloat16 asked for by name is taken anywhere,
    slow where it is emulated.
    """
    half = name == "bfloat16" or (name == "auto" and _multiplies_bfloat16(device))
    return torch.bfloat16 if half else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
