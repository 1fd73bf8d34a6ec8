"""Painted histogram of equivalent diameters with D10, D50 and D90."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QFontMetricsF, QPainter, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from phasesam.napari_widgets.candidate_filter import objects_text
from phasesam.napari_widgets.histogram_bar import faded, kept_colour

PERCENTILES = (10, 50, 90)
_TEXT_GAP = 6.0


def nice_ticks(low: float, high: float, count: int = 5) -> NDArray[np.float64]:
    """Return round numbers (1, 2 or 5 times a power of ten) between ``low`` and ``high``."""
    if not high > low:
        return np.array([low])
    raw = (high - low) / max(1, count)
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next((m for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw), 10.0)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def short_number(value: float) -> str:
    """Write a number with three significant digits and no exponent: 0.0123, 4.56, 1230."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else "–"
    digits = int(np.clip(2 - np.floor(np.log10(abs(value))), 0, 6))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def side_by_side(
    centres: Sequence[float], widths: Sequence[float], low: float, high: float, gap: float
) -> list[float] | None:
    """Place texts near their centres without overlap.

    Parameters
    ----------
    centres, widths : sequence of float
        Where the texts belong, ascending, and how wide they are.
    low, high : float
        Where they may begin and must end.
    gap : float
        Least distance between two.

    Returns
    -------
    list of float or None
        Left edges; None if there is not room enough.
    """
    if sum(widths) + gap * (len(widths) - 1) > high - low:
        return None
    lefts: list[float] = []
    free_from = low
    for centre, width in zip(centres, widths, strict=True):
        lefts.append(max(centre - width / 2.0, free_from))
        free_from = lefts[-1] + width + gap
    # What stands out on the right pushes the others back.
    free_to = high
    for place in reversed(range(len(lefts))):
        lefts[place] = min(lefts[place], free_to - widths[place])
        free_to = lefts[place] - gap
    return lefts


