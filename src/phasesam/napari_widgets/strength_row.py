"""A slider for how much of an adapter acts."""

from __future__ import annotations

from typing import NamedTuple

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSlider, QWidget

_STEPS = 100
_PAUSE_MS = 150


class AdapterOnModel(NamedTuple):
    """An adapter and the model it is put on, by name."""

    model: str
    adapter: str


class StrengthRow(QWidget):
    """Label, slider from 0 to 1 and the value."""

    changed = Signal(object, float)
    """The slider has come to rest, by hand or by key: the `AdapterOnModel`, and 0–1."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._subject: AdapterOnModel | None = None
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _STEPS)
        self.slider.setPageStep(10)
        self.value_text = QLabel()
        self.value_text.setMinimumWidth(self.fontMetrics().horizontalAdvance("0.00 "))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("Strength"))
        layout.addWidget(self.slider, 1)
        layout.addWidget(self.value_text)
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(self._tell)
        self.slider.valueChanged.connect(self._on_moved)
        self.clear()

    @property
    def value(self) -> float:
        """What is chosen, 0–1."""
        return self.slider.value() / _STEPS

    def show_strength(self, subject: AdapterOnModel, strength: float) -> None:
        """Show the strength of an adapter, unless the user is just changing it."""
        if subject == self._subject and (self._pause.isActive() or self.slider.isSliderDown()):
            return
        self._settle()
        self._subject = subject
        self._set(strength)
        self.setEnabled(True)
        self.setToolTip(
            "How much of the adapter acts: at 0 the model answers as without it, at 1 as\n"
            "trained. The image is encoded anew when it is next needed."
        )

    def clear(self) -> None:
        """Show that no adapter is chosen."""
        self._settle()
        self._subject = None
        self._set(1.0)
        self.setEnabled(False)
        self.setToolTip("Choose an adapter in the table first.")

    def _set(self, strength: float) -> None:
        blocker = QSignalBlocker(self.slider)
        self.slider.setValue(round(strength * _STEPS))
        blocker.unblock()
        self.value_text.setText(f"{self.value:.2f}")

    def _on_moved(self, _value: int) -> None:
        self.value_text.setText(f"{self.value:.2f}")
        self._pause.start()

    def _settle(self) -> None:
        """Tell of a change that has not been told yet, before another adapter comes."""
        if self._pause.isActive():
            self._pause.stop()
            self._tell()

    def _tell(self) -> None:
        if self._subject is not None:
            self.changed.emit(self._subject, self.value)
