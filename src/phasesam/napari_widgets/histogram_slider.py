"""A threshold slider that shows what it costs: title, number box and histogram in one row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QDoubleSpinBox, QGridLayout, QHBoxLayout, QLabel, QWidget

from phasesam.napari_widgets.histogram_bar import HistogramBar, SliderConfig

_TITLE_WIDTH = 104
_SPIN_WIDTH = 92


class _ThresholdSpin(QDoubleSpinBox):
    """A number box that says "no limit" at its top where that is what it means."""

    def __init__(self, open_top: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._open_top = open_top
        self._unit = ""
        self.setKeyboardTracking(False)
        self.setGroupSeparatorShown(True)
        self.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.setMinimumWidth(_SPIN_WIDTH)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def set_unit(self, unit: str) -> None:
        """Write the unit behind the number, but not behind "no limit"."""
        self._unit = unit

    def textFromValue(self, value: float) -> str:
        """Write the number with its unit, or "no limit"."""
        if self._open_top and value >= self.maximum():
            return "no limit"
        return f"{super().textFromValue(value)} {self._unit}".strip()

    def valueFromText(self, text: str) -> float:
        """Read the number back, with or without the unit."""
        number = text.replace(self._unit, "").strip() if self._unit else text.strip()
        if self._open_top and (not number or "limit" in number):
            return float(self.maximum())
        return float(super().valueFromText(number))

    def validate(self, text: str, position: int) -> Any:
        """Accept what can be read as a number, and let the rest be typed on."""
        number = text.replace(self._unit, "").strip() if self._unit else text.strip()
        if self._open_top and "no limit".startswith(number.lower()):
            return QValidator.State.Acceptable, text, position
        state = super().validate(number, len(number))
        return (state[0] if isinstance(state, tuple) else state), text, position

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the panel unless the box has the focus."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class HistogramSlider(QWidget):
    """Title, number box and `HistogramBar` of one threshold (or of a range).

    Attributes
    ----------
    value_changed : Signal()
        While a handle is dragged and after every other change by the user.
    released : Signal()
        When the user has finished one change.
    """

    value_changed = Signal()
    released = Signal()

    def __init__(self, config: SliderConfig, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.config = config
        self._factor, self._unit = 1.0, ""
        self.bar = HistogramBar(config, self)
        self.spins = [
            _ThresholdSpin(config.open_top and index == config.n_handles - 1, self)
            for index in range(config.n_handles)
        ]
        self.title = QLabel(config.title, self)
        self.title.setMinimumWidth(_TITLE_WIDTH)
        self.title.setToolTip(config.tooltip)
        self.title.setBuddy(self.spins[0])
        self._lay_out()
        self.set_unit(1.0, "", config.decimals)
        for index, spin in enumerate(self.spins):
            spin.setToolTip(config.tooltip)
            spin.setAccessibleName(
                config.title if config.n_handles == 1 else f"{config.title} {('from', 'to')[index]}"
            )
            spin.valueChanged.connect(partial(self._on_spin, index))
        self.bar.moved.connect(self._on_bar)
        self.bar.released.connect(self.released)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(2)
        grid.addWidget(self.title, 0, 0)
        grid.setColumnStretch(2, 1)
        if self.config.n_handles == 1:
            self.spins[0].setMaximumWidth(_SPIN_WIDTH)
            grid.addWidget(self.spins[0], 0, 1)
            grid.addWidget(self.bar, 0, 2)
            return
        self.beside = QHBoxLayout()
        self.beside.addWidget(self.spins[0], 1)
        self.beside.addWidget(QLabel("to", self))
        self.beside.addWidget(self.spins[1], 1)
        grid.addLayout(self.beside, 0, 1, 1, 2)
        grid.addWidget(self.bar, 1, 0, 1, 3)

    def value(self) -> float:
        """Return the threshold; the lower one of a range."""
        return self.values()[0]

    def values(self) -> tuple[float, ...]:
        """Return all thresholds; the highest is infinity where the top means "no limit"."""
        values = self.bar.values
        if self.config.open_top and values[-1] >= self.bar.view[1]:
            return (*values[:-1], math.inf)
        return values

    def set_values(self, *values: float) -> None:
        """Set the thresholds without emitting a signal; infinity means "no limit"."""
        top = self.bar.view[1]
        self.bar.set_values(top if math.isinf(value) else value for value in values)
        self._show_in_spins()

    def set_view(self, low: float, high: float) -> None:
        """Choose the part of the range that the axis shows; "no limit" stays without limit."""
        values = self.values()
        self.bar.set_view(low, high)
        self.set_unit(self._factor, self._unit, self.spins[0].decimals())
        self.set_values(*values)

    def set_samples(self, samples: NDArray[Any] | Sequence[float]) -> None:
        """Set the values of all candidates, (n,), in the unit of the slider."""
        self.bar.set_samples(samples)

    def set_unit(self, factor: float, unit: str, decimals: int) -> None:
        """Show numbers as ``value * factor`` followed by ``unit``."""
        self._factor, self._unit = factor, unit
        top = self.bar.view[1] if self.config.open_top else self.config.maximum
        for spin in self.spins:
            spin.blockSignals(True)
            spin.setDecimals(decimals)
            spin.setRange(self.config.minimum * factor, top * factor)
            spin.setSingleStep(10.0**-decimals)
            spin.set_unit(unit)
            spin.blockSignals(False)
        self._show_in_spins()

    def _show_in_spins(self) -> None:
        for spin, value in zip(self.spins, self.bar.values, strict=True):
            spin.blockSignals(True)
            spin.setValue(value * self._factor)
            spin.blockSignals(False)

    def _on_spin(self, index: int, _shown: float) -> None:
        spin = self.spins[index]
        at_top = self.config.open_top and spin.value() >= spin.maximum()
        values = list(self.bar.values)
        values[index] = self.bar.view[1] if at_top else spin.value() / self._factor
        if len(values) == 2 and values[0] > values[1]:
            values[1 - index] = values[index]  # the other end gives way
        self.bar.set_values(values)
        self._show_in_spins()
        self.value_changed.emit()
        self.released.emit()

    def _on_bar(self) -> None:
        self._show_in_spins()
        self.value_changed.emit()
