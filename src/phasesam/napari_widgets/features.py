"""The *Encoder features* dock: walk through the layers, base beside adapted, with figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from qtpy.QtWidgets import (
    QCheckBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)

from phasesam.core.errors import PhaseSAMError, UnsupportedViewError
from phasesam.core.similar_region import inner_points
from phasesam.engines.feature_config import MOST_GROUPS, FeatureConfig
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.feature_curves import LayerCurves, likeness_curves, probe_curves
from phasesam.napari_widgets.feature_layers import MODELS, FeatureLayers
from phasesam.napari_widgets.feature_panels import BeginPanel, ModelChoice, TokenPanel
from phasesam.napari_widgets.feature_picking import TokenPicker
from phasesam.napari_widgets.feature_run import FeatureRun, SeenLayers, feature_job, spread_planes
from phasesam.napari_widgets.feature_saving import FeatureSaving
from phasesam.napari_widgets.finetune import FineTuneDock
from phasesam.napari_widgets.layers import pixel_size
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.planes import full_resolution, spatial_shape
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.reopening import raised_dock
from phasesam.napari_widgets.toggle_row import ToggleRow

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

_BASES = (
    ("principal", "Largest variance", "Principal components of the features"),
    ("classes", "Between labels", "Directions that tell the labelled phases apart best"),
)
_SPACES = (
    ("rgb", "RGB", "Three directions as red, green and blue"),
    ("lab", "Lab", "As lightness and hue: equal differences look equal"),
    ("groups", "Groups", "Groups of alike tokens (k-means), one colour each in all layers"),
)
_PROBE_TIP = (
    "Mean IoU of a linear map from the features of a layer to the labelled phases, where it was\n"
    "not fitted: how well the phases could be told apart there. A click walks to a layer."
)
_LIKENESS_TIP = (
    "Likeness (linear CKA): 1 where both models see the same. Change: length of what the adapter\n"
    "adds, over that of the features. A click walks to a layer."
)


class FeaturesDock(Dock):
    """Look at all layers of one or two models, walk through them, point at tokens.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in; napari fills this in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.layers = FeatureLayers(self.viewer)
        self.picker = TokenPicker(self, self.layers)
        self._seen: SeenLayers | None = None
        self._offered: SeenLayers | None = None
        self._image: ref[Image] | None = None
        self._titles: tuple[str, ...] = ()
        self._fill()
        self._add_settings()
        self._connect()
        self.refresh()
        self._show()

    def _fill(self) -> None:
        self.models = ModelChoice(self.viewer)
        self.look_button = QPushButton("Look at the layers")
        self.look_button.setToolTip("Encode the plane in view and show what each layer makes of it")
        self.where = QLabel()
        self.where.setWordWrap(True)
        self.grid = QCheckBox("Side by side")
        self.grid.setToolTip("Show the layers of the viewer beside one another; they move together")
        self.probe = LayerCurves("Linear probe", _PROBE_TIP)
        self.likeness = LayerCurves("A and B", _LIKENESS_TIP)
        self.tokens = TokenPanel()
        self.begin = BeginPanel()
        self.saving = FeatureSaving(self)
        for widget in (
            self.models, self.look_button, self.where, self.grid, self.probe, self.begin,
            self.likeness, self.tokens, self.saving,
        ):  # fmt: skip
            self.body.addWidget(widget)

    def _add_settings(self) -> None:
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
        self.basis.set_current("principal")
        self.space.set_current("rgb")
        self.continuous = QCheckBox("Colours follow from layer to layer")
        self.continuous.setChecked(True)
        self.foreground = QCheckBox("Foreground only")
        self.add_advanced("Layers", self.which, "Names, separated by commas: block3, block6, neck")
        self.add_advanced("Directions", self.basis)
        self.add_advanced("Colours", self.space)
        self.add_advanced("Groups", self.groups, "How many, where groups are coloured")
        self.add_advanced(
            "Planes",
            self.planes,
            "Of a stack: planes that directions, groups and figures are made from, spread over\n"
            "it. The colours then hardly depend on which plane is in view. Each is encoded.",
        )
        self.add_advanced(
            "", self.continuous, "Otherwise each layer has its own directions, in their own order"
        )
        self.add_advanced(
            "", self.foreground, "Colour only the smaller part that the last layer sets apart"
        )

    def _connect(self) -> None:
        self.space.chosen.connect(self._on_space)
        self._on_space()
        self.look_button.clicked.connect(lambda *_: self.look())
        self.grid.toggled.connect(self.layers.set_grid)
        for curves in (self.probe, self.likeness):
            curves.chosen.connect(self.layers.go_to)
        self.tokens.followed.connect(self._on_followed)
        self.tokens.model_chosen.connect(self._on_model_chosen)
        self.tokens.class_chosen.connect(self._on_class_chosen)
        self.tokens.object_wanted.connect(self.add_object)
        self.tokens.prompts_wanted.connect(self.prompt)
        self.picker.picked.connect(self._on_picked)
        self.begin.chosen.connect(self.adapt_from)
        manager_watch().catalogue_changed.connect(self.refresh)
        events, layers = self.state.events, self.viewer.layers.events
        self.subscriptions.connect(events.model_changed, self.refresh)
        self.subscriptions.connect(events.image_changed, self._show)
        self.subscriptions.connect(self.viewer.dims.events.point, self._on_walked)
        self.subscriptions.connect(layers.inserted, self._on_layers)
        self.subscriptions.connect(layers.removed, self._on_layers)

    # ------------------------------------------------------------------ what is there

    @property
    def seen(self) -> SeenLayers | None:
        """What was looked at last, if its image is still there."""
        image = None if self._image is None else self._image()
        there = image is not None and self.state.has_viewer and image in self.viewer.layers
        return self._seen if there else None

    def refresh(self, _model: str = "") -> None:
        """List models and labels anew."""
        self.models.refresh(self.state.model_name, self.state.adapter)
        self.models.list_labels()

    def _on_layers(self, _event: Any = None) -> None:
        self.models.list_labels()
        if self._seen is not None and self.seen is None:
            self._forget()

    def _forget(self) -> None:
        """Let go of an image that was removed."""
        self._seen = self._image = None
        self.grid.setChecked(False)
        self.picker.set_seen(None, None)
        self.layers.remove()
        self._show_results()

    def _show(self, _image: Image | None = None) -> None:
        image = self.state.image_layer
        self.look_button.setEnabled(image is not None and not self.running)
        self.planes.setEnabled(image is not None and image.ndim > 2)
        self._show_results()

    def _show_results(self) -> None:
        """Show what there is to see of the last run."""
        seen = self.seen
        self.saving.set_seen(seen, self._titles)
        # Of some layers nobody knows whether others would do.
        every = seen is not None and seen.run.config.layers is None
        self.begin.set_layers(seen.layers if every and seen is not None else ())
        self.grid.setEnabled(seen is not None)
        if seen is not self._offered:
            self._offered = seen
            self.tokens.set_ready(*((0,) if seen is None else (seen.n_models, seen.classes)))
        names = () if seen is None else tuple(view.name for view in seen.layers)
        self.probe.set_curves([] if seen is None else probe_curves(seen), names)
        self.likeness.set_curves([] if seen is None else likeness_curves(seen), names)
        self._on_walked()

    def _on_walked(self, _event: Any = None) -> None:
        """Say which layer is shown, and its figures."""
        seen, index = self.seen, self.layers.index
        if seen is None or index is None:
            self.where.setText("")
            self.picker.refresh()
            self._on_picked()
            return
        view = seen.layers[index]
        parts = [f"<b>{view.name}</b> · {index + 1} of {len(seen.layers)}"]
        height, width = view.pictures[0][0].shape[:2]
        parts.append(f"{width} x {height} tokens of {seen.side(index):.3g} px")
        figures = view.figures
        if figures.cka is not None and figures.change is not None:
            parts.append(f"likeness {figures.cka:.2f}, change {figures.change:.2f}")
        if figures.probe:
            means = zip(MODELS, figures.probe_means, strict=False)
            parts.append("probe " + ", ".join(f"{name} {value:.2f}" for name, value in means))
        self.where.setText(" · ".join(parts))
        for curves in (self.probe, self.likeness):
            curves.mark(index)
        self.picker.refresh()
        self._on_picked()

    # ------------------------------------------------------------------ looking

    def look(self) -> None:
        """Look at the layers in the background."""
        image = self.state.image_layer
        if image is None:
            self.show_error("Open an image first.")
            return
        try:
            run = self._run(image)
        except PhaseSAMError as error:
            self.show_error(str(error), about_view=isinstance(error, UnsupportedViewError))
            return
        titles = self.models.titles

        def done(seen: SeenLayers) -> None:
            self._seen, self._image, self._titles = seen, ref(image), titles
            self.layers.show(image, seen)
            self.picker.set_seen(image, seen)
            self.layers.go_to(len(seen.layers) - 1)
            self._show()
            self.show_result(f"{len(seen.layers)} layers. {_remark(seen)}")

        self.start(
            feature_job(run),
            title="Looking at layers",
            on_done=done,
            on_failed=lambda _failure: self._show(),
            on_cancelled=self._show,
            layer=image,
        )
        self._show()

    def _run(self, image: Image) -> FeatureRun:
        plane, settings = self.state.plane(image), self.state.settings(image)
        names = tuple(n for n in self.which.text().replace(" ", "").split(",") if n)
        basis: Any = self.basis.current
        space: Any = self.space.current
        is_grouped = space == "groups"
        config = FeatureConfig(
            names or None, basis, self.continuous.isChecked(), self.foreground.isChecked(),
            "rgb" if is_grouped else space, self.groups.value() if is_grouped else 0,
        )  # fmt: skip
        others = spread_planes(spatial_shape(image), plane, self.planes.value())
        values, classes = self.models.labels_on(image, [p.index for p in (plane, *others)])
        return FeatureRun(
            full_resolution(image), plane, self.state.model_name, self.models.adapters,
            settings.normalisation, settings.exclude_data_bar, pixel_size(image), config,
            values, classes, others,
        )  # fmt: skip

    # ------------------------------------------------------------------ tokens

    def _on_followed(self, on: bool) -> None:
        self.picker.is_on = on
        if on and self.picker.class_index is not None:
            self.picker.class_index = None
            self.picker.let_go()
            self.tokens.towards.setCurrentIndex(0)
        image = None if self._image is None else self._image()
        if not on:
            self.picker.let_go()
        elif image is not None and image in self.viewer.layers:
            # Clicks are ours now: they are not to set points for prompts.
            self.viewer.layers.selection.active = image

    def _on_space(self, _key: str = "") -> None:
        is_grouped = self.space.current == "groups"
        self.groups.setEnabled(is_grouped)
        self.continuous.setEnabled(not is_grouped)

    def _on_class_chosen(self, index: int | None) -> None:
        if index is None:
            self.tokens.follow.setChecked(True)
            return
        self.tokens.follow.setChecked(False)
        self.picker.let_go()
        self.picker.class_index = index
        self.picker.refresh()
        self._on_picked()

    def _on_model_chosen(self, model: int) -> None:
        self.picker.model = model
        self.picker.refresh()

    def _on_picked(self) -> None:
        self.tokens.set_picked(self.picker.holds, is_class=self.picker.class_index is not None)

    def adapt_from(self, blocks: str) -> None:
        """Make the Fine-tune dock adapt the encoder from a layer on."""
        try:
            dock = raised_dock(self, FineTuneDock, "Fine-tune")
        except PhaseSAMError as error:
            self.show_error(str(error))
            return
        if dock.adapt_from(blocks):
            self.show_result(f"The next training in Fine-tune has blocks={blocks}.")
        else:
            self.show_error("The recipe in Fine-tune leaves the encoder alone; choose another.")

    def _find_region(self, use: Callable[[Any], Any], on_done: Callable[[Any], None]) -> None:
        """Find the similar region of the clicked token in the background, and `use` it there."""
        connected = self.tokens.connected.isChecked()
        try:
            find = self.picker.region(self.tokens.threshold, connected=connected)
        except PhaseSAMError as error:
            self.show_error(str(error))
            return
        if find is None:
            self.show_error("Look at the layers, then click at what is looked for.")
            return
        self.start(
            lambda _progress, _should_stop: use(find()),
            title="Finding the region",
            on_done=on_done,
        )

    def add_object(self) -> None:
        """Add the similar region to the objects of the image."""
        seen, image = self.seen, None if self._image is None else self._image()

        def add(mask: np.ndarray) -> None:
            if seen is None or image is None or image not in self.viewer.layers:
                return
            self.state.labels_layer(image)
            try:
                number = self.state.session(image).commit(
                    mask, plane=seen.run.plane.index, source="features", overlap="keep_existing"
                )
            except PhaseSAMError as error:
                self.show_error(str(error))
                return
            self.state.select_object(number)
            self.show_result(f"Object {number} added: {np.count_nonzero(mask)} pixels.")

        self._find_region(lambda mask: mask, add)

    def prompt(self) -> None:
        """Prompt for the similar region in the Prompt dock."""
        image = None if self._image is None else self._image()
        if not self.picker.is_in_view:
            self.show_error("Go back to the plane that was looked at.")
            return

        def ask(points: np.ndarray) -> None:
            if image is None or image not in self.viewer.layers or not self.picker.is_in_view:
                return
            self.tokens.follow.setChecked(False)
            self.state.image_layer = image
            try:
                dock = raised_dock(self, PromptDock, "Prompt")
            except PhaseSAMError as error:
                self.show_error(str(error))
                return
            if dock.prompt_with(points):
                self.show_result(f"{len(points)} points are in the Prompt dock.")

        self._find_region(inner_points, ask)


def _remark(seen: SeenLayers) -> str:
    """Say what the user may not expect, or what comes next."""
    if seen.found.is_same:
        return "B has the encoder of A: the adapter leaves it as it is, there is no difference."
    if seen.labels is not None and not seen.layers[0].figures.probe:
        return "No two phases are most of any token: there are no figures of them."
    return "Walk through them with the slider below."
