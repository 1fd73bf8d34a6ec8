"""Which device computes, in which precision, and how much memory it has.

Importing this file does not import torch; the functions that need it say so.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

from phasesam.core.errors import InvalidSettingError
from phasesam.models.memory import parse_bytes

if TYPE_CHECKING:
    import torch

DEVICE_VARIABLE = "PHASESAM_DEVICE"
PRECISION_VARIABLE = "PHASESAM_PRECISION"
BUDGET_VARIABLE = "PHASESAM_MEMORY_BUDGET"

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_PRECISIONS = {
    "auto": "auto",
    "fp32": "float32",
    "float32": "float32",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
}

# Shares of a device's memory that idle and leased weights may fill; the rest is for
# activations, the image itself and, on unified memory, everything else that runs.
_BUDGET_SHARE = {"cuda": 0.7, "mps": 0.5, "cpu": 0.5}


class DeviceMemory(NamedTuple):
    """Live figures of a device in bytes."""

    used: int
    total: int


def check_device(choice: str) -> str:
    """Check the name of a device without asking whether this machine has it.

    Parameters
    ----------
    choice : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ... or ``"mps"``.

    Raises
    ------
    InvalidSettingError
        If it is none of these.
    """
    name = choice.strip().lower()
    if not _DEVICE.fullmatch(name):
        raise InvalidSettingError(
            f"a device is one of auto, cpu, cuda, cuda:0, cuda:1 ... or mps, got {choice!r}"
        )
    return name


def check_precision(choice: str) -> str:
    """Check the name of a precision.

    Parameters
    ----------
    choice : str
        ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"`` (torch's long names too).

    Returns
    -------
    str
        ``"auto"`` or the name of the torch dtype.

    Raises
    ------
    InvalidSettingError
        If it is none of these.
    """
    try:
        return _PRECISIONS[choice.strip().lower()]
    except KeyError:
        raise InvalidSettingError(
            f"a precision is one of auto, fp32, bf16 or fp16, got {choice!r}"
        ) from None


class Settings(NamedTuple):
    """What was asked for, by argument or environment; not yet what the machine has."""

    device: str
    precision: str
    budget: int | None


def read_settings(
    device: str | None = None,
    precision: str | None = None,
    budget: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Take each setting from its argument, else from the environment, else choose freely.

    Parameters
    ----------
    device, precision : str, optional
        See `check_device` and `check_precision`.
    budget : int, optional
        Bytes that models may fill.
    environment : mapping, optional
        ``os.environ`` when left out; read are ``PHASESAM_DEVICE``,
        ``PHASESAM_PRECISION`` and ``PHASESAM_MEMORY_BUDGET``.

    Raises
    ------
    InvalidSettingError
        If one of them makes no sense; the message names the variable it came from.
    """
    source = os.environ if environment is None else environment

    def setting(value: str | None, variable: str) -> str:
        return value if value is not None else source.get(variable, "").strip() or "auto"

    try:
        chosen = check_device(setting(device, DEVICE_VARIABLE))
        kind = check_precision(setting(precision, PRECISION_VARIABLE))
        limit = check_budget(budget)
        if limit is None and source.get(BUDGET_VARIABLE, "").strip():
            limit = parse_bytes(source[BUDGET_VARIABLE])
    except InvalidSettingError as error:
        raise InvalidSettingError(
            f"{error} (from an argument or from the environment: "
            f"{DEVICE_VARIABLE}, {PRECISION_VARIABLE}, {BUDGET_VARIABLE})"
        ) from error
    return Settings(chosen, kind, limit)


def check_budget(budget: int | None) -> int | None:
    """Check a budget in bytes; None means "a share of what the device has".

    Raises
    ------
    InvalidSettingError
        If it is no number of at least one byte; text such as ``"4GB"`` is for
        ``PHASESAM_MEMORY_BUDGET`` and `phasesam.models.memory.parse_bytes`.
    """
    if budget is None:
        return None
    is_number = isinstance(budget, Real) and not isinstance(budget, bool)
    if not is_number or not math.isfinite(budget) or budget < 1:
        raise InvalidSettingError(
            "a memory budget is a number of bytes such as 4_000_000_000, at least 1 byte, "
            f"got {budget!r}"
        )
    return int(budget)


def available_devices() -> tuple[str, ...]:
    """List the devices of this machine, the fastest first. Imports torch."""
    import torch

    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return (*names, "cpu")


def asked_choice(choice: str = "auto") -> str:
    """Return a choice, or the one of ``PHASESAM_DEVICE`` where it is ``"auto"``.

    Raises
    ------
    InvalidSettingError
        As `read_settings`.
    """
    return read_settings(None if check_device(choice) == "auto" else choice).device


