"""Memory of models: how much they hold, how it is given back, what to do when it runs out.

Importing this file does not import torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import DeviceMemoryError, InvalidSettingError

if TYPE_CHECKING:
    import torch
    from torch import nn

_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)

# What the allocators of CUDA, cuBLAS, cuDNN, MPS and of the CPU (Linux, Windows) say.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory"
    r"|_STATUS_ALLOC_FAILED|std::bad_alloc|failed to allocate memory",
    re.IGNORECASE,
)


def parse_bytes(text: str) -> int:
    """Read an amount of memory such as ``"4GB"``, ``"512 MiB"`` or ``"1000000"``.

    Parameters
    ----------
    text : str
        A number with an optional unit; kB, MB, GB, TB are powers of 1000,
        KiB, MiB, GiB, TiB powers of 1024.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    InvalidSettingError
        If it is anything else, or nothing at all.
    """
    match = _SIZE.fullmatch(text)
    size = 0
    if match:
        number, prefix, binary = match.groups()
        size = int(float(number) * (1024 if binary else 1000) ** _UNITS[prefix.lower()])
    if size < 1:
        raise InvalidSettingError(
            f"an amount of memory is a positive number such as '4GB' or '512MiB', got {text!r}"
        )
    return size


def format_bytes(size: float) -> str:
    """Write an amount of memory for people: ``format_bytes(40_000_000) == "40 MB"``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out and trying again with less makes sense.

    `DeviceMemoryError` is not one of them: it is raised when every remedy has been tried.
    """
    if isinstance(error, DeviceMemoryError):
        return False
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    torch = sys.modules.get("torch")
    known = getattr(torch, "OutOfMemoryError", None)
    if known is not None and isinstance(error, known):
        return True
    return _OUT_OF_MEMORY.search(str(error)) is not None


def _own_tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    """Yield every tensor of one module (not of its children) and the dict it lives in.

    Plain attributes count too: some encoders keep tables that are no buffers.
    """
    import torch

    for place in (module._parameters, module._buffers, module.__dict__):
        for name, value in list(place.items()):
            if isinstance(value, torch.Tensor):
                yield place, name, value


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def storages(module: nn.Module) -> dict[int, int]:
    """Return the storages behind all tensors of a module: identity to bytes, each once."""
    found = {}
    for part in module.modules():
        for _, _, tensor in _own_tensors(part):
            if tensor.device.type != "meta":
                found[_storage(tensor)] = tensor.untyped_storage().nbytes()
    return found


def module_bytes(module: nn.Module, shared: Collection[int] = ()) -> int:
    """Count the bytes of a module's weights, leaving out the storages in ``shared``."""
    return sum(size for key, size in storages(module).items() if key not in shared)


def release_module(module: nn.Module, shared: Collection[int] = ()) -> None:
    """Take the weights away from a module, so that their memory is free whoever holds it.

    Every tensor becomes a ``meta`` tensor (a shape without numbers): a use by mistake
    fails with an error instead of reading freed memory.

    Parameters
    ----------
    module : torch.nn.Module
        The model that goes.
    shared : collection of int
        Storages (see `storages`) that another model still needs; they stay.
    """
    import torch

    for part in module.modules():
        for place, name, tensor in _own_tensors(part):
            if tensor.device.type == "meta" or _storage(tensor) in shared:
                continue
            hollow = torch.empty_like(tensor, device="meta")
            if isinstance(tensor, torch.nn.Parameter):
                hollow = torch.nn.Parameter(hollow, requires_grad=tensor.requires_grad)
            place[name] = hollow


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's ``malloc_trim``; None where the C library has none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


def return_memory(device_types: Iterable[str] = (), collect: bool = True) -> None:
    """Give unused memory back to the device and to the operating system.

    Parameters
    ----------
    device_types : iterable of str
        Devices whose allocator caches are emptied: ``"cuda"``, ``"mps"``.
    collect : bool
        Look for tensors in reference cycles first, which takes tenths of a second in a
        large program.
    """
    if collect:
        gc.collect()
    torch = sys.modules.get("torch")
    for kind in set(device_types):
        if torch is not None and kind in ("cuda", "mps"):
            getattr(torch, kind).empty_cache()
    trim = _malloc_trim()
    if trim is not None:
        # Freed weights of less than 32 MB each stay in glibc's heap otherwise.
        trim(0)


@contextlib.contextmanager
def emptied_on_error(module: nn.Module, shared: Collection[int] = ()) -> Iterator[None]:
    """Take the weights of a half-built model away if the block fails."""
    try:
        yield
    except BaseException:
        release_module(module, shared)
        raise
