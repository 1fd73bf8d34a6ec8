"""What the docks show about models, without ever importing torch on the GUI thread."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QApplication
from superqt.utils import QSignalThrottler

from phasesam.core.errors import PhaseSAMError
from phasesam.models.adapter_store import AdapterEntry, list_adapters
from phasesam.models.manager import ManagerStatus, get_manager
from phasesam.models.memory import format_bytes
from phasesam.models.registry import ModelSpec, list_models, where
from phasesam.napari_widgets.workers import GuiRelay

_REFRESH_MS = 200


def offered_models() -> list[ModelSpec]:
    """List the models for users to choose from; the generated one is for tests."""
    return [spec for spec in list_models() if where(spec) != "generated"]


def offered_adapters() -> dict[str, list[AdapterEntry]]:
    """List the adapters of the store by the name of their base; damaged ones under ``""``."""
    found: dict[str, list[AdapterEntry]] = {}
    for entry in list_adapters():
        found.setdefault("" if entry.card is None else entry.card.base, []).append(entry)
    return found


def choice_text(spec: ModelSpec, adapter: AdapterEntry | None = None) -> str:
    """Write a model for a combo box, with the size of a download that is still to come."""
    place = where(spec)
    title = spec.title if adapter is None else f"{spec.title} + {adapter.title}"
    if place != "to download":
        return f"{title} (missing)" if place == "missing" else title
    size = f" {format_bytes(spec.size_bytes)}" if spec.size_bytes else ""
    return f"{title}  ↓{size}"


def choice_tip(spec: ModelSpec, adapter: AdapterEntry | None = None) -> str:
    """Say what a model, or an adapter on it, is good for."""
    card = None if adapter is None else adapter.card
    if adapter is None or card is None:
        return spec.description or spec.title
    kind = {
        "promptable": "trained for prompts",
        "instance": "trained for prompts and automatic masks",
        "semantic": f"trained for the phases {', '.join(card.classes)}; prompts work as without it",
    }[card.task]
    return f"{spec.title} with the adapter {adapter.title}, {kind}"


def status_text(status: ManagerStatus) -> str:
    """Describe device and memory in a few lines for a tooltip."""
    device = "chosen with the first model" if status.device == "auto" else status.device
    precision = "" if status.precision == "auto" else f" ({status.precision})"
    models = "1 model" if status.n_models == 1 else f"{status.n_models} models"
    lines = [
        f"Device: {device}{precision}",
        f"In memory: {models}, {format_bytes(status.bytes)}",
    ]
    if status.device_total:
        lines.append(
            f"Device memory: {format_bytes(status.device_used or 0)} of "
            f"{format_bytes(status.device_total)} in use"
        )
    return "\n".join(lines)


def manager_text() -> str:
    """Describe the state of the model manager, or why there is none."""
    try:
        return status_text(get_manager().status())
    except PhaseSAMError as error:
        # A variable of the environment that makes no sense.
        return str(error)


class ManagerWatch(QObject):
    """Tells the GUI thread when the model manager has changed, at most five times a second.

    The manager's events fire in whatever thread loads, leases or frees a model.
    """

    changed = Signal()
    catalogue_changed = Signal()
    """Weights or adapters came or went: what can be chosen is different."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._relay = GuiRelay(self)
        self._throttler = QSignalThrottler(parent=self)
        self._throttler.setTimeout(_REFRESH_MS)
        self._throttler.triggered.connect(self.changed)
        self._relay.received.connect(self._on_received)
        try:
            get_manager().events.changed.connect(self._relay.send)
        except PhaseSAMError:
            return  # the first run tells the user

    def _on_received(self, _values: tuple[Any, ...]) -> None:
        self._throttler.throttle()


_watch: list[ManagerWatch] = []


def manager_watch() -> ManagerWatch:
    """Return the one watch of this process."""
    if not _watch:
        _watch.append(ManagerWatch(QApplication.instance()))
    return _watch[0]
