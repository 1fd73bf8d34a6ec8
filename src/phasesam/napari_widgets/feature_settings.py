"""The folded-away part of the *Encoder features* dock: what is compared, and how it is coloured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QLineEdit, QListWidget, QListWidgetItem, QSpinBox

from phasesam.engines.feature_config import MOST_GROUPS, FeatureConfig
from phasesam.napari_widgets.toggle_row import ToggleRow

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.napari_widgets.dock import Dock

_BASES = (
    ("principal", "Largest variance", "Principal components of the features"),
    ("classes", "Between labels", "Directions that tell the labelled phases apart best"),
)
_SPACES = (
    ("rgb", "RGB", "Three directions as red, green and blue"),
    ("lab", "Lab", "As lightness and hue: equal differences look equal"),
    ("groups", "Groups", "Groups of alike tokens (k-means), one colour each in all layers"),
)
_LIST_HEIGHT = 72


class FeatureSettings:
    """Rows in the advanced part of a dock.

    Parameters
    ----------
    dock : Dock
        Gets the rows.
    """

    def __init__(self, dock: Dock) -> None:
        self.which = QLineEdit()
        self.which.setPlaceholderText("all")
        self.basis = ToggleRow(_BASES, columns=2)
        self.space = ToggleRow(_SPACES, columns=3)
        self.groups = QSpinBox()
        self.groups.setRange(2, MOST_GROUPS)
        self.groups.setValue(4)
        self.planes = QSpinBox()
        self.planes.setRange(1, 64)
        self.planes.setSpecialValueText("the one in view")
        self.others = QListWidget()
        self.others.setMaximumHeight(_LIST_HEIGHT)
        self.basis.set_current("principal")
        self.space.set_current("rgb")
        self.continuous = QCheckBox("Colours follow from layer to layer")
        self.continuous.setChecked(True)
        self.foreground = QCheckBox("Foreground only")
        self._add_to(dock)
        self.space.chosen.connect(self._on_space)
        self._on_space()
        self.list_images((), None)

    def _add_to(self, dock: Dock) -> None:
        dock.add_advanced("Layers", self.which, "Names, separated by commas: block3, block6, neck")
        dock.add_advanced("Directions", self.basis)
        dock.add_advanced("Colours", self.space)
        dock.add_advanced("Groups", self.groups, "How many, where groups are coloured")
        dock.add_advanced(
            "More images",
            self.others,
            "Images that are looked at as well: each gets stacks of its own, and in all of them\n"
            "the same colour means the same.",
        )
        dock.add_advanced(
            "Planes",
            self.planes,
            "Of a stack: planes that directions, groups and figures are made from, spread over\n"
            "it. The colours then hardly depend on which plane is in view. Each is encoded.",
        )
        dock.add_advanced(
            "", self.continuous, "Otherwise each layer has its own directions, in their own order"
        )
        dock.add_advanced(
            "", self.foreground, "Colour only the smaller part that the last layer sets apart"
        )

    def _on_space(self, _key: str = "") -> None:
        is_grouped = self.space.current == "groups"
        self.groups.setEnabled(is_grouped)
        self.continuous.setEnabled(not is_grouped)

    def list_images(self, images: Sequence[Image], active: Image | None) -> None:
        """Offer images besides the active one; those that are ticked stay so."""
        ticked = {id(image) for image in self.images}
        self.others.clear()
        for image in images:
            if image is active:
                continue
            item = QListWidgetItem(image.name)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            is_ticked = id(image) in ticked
            item.setCheckState(Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked)
            item.setData(Qt.ItemDataRole.UserRole, ref(image))
            self.others.addItem(item)
        self.others.setEnabled(self.others.count() > 0)
        self.planes.setEnabled(active is not None and active.ndim > 2)

    @property
    def images(self) -> list[Image]:
        """Images that are ticked."""
        items = [self.others.item(row) for row in range(self.others.count())]
        chosen = [item for item in items if item.checkState() == Qt.CheckState.Checked]
        found = [item.data(Qt.ItemDataRole.UserRole)() for item in chosen]
        return [image for image in found if image is not None]

    @property
    def config(self) -> FeatureConfig:
        """What is set.

        Raises
        ------
        InvalidSettingError
            If it makes no sense.
        """
        names = tuple(n for n in self.which.text().replace(" ", "").split(",") if n)
        basis: Any = self.basis.current
        space: Any = self.space.current
        is_grouped = space == "groups"
        return FeatureConfig(
            names or None, basis, self.continuous.isChecked(), self.foreground.isChecked(),
            "rgb" if is_grouped else space, self.groups.value() if is_grouped else 0,
        )  # fmt: skip
