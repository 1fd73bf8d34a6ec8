"""What came out of a training, and what to do with it."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from phasesam.napari_widgets.training_figures import Figure

_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class ResultCard(QFrame):
    """Figures of the best epoch, a name for the adapter, *Use now* and *Export*."""

    use_requested = Signal(str)
    """The user wants the adapter under this name."""
    export_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.title = QLabel()
        self.title.setWordWrap(True)
        self._grid = QGridLayout()
        self._grid.setColumnStretch(0, 1)
        self._grid.setHorizontalSpacing(16)
        self._cells: list[QLabel] = []
        self.name = QLineEdit()
        self.name.setToolTip("Name of the adapter, in the model combos and on the command line")
        self.use = QPushButton("Use now")
        self.use.setToolTip("Keep the adapter under this name and work with it in all docks")
        self.export = QPushButton("Export…")
        self.export.setToolTip("Save the adapter as a file, for another computer")
        row = QHBoxLayout()
        row.addWidget(QLabel("Name"))
        row.addWidget(self.name, 1)
        row.addWidget(self.use)
        row.addWidget(self.export)
        column = QVBoxLayout(self)
        column.addWidget(self.title)
        column.addLayout(self._grid)
        column.addLayout(row)
        self.use.clicked.connect(self._on_use)
        self.name.returnPressed.connect(self._on_use)
        self.export.clicked.connect(lambda *_: self.export_requested.emit())
        self.hide()

    def show_result(self, title: str, figures: Sequence[Figure], name: str) -> None:
        """Show figures and propose a name.

        Parameters
        ----------
        title : str
            The result in one sentence.
        figures : sequence of Figure
            Lines of the table.
        name : str
            Proposed.
        """
        self.title.setText(title)
        for cell in self._cells:
            self._grid.removeWidget(cell)
            cell.deleteLater()
        self._cells = []
        with_base = any(figure.base is not None for figure in figures)
        if with_base:
            self._put(0, ("", "before", "after"))
        for row, figure in enumerate(figures, start=1):
            base = "" if figure.base is None else f"{figure.base:.3f}"
            texts = (figure.title, base, f"{figure.value:.3f}")
            self._put(row, texts if with_base else (figure.title, f"{figure.value:.3f}"))
        self.name.setText(name)
        self.show()

    def _put(self, row: int, texts: Sequence[str]) -> None:
        for column, text in enumerate(texts):
            cell = QLabel(text)
            if column:
                cell.setAlignment(_RIGHT)
            else:
                # The name of a class may be longer than the dock is wide.
                cell.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
                cell.setToolTip(text)
            self._grid.addWidget(cell, row, column)
            self._cells.append(cell)

    def texts(self) -> list[str]:
        """Return what the table says, cell by cell."""
        return [cell.text() for cell in self._cells]

    def _on_use(self) -> None:
        self.use_requested.emit(self.name.text().strip())
