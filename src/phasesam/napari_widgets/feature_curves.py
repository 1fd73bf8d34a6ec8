"""Painted curves over the layers of an encoder, with a mark where one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFontMetricsF, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from phasesam.formats.overlay import PALETTE
from phasesam.napari_widgets.feature_layers import MODELS
from phasesam.napari_widgets.histogram_bar import faded
from phasesam.napari_widgets.size_histogram import nice_ticks

if TYPE_CHECKING:
    from phasesam.napari_widgets.feature_run import SeenLayers

_DOT = 3.0


@dataclass(frozen=True)
class LayerCurve:
    """One figure of each layer.

    Attributes
    ----------
    name : str
        In the legend.
    values : tuple of float
        By layer; NaN where there is none.
    colour : int
        Index in the palette.
    dashed : bool
        Whether the line is.
    """

    name: str
    values: tuple[float, ...]
    colour: int
    dashed: bool = False


class LayerCurves(QWidget):
    """Curves with one point per layer; a click walks to a layer.

    Parameters
    ----------
    title : str
        Written above.
    tip : str
        What the figures mean.
    """

    chosen = Signal(int)
    """The user clicked at a layer."""

    def __init__(self, title: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title = title
        self._curves: tuple[LayerCurve, ...] = ()
        self._names: tuple[str, ...] = ()
        self._here: int | None = None
        self.setToolTip(tip)
        self.setAccessibleName(title)
        self.setMinimumSize(160, 120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.hide()

    def sizeHint(self) -> QSize:
        """Ask for a small picture."""
        return QSize(320, 130)

    @property
    def curves(self) -> tuple[LayerCurve, ...]:
        """What is shown."""
        return self._curves

    @property
    def here(self) -> int | None:
        """The layer that is marked."""
        return self._here

    def set_curves(self, curves: Sequence[LayerCurve], names: Sequence[str]) -> None:
        """Show curves over layers of these names; nothing without a curve."""
        self._curves, self._names = tuple(curves), tuple(names)
        self._here = None
        self.setVisible(bool(curves))
        self.update()

    def mark(self, index: int | None) -> None:
        """Mark a layer."""
        if index != self._here:
            self._here = index
            self.update()

    # ------------------------------------------------------------------ geometry

    def _plot(self) -> QRectF:
        line = QFontMetricsF(self.font()).height()
        return QRectF(6.0, line + 6.0, self.width() - 12.0, self.height() - line - 12.0)

    def _limits(self) -> tuple[float, float]:
        values = np.array([v for curve in self._curves for v in curve.values if np.isfinite(v)])
        if not len(values):
            return 0.0, 1.0
        low, high = min(0.0, float(values.min())), float(values.max())
        return low, high + 0.08 * ((high - low) or 1.0)

    def _x(self, index: int) -> float:
        plot = self._plot()
        return plot.left() + plot.width() * (index + 0.5) / max(len(self._names), 1)

    def _y(self, value: float) -> float:
        plot, (low, high) = self._plot(), self._limits()
        return plot.bottom() - plot.height() * (value - low) / (high - low)

    def index_at(self, x: float) -> int | None:
        """Layer at a place; None without any."""
        plot = self._plot()
        if not self._names or plot.width() <= 0:
            return None
        place = int((x - plot.left()) / plot.width() * len(self._names))
        return min(max(place, 0), len(self._names) - 1)

    # ------------------------------------------------------------------ events

    def changeEvent(self, event: Any) -> None:
        """Repaint in the colours of a new theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.update()

    def mousePressEvent(self, event: Any) -> None:
        """Walk to the layer under the mouse."""
        index = self.index_at(event.position().x())
        if index is not None and event.button() == Qt.MouseButton.LeftButton:
            self.chosen.emit(index)

    def mouseMoveEvent(self, event: Any) -> None:
        """Tell the figures of the layer under the mouse."""
        index = self.index_at(event.position().x())
        if index is not None:
            values = [f"{c.name}: {_text(c.values[index])}" for c in self._curves]
            text = "\n".join([self._names[index], *values])
            QToolTip.showText(event.globalPosition().toPoint(), text, self)

    def paintEvent(self, event: Any) -> None:
        """Draw title, legend, grid, mark and curves."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._paint_head(painter)
        self._paint_grid(painter)
        for curve in self._curves:
            self._paint_curve(painter, curve)
        painter.end()

    def _paint_head(self, painter: QPainter) -> None:
        metrics = QFontMetricsF(self.font())
        box = QRectF(6.0, 0.0, self.width() - 12.0, metrics.height() + 2.0)
        painter.setPen(faded(self.palette(), 255))
        painter.drawText(box, Qt.AlignmentFlag.AlignLeft, self._title)
        right = box.right()
        for curve in reversed(self._curves):
            width = metrics.horizontalAdvance(curve.name)
            painter.setPen(faded(self.palette(), 255))
            place = QRectF(right - width, box.top(), width, box.height())
            painter.drawText(place, Qt.AlignmentFlag.AlignLeft, curve.name)
            painter.setPen(_pen(curve))
            middle = box.center().y()
            painter.drawLine(
                QPointF(right - width - 22, middle), QPointF(right - width - 4, middle)
            )
            right -= width + 32

    def _paint_grid(self, painter: QPainter) -> None:
        plot, metrics = self._plot(), QFontMetricsF(self.font())
        if self._here is not None:
            painter.setPen(QPen(faded(self.palette(), 120), 1))
            x = self._x(self._here)
            painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom()))
        painter.setPen(QPen(faded(self.palette(), 150), 1))
        painter.drawLine(plot.bottomLeft(), plot.bottomRight())
        for tick in nice_ticks(*self._limits(), count=2):
            y = self._y(float(tick))
            painter.setPen(QPen(faded(self.palette(), 45), 1))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            if y - metrics.height() >= plot.top() - 2.0:
                painter.setPen(faded(self.palette(), 120))
                box = QRectF(plot.left(), y - metrics.height(), plot.width(), metrics.height())
                painter.drawText(box, Qt.AlignmentFlag.AlignLeft, f"{float(tick):g}")

    def _paint_curve(self, painter: QPainter, curve: LayerCurve) -> None:
        places = [
            QPointF(self._x(i), self._y(v)) for i, v in enumerate(curve.values) if np.isfinite(v)
        ]
        painter.setPen(_pen(curve))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF(places))
        if self._here is not None and np.isfinite(curve.values[self._here]):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(_colour(curve))
            place = QPointF(self._x(self._here), self._y(curve.values[self._here]))
            painter.drawEllipse(place, _DOT, _DOT)


def probe_curves(seen: SeenLayers) -> list[LayerCurve]:
    """How well classes can be told apart, by model; nothing without labels."""
    if not any(view.figures.probe for view in seen.layers):
        return []
    return [
        LayerCurve(
            MODELS[model],
            tuple(view.figures.probe_means[model] for view in seen.layers),
            (4, 5)[model],
            dashed=model == 0 and seen.n_models > 1,
        )
        for model in range(seen.n_models)
    ]


def likeness_curves(seen: SeenLayers) -> list[LayerCurve]:
    """How alike two models are; nothing of one."""
    if seen.n_models < 2:
        return []
    figures = [view.figures for view in seen.layers]
    likeness = tuple(np.nan if f.cka is None else f.cka for f in figures)
    change = tuple(np.nan if f.change is None else f.change for f in figures)
    return [LayerCurve("likeness", likeness, 2), LayerCurve("change", change, 0, dashed=True)]


def _colour(curve: LayerCurve) -> QColor:
    return QColor(*(int(v) for v in PALETTE[curve.colour]))


def _pen(curve: LayerCurve) -> QPen:
    style = Qt.PenStyle.DashLine if curve.dashed else Qt.PenStyle.SolidLine
    return QPen(_colour(curve), 2.0, style)


def _text(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"