def asked_device(choice: str = "auto") -> torch.device:
    """Find the device of `asked_choice`. Imports torch.

    Raises
    ------
    InvalidSettingError
        As `read_settings` and `resolve_device`.
    """
    return resolve_device(asked_choice(choice))


def resolve_device(choice: str = "auto") -> torch.device:
    """Turn a choice into a device that this machine has. Imports torch.

    Parameters
    ----------
    choice : str
        See `check_device`; ``"auto"`` prefers CUDA, then MPS, then the CPU.

    Raises
    ------
    InvalidSettingError
        If the machine has no such device.
    """
    import torch

    name = check_device(choice)
    available = available_devices()
    if name == "auto":
        name = available[0]
    if name == "cuda" and "cuda:0" in available:
        name = f"cuda:{torch.cuda.current_device()}"
    if name not in available:
        raise InvalidSettingError(
            f"expected one of this machine's devices ({', '.join(available)}), got {choice!r}"
        )
    return torch.device(name)


def resolve_precision(device: torch.device, choice: str = "auto") -> torch.dtype:
    """Choose the number format for computing on a device. Imports torch.

    Parameters
    ----------
    device : torch.device
        Where the model is.
    choice : str
        See `check_precision`; ``"auto"`` is bf16 on CUDA devices that have it in
        hardware and fp32 everywhere else.
    """
    import torch

    from phasesam.models.half_precision import card_has_bf16

    name = check_precision(choice)
    if name == "auto":
        fast = device.type == "cuda" and card_has_bf16(device)
        name = "bfloat16" if fast else "float32"
    precision: torch.dtype = getattr(torch, name)
    return precision


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return a block in which torch computes in ``precision``; weights stay fp32."""
    import torch

    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=precision)


def device_memory(device: torch.device) -> DeviceMemory:
    """Read a device's memory now.

    Returns
    -------
    DeviceMemory
        CUDA: bytes in use by all programs, and the device's size. MPS: bytes held by this
        process, and what the system recommends at most. CPU: resident bytes of this
        process, and the RAM that it may have.
    """
    import psutil
    import torch

    from phasesam.models.free_memory import total_memory

    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(total - free, total)
    if device.type == "mps":
        return DeviceMemory(torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory())
    return DeviceMemory(psutil.Process().memory_info().rss, total_memory())


def default_budget(device: torch.device) -> int:
    """Return the bytes that models may fill when nobody said otherwise."""
    return int(device_memory(device).total * _BUDGET_SHARE.get(device.type, 0.5))


class DeviceChoice:
    """The device, precision and budget in force: what was asked for, resolved when needed.

    Until `device` is first read nothing imports torch.

    Parameters
    ----------
    settings : Settings
        What was asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._device: torch.device | None = None
        self._shares: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def settings(self) -> Settings:
        """What was asked for."""
        return self._settings

    @property
    def known(self) -> torch.device | None:
        """The device, if it has been resolved by now."""
        return self._device

    @property
    def device(self) -> torch.device:
        """The device; looks for it first if need be. Imports torch."""
        while True:
            settings, device = self._settings, self._device
            if device is not None:
                return device
            self._take(resolve_device(settings.device), settings.device)

    def _take(self, device: torch.device, choice: str) -> None:
        share = default_budget(device)
        with self._lock:
            if self._settings.device == choice:
                self._shares[str(device)] = share
                self._device = device

    def choose_device(self, choice: str) -> None:
        """Choose another device; checked against the machine once torch is in use.

        Raises
        ------
        InvalidSettingError
            If there is no such device; the old one stays.
        """
        name = check_device(choice)
        resolved = None if self._device is None else resolve_device(name)
        with self._lock:
            self._settings = self._settings._replace(device=name)
            self._device = None
        if resolved is not None:
            self._take(resolved, name)

    def choose_precision(self, choice: str) -> None:
        """Choose another precision, see `check_precision`."""
        name = check_precision(choice)
        with self._lock:
            self._settings = self._settings._replace(precision=name)

    def choose_budget(self, budget: int | None) -> None:
        """Choose another budget in bytes; None is a share of the device's memory."""
        limit = check_budget(budget)
        with self._lock:
            self._settings = self._settings._replace(budget=limit)

    def precision(self, device: torch.device) -> torch.dtype:
        """Return the number format to compute in on a device. Imports torch."""
        return resolve_precision(device, self._settings.precision)

    def budget(self, device: str) -> int | None:
        """Return the bytes that models may fill on a device; None when not known yet."""
        limit = self._settings.budget
        return self._shares.get(device) if limit is None else limit
