"""Table of the objects: sorting and filtering by whole columns, fast for many thousands of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from phasesam.core.errors import InvalidSettingError
from phasesam.napari_widgets.table_filter import filter_rows

_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_LEAST_HEIGHT = 120
_NO_PARENT = QModelIndex()


@dataclass(frozen=True)
class TableColumn:
    """How one column is shown.

    Attributes
    ----------
    key : str
        Name of the column in the data and in the filter box.
    title : str
        Heading, with the unit.
    tooltip : str
        What the number means.
    decimals : int
        Digits after the point; -1 for text, 0 for whole numbers.
    editable : bool
        Whether the user may change it by a double click.
    """

    key: str
    title: str
    tooltip: str = ""
    decimals: int = -1
    editable: bool = False

    def text(self, value: Any) -> str:
        """Write one value."""
        if isinstance(value, bool | np.bool_):
            return "yes" if value else ""
        if self.decimals < 0 or isinstance(value, str):
            return str(value)
        if not np.isfinite(value):
            return "–"
        return f"{value:,.{self.decimals}f}".replace(",", "\u202f")


class ObjectTableModel(QAbstractTableModel):
    """Measured objects, one a row; holds the columns as arrays and an order of rows."""

    value_edited = Signal(int, str, str)
    """Object id, column key and new text, when the user edits a cell."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._columns: tuple[TableColumn, ...] = ()
        self._data: dict[str, NDArray[Any]] = {"id": np.zeros(0, np.int64)}
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._filter = ""
        self._sort: tuple[str, bool] = ("id", True)

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """What is shown, from left to right."""
        return self._columns

    @property
    def ids(self) -> NDArray[np.int64]:
        """Object ids of the rows shown, from top to bottom."""
        return np.asarray(self._data["id"][self._rows], dtype=np.int64)

    @property
    def total(self) -> int:
        """Number of objects, shown or filtered out."""
        return len(self._data["id"])

    def shown(self, key: str) -> NDArray[Any]:
        """Values of one column in the rows shown."""
        return np.asarray(self._data[key][self._rows])

    def set_table(self, columns: Sequence[TableColumn], data: Mapping[str, NDArray[Any]]) -> None:
        """Replace everything; sort order and filter stay.

        Parameters
        ----------
        columns : sequence of TableColumn
            What to show; every key must be in ``data``.
        data : mapping of str to (n,) array
            The columns; must have ``"id"``.
        """
        self.beginResetModel()
        self._columns = tuple(columns)
        self._data = {key: np.asarray(values) for key, values in data.items()}
        self._arrange()
        self.endResetModel()

    def set_filter(self, text: str) -> None:
        """Show only the rows that ``text`` asks for (see `filter_rows`).

        Raises
        ------
        InvalidSettingError
            If the text cannot be read; the rows stay as they are.
        """
        filter_rows(text, self._data)
        self.beginResetModel()
        self._filter = text
        self._arrange()
        self.endResetModel()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; missing numbers come last either way."""
        if not 0 <= column < len(self._columns):
            return
        self.beginResetModel()
        self._sort = (self._columns[column].key, order == Qt.SortOrder.AscendingOrder)
        self._arrange()
        self.endResetModel()

    def _arrange(self) -> None:
        """Work out which rows are shown in which order."""
        try:
            rows = np.flatnonzero(filter_rows(self._filter, self._data))
        except InvalidSettingError:
            # The filter was written for other columns, such as those of another image.
            rows = np.arange(self.total)
        key, ascending = self._sort
        values = self._data.get(key, self._data["id"])[rows]
        if values.dtype.kind in "OUT":
            order = np.argsort(values.astype(str), kind="stable")
            order = order if ascending else order[::-1]
        else:
            numbers = values.astype(np.float64)
            order = np.argsort(numbers if ascending else -numbers, kind="stable")
        self._rows = rows[order]

    def rows_of(self, ids: Iterable[int]) -> NDArray[np.int64]:
        """Rows in which the given objects are shown, ascending; hidden ones are left out."""
        wanted = np.fromiter(ids, dtype=np.int64)
        return np.flatnonzero(np.isin(self.ids, wanted))

    def rowCount(self, parent: Any = _NO_PARENT) -> int:
        """Count the rows shown."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Any = _NO_PARENT) -> int:
        """Count the columns."""
        return 0 if parent.isValid() else len(self._columns)

    def data(self, index: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text and alignment of one cell; only cells on the screen are ever asked for."""
        if not index.isValid():
            return None
        column = self._columns[index.column()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return column.text(self._data[column.key][self._rows[index.row()]])
        if role == Qt.ItemDataRole.TextAlignmentRole and column.decimals >= 0:
            return _RIGHT
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Titles and tooltips of the columns."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._columns):
            return None
        column = self._columns[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{column.tooltip}\nIn the filter box: {column.key}".strip()
        return None

    def flags(self, index: Any) -> Any:
        """Cells can be selected; some can be edited."""
        flags = super().flags(index)
        if index.isValid() and self._columns[index.column()].editable:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def setData(self, index: Any, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Ask for an edit; the table changes when the session has carried it out."""
        if role != Qt.ItemDataRole.EditRole or not index.isValid():
            return False
        column = self._columns[index.column()]
        row = self._rows[index.row()]
        if str(value) == str(self._data[column.key][row]):
            return False
        self.value_edited.emit(int(self._data["id"][row]), column.key, str(value))
        return True


class ObjectTableView(QTableView):
    """Rows that can be selected one, several or all at a time.

    The selection is a set of object ids: sorting, filtering and edits keep it.
    """

    ids_selected = Signal(object)
    """List of ids, when the user changed the selection."""
    delete_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = ObjectTableModel(self)
        self.setModel(self.table)
        self._chosen: tuple[int, ...] = ()
        self._quiet = False
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setMinimumHeight(_LEAST_HEIGHT)
        self.setAccessibleName("Objects")
        self.verticalHeader().setVisible(False)
        # Fixed heights: measuring thousands of rows would take seconds.
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 8)
        self.horizontalHeader().setStretchLastSection(True)
        self.horizontalHeader().setHighlightSections(False)
        self.table.modelAboutToBeReset.connect(self._before_reset)
        self.table.modelReset.connect(self._after_reset)
        self.selectionModel().selectionChanged.connect(self._on_selection)

    def show_table(self, columns: Sequence[TableColumn], data: Mapping[str, NDArray[Any]]) -> None:
        """Replace the contents; widths are set anew only if the columns are others."""
        fresh = tuple(columns) != self.table.columns
        self.table.set_table(columns, data)
        if fresh:
            self._fit_widths()

    def _fit_widths(self) -> None:
        """Make every column as wide as its heading and a usual number need."""
        metrics = self.fontMetrics()
        for section, column in enumerate(self.table.columns):
            sample = "particle" if column.decimals < 0 else "0000" + "0" * column.decimals
            usual = min(metrics.horizontalAdvance(sample), 48)
            heading = metrics.horizontalAdvance(column.title) + 2
            self.setColumnWidth(section, max(usual if column.editable else 0, heading, 26) + 13)

    def sizeHint(self) -> QSize:
        """Ask for room for all columns; the height is what the dock has left."""
        return QSize(self.horizontalHeader().length() + 24, _LEAST_HEIGHT)

    def selected_ids(self) -> list[int]:
        """Return the selected objects that are shown, in the order of the rows."""
        rows: set[int] = set()
        # Range by range: an index for each of thousands of rows takes long to make.
        blocks: Any = self.selectionModel().selection()
        for block in blocks:
            rows.update(range(block.top(), block.bottom() + 1))
        ids = self.table.ids
        return [int(ids[row]) for row in sorted(rows) if row < len(ids)]

    def select_ids(self, ids: Iterable[int], scroll: bool = True) -> None:
        """Select objects without emitting `ids_selected`, and bring the first into view."""
        self._chosen = tuple(int(i) for i in ids)
        self._restore()
        rows = self.table.rows_of(self._chosen)
        if scroll and len(rows):
            self.scrollTo(
                self.table.index(int(rows[0]), 0), QAbstractItemView.ScrollHint.EnsureVisible
            )

    def keyPressEvent(self, event: Any) -> None:
        """Delete asks for the deletion of the selected objects."""
        if event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.delete_requested.emit()
        else:
            super().keyPressEvent(event)

    def _quietly(self, action: Callable[[], Any]) -> None:
        quiet, self._quiet = self._quiet, True
        try:
            action()
        finally:
            self._quiet = quiet

    def _before_reset(self) -> None:
        self._quiet = True

    def _after_reset(self) -> None:
        self._restore()
        self._quiet = False

    def _restore(self) -> None:
        """Select the chosen objects again, run by run of neighbouring rows."""
        rows = self.table.rows_of(self._chosen)
        selection = QItemSelection()
        last = self.table.columnCount() - 1
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if len(run) and last >= 0:
                selection.select(
                    self.table.index(int(run[0]), 0), self.table.index(int(run[-1]), last)
                )
        flags = QItemSelectionModel.SelectionFlag
        self._quietly(
            lambda: self.selectionModel().select(selection, flags.ClearAndSelect | flags.Rows)
        )

    def _on_selection(self, *_: object) -> None:
        if self._quiet:
            return
        self._chosen = tuple(self.selected_ids())
        self.ids_selected.emit(list(self._chosen))
