"""What will be learnt: images, objects, shares of classes, and what to mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetricsF, QPainter, QPalette
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from phasesam.napari_widgets.candidate_filter import grouped, objects_text
from phasesam.napari_widgets.histogram_bar import faded

if TYPE_CHECKING:
    from phasesam.training.data_checks import DataSummary
    from phasesam.training.dataset import TrainingData

_SPLITS = {"train": "to learn from", "val": "to validate", "test": "to test"}
_WARNING = "#e69f00"  # Okabe-Ito orange
_ERROR = "#e8743b"
_MOST_WARNINGS = 4
_WHOLE = 0.9995


@dataclass(frozen=True)
class ShareRow:
    """Shares of the classes in one split.

    Attributes
    ----------
    title : str
        Name of the split.
    shares : tuple of float
        Of each class, 0–1.
    """

    title: str
    shares: tuple[float, ...]


class ShareBars(QWidget):
    """One bar for each split, divided among the classes."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[ShareRow, ...] = ()
        self._colours: tuple[QColor, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Shares of the classes")
        self.hide()

    def set_rows(
        self, rows: Sequence[ShareRow], names: Sequence[str], colours: Sequence[QColor]
    ) -> None:
        """Show shares; hidden without any."""
        self._rows, self._colours = tuple(rows), tuple(colours)
        lines = [
            f"{row.title}: "
            + ", ".join(f"{n} {100 * s:.1f} %" for n, s in zip(names, row.shares, strict=True))
            for row in rows
        ]
        self.setToolTip("\n".join(lines))
        self.setAccessibleDescription("; ".join(lines))
        self.setVisible(bool(rows))
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Ask for a line for each split."""
        return QSize(240, round(self._line() * len(self._rows)))

    def _line(self) -> float:
        return QFontMetricsF(self.font()).height() + 6.0

    def changeEvent(self, event: Any) -> None:
        """Repaint in the colours of a new theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.update()

    def paintEvent(self, event: Any) -> None:
        """Draw titles and bars."""
        painter = QPainter(self)
        metrics, line = QFontMetricsF(self.font()), self._line()
        left = max((metrics.horizontalAdvance(row.title) for row in self._rows), default=0) + 10
        width = self.width() - left - 2
        for number, row in enumerate(self._rows):
            top = number * line
            painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
            painter.drawText(QRectF(0, top, left, line), Qt.AlignmentFlag.AlignVCenter, row.title)
            painter.setPen(Qt.PenStyle.NoPen)
            bar = QRectF(left, top + 4, width, line - 8)
            painter.setBrush(faded(self.palette(), 40))
            painter.drawRect(bar)
            x = bar.left()
            for share, colour in zip(row.shares, self._colours, strict=True):
                painter.setBrush(colour)
                painter.drawRect(QRectF(x, bar.top(), share * width, bar.height()))
                x += share * width
        painter.end()


class SummaryView(QWidget):
    """Numbers in one sentence, bars for classes, warnings below."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.numbers = QLabel()
        self.numbers.setWordWrap(True)
        self.numbers.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bars = ShareBars()
        self.warnings = QLabel()
        self.warnings.setWordWrap(True)
        # A long path is cut off rather than let the dock grow.
        self.warnings.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.warnings.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.numbers, self.bars, self.warnings):
            column.addWidget(part)
        self.show_nothing("")

    def show_nothing(self, text: str) -> None:
        """Say why there is nothing to be learnt yet."""
        self._say(text)
        self.bars.set_rows((), (), ())
        self._show_warnings((), _WARNING)

    def show_error(self, text: str) -> None:
        """Say why nothing can be learnt."""
        self._say("")
        self.bars.set_rows((), (), ())
        self._show_warnings((text,), _ERROR)

    def show_progress(self, done: int, total: int) -> None:
        """Say how many images have been looked at."""
        self._say(f"Looking at the data … {grouped(done)} of {grouped(total)}")

    def show_summary(
        self, data: TrainingData, summary: DataSummary, colours: Sequence[QColor]
    ) -> None:
        """Show what a check found.

        Parameters
        ----------
        data : TrainingData
            What was checked.
        summary : DataSummary
            What was found.
        colours : sequence of QColor
            Of the classes.
        """
        self._say(summary_text(summary))
        rows = [ShareRow(name, shares) for name, shares in summary.class_fractions.items()]
        self.bars.set_rows(rows, data.classes, colours)
        self._show_warnings(summary.warnings, _WARNING)

    def _say(self, text: str) -> None:
        self.numbers.setText(text)
        self.numbers.setVisible(bool(text))

    def _show_warnings(self, sentences: Sequence[str], colour: str) -> None:
        shown = [_capital(text) for text in sentences[:_MOST_WARNINGS]]
        more = len(sentences) - len(shown)
        if more > 0:
            shown.append(f"and {more} more …")
        mark = f'<td style="color: {colour};">▲&nbsp;</td>'
        rows = "".join(f"<tr>{mark}<td>{escape(text)}</td></tr>" for text in shown)
        self.warnings.setText(f"<table cellspacing=2>{rows}</table>" if shown else "")
        self.warnings.setToolTip("\n\n".join(map(_capital, sentences)) if more > 0 else "")
        self.warnings.setVisible(bool(shown))


def summary_text(summary: DataSummary) -> str:
    """Write the numbers of all splits, a line each."""
    lines = []
    for name, count in summary.n_images.items():
        images = "1 image" if count == 1 else f"{grouped(count)} images"
        line = f"{images} {_SPLITS.get(name, f'to test ({name})')}"
        if name in summary.n_objects:
            line += f" with {objects_text(summary.n_objects[name])}"
        labelled = summary.labelled_fractions.get(name, 1.0)
        if labelled < _WHOLE:
            line += f", {100 * labelled:.3g} % labelled"
        lines.append(line)
    if summary.object_pixels is not None:
        pixels = grouped(round(summary.object_pixels))
        lines.append(f"median area of the objects: {pixels} px")
    return "\n".join(lines)


def _capital(text: str) -> str:
    """Begin a sentence with a capital, unless it begins with the name of a file."""
    return text[:1].upper() + text[1:] if text.split(" ", 1)[0].isalpha() else text
