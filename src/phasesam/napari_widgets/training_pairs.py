"""The pairs of image and labels in a viewer: a table with ticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Labels
from qtpy.QtCore import QSignalBlocker, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.plane_ticks import PlaneTicks
from phasesam.napari_widgets.planes import full_resolution, spatial_shape
from phasesam.napari_widgets.subscriptions import Subscriptions
from phasesam.napari_widgets.training_changes import LayerChanges
from phasesam.napari_widgets.training_layers import (
    LabelChoice,
    LabelScan,
    Places,
    Plane,
    doubt_about,
    images_for,
    is_learnable,
    lies_on,
    misfit_text,
    scan_labels,
    signs_of,
)
from phasesam.napari_widgets.workers import Failure, Lane

if TYPE_CHECKING:
    from phasesam.napari_widgets.viewer_state import ViewerState

_SETTLE_MS = 1200
_MOST_ROWS = 6


@dataclass(frozen=True, eq=False)
class ChosenPair:
    """A row that is ticked and has something to learn from.

    Attributes
    ----------
    image, labels : Image, Labels
        The layers.
    planes : tuple of tuple of int
        Planes that are ticked.
    scan : LabelScan
        What the labels hold.
    """

    image: Image
    labels: Labels
    planes: tuple[Plane, ...]
    scan: LabelScan


class PairTable(QTreeWidget):
    """One row for each Labels layer that fits an image; those ticked are learnt from.

    What labels hold is found out in a worker, and again when they were painted on. Labels stay
    with their image whatever it is called; those that no longer fit it are no longer listed.

    Parameters
    ----------
    state : ViewerState
        Whose layers.
    """

    changed = Signal()
    """Something else is to be learnt from."""
    failed = Signal(str)

    def __init__(self, state: ViewerState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._choices: WeakKeyDictionary[Labels, LabelChoice] = WeakKeyDictionary()
        self._rows: list[Labels] = []
        self._misfits: list[str] = []
        self._lane = Lane(self, drop_older=False)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._scan_next)
        # Not at once: napari is still busy with the layer list, and more may change.
        self._listing = QTimer(self)
        self._listing.setSingleShot(True)
        self._listing.timeout.connect(self._refresh_and_tell)
        self._make_columns()
        self.itemChanged.connect(self._on_item_changed)
        self._changes = LayerChanges(state, self)
        self._changes.reshaped.connect(self._on_reshaped)
        self._changes.moved.connect(self._on_moved)
        self._changes.written.connect(self._on_written)
        self._subscriptions = Subscriptions(self)
        events = state.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered, events.renamed):
            self._subscriptions.connect(emitter, self._on_layers)
        self.refresh()

    def _make_columns(self) -> None:
        self.setHeaderLabels(("Labels", "of image", "Planes"))
        self.setRootIsDecorated(False)
        self.setToolTip(
            "Labels layers that fit an image. Tick those to learn from: painted by hand, made\n"
            "with the other docks, or corrected maps of phases."
        )
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(60)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(2, QHeaderView.ResizeMode.ResizeToContents)

    # ------------------------------------------------------------------ what is there

    def refresh(self) -> None:
        """List the layers of the viewer anew."""
        blocker = QSignalBlocker(self)
        self.clear()
        self._rows, self._misfits = [], []
        places: Places = {}
        for layer in reversed(self._state.viewer.layers):
            if isinstance(layer, (Image, Labels)):
                self._changes.follow(layer)
            if is_learnable(layer):
                self._list(layer, places)
        self.setColumnHidden(2, all(labels.ndim == 2 for labels in self._rows))
        blocker.unblock()
        self._fit_height()
        self._ask_for_scan(0)

    def _list(self, labels: Labels, places: Places) -> None:
        """Add a row for labels that fit an image, or remember that they fit none."""
        choice = self._choices.setdefault(labels, LabelChoice())
        images = images_for(self._state, labels, places)
        if self._pair(labels, images):
            self._add_row(labels, images)
        elif self._state.images():
            self._misfits.append(misfit_text(self._state, labels, choice.image_now))

    def _pair(self, labels: Labels, images: Sequence[Image]) -> bool:
        """Choose one of the images that labels fit, unless they are those of another one."""
        if not images:
            return False
        choice, best = self._choices[labels], images[0]
        before = choice.image_now
        signs = signs_of(self._state, labels, best)
        if before in images and (choice.is_chosen or not self._is_likelier(labels, best, before)):
            return True
        # An image that merely has their size must not take the place of their own.
        is_lost = choice.image is not None and before not in images and not any(signs)
        if is_lost and before in self._state.images():
            return False
        choice.image, choice.signs, choice.is_chosen = ref(best), signs, False
        if is_lost:
            choice.ticked = False
        elif not choice.is_touched:
            choice.ticked = self._is_first(labels) and not doubt_about(self._state, labels, best)
        return True

    def _is_likelier(self, labels: Labels, image: Image, before: Image) -> bool:
        """Whether labels are rather those of another image than of the one they had."""
        signs, then = signs_of(self._state, labels, image), self._choices[labels].signs
        if then is not None and (any(signs) or any(then)):
            return signs > then
        return lies_on(labels, image) and not lies_on(labels, before)

    def _add_row(self, labels: Labels, images: Sequence[Image]) -> None:
        self._rows.append(labels)
        item = QTreeWidgetItem(self)
        item.setSizeHint(0, QSize(0, self._row_height()))
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        on = self._choices[labels].ticked
        item.setCheckState(0, Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        image = self._image_of(labels)
        if image is None or len(images) == 1:
            item.setText(1, images[0].name)
            item.setToolTip(1, images[0].name)
        else:
            combo = narrow_combo("Image that these labels belong to")
            for candidate in images:
                combo.addItem(candidate.name)
            combo.setCurrentIndex(images.index(image))
            combo.activated.connect(lambda index: self._choose_image(labels, images[index]))
            self.setItemWidget(item, 1, combo)
        if labels.ndim > 2:
            ticks = PlaneTicks()
            ticks.ticked.connect(lambda: self._choose_planes(labels, ticks))
            self.setItemWidget(item, 2, ticks)
        self._show_name(item, labels)
        self._show_scan(labels)

    def _show_name(self, item: QTreeWidgetItem, labels: Labels) -> None:
        """Show the name, and what is odd about these labels."""
        scan, image = self._choices[labels].scan, self._image_of(labels)
        doubt = "" if image is None else doubt_about(self._state, labels, image)
        notes = ["empty"] if scan is not None and not scan.planes and labels.ndim == 2 else []
        notes += ["not of this image?"] if doubt else []
        item.setText(0, f"{labels.name} ({', '.join(notes)})" if notes else labels.name)
        tip = f"{labels.name}\nThese labels {doubt}.\nTick them if they fit it pixel by pixel."
        item.setToolTip(0, tip if doubt else labels.name)

    def _is_first(self, labels: Labels) -> bool:
        """Whether a layer is visible and the first that belongs to its image."""
        image = self._image_of(labels)
        taken = [
            self._image_of(other)
            for other in self._rows
            if other is not labels and self._choices[other].ticked
        ]
        return bool(labels.visible) and image not in taken

    def _image_of(self, labels: Labels) -> Image | None:
        """Return the image of a row; None if it has gone, or has another size, since then."""
        image = self._choices[labels].image_now
        is_there = image in self._state.images() and labels in self._state.viewer.layers
        fits = image is not None and spatial_shape(image) == spatial_shape(labels)
        return image if is_there and fits else None

    def _show_scan(self, labels: Labels) -> None:
        row = self._rows.index(labels)
        item = self.topLevelItem(row)
        choice = self._choices[labels]
        if item is None or choice.scan is None:
            return
        ticks = self.itemWidget(item, 2)
        if isinstance(ticks, PlaneTicks):
            ticks.set_planes(choice.scan.planes, choice.dropped)
        self._show_name(item, labels)

    def _fit_height(self) -> None:
        """Be as high as the rows need, within limits."""
        rows = min(max(len(self._rows), 1), _MOST_ROWS)
        self.setFixedHeight(self.header().sizeHint().height() + rows * self._row_height() + 8)
        policy, fits = Qt.ScrollBarPolicy, len(self._rows) <= _MOST_ROWS
        self.setVerticalScrollBarPolicy(
            policy.ScrollBarAlwaysOff if fits else policy.ScrollBarAsNeeded
        )

    def _row_height(self) -> int:
        """Room enough for a combo box."""
        return self.fontMetrics().height() + 11

    # ------------------------------------------------------------------ what was chosen

    def chosen(self) -> list[ChosenPair]:
        """Rows to learn from; those that are still being looked at are not among them."""
        return list(self._chosen())

    def _chosen(self) -> Iterator[ChosenPair]:
        for labels in self._rows:
            choice = self._choices[labels]
            if not choice.ticked or choice.scan is None:
                continue
            planes = tuple(p for p in choice.scan.planes if p not in choice.dropped)
            image = self._image_of(labels)
            if planes and image is not None:
                yield ChosenPair(image, labels, planes, choice.scan)

    @property
    def is_scanning(self) -> bool:
        """Whether a layer that is ticked is still to be looked at."""
        return self._lane.busy or self._next_to_scan() is not None

    @property
    def has_rows(self) -> bool:
        """Whether there are labels that fit an image."""
        return bool(self._rows)

    @property
    def misfits(self) -> tuple[str, ...]:
        """A sentence for each Labels layer that fits no image."""
        return tuple(self._misfits)

    def tick(self, labels: Labels, on: bool = True) -> None:
        """Tick a layer, as a click does."""
        item = self.topLevelItem(self._rows.index(labels))
        if item is not None:
            item.setCheckState(0, Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)

    def _on_item_changed(self, item: QTreeWidgetItem, column: int) -> None:
        row = self.indexOfTopLevelItem(item)
        if column == 0 and 0 <= row < len(self._rows):
            on = item.checkState(0) == Qt.CheckState.Checked
            choice = self._choices[self._rows[row]]
            # The text of an item changes, too.
            if on == choice.ticked:
                return
            choice.ticked, choice.is_touched = on, True
            self._ask_for_scan(0)
            self.changed.emit()

    def _choose_image(self, labels: Labels, image: Image) -> None:
        choice = self._choices[labels]
        choice.image, choice.is_chosen = ref(image), True
        self._on_layers()
        self.changed.emit()

    def _choose_planes(self, labels: Labels, ticks: PlaneTicks) -> None:
        self._choices[labels].dropped = ticks.dropped
        self.changed.emit()

    # ------------------------------------------------------------------ looking at labels

    def _on_layers(self, _event: Any = None) -> None:
        self._listing.start(0)

    def _on_moved(self, _layer: Any) -> None:
        if not self._listing.isActive():
            self._listing.start(_SETTLE_MS)

    def _on_reshaped(self, layer: Any) -> None:
        choice = self._choices.get(layer)
        if choice is not None:
            choice.scan, choice.dropped = None, frozenset()
        self._on_layers()

    def _refresh_and_tell(self) -> None:
        if self._state.has_viewer:
            self.refresh()
            self.changed.emit()

    def _on_written(self, labels: Any) -> None:
        choice = self._choices.get(labels)
        if choice is not None:
            choice.is_old = True
            self._ask_for_scan(_SETTLE_MS)

    def _ask_for_scan(self, delay: int) -> None:
        """Look at what has changed, once nothing has for a while."""
        self._timer.start(delay)

    def _next_to_scan(self) -> Labels | None:
        choices = ((labels, self._choices[labels]) for labels in self._rows)
        return next((labels for labels, c in choices if c.ticked and c.is_old), None)

    def _scan_next(self) -> None:
        if self._lane.busy:
            self._ask_for_scan(_SETTLE_MS)
            return
        labels = self._next_to_scan()
        if labels is None:
            return
        choice = self._choices[labels]
        choice.is_old = False
        data, kept = full_resolution(labels), ref(labels)

        def done(scan: LabelScan) -> None:
            if not self._state.has_viewer:
                return
            layer = kept()
            is_new = scan != choice.scan
            if layer is not None and full_resolution(layer).shape == data.shape:
                choice.scan = scan
            if layer in self._rows:
                self._show_scan(layer)
                # Whoever waits, because nothing was chosen, is told in any case.
                if is_new or not scan.planes:
                    self.changed.emit()
            self._scan_next()

        def failed(failure: Failure) -> None:
            self.failed.emit(failure.message)
            self._scan_next()

        self._lane.submit(lambda _progress, stop: scan_labels(data, stop), done, failed)
