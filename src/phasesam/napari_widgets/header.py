"""The first line of every dock: image, model, status dot."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QSizePolicy, QWidget

from phasesam.napari_widgets.model_status import (
    choice_text,
    choice_tip,
    manager_text,
    manager_watch,
    offered_adapters,
    offered_models,
)
from phasesam.napari_widgets.subscriptions import Subscriptions

if TYPE_CHECKING:
    from phasesam.napari_widgets.viewer_state import ViewerState

_ADAPTER = Qt.ItemDataRole.UserRole + 1
_MODEL_TIP = "Model that segments. See the Models dock for details."


class Status(Enum):
    """What a dock is doing; the value is the dot's colour (Okabe-Ito) and its meaning."""

    IDLE = ("#009e73", "Ready")
    WORKING = ("#56b4e9", "Working")
    DOWNLOADING = ("#e69f00", "Waiting for a download")
    ERROR = ("#d55e00", "The last run failed")


class StatusDot(QWidget):
    """A small coloured disc; the tooltip says state, device and memory."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.status = Status.IDLE
        self.setFixedSize(QSize(14, 14))
        manager_watch().changed.connect(self.refresh)
        self.refresh()

    def set_status(self, status: Status) -> None:
        """Show another state."""
        self.status = status
        self.refresh()

    def refresh(self) -> None:
        """Write the tooltip anew and repaint."""
        self.setToolTip(f"{self.status.value[1]}\n{manager_text()}")
        self.setAccessibleName(self.status.value[1])
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the disc."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self.status.value[0]))
        painter.drawEllipse(self.rect().adjusted(2, 2, -2, -2))
        painter.end()


def narrow_combo(tooltip: str) -> QComboBox:
    """Make a combo box that shrinks with the dock instead of widening it."""
    combo = QComboBox()
    combo.setToolTip(tooltip)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(7)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


class Header(QWidget):
    """Image combo, model combo and status dot, in step with the state of the viewer.

    Parameters
    ----------
    state : ViewerState
        Where image and model are chosen, for all docks of the viewer.
    """

    def __init__(self, state: ViewerState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self.image_combo = narrow_combo("Image that the docks work on")
        self.model_combo = narrow_combo(_MODEL_TIP)
        self.dot = StatusDot()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.image_combo, 3)
        layout.addWidget(self.model_combo, 2)
        layout.addWidget(self.dot)
        self.image_combo.activated.connect(self._on_image_chosen)
        self.model_combo.activated.connect(self._on_model_chosen)

        events = state.viewer.layers.events
        self._subscriptions = Subscriptions(self)
        for emitter in (events.inserted, events.removed, events.reordered, events.renamed):
            self._subscriptions.connect(emitter, self._refresh_images)
        self._subscriptions.connect(state.events.image_changed, self._refresh_images)
        self._subscriptions.connect(state.events.model_changed, self._refresh_models)
        manager_watch().catalogue_changed.connect(self._refresh_models)
        self._refresh_images()
        self._refresh_models()

    def _refresh_images(self, _event: Any = None) -> None:
        blocker = QSignalBlocker(self.image_combo)
        self.image_combo.clear()
        images = self._state.images()
        for layer in images:
            self.image_combo.addItem(layer.name)
        current = self._state.image_layer
        if not images:
            self.image_combo.addItem("Open an image first")
        elif current in images:
            self.image_combo.setCurrentIndex(images.index(current))
        self.image_combo.setEnabled(bool(images))
        blocker.unblock()

    def _on_image_chosen(self, index: int) -> None:
        images = self._state.images()
        if 0 <= index < len(images):
            self._state.image_layer = images[index]

    def _refresh_models(self, _name: str = "") -> None:
        blocker = QSignalBlocker(self.model_combo)
        self.model_combo.clear()
        adapters = offered_adapters()
        choices: list[tuple[str, str | None]] = []
        for spec in offered_models():
            for adapter in (None, *adapters.get(spec.name, [])):
                choices.append((spec.name, None if adapter is None else adapter.name))
                self._add_model(choice_text(spec, adapter), choices[-1], choice_tip(spec, adapter))
        current = (self._state.model_name, self._state.adapter)
        if current not in choices:
            name, adapter_name = current
            text = f"{name} + {Path(adapter_name).stem}" if adapter_name else name
            self._add_model(text, current, adapter_name or name)
            choices.append(current)
        self.model_combo.setCurrentIndex(choices.index(current))
        # The names of adapters are longer than a narrow dock is wide.
        self.model_combo.setToolTip(f"{self.model_combo.currentText()}\n{_MODEL_TIP}")
        blocker.unblock()

    def _add_model(self, text: str, choice: tuple[str, str | None], tip: str) -> None:
        self.model_combo.addItem(text, choice[0])
        index = self.model_combo.count() - 1
        self.model_combo.setItemData(index, choice[1], _ADAPTER)
        self.model_combo.setItemData(index, tip, Qt.ItemDataRole.ToolTipRole)

    def _on_model_chosen(self, index: int) -> None:
        adapter = self.model_combo.itemData(index, _ADAPTER)
        self._state.choose_model(self.model_combo.itemData(index), adapter)
