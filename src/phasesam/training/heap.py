"""Keep memory that is freed, instead of giving it back to the operating system each time."""

from __future__ import annotations

import ctypes
import sys

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks in this process.

    By default it maps every block above 32 MiB anew and unmaps it when freed, so that each
    tensor of a training step is filled by the operating system page by page: ten times slower
    than the computation itself on some machines. The process keeps the largest amount of memory
    it ever needed.

    Returns
    -------
    bool
        False where the C library is another one; nothing is changed there.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
