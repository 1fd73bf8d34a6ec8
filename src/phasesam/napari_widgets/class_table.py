"""Colours, values and names of classes, to look at or to name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QModelIndex, QSignalBlocker, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemDelegate,
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

_VALUE = Qt.ItemDataRole.UserRole
_MOST_ROWS = 8
_SIDE = 14


@dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes
    ----------
    value : int
        Its value in the labels.
    name : str
        What it is called.
    colour : QColor
        As in the Labels layer.
    """

    value: int
    name: str
    colour: QColor


def swatch(colour: QColor, side: int = _SIDE) -> QIcon:
    """Make a small square of a colour."""
    pixmap = QPixmap(side, side)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    painter.drawRoundedRect(1, 1, side - 2, side - 2, 3, 3)
    painter.end()
    return QIcon(pixmap)


class _OnlyNames(QStyledItemDelegate):
    """Lets nothing but the names be edited."""

    def createEditor(  # type: ignore[override]  # None means that there is none
        self, parent: QWidget, option: QStyleOptionViewItem, index: QModelIndex
    ) -> QWidget | None:
        return super().createEditor(parent, option, index) if index.column() == 1 else None


class ClassTable(QTreeWidget):
    """A row for each class: colour and value, name, and what else is known.

    Parameters
    ----------
    columns : sequence of str
        Titles of what is known besides the name, filled with `set_texts`.
    editable : bool
        Whether names can be changed.
    """

    renamed = Signal(int, str)
    """The user gave the class with this value a name."""

    def __init__(
        self, columns: Sequence[str] = (), *, editable: bool = True, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._editable = editable
        self._count = 0
        self._colours: list[str] = []
        self._waiting: tuple[ClassRow, ...] | None = None
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._show_waiting)
        self.setItemDelegate(_OnlyNames(self))
        self.setHeaderLabels(("Value", "Class", *columns))
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(50)
        for column in range(2 + len(columns)):
            mode = QHeaderView.ResizeMode.ResizeToContents
            header.setSectionResizeMode(column, mode)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.itemChanged.connect(self._on_changed)
        self._fill(())

    def set_rows(self, rows: Sequence[ClassRow]) -> None:
        """Show classes; while a name is being typed, when that is done."""
        if self.state() == QAbstractItemView.State.EditingState:
            self._waiting = tuple(rows)
            return
        self._waiting = None
        if not self._shows(rows):
            self._fill(rows)

    def _shows(self, rows: Sequence[ClassRow]) -> bool:
        """Whether these are the classes shown, in these words and colours."""
        names = [(value, name) for value, name, _ in self.rows()]
        return self._colours == [row.colour.name() for row in rows] and names == [
            (row.value, row.name) for row in rows
        ]

    def closeEditor(self, editor: QWidget, hint: QAbstractItemDelegate.EndEditHint) -> None:
        """Show what came while a name was being typed."""
        super().closeEditor(editor, hint)
        self._later.start(0)

    def _show_waiting(self) -> None:
        if self._waiting is not None:
            self.set_rows(self._waiting)

    def _fill(self, rows: Sequence[ClassRow]) -> None:
        blocker = QSignalBlocker(self)
        self.clear()
        for row in rows:
            item = QTreeWidgetItem(self)
            item.setText(0, str(row.value))
            item.setSizeHint(0, QSize(0, self._row_height()))
            item.setIcon(0, swatch(row.colour))
            item.setData(0, _VALUE, row.value)
            item.setText(1, row.name)
            if self._editable:
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                item.setToolTip(1, "Double-click to change the name")
        self._count = len(rows)
        self._colours = [row.colour.name() for row in rows]
        blocker.unblock()
        self._fit_height()

    def set_texts(self, value: int, *texts: str) -> None:
        """Fill the further columns of a class."""
        for row in range(self._count):
            item = self.topLevelItem(row)
            if item is not None and item.data(0, _VALUE) == value:
                for column, text in enumerate(texts, start=2):
                    item.setText(column, text)
                    item.setTextAlignment(
                        column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )

    def rows(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """Value, name and further texts of each class, as shown."""
        found = []
        for row in range(self._count):
            item = self.topLevelItem(row)
            if item is not None:
                texts = tuple(item.text(column) for column in range(2, self.columnCount()))
                found.append((int(item.data(0, _VALUE)), item.text(1), texts))
        return found

    def _fit_height(self) -> None:
        rows = min(max(self._count, 1), _MOST_ROWS)
        self.setFixedHeight(self.header().sizeHint().height() + rows * self._row_height() + 6)
        policy = Qt.ScrollBarPolicy
        scrolls = self._count > _MOST_ROWS
        self.setVerticalScrollBarPolicy(
            policy.ScrollBarAsNeeded if scrolls else policy.ScrollBarAlwaysOff
        )

    def _row_height(self) -> int:
        return self.fontMetrics().height() + 7

    def edit_name(self, value: int, name: str) -> None:
        """Change a name, as the user does."""
        for row in range(self._count):
            item = self.topLevelItem(row)
            if item is not None and item.data(0, _VALUE) == value:
                item.setText(1, name)

    def _on_changed(self, item: QTreeWidgetItem, column: int) -> None:
        if column == 1:
            # Worked out before this name was known.
            self._waiting = None
            self.renamed.emit(int(item.data(0, _VALUE)), item.text(1).strip())
