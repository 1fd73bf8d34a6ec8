"""The *Phases* dock: maps of phases by an adapter with classes, and their fractions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)

from phasesam.core.errors import PhaseSAMError, UnsupportedViewError
from phasesam.engines.semantic import PhaseMapConfig
from phasesam.models.registry import get_spec
from phasesam.napari_widgets.class_colours import layer_class_names, shows_classes
from phasesam.napari_widgets.class_table import ClassRow, ClassTable
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.footer import duration_text
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.phase_layer import phase_layers_of
from phasesam.napari_widgets.phase_making import MapsInTheMaking
from phasesam.napari_widgets.phase_models import (
    NO_PHASE_MODEL,
    PhaseAdapterChoice,
    class_colours,
)
from phasesam.napari_widgets.phase_run import PhaseRun, PlaneMap, mapping_job, run_on
from phasesam.napari_widgets.phase_shares import ShareQuestion, share_text
from phasesam.napari_widgets.planes import spatial_shape
from phasesam.napari_widgets.strength_row import AdapterOnModel
from phasesam.napari_widgets.toggle_row import ToggleRow
from phasesam.napari_widgets.workers import GuiRelay, Lane

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from phasesam.core.phase_fraction import PhaseFraction
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_store import AdapterEntry

_SETTLE_MS = 250
_SCOPES = (
    ("plane", "This plane", "Fractions of the plane in view."),
    ("stack", "Stack", "Fractions of all planes that were mapped."),
)
_ORIENTATIONS = ((1, "1: as it is"), (2, "2: turned too"), (4, "4: mirrored too"))
_OTHER_PHASES = "The map of this image shows other phases: {}. Segment makes one with these."
_OTHER_DATA = "{} holds other data now: map its phases again."
_ADAPTER_TIP = "Whose phases are mapped; Segment chooses this model for the other docks, too."
_SHARE_TIP = (
    "Share of the mapped area, without the data bar. The interval (95 %) tells how far another\n"
    "field of view of the same size may be from it. Both follow corrections of the map."
)
_CONFIDENCE_TIP = (
    "Also make a layer with the probability of the class chosen, in %: where it is low, a\n"
    "second look pays."
)


class PhasesDock(Dock):
    """Choose an adapter, map the plane or the stack, read the fractions, correct the map.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in; napari fills this in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.layers = phase_layers_of(self.state)
        self._relay = GuiRelay(self)
        self._relay.received.connect(self._on_map)
        self._maps: MapsInTheMaking | None = None
        self._followed: WeakSet[Labels] = WeakSet()
        self._counting = Lane(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._count)
        self._fill()
        self._add_settings()
        self._connect()
        self.refresh()
        self._on_model()
        self._on_image(self.state.image_layer)

    def _fill(self) -> None:
        self._choice = PhaseAdapterChoice()
        self.adapters = self._choice.combo
        self.adapters.setToolTip(_ADAPTER_TIP)
        self.hint = QLabel(NO_PHASE_MODEL)
        self.hint.setWordWrap(True)
        self.plane_button = QPushButton("Segment plane")
        self.plane_button.setToolTip("Map the plane in view, in the background")
        self.stack_button = QPushButton("Segment stack")
        self.stack_button.setToolTip("Map all planes, one after the other; each shows when done")
        self.confidence = QCheckBox("Confidence layer")
        self.confidence.setToolTip(_CONFIDENCE_TIP)
        self.scope = ToggleRow(_SCOPES, columns=2)
        self.scope.set_current("plane")
        self.classes = ClassTable(("Share", "Interval"), editable=False)
        self.classes.setToolTip(_SHARE_TIP)
        model = QGridLayout()
        model.setColumnStretch(1, 1)
        model.addWidget(QLabel("Phases of"), 0, 0)
        model.addWidget(self.adapters, 0, 1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.plane_button)
        buttons.addWidget(self.stack_button)
        shown = QHBoxLayout()
        shown.addWidget(self.confidence)
        shown.addStretch(1)
        shown.addWidget(self.scope)
        self.body.addLayout(model)
        self.body.addWidget(self.hint)
        self.body.addLayout(buttons)
        self.body.addWidget(self.classes)
        self.body.addLayout(shown)

    def _add_settings(self) -> None:
        self.side = QSpinBox()
        self.side.setRange(-1, 100_000)
        self.side.setSingleStep(64)
        self.side.setSuffix(" px")
        self.side.setSpecialValueText("as trained")
        self.side.setValue(-1)
        self.overlap = QSpinBox()
        self.overlap.setRange(0, 90)
        self.overlap.setValue(25)
        self.overlap.setSuffix(" %")
        self.orientations = QComboBox()
        for count, text in _ORIENTATIONS:
            self.orientations.addItem(text, count)
        self.orientations.setCurrentIndex(self.orientations.findData(PhaseMapConfig().orientations))
        self.add_advanced(
            "Window",
            self.side,
            "Side of what the model sees at once; 0 for the whole plane. Another one than in\n"
            "training shows things at another size than it learnt.",
        )
        self.add_advanced(
            "Overlap",
            self.overlap,
            "Share that neighbouring windows have in common: more is slower, and smoother\n"
            "where windows meet.",
        )
        self.add_advanced(
            "Orientations",
            self.orientations,
            "Also look at everything turned and mirrored, and take the mean: as many times\n"
            "slower, and more accurate, most of all on images unlike those of the training.",
        )

    def _connect(self) -> None:
        self.adapters.activated.connect(lambda _index: self._show_adapter())
        self.plane_button.clicked.connect(lambda *_: self.segment())
        self.stack_button.clicked.connect(lambda *_: self.segment(whole_stack=True))
        self.scope.chosen.connect(self.ask_to_count)
        manager_watch().catalogue_changed.connect(self.refresh)
        events = self.state.events
        self.subscriptions.connect(events.model_changed, self._on_model)
        self.subscriptions.connect(events.image_changed, self._on_image)
        self.subscriptions.connect(events.data_replaced, self._on_data_replaced)
        for emitter in (self.viewer.dims.events.current_step, self.viewer.dims.events.ndisplay):
            self.subscriptions.connect(emitter, self.ask_to_count)
        self.subscriptions.connect(self.viewer.layers.events.removed, self.ask_to_count)

    # ------------------------------------------------------------------ the adapter

    @property
    def chosen(self) -> tuple[AdapterEntry, AdapterCard] | None:
        """The adapter chosen, with its card."""
        return self._choice.chosen

    def refresh(self) -> None:
        """List the adapters anew."""
        self._choice.refresh()
        self._show_adapter()

    def choose(self, name: str) -> None:
        """Choose an adapter by its name, if it maps phases."""
        if self._choice.choose(name):
            self._show_adapter()

    def _on_model(self, _name: str = "") -> None:
        if self.state.adapter is not None:
            self.choose(self.state.adapter)

    def _show_adapter(self) -> None:
        """Show the classes of the adapter, and what can be done."""
        chosen = self.chosen
        self._hint_at(NO_PHASE_MODEL if chosen is None else "")
        self.classes.setVisible(chosen is not None)
        if chosen is not None:
            _, card = chosen
            colours = class_colours(card)
            self.classes.set_rows(
                [
                    ClassRow(value, name, colour)
                    for value, (name, colour) in enumerate(
                        zip(card.classes, colours, strict=True), start=1
                    )
                ]
            )
        self._show_buttons()
        self.ask_to_count()

    def _hint_at(self, text: str) -> None:
        """Say what is in the way, or nothing."""
        self.hint.setText(text)
        self.hint.setVisible(bool(text))

    def _show_buttons(self) -> None:
        image = self.state.image_layer
        ready = self.chosen is not None and image is not None and not self.running
        is_stack = image is not None and image.ndim > 2
        for button in (self.plane_button, self.stack_button):
            button.setEnabled(ready)
        self.plane_button.setText("Segment plane" if is_stack else "Segment")
        self.stack_button.setVisible(is_stack)
        self.scope.setVisible(is_stack)

    def _on_image(self, _image: Image | None) -> None:
        self._show_buttons()
        self.ask_to_count()

    def _on_data_replaced(self, image: Image, _resized: bool) -> None:
        """Let go of a map of pixels that are gone, and of one that is being made of them."""
        is_mapped = self.layers.forget(image)
        if image is self._task_layer:
            self._maps = None
            self.cancel()
        elif is_mapped and not self.running:
            self.show_result(_OTHER_DATA.format(image.name))
        self.ask_to_count()

    # ------------------------------------------------------------------ mapping

    def segment(self, *, whole_stack: bool = False) -> None:
        """Map the plane in view, or all planes, in the background."""
        image = self.state.image_layer
        try:
            chosen = self._choice.look_again()
            self._show_adapter()
            if image is None or chosen is None:
                self.show_error(NO_PHASE_MODEL if chosen is None else "Open an image first.")
                return
            entry, card = chosen
            get_spec(card.base)
            self.state.choose_model(card.base, entry.name)
            run = self._run(image, AdapterOnModel(card.base, entry.name), whole_stack)
        except PhaseSAMError as error:
            self._show_adapter()
            self.show_error(str(error), about_view=isinstance(error, UnsupportedViewError))
            return
        began = time.monotonic()
        maps = self._maps = MapsInTheMaking(self, image, card)

        def done(count: int) -> None:
            maps.end()
            took = duration_text(time.monotonic() - began)
            planes = "1 plane" if count == 1 else f"{count} planes"
            self.show_result(f"{planes} mapped in {took}.{maps.remark}")
            self._show_buttons()

        def ended() -> None:
            maps.end()
            self._show_buttons()

        def cancelled() -> None:
            ended()
            if self._maps is not maps:
                self.show_result(_OTHER_DATA.format(image.name))

        self.start(
            mapping_job(run, self._relay.send),
            title="Mapping phases",
            on_done=done,
            on_failed=lambda _failure: ended(),
            on_cancelled=cancelled,
            layer=image,
        )
        self._show_buttons()

    def _on_map(self, values: tuple[PlaneMap]) -> None:
        if self._maps is not None:
            self._maps.show(values[0])

    def _run(self, image: Image, on: AdapterOnModel, whole_stack: bool) -> PhaseRun:
        config = PhaseMapConfig(
            None if self.side.value() < 0 else self.side.value(),
            self.overlap.value() / 100,
            self.orientations.currentData(),
        )
        planes = tuple(np.ndindex(spatial_shape(image)[:-2])) if whole_stack else None
        confidence = self.confidence.isChecked()
        return run_on(self.state, image, on, config, planes=planes, with_confidence=confidence)

    # ------------------------------------------------------------------ fractions

    def follow(self, layer: Labels) -> None:
        """Count again when a map is painted on."""
        if layer not in self._followed:
            self._followed.add(layer)
            events = layer.events
            # Undo draws the layer anew, and says nothing else.
            for emitter in (events.paint, events.labels_update, events.data, events.set_data):
                self.subscriptions.connect(emitter, self.ask_to_count)
        self.ask_to_count()

    def ask_to_count(self, _event: Any = None) -> None:
        """Count the fractions soon, unless something changes again."""
        self._timer.start()

    def _count(self) -> None:
        """Count the fractions of the map of the present image, in a worker."""
        image = self.state.image_layer if self.state.has_viewer else None
        layer = None if image is None else self._map_of(image)
        if image is None or layer is None:
            self._show_shares({})
            return
        plane: tuple[int, ...] | None = None
        if image.ndim == 2 or self.scope.current == "plane":
            try:
                plane = self.state.plane(image).index
            except UnsupportedViewError:
                self._show_shares({})
                return
        values = tuple(value for value, _, _ in self.classes.rows())
        question = ShareQuestion(layer.data, values, plane)
        self._counting.submit(
            lambda _progress, stop: question.answer(stop),
            self._show_shares,
            lambda failure: self.show_error(failure.message, details=failure.details),
        )

    def _map_of(self, image: Image) -> Labels | None:
        """Find the map of an image, if it is one of the classes that are listed."""
        layer, chosen = self.layers.of(image), self.chosen
        if chosen is None:
            return None
        # Not of an image that was replaced since.
        if layer is None or layer.data.shape != spatial_shape(image):
            self._hint_at("")
            return None
        fits = shows_classes(layer, chosen[1].classes)
        shown = ", ".join(layer_class_names(layer).values())
        self._hint_at("" if fits else _OTHER_PHASES.format(shown))
        return layer if fits else None

    def _show_shares(self, shares: dict[int, PhaseFraction]) -> None:
        for value, _, _ in self.classes.rows():
            texts = share_text(shares[value]) if value in shares else ("", "")
            self.classes.set_texts(value, *texts)
