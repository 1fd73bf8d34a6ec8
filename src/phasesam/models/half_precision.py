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
        fast = torch.cuda.get_device_capability(device)[0] >= 8
    elif device.type == "cpu":
        fast = _faster_on_cpu()
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


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
