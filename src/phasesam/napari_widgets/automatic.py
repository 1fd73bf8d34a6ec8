"""The *Automatic masks* dock: find all objects once, then tune the thresholds live."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QWidget

from phasesam.core.errors import PhaseSAMError, UnsupportedViewError
from phasesam.napari_widgets.automatic_run import AutomaticRun, runs_of, search_job
from phasesam.napari_widgets.candidate_filter import (
    FoundCandidates,
    counts_text,
    dropped_text,
    grouped,
    objects_text,
    result_text,
)
from phasesam.napari_widgets.candidate_preview import CandidatePreview
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.drawn_region import add_region_layer, region_mask
from phasesam.napari_widgets.keys import bind_keys, keys_help
from phasesam.napari_widgets.layers import pixel_size
from phasesam.napari_widgets.planes import spatial_shape
from phasesam.napari_widgets.search_panel import SearchPanel
from phasesam.napari_widgets.threshold_panel import ThresholdPanel

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

    from phasesam.napari_widgets.workers import Failure


class AutomaticMasksDock(Dock):
    """Masks of everything in the image, in two steps.

    *Find masks* asks the network once, in the background. The sliders then choose among
    the candidates, without the network, while they are dragged. *Keep as Labels* makes
    objects of what is shown, in one step that can be undone.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in; napari fills this in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self._found: WeakKeyDictionary[Image, AutomaticRun] = runs_of(self.state)
        self._regions: WeakKeyDictionary[Image, Shapes] = WeakKeyDictionary()
        self.last_filter_seconds = 0.0
        self.search = SearchPanel()
        self.thresholds = ThresholdPanel(self.search.preset().filter)
        self._preset_thresholds = self.thresholds.config()
        # With an interval of zero it fires once per turn of the event loop: however many
        # steps of a handle have come in since, they are answered by one filtering.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._filter)
        self._fill()
        self.search.find_requested.connect(self.find_masks)
        self.search.preset_chosen.connect(self._on_preset)
        self.search.region.chosen.connect(self._on_region)
        self.search.filter_option_changed.connect(self._on_filter_option)
        self.thresholds.changed.connect(self._on_changed)
        self.thresholds.released.connect(self._on_released)
        self.subscriptions.connect(self.state.events.data_replaced, self._on_data_replaced)
        self.subscriptions.connect(self.state.events.image_changed, self._on_image_changed)
        self.subscriptions.connect(self.viewer.layers.events.removed, self._on_removed)
        self._apply_preset()
        self._on_image_changed(self.state.image_layer)

    def _fill(self) -> None:
        self.live = QCheckBox("Live")
        self.live.setChecked(True)
        self.live.setToolTip(
            "Update the picture while a slider is dragged; otherwise when it is let go."
        )
        self.counts = QLabel("")
        self.counts.setToolTip(
            "Masks that pass all thresholds, and the share of the searched area under them."
        )
        self.uncovered = QCheckBox("Show uncovered")
        self.uncovered.setToolTip("Paint what no mask covers in orange.")
        self.outlines = QCheckBox("Outlines")
        self.outlines.setToolTip("Draw the outlines of the masks only, to see the image below.")
        self.keep = QPushButton("Keep as Labels")
        self.keep.setToolTip(
            "Make objects of the masks shown; they go to the image's Labels layer.\n"
            "One step that can be undone."
        )
        self.uncovered.toggled.connect(self._on_uncovered)
        self.outlines.toggled.connect(self._on_outlines)
        self.keep.clicked.connect(self.keep_as_labels)
        shown = QHBoxLayout()
        shown.addWidget(self.live)
        shown.addStretch(1)
        shown.addWidget(self.outlines)
        shown.addWidget(self.uncovered)
        for part in (self.search, self.thresholds):
            self.body.addWidget(part)
        self.body.addLayout(shown)
        self.body.addWidget(self.counts)
        self.body.addWidget(self.keep)
        for label, widget, tooltip in self.search.advanced_rows():
            self.add_advanced(label, widget, tooltip)
        actions = {"undo": partial(self._undo, "undo"), "redo": partial(self._undo, "redo")}
        bind_keys(self, actions)
        self.body.addWidget(keys_help(actions))

    # ------------------------------------------------------------------ finding

    def find_masks(self) -> None:
        """Ask the network for candidates of the plane shown, in the background."""
        layer = self.state.image_layer
        if layer is None:
            self.show_error("Open an image first: drop a file onto the viewer.")
            return
        try:
            plane = self.state.plane(layer)
            region = self._region(layer, plane.index, plane.shape)
            segmenter = self.state.segmenter(layer)
            config = self.search.config(region)
        except PhaseSAMError as error:
            self.show_error(str(error), about_view=isinstance(error, UnsupportedViewError))
            return
        task = self.start(
            search_job(segmenter, config, region, self.thresholds.config()),
            title="Finding masks",
            on_done=lambda found: self._on_found(layer, found),
            on_failed=lambda failure: self._on_failed(layer, failure),
            on_cancelled=self._show_buttons,
            layer=layer,
        )
        if task is not None:
            self._show_buttons()

    def _region(
        self, layer: Image, plane: tuple[int, ...], shape: tuple[int, int]
    ) -> NDArray[np.bool_] | None:
        if self.search.region.current != "drawn":
            return None
        return region_mask(self._region_layer(layer), plane, shape)

    def _region_layer(self, layer: Image) -> Shapes:
        shapes = self._regions.get(layer)
        if shapes is None or shapes not in self.viewer.layers:
            shapes = self._regions[layer] = add_region_layer(self.viewer, layer)
        return shapes

    def _on_failed(self, layer: Image, failure: Failure) -> None:
        if layer is not self.state.image_layer:
            self.show_error(f"{layer.name}: {failure.message}", details=failure.details)
        self._show_buttons()

    def _on_found(self, layer: Image, found: FoundCandidates) -> None:
        if layer not in self.viewer.layers:
            self.show_result("The image was removed; its masks were dropped.")
            return
        entry = self._found[layer] = AutomaticRun(found, self._preview(layer, found))
        session = self.state.session(layer)
        session.set_candidates(found.candidates)
        if found.bar is not None and session.field_of_view is None:
            session.field_of_view = (0, 0, found.bar, found.candidates.shape[1])
        if layer is self.state.image_layer:
            self.thresholds.show_found(found)
            self._filter()
        else:
            kept = entry.filter(self.thresholds.config())
            entry.paint_uncovered(self.uncovered.isChecked())
            self.show_result(f"{layer.name}: {result_text(kept, found.seconds)}")
        self._show_buttons()

    def _preview(self, layer: Image, found: FoundCandidates) -> CandidatePreview:
        """Get layers for what was found: those of the search before, where they fit."""
        before = self._found.pop(layer, None)
        plane, shape = found.plane, found.candidates.shape
        if before is not None and before.preview.move_to(plane, shape):
            return before.preview
        if before is not None:
            before.preview.remove()
        preview = CandidatePreview(self.viewer, layer, plane, shape)
        preview.outline(self.outlines.isChecked())
        return preview

    # ------------------------------------------------------------------ filtering

    def _current(self) -> AutomaticRun | None:
        layer = self.state.image_layer
        return None if layer is None else self._found.get(layer)

    def _filter(self) -> None:
        """Filter the candidates of the present image and paint what stays."""
        current = self._current()
        if current is None:
            return
        start = time.perf_counter()
        kept = current.filter(self.thresholds.config())
        current.paint_uncovered(self.uncovered.isChecked())
        self.thresholds.refresh_stability()
        self._show_counts(current)
        if not self.running:
            self.show_result(result_text(kept, current.found.seconds))
        self.last_filter_seconds = time.perf_counter() - start

    def _show_counts(self, current: AutomaticRun | None) -> None:
        if current is None or current.kept is None:
            self.counts.setText("Press Find masks to start.")
            return
        total = len(current.found.candidates)
        self.counts.setText(counts_text(current.kept, total))
        self.counts.setToolTip(
            f"{dropped_text(current.kept.masks.dropped)}.\n"
            "Coverage is the share of the searched area that lies under a mask."
        )

    def _on_changed(self) -> None:
        self._mark_custom()
        if self.live.isChecked():
            self._timer.start()

    def _mark_custom(self) -> None:
        self.search.mark_custom(self.thresholds.config() != self._preset_thresholds)

    def _on_released(self) -> None:
        self._timer.start()

    def _on_filter_option(self) -> None:
        self.thresholds.set_options(*self.search.filter_options())
        self._on_changed()

    def _on_preset(self) -> None:
        self._apply_preset()
        self._timer.start()

    def _apply_preset(self) -> None:
        """Set the thresholds of the preset; its largest area depends on the image."""
        layer = self.state.image_layer
        preset = self.search.preset()
        if layer is None or layer.ndim < 2:
            self.thresholds.set_config(preset.filter)
        else:
            height, width = spatial_shape(layer)[-2:]
            self.thresholds.set_config(preset.filter_for((height, width)))
        self.search.show_filter_options(*self.thresholds.options)
        self._preset_thresholds = self.thresholds.config()

    def _on_uncovered(self, shown: bool) -> None:
        current = self._current()
        if current is not None:
            current.paint_uncovered(shown)

    def _on_outlines(self, outlined: bool) -> None:
        for entry in self._found.values():
            entry.preview.outline(outlined)

    # ------------------------------------------------------------------ keeping

    def keep_as_labels(self) -> None:
        """Commit the masks shown as objects, in one step that can be undone."""
        current, layer = self._current(), self.state.image_layer
        if current is None or layer is None:
            return
        if self._timer.isActive():
            self._timer.stop()
            self._filter()
        kept = current.kept
        if kept is None or len(kept.masks) == 0:
            self.show_error("No mask passes the thresholds; move a slider to the left first.")
            return
        labels = self.state.labels_layer(layer)
        try:
            ids = current.commit(self.state.session(layer), self.search.replaces())
        except PhaseSAMError as error:
            self.show_error(str(error))
            return
        current.preview.remove()
        labels.visible = True
        left_out = len(kept.masks) - len(ids)
        lie = "1 lies" if left_out == 1 else f"{grouped(left_out)} lie"
        more = f"; {lie} on objects that were there already" if left_out else ""
        self.show_result(f"{objects_text(len(ids))} kept in {labels.name!r}{more}.")

    def _undo(self, which: str) -> None:
        """Take the last step of the image's objects back, or make it again."""
        layer = self.state.image_layer
        session = None if layer is None else self.state.session(layer)
        name = None if session is None else getattr(session, which)()
        verb = {"undo": "Undid", "redo": "Redid"}[which]
        self.show_result(f"{verb}: {name}." if name else f"Nothing to {which}.")

    # ------------------------------------------------------------------ the viewer's events

    def _on_region(self, key: str) -> None:
        layer = self.state.image_layer
        if key == "drawn" and layer is not None:
            shapes = self._region_layer(layer)
            self.viewer.layers.selection.active = shapes
            if len(shapes.data) == 0:
                shapes.mode = "add_polygon"
            self.show_result(
                f"Draw a closed shape in {shapes.name!r} (Esc or double click ends a polygon), "
                "then press Find masks."
            )

    def _on_image_changed(self, layer: Image | None) -> None:
        if layer is not None and layer.ndim >= 2:
            height, width = spatial_shape(layer)[-2:]
            self.thresholds.set_image(pixel_size(layer), height * width)
            if self.thresholds.config() == self._preset_thresholds:
                self._apply_preset()
        current = self._current()
        if current is not None and current.config is not None:
            self.thresholds.set_config(current.config)
            self.search.show_filter_options(*self.thresholds.options)
            self._mark_custom()
        self.thresholds.show_found(None if current is None else current.found)
        self._show_counts(current)
        self._show_last_result(current)
        self._show_buttons()

    def _show_last_result(self, current: AutomaticRun | None) -> None:
        """Say what the last search in this image gave; another image's result is not its own."""
        if self.running:
            return
        if current is None or current.kept is None:
            self.show_summary()
        else:
            self.show_result(result_text(current.kept, current.found.seconds))

    def _on_data_replaced(self, layer: Image, resized: bool) -> None:
        """Drop masks that no longer fit the image, and a search in data that are gone."""
        if layer is self._task_layer:
            self.cancel()
        entry = self._found.pop(layer, None) if resized else None
        if entry is not None:
            entry.preview.remove()
            self._show_buttons()

    def _on_removed(self, event: Any) -> None:
        entry = self._found.pop(event.value, None)
        if entry is not None:
            # Not now: napari is still busy with the removal of the image.
            QTimer.singleShot(0, entry.preview.remove)
        self._show_buttons()

    def _show_buttons(self) -> None:
        """Enable what can be done now."""
        self.search.find_button.setEnabled(self.state.image_layer is not None and not self.running)
        current = self._current()
        self.keep.setEnabled(current is not None)
        for box in (self.live, self.uncovered, self.outlines):
            box.setEnabled(current is not None)
