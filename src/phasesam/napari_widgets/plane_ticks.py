"""A button with a list of planes to tick."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
    QWidgetAction,
)

Plane = tuple[int, ...]
_PLANE = Qt.ItemDataRole.UserRole


def plane_text(plane: Plane) -> str:
    """Write the position of a plane, counted from 0 as napari's sliders do."""
    return ", ".join(str(index) for index in plane)


class PlaneTicks(QToolButton):
    """Says how many planes are ticked; pressed, it lists them."""

    ticked = Signal()
    """The user ticked something."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setToolTip("Planes to learn from: those with labels. Press to choose among them.")
        self.list = QListWidget()
        self.list.setMaximumHeight(260)
        self.list.itemChanged.connect(self._on_changed)
        self.all_button = QPushButton("All")
        self.none_button = QPushButton("None")
        self.all_button.clicked.connect(lambda: self._tick_all(True))
        self.none_button.clicked.connect(lambda: self._tick_all(False))
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(6, 6, 6, 6)
        column.addWidget(self.list)
        row = QHBoxLayout()
        row.addWidget(self.all_button)
        row.addWidget(self.none_button)
        column.addLayout(row)
        menu = QMenu(self)
        action = QWidgetAction(menu)
        action.setDefaultWidget(content)
        menu.addAction(action)
        self.setMenu(menu)
        self._refresh()

    def set_planes(self, planes: Sequence[Plane], dropped: Collection[Plane] = ()) -> None:
        """List planes, all ticked but those dropped."""
        blocker = QSignalBlocker(self.list)
        self.list.clear()
        for plane in planes:
            item = QListWidgetItem(f"plane {plane_text(plane)}", self.list)
            item.setData(_PLANE, plane)
            item.setCheckState(
                Qt.CheckState.Unchecked if plane in dropped else Qt.CheckState.Checked
            )
        blocker.unblock()
        self._refresh()

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Planes that are ticked."""
        return tuple(self._planes(Qt.CheckState.Checked))

    @property
    def dropped(self) -> frozenset[Plane]:
        """Planes that are not."""
        return frozenset(self._planes(Qt.CheckState.Unchecked))

    def _planes(self, state: Qt.CheckState) -> list[Plane]:
        items = [self.list.item(row) for row in range(self.list.count())]
        return [tuple(item.data(_PLANE)) for item in items if item.checkState() == state]

    def _tick_all(self, on: bool) -> None:
        blocker = QSignalBlocker(self.list)
        for row in range(self.list.count()):
            self.list.item(row).setCheckState(
                Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
            )
        blocker.unblock()
        self._on_changed()

    def _on_changed(self, _item: QListWidgetItem | None = None) -> None:
        self._refresh()
        self.ticked.emit()

    def _refresh(self) -> None:
        total, chosen = self.list.count(), len(self.planes)
        self.setEnabled(total > 0)
        if total == 0:
            self.setText("none labelled")
        elif chosen == total:
            self.setText("1 plane" if total == 1 else f"{total} planes")
        else:
            self.setText(f"{chosen} of {total} planes")
