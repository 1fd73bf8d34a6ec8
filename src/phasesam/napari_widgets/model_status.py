"""What the docks show about models, without ever importing torch on the GUI thread."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QApplication
from superqt.utils import QSignalThrottler

from phasesam.napari_widgets.workers import GuiRelay

if TYPE_CHECKING:
    from phasesam.models.manager import ManagerStatus, ModelManager

_MANAGER = "phasesam.models.manager"


def running_manager() -> ModelManager | None:
    """Return the model manager, if some worker has already loaded it (and torch with it)."""
    module = sys.modules.get(_MANAGER)
    # While a worker is still importing the module, the function is not there yet.
    get_manager = getattr(module, "get_manager", None)
    if get_manager is None or getattr(module.__spec__, "_initializing", False):
        return None
    manager: ModelManager = get_manager()
    return manager


def load_manager() -> ModelManager:
    """Return the model manager; imports torch, so for workers only."""
    from phasesam.models.manager import get_manager

    return get_manager()


def size_text(size: float) -> str:
    """Write a number of bytes for people, such as ``"40.7 MB"``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"


def status_text(status: ManagerStatus | None) -> str:
    """Describe device and memory in one or two lines for a tooltip."""
    if status is None:
        return "No model in memory yet."
    lines = [f"Device: {status.device} ({str(status.precision).removeprefix('torch.')})"]
    models = "1 model" if status.n_models == 1 else f"{status.n_models} models"
    lines.append(f"In memory: {models}, {size_text(status.bytes)}")
    if status.device_total:
        lines.append(
            f"Device memory: {size_text(status.device_used or 0)} of "
            f"{size_text(status.device_total)} in use"
        )
    return "\n".join(lines)


class ManagerWatch(QObject):
    """Tells the GUI thread when the model manager has changed, at most five times a second.

    The manager's events fire in whatever thread loads or frees a model. Call `look` after
    any background work: the first call that finds a manager connects to it.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._manager: ModelManager | None = None
        self._relay = GuiRelay(self)
        self._throttler = QSignalThrottler(parent=self)
        self._throttler.setTimeout(200)
        self._throttler.triggered.connect(self.changed)
        self._relay.received.connect(self._on_received)

    def _on_received(self, _values: tuple[Any, ...]) -> None:
        self._throttler.throttle()

    def look(self) -> None:
        """Connect to the manager if there is one by now."""
        manager = running_manager()
        if manager is self._manager or manager is None:
            return
        if self._manager is not None:
            self._manager.events.changed.disconnect(self._relay)
        self._manager = manager
        manager.events.changed.connect(self._relay)
        self.changed.emit()

    def status(self) -> ManagerStatus | None:
        """Live figures, or None before any model was needed."""
        manager = running_manager()
        return None if manager is None else manager.status()


_watch: list[ManagerWatch] = []


def manager_watch() -> ManagerWatch:
    """Return the one watch of this process."""
    if not _watch:
        _watch.append(ManagerWatch(QApplication.instance()))
    return _watch[0]
