"""A painted curve over the epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetricsF, QPainter, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from phasesam.napari_widgets.histogram_bar import faded
from phasesam.napari_widgets.size_histogram import nice_ticks, short_number

_NEAR = 14.0


class CurvePlot(QWidget):
    """One figure of each epoch, joined by a line.

    The axis reaches to the last epoch from the start, so that one sees how far it is.
    A dot marks the epoch whose adapter is kept, a dashed line the base without adapter.

    Parameters
    ----------
    title : str
        Written above the plot, with the newest value.
    dark, light : QColor
        Colour of the line on a dark and on a light background.
    """

    def __init__(
        self, title: str, dark: QColor, light: QColor, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._title = title
        self._dark, self._light = dark, light
        self._points: tuple[tuple[float, float], ...] = ()
        self._last = 1.0
        self._marked: float | None = None
        self._base: float | None = None
        self.setMinimumSize(120, 110)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.setAccessibleName(title)

    def sizeHint(self) -> QSize:
        """Ask for a small picture; two stand side by side."""
        return QSize(200, 120)

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """Epochs and values that are shown."""
        return self._points

    def set_points(
        self,
        points: Sequence[tuple[float, float]],
        epochs: int,
        *,
        marked: float | None = None,
        base: float | None = None,
    ) -> None:
        """Show a curve.

        Parameters
        ----------
        points : sequence of (float, float)
            Epoch and value, by rising epoch.
        epochs : int
            Where the axis ends.
        marked : float or None
            Epoch to mark.
        base : float or None
            Value without adapter.
        """
        self._points = tuple(points)
        self._last = float(max(epochs, 1, *(x for x, _ in points)))
        self._marked, self._base = marked, base
        newest = short_number(self._points[-1][1]) if self._points else "none yet"
        self.setAccessibleDescription(f"{len(self._points)} epochs, newest {newest}")
        self.update()

    # ------------------------------------------------------------------ geometry

    def _plot(self) -> QRectF:
        line = QFontMetricsF(self.font()).height()
        return QRectF(2.0, line + 6.0, self.width() - 8.0, self.height() - 2 * line - 14.0)

    def _limits(self) -> tuple[float, float]:
        values = [y for _, y in self._points] + ([] if self._base is None else [self._base])
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
        return low - margin, high + margin

    def _at(self, x: float, y: float) -> QPointF:
        plot, (low, high) = self._plot(), self._limits()
        # The first epoch stands a little off the border, so that one point is seen.
        across = x / self._last
        return QPointF(
            plot.left() + plot.width() * across,
            plot.bottom() - plot.height() * (y - low) / (high - low),
        )

    # ------------------------------------------------------------------ events

    def changeEvent(self, event: Any) -> None:
        """Repaint in the colours of a new theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.update()

    def mouseMoveEvent(self, event: Any) -> None:
        """Tell epoch and value of the point under the mouse."""
        if not self._points:
            return
        place = float(event.position().x())
        x, y = min(self._points, key=lambda point: abs(self._at(*point).x() - place))
        if abs(self._at(x, y).x() - place) <= _NEAR:
            QToolTip.showText(
                event.globalPosition().toPoint(),
                f"epoch {x:.0f}: {self._title.lower()} {short_number(y)}",
                self,
            )

    def paintEvent(self, event: Any) -> None:
        """Draw title, grid, curve and epochs."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._paint_title(painter)
        self._paint_axis(painter)
        if self._points:
            self._paint_grid(painter)
            self._paint_curve(painter)
        painter.end()

    def _colour(self) -> QColor:
        background = self.palette().color(QPalette.ColorRole.Window)
        return self._dark if background.lightness() < 128 else self._light

    def _paint_title(self, painter: QPainter) -> None:
        line = QFontMetricsF(self.font()).height()
        box = QRectF(2.0, 0.0, self.width() - 8.0, line + 2.0)
        painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
        painter.drawText(box, Qt.AlignmentFlag.AlignLeft, self._title)
        if self._points:
            painter.setPen(self._colour())
            newest = short_number(self._points[-1][1])
            painter.drawText(box, Qt.AlignmentFlag.AlignRight, newest)

    def _paint_axis(self, painter: QPainter) -> None:
        plot, metrics = self._plot(), QFontMetricsF(self.font())
        painter.setPen(QPen(faded(self.palette(), 150), 1))
        painter.drawLine(plot.bottomLeft(), plot.bottomRight())
        box = QRectF(plot.left(), plot.bottom() + 3.0, plot.width(), metrics.height())
        painter.drawText(box, Qt.AlignmentFlag.AlignLeft, "epoch")
        painter.drawText(box, Qt.AlignmentFlag.AlignRight, f"{self._last:.0f}")

    def _paint_grid(self, painter: QPainter) -> None:
        plot, metrics = self._plot(), QFontMetricsF(self.font())
        for tick in nice_ticks(*self._limits(), count=2):
            y = self._at(0.0, float(tick)).y()
            painter.setPen(QPen(faded(self.palette(), 45), 1))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(faded(self.palette(), 120))
            if y - metrics.height() >= plot.top() - 2.0:
                box = QRectF(plot.left(), y - metrics.height(), plot.width(), metrics.height())
                painter.drawText(box, Qt.AlignmentFlag.AlignLeft, short_number(float(tick)))
        if self._base is not None:
            y = self._at(0.0, self._base).y()
            painter.setPen(QPen(faded(self.palette(), 170), 1, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))

    def _paint_curve(self, painter: QPainter) -> None:
        colour = self._colour()
        places = [self._at(x, y) for x, y in self._points]
        painter.setPen(QPen(colour, 2.0))
        if len(places) > 1:
            painter.drawPolyline(QPolygonF(places))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        painter.drawEllipse(places[-1], 2.5, 2.5)
        for (x, _), place in zip(self._points, places, strict=True):
            if x == self._marked:
                painter.setPen(QPen(self.palette().color(QPalette.ColorRole.WindowText), 1.5))
                painter.drawEllipse(place, 4.0, 4.0)