class SizeHistogram(QWidget):
    """Numbers of objects over their equivalent diameter; selected objects are outlined.

    Number-weighted D10, D50 and D90 are drawn as lines. A press on a bar is not an
    edit; the tooltip tells the range and the count of the bar under the mouse.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._unit = "px"
        self._diameters: NDArray[np.float64] = np.zeros(0)
        self._edges: NDArray[np.float64] = np.array([0.0, 1.0])
        self._counts: NDArray[np.int64] = np.zeros(1, np.int64)
        self._selected: NDArray[np.int64] = np.zeros(1, np.int64)
        self._marks: tuple[float, ...] = ()
        self.setMinimumSize(180, 110)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.setAccessibleName("Size histogram")

    def sizeHint(self) -> QSize:
        """Ask for a flat picture: the table above is more important."""
        return QSize(320, 130)

    @property
    def marks(self) -> tuple[float, ...]:
        """D10, D50 and D90 in the unit of the axis; empty without objects."""
        return self._marks

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of objects of each bar."""
        return self._counts

    def set_diameters(
        self, diameters: NDArray[Any] | Sequence[float], unit: str, marks: Sequence[float] = ()
    ) -> None:
        """Show a size distribution.

        Parameters
        ----------
        diameters : (n,) array of float
            Equivalent diameters in ``unit``.
        unit : str
            Unit written at the axis, e.g. ``"px"`` or ``"µm"``.
        marks : sequence of float, optional
            D10, D50 and D90; computed by number from the diameters when left out.
        """
        array = np.asarray(diameters, dtype=np.float64).reshape(-1)
        self._diameters = array[np.isfinite(array)]
        self._unit = unit
        if len(self._diameters) == 0:
            self._marks, self._edges = (), np.array([0.0, 1.0])
        else:
            self._marks = tuple(marks) or tuple(
                float(v) for v in np.percentile(self._diameters, PERCENTILES)
            )
            self._edges = self._make_edges()
        self._counts = np.histogram(self._diameters, self._edges)[0]
        self.set_selected(())
        words = ", ".join(
            f"D{p} {short_number(mark)} {unit}"
            for p, mark in zip(PERCENTILES, self._marks, strict=False)
        )
        self.setAccessibleDescription(f"{len(self._diameters)} objects; {words}")
        self.setToolTip(words)

    def set_selected(self, diameters: NDArray[Any] | Sequence[float]) -> None:
        """Outline where the selected objects lie; the same unit as the axis."""
        array = np.asarray(diameters, dtype=np.float64).reshape(-1)
        self._selected = np.histogram(array[np.isfinite(array)], self._edges)[0]
        self.update()

    def _make_edges(self) -> NDArray[np.float64]:
        """Bars of equal width from zero; as many as the number of objects carries."""
        top = float(self._diameters.max())
        bins = int(np.clip(np.sqrt(len(self._diameters)) * 1.5, 8, 48))
        return np.linspace(0.0, top * 1.02 if top > 0 else 1.0, bins + 1)

    def _plot(self) -> QRectF:
        line = QFontMetricsF(self.font()).height()
        return QRectF(8.0, line + 5.0, self.width() - 16.0, self.height() - 2.0 * line - 11.0)

    def _x(self, value: float) -> float:
        plot = self._plot()
        low, high = float(self._edges[0]), float(self._edges[-1])
        return float(plot.left() + plot.width() * (value - low) / (high - low))

    def changeEvent(self, event: Any) -> None:
        """Repaint in the colours of a new theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.update()

    def mouseMoveEvent(self, event: Any) -> None:
        """Tell the count of the bar under the mouse."""
        x = float(event.position().x())
        plot = self._plot()
        index = int((x - plot.left()) / plot.width() * len(self._counts))
        if len(self._diameters) and 0 <= index < len(self._counts):
            low, high = self._edges[index], self._edges[index + 1]
            QToolTip.showText(
                event.globalPosition().toPoint(),
                f"{short_number(low)} to {short_number(high)} {self._unit}: "
                f"{objects_text(int(self._counts[index]))}\n{self.toolTip()}",
                self,
            )

    def paintEvent(self, event: Any) -> None:
        """Draw bars, axis and the three lines."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if len(self._diameters) == 0:
            painter.setPen(faded(self.palette(), 150))
            painter.drawText(
                QRectF(self.rect()), Qt.AlignmentFlag.AlignCenter, "Sizes appear with the objects"
            )
            return
        self._paint_bars(painter)
        self._paint_axis(painter)
        self._paint_marks(painter)

    def _paint_bars(self, painter: QPainter) -> None:
        plot = self._plot()
        top = max(1, int(self._counts.max()))
        soft = kept_colour(self.palette())
        strong = self.palette().color(QPalette.ColorRole.WindowText)
        soft.setAlpha(210)
        for counts, colour in ((self._counts, soft), (self._selected, strong)):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            for index in np.flatnonzero(counts):
                left, right = self._x(self._edges[index]), self._x(self._edges[index + 1])
                height = max(1.5, plot.height() * float(counts[index]) / top)
                painter.drawRect(
                    QRectF(left, plot.bottom() - height, max(1.0, right - left - 1.0), height)
                )

    def _paint_axis(self, painter: QPainter) -> None:
        plot, metrics = self._plot(), QFontMetricsF(self.font())
        painter.setPen(QPen(faded(self.palette(), 150), 1))
        painter.drawLine(plot.bottomLeft(), plot.bottomRight())
        unit_width = metrics.horizontalAdvance(self._unit)
        text_top = plot.bottom() + 4.0
        painter.drawText(
            QRectF(plot.right() - unit_width, text_top, unit_width + 2.0, metrics.height()),
            Qt.AlignmentFlag.AlignLeft,
            self._unit,
        )
        for tick in nice_ticks(float(self._edges[0]), float(self._edges[-1])):
            x, text = self._x(float(tick)), short_number(float(tick))
            width = metrics.horizontalAdvance(text) + 2.0
            left = max(plot.left(), x - width / 2.0)
            painter.drawLine(QPointF(x, plot.bottom()), QPointF(x, plot.bottom() + 3.0))
            if left + width < plot.right() - unit_width - 4.0:
                painter.drawText(
                    QRectF(left, text_top, width, metrics.height()),
                    Qt.AlignmentFlag.AlignHCenter,
                    text,
                )

    def _paint_marks(self, painter: QPainter) -> None:
        plot, metrics = self._plot(), QFontMetricsF(self.font())
        text_colour = self.palette().color(QPalette.ColorRole.WindowText)
        for mark in self._marks:
            x = self._x(mark)
            painter.setPen(QPen(text_colour, 1.5, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom()))
        painter.setPen(text_colour)
        for text, left, width in self.mark_texts():
            painter.drawText(
                QRectF(left, 1.0, width, metrics.height()), Qt.AlignmentFlag.AlignHCenter, text
            )

    def mark_texts(self) -> list[tuple[str, float, float]]:
        """Lay the texts at the lines out, as (text, left edge, width) in pixels.

        They stand side by side; where three do not fit, D50 stands alone, and the tooltip
        tells the others.
        """
        plot, metrics = self._plot(), QFontMetricsF(self.font())
        named = list(zip(PERCENTILES, self._marks, strict=False))
        for chosen in (named, named[1:2]):
            texts = [f"D{percentile} {short_number(mark)}" for percentile, mark in chosen]
            widths = [metrics.horizontalAdvance(text) + 2.0 for text in texts]
            centres = [self._x(mark) for _, mark in chosen]
            lefts = side_by_side(centres, widths, plot.left(), plot.right(), _TEXT_GAP)
            if lefts is not None:
                return list(zip(texts, lefts, widths, strict=True))
        return []
