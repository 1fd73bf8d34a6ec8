"""Live figures of the model manager and the event that they changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from psygnal import EmitLoopError, Signal, SignalGroup

from phasesam.models import devices
from phasesam.models.ledger import ResidentModel
from phasesam.models.memory import format_bytes

_LOG = logging.getLogger(__name__)


class ManagerEvents(SignalGroup):
    """Events of the model manager; they fire in whatever thread made the change."""

    changed = Signal(description="The models in memory, their use, the device or the budget.")

    def announce(self) -> None:
        """Emit `changed`. A listener that fails is logged; it must not stop a computation."""
        try:
            self.changed.emit()
        except EmitLoopError:
            _LOG.exception("a listener of the model manager failed")


@dataclass(frozen=True)
class ManagerStatus:
    """Live figures of the model manager.

    Attributes
    ----------
    device : str
        Device for the next model; ``"auto"`` (or what was asked for) until the first one
        is loaded, because looking for devices means importing torch.
    precision : str
        ``"float32"``, ``"bfloat16"`` or ``"float16"``; ``"auto"`` until then.
    n_models : int
        Models in memory, on all devices.
    bytes : int
        Bytes of their weights.
    budget_bytes : int or None
        Bytes that weights may fill on the device; None when not known yet.
    device_used, device_total : int or None
        See `phasesam.models.devices.device_memory`; None when not known yet.
    """

    device: str
    precision: str
    n_models: int
    bytes: int
    budget_bytes: int | None
    device_used: int | None
    device_total: int | None


def read_status(choice: devices.DeviceChoice, models: Sequence[ResidentModel]) -> ManagerStatus:
    """Read the figures now. Does not import torch."""
    settings, device = choice.settings, choice.known
    n_models, size = len(models), sum(model.bytes for model in models)
    if device is None:
        return ManagerStatus(
            settings.device, settings.precision, n_models, size, settings.budget, None, None
        )
    used, total = devices.device_memory(device)
    return ManagerStatus(
        str(device),
        str(choice.precision(device)).removeprefix("torch."),
        n_models,
        size,
        choice.budget(str(device)),
        used,
        total,
    )


def shortage_report(status: ManagerStatus, in_use: str, doing: str, shortage: str) -> str:
    """Write the message for a lack of memory that no remedy has cured.

    Parameters
    ----------
    status : ManagerStatus
        The figures at this moment.
    in_use : str
        Models in use, in words.
    doing : str
        What was computed.
    shortage : str
        What the allocator said.
    """
    return (
        f"{status.device} ran out of memory while {doing}, also after idle models had left: "
        f"{format_bytes(status.device_used or 0)} of {format_bytes(status.device_total or 0)} "
        f"in use, {format_bytes(status.bytes)} by models ({in_use}). The allocator said: "
        f"{shortage}. Close other programs, take a smaller model, or set "
        f"{devices.DEVICE_VARIABLE}=cpu"
    )
