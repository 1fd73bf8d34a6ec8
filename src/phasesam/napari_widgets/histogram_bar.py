"""A painted axis with handles on the histogram of all candidates, the kept part coloured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

KEPT_ON_LIGHT = QColor("#0072B2")
"""Okabe-Ito blue."""
KEPT_ON_DARK = QColor("#56B4E9")
"""Okabe-Ito sky blue: the same meaning on a dark background."""

_MARGIN = 9


@dataclass(frozen=True)
class SliderConfig:
    """What a `HistogramSlider` ranges over.

    Attributes
    ----------
    title : str
        Name shown to the left.
    tooltip : str
        What moving the handle does to the picture, with the unit.
    minimum, maximum : float
        Range of the values.
    decimals : int
        Digits after the point.
    keep : {"above", "below", "between", "all"}
        Which part of the axis is kept; ``"between"`` gives two handles, with
        ``"all"`` nothing is coloured as dropped.
    logarithmic : bool
        Whether the axis is logarithmic; its lowest drawn value is then at least 1.
    open_top : bool
        Whether the highest value means "no limit" and is reported as infinity.
    """

    title: str
    tooltip: str = ""
    minimum: float = 0.0
    maximum: float = 1.0
    decimals: int = 2
    keep: Literal["above", "below", "between", "all"] = "above"
    logarithmic: bool = False
    open_top: bool = False

    @property
    def n_handles(self) -> int:
        """Number of handles: 2 for a range, else 1."""
        return 2 if self.keep == "between" else 1


def is_dark(palette: QPalette) -> bool:
    """Whether text is lighter than what lies behind it."""
    return bool(
        palette.color(QPalette.ColorRole.WindowText).lightness()
        > palette.color(QPalette.ColorRole.Window).lightness()
    )


def kept_colour(palette: QPalette) -> QColor:
    """Colour of what is kept, readable on the theme's background."""
    return KEPT_ON_DARK if is_dark(palette) else KEPT_ON_LIGHT


def faded(palette: QPalette, alpha: int) -> QColor:
    """Text colour at the given opacity (0-255): a grey that fits every theme."""
    colour = QColor(palette.color(QPalette.ColorRole.WindowText))
    colour.setAlpha(alpha)
    return colour


