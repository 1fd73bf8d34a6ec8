"""Keeps triton out of a process in which it would crash."""

from __future__ import annotations

import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def avoid_llvm_clash(maps: Path = _MAPS) -> bool:
    """Make triton unavailable if another LLVM is loaded already.

    Mesa's OpenGL drivers, which napari's canvas may have loaded, bring an LLVM whose
    symbols are global. Triton (3.7) exports its own, binds to the foreign ones and crashes
    the process while it is imported [1]_; importing torchvision imports it. PhaseSAM does
    not use triton, and torch works without.

    Parameters
    ----------
    maps : Path, optional
        List of the files mapped into the process; only Linux has it.

    Returns
    -------
    bool
        Whether triton has been made unavailable.

    References
    ----------
    .. [1] The same clash, with TensorFlow's LLVM:
       https://github.com/tensorflow/tensorflow/issues/124205
    """
    if "triton" in sys.modules:
        return sys.modules["triton"] is None
    try:
        loaded = maps.read_text(errors="replace")
    except OSError:
        return False
    if "libLLVM" not in loaded:
        return False
    # What Python itself does for a module that must not be imported.
    sys.modules["triton"] = None  # type: ignore[assignment]
    return True
