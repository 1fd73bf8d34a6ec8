"""Where products in bfloat16 are worth it."""

from __future__ import annotations

import time
from functools import lru_cache

import torch

_WORTH_IT = 1.5


def product_dtype(device: torch.device) -> torch.dtype:
    """Choose the precision of large products that tolerate rounding.

    Parameters
    ----------
    device : torch.device
        Where they will run.

    Returns
    -------
    torch.dtype
        ``bfloat16`` where the hardware multiplies it markedly faster, else ``float32``.
    """
    if device.type == "cuda":
        fast = card_has_bf16(device)
    elif device.type == "cpu":
        fast = _faster_on_cpu()
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def trains_in_bf16(device: torch.device) -> bool:
    """Whether a training is to multiply in bfloat16, by what the hardware is and not by a clock.

    So that a training which is resumed on the same machine goes on in the precision in which it
    began. A processor of Intel without AMX, which multiplies bfloat16 by AVX-512, takes half as
    long again as in float32.

    Parameters
    ----------
    device : torch.device
        Where it will run.

    Returns
    -------
    bool
        On GPUs that have it and on processors with AMX.
    """
    if device.type == "cuda":
        return card_has_bf16(device)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


def card_has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is in the hardware of a CUDA device; older ones emulate it, slowly."""
    return torch.cuda.get_device_capability(device)[0] >= 8


@lru_cache(maxsize=1)
def _faster_on_cpu() -> bool:
    """Measure once (some milliseconds): processors with and without the unit look alike."""
    return _product_seconds(torch.float32) > _WORTH_IT * _product_seconds(torch.bfloat16)


@torch.inference_mode()
def _product_seconds(dtype: torch.dtype) -> float:
    left = torch.ones(4096, 256, dtype=dtype)
    right = torch.ones(256, 256, dtype=dtype)
    target = torch.empty(4096, 256, dtype=dtype)
    torch.mm(left, right, out=target)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(left, right, out=target)
        best = min(best, time.perf_counter() - start)
    return best
