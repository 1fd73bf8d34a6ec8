"""The switch for learning while annotating, what came of it, and what to do with that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from phasesam.core.errors import PhaseSAMError
from phasesam.models.adapter_store import check_name, list_adapters
from phasesam.napari_widgets.learning import AnnotationLearning

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock

_SWITCH_TIP = (
    "After each object you add, the model takes a few quick steps towards it in the background,\n"
    "so that objects of the same kind need fewer clicks. Undo takes the steps back, too.\n"
    "Only this dock answers with what was learnt; nothing is kept unless you ask for it."
)
_EFFECT_TIP = (
    "First click: mean IoU of a click in the middle of each of the latest objects, with the mask\n"
    "you added; by the model as it was → with what had been learnt before that object.\n"
    "Masks that you accept unchanged favour the second figure."
)


class LearningPanel(QWidget):
    """Check box; below it, while it is on, a line of text and two buttons.

    Parameters
    ----------
    dock : Dock
        Whose model learns; shows messages.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock = dock
        self.learning = AnnotationLearning(dock)
        self.switch = QCheckBox("Learn while annotating")
        self.switch.setToolTip(_SWITCH_TIP)
        self.line = QLabel()
        self.line.setWordWrap(True)
        self.forget = QPushButton("Forget")
        self.forget.setToolTip("Go back to the model as it was; this cannot be undone")
        self.keep = QPushButton("Keep…")
        self.keep.setToolTip(
            "Save what was learnt as an adapter, to be chosen as the model in all docks"
        )
        self.details = QWidget()
        buttons = QHBoxLayout()
        buttons.addWidget(self.forget)
        buttons.addWidget(self.keep)
        rows = QVBoxLayout(self.details)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(self.line)
        rows.addLayout(buttons)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.switch)
        column.addWidget(self.details)
        self.switch.toggled.connect(self.learning.set_on)
        self.forget.clicked.connect(self.learning.forget)
        self.keep.clicked.connect(self._on_keep)
        self.learning.changed.connect(self._refresh)
        self._refresh()

    def _refresh(self) -> None:
        learning = self.learning
        self.details.setVisible(learning.is_on)
        self.line.setText(learning.text())
        self.line.setToolTip(_EFFECT_TIP)
        self.forget.setEnabled(learning.learner is not None or learning.busy)
        self.keep.setEnabled(learning.learnt is not None)

    def _on_keep(self) -> None:
        name, accepted = QInputDialog.getText(
            self, "Keep what was learnt", "Name of the adapter:", text=self._proposed_name()
        )
        name = name.strip()
        if not accepted or not name:
            return
        try:
            check_name(name)
        except PhaseSAMError as error:
            self._dock.show_error(str(error))
            return
        self.learning.keep(name)

    def _proposed_name(self) -> str:
        """Make a free name from that of the image."""
        image = self._dock.state.image_layer
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", "" if image is None else image.name).strip("-_")
        stem = f"{stem[:40]}-learnt" if stem else "learnt"
        taken = {entry.name.casefold() for entry in list_adapters()}
        names = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))]
        return next(name for name in names if name.casefold() not in taken)
