"""Shares from elsewhere: the model's own, those of a Labels layer, those of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QWidget

from phasesam.core.errors import PhaseSAMError
from phasesam.core.ratio_request import RatioRequest
from phasesam.core.ratio_shares import PhaseShares
from phasesam.formats.shares_csv import read_shares_csv
from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.ratio_counting import CountedArea, counted_shares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel

    from phasesam.napari_widgets.subscriptions import Subscriptions

_TITLE = "Choose …"
_OWN = "Model's own"
_FILE = "From a CSV file …"


class RatioPresets(QWidget):
    """A combo box that fills in shares.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Its Labels layers are offered.
    subscriptions : Subscriptions
        Of the dock.
    area : callable
        Called without arguments; says where a layer is counted, if there is anything mapped.
    """

    chosen = Signal(object)
    """`PhaseShares`, or None for those of the model."""
    failed = Signal(str)
    """Why there are none."""

    def __init__(
        self,
        viewer: ViewerModel,
        subscriptions: Subscriptions,
        area: Callable[[], CountedArea | None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = ref(viewer)
        self._area = area
        self._classes: tuple[str, ...] = ()
        self.combo = narrow_combo("Take the wanted shares from somewhere else")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("Presets"))
        layout.addWidget(self.combo, 1)
        self.combo.activated.connect(lambda _index: self._on_chosen())
        for emitter in (viewer.layers.events.inserted, viewer.layers.events.removed):
            subscriptions.connect(emitter, self._fill)
        self.set_phases(())

    def set_phases(self, classes: Sequence[str]) -> None:
        """Say which phases there are; none switches the presets off."""
        self._classes = tuple(classes)
        self.setEnabled(bool(classes))
        self._fill()

    def _fill(self, _event: object = None) -> None:
        self.combo.clear()
        self.combo.addItems([_TITLE, _OWN, *(layer.name for layer in self._layers()), _FILE])

    def _layers(self) -> list[Labels]:
        """Labels layers that have the phases: by name, or as values from 1."""
        viewer = self._viewer()
        if viewer is None:
            return []
        return [layer for layer in viewer.layers if isinstance(layer, Labels)]

    def _on_chosen(self) -> None:
        index, last = self.combo.currentIndex(), self.combo.count() - 1
        self.combo.setCurrentIndex(0)
        if index == 1:
            self.chosen.emit(None)
        elif index == last:
            path, _ = QFileDialog.getOpenFileName(self, "Shares of phases", "", "CSV (*.csv)")
            if path:
                self.read(path)
        elif index > 1:
            self.take(self._layers()[index - 2])

    def take(self, layer: Labels) -> None:
        """Take the shares of the phases in a Labels layer, where the sliders are."""
        area = self._area()
        if area is None:
            return
        try:
            amounts = counted_shares(layer, self._classes, area)
        except PhaseSAMError as error:
            self.failed.emit(str(error))
            return
        self.chosen.emit(PhaseShares.of(amounts, given=True))

    def read(self, path: str) -> None:
        """Take the shares in a CSV file; phases that it does not name are unknown."""
        try:
            found = read_shares_csv(path, self._classes)
        except PhaseSAMError as error:
            self.failed.emit(str(error))
            return
        try:
            # As everywhere: numbers that miss a sum of 1 by rounding are scaled.
            RatioRequest([found.get(name, (None,))[0] for name in self._classes])
        except PhaseSAMError as error:
            self.failed.emit(f"{path}: {error}")
            return
        total = sum(share for share, _ in found.values())
        missing = [name for name in self._classes if name not in found]
        rest = max(0.0, 1 - total) / max(1, len(missing))
        values = [found.get(name, (rest, 0.0))[0] for name in self._classes]
        shares = PhaseShares.of(values, given=True)
        for k, name in enumerate(self._classes):
            if name in found:
                shares = shares.with_error(k, found[name][1])
            else:
                shares = shares.with_unknown(k, True)
        self.chosen.emit(shares)
