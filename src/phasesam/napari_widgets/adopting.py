"""Goes on with objects that are in a Labels layer already, such as a saved file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from phasesam.core.errors import PhaseSAMError
from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.layers import is_own
from phasesam.napari_widgets.planes import spatial_shape

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock


class AdoptRow(QWidget):
    """Combo of Labels layers that fit the image, and a button that takes their objects over.

    Parameters
    ----------
    dock : Dock
        Whose image; shows messages.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock = dock
        self._found: list[Labels] = []
        self.combo = narrow_combo("Labels layers of the same size as the image")
        self.button = QPushButton("Take over")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.combo, 1)
        layout.addWidget(self.button)
        self.button.clicked.connect(self._on_clicked)
        events = dock.viewer.layers.events
        for emitter in (
            events.inserted,
            events.removed,
            events.renamed,
            dock.state.events.image_changed,
        ):
            dock.subscriptions.connect(emitter, self._refresh)
        self._refresh()

    def _refresh(self, _event: Any = None) -> None:
        image = self._dock.state.image_layer
        state = self._dock.state
        shape = None if image is None else spatial_shape(image)
        self._found = [
            layer
            for layer in self._dock.viewer.layers
            if isinstance(layer, Labels)
            and (not is_own(layer) or state.is_orphan(layer))
            and spatial_shape(layer) == shape
        ]
        blocker = QSignalBlocker(self.combo)
        self.combo.clear()
        self.combo.addItems([layer.name for layer in self._found] or ["no Labels layer fits"])
        blocker.unblock()
        self.combo.setEnabled(bool(self._found))
        self.button.setEnabled(bool(self._found))

    def _on_clicked(self) -> None:
        image, index = self._dock.state.image_layer, self.combo.currentIndex()
        if image is None or not 0 <= index < len(self._found):
            return
        chosen = self._found[index]
        session = self._dock.state.session(image)
        before = {record.id: record for record in session.objects}
        try:
            self._dock.state.adopt_labels(image, chosen)
        except PhaseSAMError as error:
            self._dock.show_error(str(error))
            return
        chosen.visible = False
        after = {record.id: record for record in session.objects}
        replaced = sum(after.get(object_id) != record for object_id, record in before.items())
        self._dock.show_result(_report(len(after), replaced, chosen.name))


def _report(count: int, replaced: int, name: str) -> str:
    objects = "1 object" if count == 1 else f"{count} objects"
    text = f"{objects} taken over from {name}."
    if not replaced:
        return text
    verb = "1 object that was here was" if replaced == 1 else f"{replaced} objects here were"
    return f"{text} {verb} replaced; Undo brings {'it' if replaced == 1 else 'them'} back."
