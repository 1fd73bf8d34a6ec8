"""The widgets of the *Phase ratio* dock, and the plane that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton

from phasesam.core.errors import UnsupportedViewError
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.phase_models import NO_PHASE_MODEL, PhaseAdapterChoice
from phasesam.napari_widgets.ratio_counting import CountedArea
from phasesam.napari_widgets.ratio_layers import RatioLayers
from phasesam.napari_widgets.ratio_plane import MappedPlane
from phasesam.napari_widgets.ratio_presets import RatioPresets
from phasesam.napari_widgets.ratio_regions import RatioRegions
from phasesam.napari_widgets.ratio_results import RatioResults
from phasesam.napari_widgets.ratio_rows import RatioRows
from phasesam.napari_widgets.ratio_run import RatioAnswer
from phasesam.napari_widgets.ratio_shown import area_of, shown_shares

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QWidget


class RatioBody(Dock):
    """The dock without what its widgets do; see `phasesam.napari_widgets.ratio.RatioDock`.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.layers = RatioLayers(self.viewer)
        self._mapped: MappedPlane | None = None
        self._answer: RatioAnswer | None = None
        self._fill()
        self._lay_out_body()

    def _fill(self) -> None:
        self._choice = PhaseAdapterChoice()
        self.adapters = self._choice.combo
        self.hint = QLabel(NO_PHASE_MODEL)
        self.hint.setWordWrap(True)
        self.map_button = _button(
            "Map phases", "Let the model map the plane in view; then move the sliders"
        )
        self.tell_button = _button(
            "Map again with these shares",
            "Tell the network these shares, too: it was trained to take them as a hint of what is\n"
            "where. The solver then meets them on the new map. For shares of the whole plane, not\n"
            "of regions.",
        )
        self.rows = RatioRows()
        self.regions = RatioRegions(self.viewer, self.subscriptions)
        self.presets = RatioPresets(self.viewer, self.subscriptions, self._area)
        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.before_button = _button(
            "Before (Q)", "Show the map as the model sees it, without the request"
        )
        self.before_button.setCheckable(True)
        self.undo_button, self.redo_button = _button("Undo (Ctrl+Z)"), _button("Redo")
        self.stack_button = _button(
            "Whole stack with these shares",
            "Map all planes, then give the stack as a whole these shares: planes may differ.\n"
            "The maps go to a layer of their own. For shares of whole planes, not of regions.",
        )
        self.results = RatioResults(self.layers)

    def _lay_out_body(self) -> None:
        top = QGridLayout()
        top.setColumnStretch(1, 1)
        top.addWidget(QLabel("Phases of"), 0, 0)
        top.addWidget(self.adapters, 0, 1)
        top.addWidget(self.map_button, 0, 2)
        self.body.addLayout(top)
        self.body.addWidget(self.hint)
        self.body.addWidget(self.rows)
        self.body.addWidget(self.tell_button)
        self.body.addWidget(self.regions)
        self.body.addWidget(self.presets)
        self.body.addWidget(self.verdict)
        row = QHBoxLayout()
        for widget in (self.before_button, self.undo_button, self.redo_button):
            row.addWidget(widget)
        self.body.addLayout(row)
        self.body.addWidget(self.stack_button)
        self.body.addWidget(self.results)

    @property
    def mapped(self) -> MappedPlane | None:
        """The mapped plane, if it is the one in view and of the adapter chosen."""
        mapped, image, chosen = self._mapped, self.state.image_layer, self._choice.chosen
        if mapped is None or image is None or chosen is None:
            return None
        if not mapped.is_of(image, chosen[0].name, chosen[1]):
            return None
        try:
            return mapped if self.state.plane(image).index == mapped.plane else None
        except UnsupportedViewError:
            return None

    def _area(self) -> CountedArea | None:
        mapped, image = self.mapped, self.state.image_layer
        return None if mapped is None or image is None else area_of(mapped, image, self.regions)

    def _show_now(self) -> None:
        mapped, answer, image = self.mapped, self._answer, self.state.image_layer
        if mapped is None or answer is None or image is None:
            self.rows.set_now(None)
            return
        before = self.before_button.isChecked()
        region = self.regions.current
        self.rows.set_now(*shown_shares(self.layers, image, answer, region, before=before))


def _button(text: str, tip: str = "") -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button