class HistogramBar(QWidget):
    """The painted axis with its one or two handles.

    A press anywhere takes the nearest handle, so that the whole bar is the target.
    Left/Right move the handle by one step, Page Up/Down by ten, Home/End to the ends;
    with two handles Up/Down chooses which one.
    """

    moved = Signal()
    released = Signal()

    def __init__(self, config: SliderConfig, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._config = config
        self._view = (config.minimum, config.maximum)
        self._samples: NDArray[np.float64] = np.zeros(0)
        self._heights: NDArray[np.float64] = np.zeros(0)
        self._active = 0
        self._dragging = False
        self._values: tuple[float, ...] = (
            (config.minimum, config.maximum) if config.n_handles == 2 else (config.minimum,)
        )
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumSize(120, 32)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip(config.tooltip)
        self.setAccessibleName(config.title)
        self.setAccessibleDescription(config.tooltip)

    def sizeHint(self) -> QSize:
        """Ask for a bar wide enough to tell neighbouring thresholds apart."""
        return QSize(200, 36)

    @property
    def values(self) -> tuple[float, ...]:
        """Where the handles are, ascending."""
        return self._values

    @property
    def view(self) -> tuple[float, float]:
        """Range of values that the axis shows."""
        return self._view

    def set_values(self, values: Iterable[float]) -> None:
        """Move the handles without emitting a signal."""
        config = self._config
        chosen = tuple(
            sorted(
                round(min(max(float(v), config.minimum), config.maximum), config.decimals)
                for v in values
            )
        )
        if len(chosen) == config.n_handles and chosen != self._values:
            self._values = chosen
            self.update()

    def set_view(self, low: float, high: float) -> None:
        """Choose the part of the range that is drawn."""
        if high > low:
            self._view = (float(low), float(high))
            self._count()

    def set_samples(self, samples: NDArray[Any] | Sequence[float]) -> None:
        """Set the values of all candidates, (n,); an empty array draws a bare axis."""
        array = np.asarray(samples, dtype=np.float64).reshape(-1)
        self._samples = array[np.isfinite(array)]
        self._count()

    def position_of(self, value: float) -> float:
        """Horizontal position of a value in widget pixels."""
        span = max(1.0, self.width() - 2.0 * _MARGIN)
        return _MARGIN + span * float(np.clip(self._fraction(np.array([value]))[0], 0.0, 1.0))

    def kept_range(self) -> tuple[float, float]:
        """Which part of the axis is kept, in values."""
        if self._config.keep == "above":
            return self._values[0], math.inf
        if self._config.keep == "below":
            return -math.inf, self._values[0]
        if self._config.keep == "between":
            return self._values[0], self._values[1]
        return -math.inf, math.inf

    def _limits(self) -> tuple[float, float]:
        low, high = self._view
        if self._config.logarithmic:
            low = math.log(max(low, 1.0))
            high = max(math.log(max(high, 1.0)), low + 1e-6)
        return low, high

    def _fraction(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = self._limits()
        scaled = np.log(np.maximum(values, 1.0)) if self._config.logarithmic else values
        return (scaled - low) / (high - low)

    def _value_at(self, fraction: float) -> float:
        if fraction <= 0.0:
            return self._config.minimum if self._config.logarithmic else self._view[0]
        if fraction >= 1.0:
            return self._view[1]
        low, high = self._limits()
        value = low + fraction * (high - low)
        return math.exp(value) if self._config.logarithmic else value

    def _count(self) -> None:
        """Recount the bars; square roots let rare values show beside common ones."""
        bins = int(np.clip((self.width() - 2 * _MARGIN) // 3, 16, 128))
        fractions = np.clip(self._fraction(self._samples), 0.0, 1.0)
        counts = np.bincount(np.minimum((fractions * bins).astype(int), bins - 1), minlength=bins)
        top = counts.max() if counts.size else 0
        self._heights = np.sqrt(counts / top) if top else np.zeros(bins)
        self.update()

    def resizeEvent(self, event: Any) -> None:
        """Fit the number of bars to the width."""
        super().resizeEvent(event)
        self._count()

    def changeEvent(self, event: Any) -> None:
        """Repaint in the colours of a new theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.update()

    def paintEvent(self, event: Any) -> None:
        """Draw bars, axis and handles."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = self.palette()
        left, right = float(_MARGIN), float(self.width() - _MARGIN)
        low, high = self.kept_range()
        kept_left = left if math.isinf(low) else self.position_of(low)
        kept_right = right if math.isinf(high) else self.position_of(high)
        kept = kept_colour(palette) if self.isEnabled() else faded(palette, 110)
        self._paint_bars(painter, faded(palette, 90), QRectF(left, 0, right - left, self.height()))
        if self._config.keep != "all":
            self._paint_bars(
                painter, kept, QRectF(kept_left, 0, kept_right - kept_left, self.height())
            )
        base = self.height() - 5.0
        painter.setPen(QPen(faded(palette, 90), 2))
        painter.drawLine(QPointF(left, base), QPointF(right, base))
        if self._config.keep != "all":
            painter.setPen(QPen(kept, 2))
            painter.drawLine(QPointF(kept_left, base), QPointF(kept_right, base))
        self._paint_handles(painter, kept)

    def _paint_bars(self, painter: QPainter, colour: QColor, clip: QRectF) -> None:
        if clip.width() <= 0 or not self._heights.any():
            return
        painter.save()
        painter.setClipRect(clip)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        width = (self.width() - 2.0 * _MARGIN) / len(self._heights)
        base, tall = self.height() - 6.0, self.height() - 9.0
        for index in np.flatnonzero(self._heights):
            height = max(1.5, tall * float(self._heights[index]))
            painter.drawRect(QRectF(_MARGIN + index * width, base - height, width - 0.6, height))
        painter.restore()

    def _paint_handles(self, painter: QPainter, colour: QColor) -> None:
        text = self.palette().color(QPalette.ColorRole.WindowText)
        for index, value in enumerate(self._values):
            x = self.position_of(value)
            focused = self.hasFocus() and index == self._active
            painter.setPen(QPen(text, 1.5))
            painter.drawLine(QPointF(x, 1.0), QPointF(x, self.height() - 5.0))
            painter.setBrush(colour)
            painter.setPen(QPen(text, 2.0 if focused else 1.0))
            radius = 5.0 if focused else 4.0
            painter.drawEllipse(QPointF(x, self.height() - 5.5), radius, radius - 0.5)

    def mousePressEvent(self, event: Any) -> None:
        """Take the nearest handle."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        x = float(event.position().x())
        places = [self.position_of(value) for value in self._values]
        self._active = int(np.argmin([abs(place - x) for place in places]))
        if len(places) == 2 and places[0] == places[1]:
            self._active = int(x > places[0])
        self._dragging = True
        self._drag_to(x)

    def mouseMoveEvent(self, event: Any) -> None:
        """Drag the handle that was taken."""
        if self._dragging:
            self._drag_to(float(event.position().x()))

    def mouseReleaseEvent(self, event: Any) -> None:
        """Let the handle go."""
        if self._dragging and event.button() == Qt.MouseButton.LeftButton:
            self._dragging = False
            self.released.emit()

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the panel, so that scrolling never changes a threshold."""
        event.ignore()

    def focusInEvent(self, event: Any) -> None:
        """Show which handle the keys move."""
        super().focusInEvent(event)
        self.update()

    def focusOutEvent(self, event: Any) -> None:
        """Hide the focus mark."""
        super().focusOutEvent(event)
        self.update()

    def keyPressEvent(self, event: Any) -> None:
        """Move the handle from the keyboard."""
        steps = {
            Qt.Key.Key_Left: -1,
            Qt.Key.Key_Right: 1,
            Qt.Key.Key_PageDown: -10,
            Qt.Key.Key_PageUp: 10,
            Qt.Key.Key_Home: -10_000,
            Qt.Key.Key_End: 10_000,
        }
        key = event.key()
        if key in (Qt.Key.Key_Up, Qt.Key.Key_Down) and self._config.n_handles == 2:
            self._active = int(key == Qt.Key.Key_Up)
            self.update()
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self._step(1 if key == Qt.Key.Key_Up else -1)
        elif key in steps:
            self._step(steps[key])
        else:
            super().keyPressEvent(event)

    def _step(self, steps: int) -> None:
        value = self._values[self._active]
        if self._config.logarithmic:
            fraction = float(self._fraction(np.array([value]))[0]) + steps / 100.0
            moved = self._value_at(fraction)
            # Near the low end a step of the axis is less than one unit.
            unit = 10.0**-self._config.decimals
            if abs(moved - value) < unit and 0.0 < fraction < 1.0:
                moved = value + math.copysign(unit, steps)
        else:
            unit = max(10.0**-self._config.decimals, (self._view[1] - self._view[0]) / 1000.0)
            moved = min(max(value + steps * unit, self._view[0]), self._view[1])
        if self._move_active(moved):
            self.moved.emit()
            self.released.emit()

    def _drag_to(self, x: float) -> None:
        span = max(1.0, self.width() - 2.0 * _MARGIN)
        if self._move_active(self._value_at((x - _MARGIN) / span)):
            self.moved.emit()

    def _move_active(self, value: float) -> bool:
        """Move the active handle, never past the other one; tell whether it moved."""
        values = list(self._values)
        if len(values) == 2:
            value = min(value, values[1]) if self._active == 0 else max(value, values[0])
        values[self._active] = value
        before = self._values
        self.set_values(values)
        return self._values != before
