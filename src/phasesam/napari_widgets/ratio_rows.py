"""One row for each phase: how much there is, how much is wanted, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from phasesam.core.ratio_shares import PhaseShares
from phasesam.napari_widgets.class_table import swatch

_STEPS = 1000
_TITLES = ("", "Phase", "Now", "Wanted", "Lock", "?", "±")
_LONGEST_NAME = 12
_LEFT = "This phase takes what others leave, as the image says: see Now. Type to ask for a share."
_ALL_LOCKED = "All other shares are locked: unlock one to change this one."
_TIPS = {
    "Now": "Share of the phase in the map on the screen, in % of the mapped area.",
    "Wanted": "Share that the phase is to have, in %. All shares add up to 100 %: the others\n"
    "keep their proportions.",
    "Lock": "Keep this share when others are changed.",
    "?": "Unknown: the model decides how much of the rest this phase gets.",
    "±": "Standard error of the wanted share, in percentage points: the less sure it is, the\n"
    "more counts what the image says. Phases that you have neither set nor locked then take\n"
    "what is left, as the image says. 0 asks for the share exactly.",
}


@dataclass(frozen=True, eq=False)
class _Row:
    """Widgets of one phase."""

    now: QLabel
    slider: QSlider
    spin: QDoubleSpinBox
    lock: QCheckBox
    unknown: QCheckBox
    error: QDoubleSpinBox

    @property
    def edits(self) -> tuple[QWidget, ...]:
        return (self.slider, self.spin, self.lock, self.unknown, self.error)


class RatioRows(QWidget):
    """Sliders, numbers and ticks for the wanted shares of phases."""

    edited = Signal(object, bool)
    """The user changed something: the new `PhaseShares`, and whether the change goes on."""
    said = Signal(str)
    """Why a share is not what the user asked for."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shares: PhaseShares | None = None
        self._is_moved = False
        self.rows: list[_Row] = []
        self._names: tuple[str, ...] = ()
        self._colours: list[QColor] = []
        self._table: QWidget | None = None
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)

    def set_phases(self, names: Sequence[str], colours: Sequence[QColor]) -> None:
        """Make a row for each phase, unless there are rows for these already."""
        self.set_shares(None)
        self.set_now(None)
        if tuple(names) == self._names and list(colours) == self._colours:
            return
        self._names, self._colours = tuple(names), list(colours)
        if self._table is not None:
            self._layout.removeWidget(self._table)
            self._table.hide()
            self._table.deleteLater()
        self._table = QWidget()
        grid = QGridLayout(self._table)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(4)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        for column, title in enumerate(_TITLES):
            label = QLabel(title)
            label.setToolTip(_TIPS.get(title, ""))
            grid.addWidget(label, 0, column)
        self.rows = [
            self._add_row(grid, k, name, colour)
            for k, (name, colour) in enumerate(zip(names, colours, strict=True))
        ]
        self._layout.addWidget(self._table)

    def _add_row(self, grid: QGridLayout, k: int, name: str, colour: QColor) -> _Row:
        mark, title = QLabel(), QLabel(_short(name))
        mark.setPixmap(swatch(colour).pixmap(14, 14))
        title.setToolTip(name)
        row = _Row(
            QLabel("–"),
            QSlider(Qt.Orientation.Horizontal),
            _percent(0.1, _TIPS["Wanted"]),
            QCheckBox(),
            QCheckBox(),
            _percent(0.5, _TIPS["±"]),
        )
        row.now.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        row.now.setMinimumWidth(self.fontMetrics().horizontalAdvance("100.00"))
        row.now.setToolTip(_TIPS["Now"])
        row.slider.setRange(0, _STEPS)
        row.slider.setPageStep(_STEPS // 20)
        row.slider.setToolTip(_TIPS["Wanted"])
        row.lock.setToolTip(_TIPS["Lock"])
        row.unknown.setToolTip(_TIPS["?"])
        numbers = (mark, title, row.now, row.spin, row.lock, row.unknown, row.error)
        for column, widget in enumerate(numbers):
            grid.addWidget(widget, 2 * k + 1, column)
        # On a line of its own: beside two numbers it would be too short to aim with.
        grid.addWidget(row.slider, 2 * k + 2, 1, 1, len(numbers) - 1)
        self._connect(k, row)
        return row

    def _connect(self, k: int, row: _Row) -> None:
        row.slider.valueChanged.connect(
            lambda value: self._change(
                "with_share", k, value / _STEPS, goes_on=row.slider.isSliderDown()
            )
        )
        row.slider.sliderReleased.connect(self._let_go)
        row.spin.valueChanged.connect(lambda value: self._change("with_share", k, value / 100))
        row.lock.toggled.connect(lambda on: self._change("with_lock", k, on))
        row.unknown.toggled.connect(lambda on: self._change("with_unknown", k, on))
        row.error.valueChanged.connect(lambda value: self._change("with_error", k, value / 100))

    def _change(self, what: str, k: int, value: float | bool, goes_on: bool = False) -> None:
        before = self._shares
        if before is None:
            return
        after = getattr(before, what)(k, value)
        self.set_shares(after, dragged=k if goes_on else None)
        if after != before:
            self._is_moved = goes_on
            self.edited.emit(after, goes_on)
        if what == "with_share":
            self._explain(before.room(k), k, float(value))

    def _explain(self, room: float | None, k: int, value: float) -> None:
        """Say why a phase does not get a share."""
        if room is None:
            self.said.emit(_ALL_LOCKED)
        elif value > room + 0.5 / _STEPS:
            self.said.emit(f"Locked shares leave {100 * room:.2f}\u00a0% for {self._names[k]}.")

    def _let_go(self) -> None:
        if self._shares is None:
            return
        self.set_shares(self._shares)
        # Who only takes hold of a slider asks for nothing.
        if self._is_moved:
            self._is_moved = False
            self.edited.emit(self._shares, False)

    @property
    def shares(self) -> PhaseShares | None:
        """What is asked for, as shown."""
        return self._shares

    def set_shares(self, shares: PhaseShares | None, *, dragged: int | None = None) -> None:
        """Show shares; a slider that is being dragged stays where the mouse is."""
        self._shares = shares
        self.setEnabled(shares is not None)
        if shares is None:
            return
        for k, row in enumerate(self.rows):
            blockers = [QSignalBlocker(widget) for widget in row.edits]
            if k != dragged:
                row.slider.setValue(round(shares.values[k] * _STEPS))
            row.spin.setValue(100 * shares.values[k])
            row.lock.setChecked(shares.locked[k])
            row.unknown.setChecked(shares.unknown[k])
            row.error.setValue(100 * shares.errors[k])
            for blocker in blockers:
                blocker.unblock()
            _mark(row.spin, shares.yielding[k])
            is_known = not shares.unknown[k]
            row.lock.setEnabled(is_known)
            row.error.setEnabled(is_known)

    def set_now(
        self, now: NDArray[np.float64] | None, own: NDArray[np.float64] | None = None
    ) -> None:
        """Show how much the map on the screen has of each phase, and tell what the model sees."""
        for k, row in enumerate(self.rows):
            row.now.setText("–" if now is None else f"{100 * now[k]:.2f}")
            seen = "" if own is None else f"\nThe model sees {100 * own[k]:.2f}\u00a0%."
            row.now.setToolTip(f"{_TIPS['Now']}{seen}")


def _mark(spin: QDoubleSpinBox, yields: bool) -> None:
    """Show a share that nobody asked for in italics."""
    font = spin.font()
    if font.italic() != yields:
        font.setItalic(yields)
        spin.setFont(font)
        spin.setToolTip(_LEFT if yields else _TIPS["Wanted"])


def _percent(step: float, tip: str) -> QDoubleSpinBox:
    spin = QDoubleSpinBox()
    spin.setRange(0.0, 100.0)
    spin.setDecimals(2)
    spin.setSingleStep(step)
    spin.setKeyboardTracking(False)
    spin.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    spin.setToolTip(tip)
    return spin


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
