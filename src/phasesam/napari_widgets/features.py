"""The *Encoder features* dock: walk through the layers, base beside adapted, with figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from qtpy.QtWidgets import (
    QCheckBox,
    QLabel,
    QPushButton,
    QWidget,
)

from phasesam.core.errors import PhaseSAMError, UnsupportedViewError
from phasesam.core.similar_region import inner_points
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.feature_curves import LayerCurves, likeness_curves, probe_curves
from phasesam.napari_widgets.feature_layers import MODELS, FeatureLayers
from phasesam.napari_widgets.feature_panels import BeginPanel, ModelChoice, TokenPanel
from phasesam.napari_widgets.feature_picking import TokenPicker
from phasesam.napari_widgets.feature_run import (
    FeatureRun,
    PictureSource,
    SeenLayers,
    feature_job,
    spread_planes,
)
from phasesam.napari_widgets.feature_saving import FeatureSaving
from phasesam.napari_widgets.feature_settings import FeatureSettings
from phasesam.napari_widgets.finetune import FineTuneDock
from phasesam.napari_widgets.layers import pixel_size
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.planes import ShownPlane, full_resolution, spatial_shape
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.reopening import raised_dock

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

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
        self._all: list[tuple[ref[Image], SeenLayers]] = []
        self._offered: SeenLayers | None = None
        self._titles: tuple[str, ...] = ()
        self._fill()
        self.settings = FeatureSettings(self)
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

    def _connect(self) -> None:
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
    def _there(self) -> list[tuple[Image, SeenLayers]]:
        """Images that were looked at and are still in the viewer, the active one first."""
        if not self.state.has_viewer:
            return []
        pairs = [(image(), seen) for image, seen in self._all]
        there = [(i, seen) for i, seen in pairs if i is not None and i in self.viewer.layers]
        return sorted(there, key=lambda pair: pair[0] is not self.state.image_layer)

    @property
    def seen(self) -> SeenLayers | None:
        """What was looked at last, of the active image or else of another one."""
        there = self._there
        return there[0][1] if there else None

    @property
    def image(self) -> Image | None:
        """The image that `seen` is of."""
        there = self._there
        return there[0][0] if there else None

    def refresh(self, _model: str = "") -> None:
        """List models and labels anew."""
        self.models.refresh(self.state.model_name, self.state.adapter)
        self.models.list_labels()

    def _on_layers(self, _event: Any = None) -> None:
        self.models.list_labels()
        self.settings.list_images(self.state.images(), self.state.image_layer)
        if not self._all:
            return
        self.layers.remove_orphans()
        if not self._there:
            self._all = []
            self.grid.setChecked(False)
            self.layers.remove()
        # Not for the layer of similarity, which comes and goes by itself.
        if self.seen is not self._offered or not self.layers.stacks:
            self._show_results()

    def _show(self, _image: Image | None = None) -> None:
        image = self.state.image_layer
        self.look_button.setEnabled(image is not None and not self.running)
        self.settings.list_images(self.state.images(), image)
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
            self.picker.set_seen(self.image, seen)
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
        height, width = view.pictures[0][seen.index].shape[:2]
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
        images = [image, *self.settings.images]
        try:
            run = self._run(images)
        except PhaseSAMError as error:
            self.show_error(str(error), about_view=isinstance(error, UnsupportedViewError))
            return
        titles = self.models.titles

        def done(found: tuple[SeenLayers, ...]) -> None:
            pairs = list(zip(images, found, strict=True))
            # Some may have left the viewer meanwhile.
            pairs = [(image, seen) for image, seen in pairs if image in self.viewer.layers]
            self._all, self._titles = [(ref(image), seen) for image, seen in pairs], titles
            self.layers.show(pairs)
            self.layers.go_to(len(found[0].layers) - 1)
            self._show()
            self.show_result(f"{len(found[0].layers)} layers. {_remark(found[0])}")

        self.start(
            feature_job(run),
            title="Looking at layers",
            on_done=done,
            on_failed=lambda _failure: self._show(),
            on_cancelled=self._show,
            layer=image,
        )
        self._show()

    def _run(self, images: list[Image]) -> FeatureRun:
        plane = self.state.plane(images[0])
        shape = spatial_shape(images[0])
        more = spread_planes(shape, plane, self.settings.planes.value())
        places = [
            (images[0], plane),
            *((image, self.state.plane(image)) for image in images[1:]),
            *((images[0], other) for other in more),
        ]
        values, classes = self.models.labels_on(images[0], [p.index for p in (plane, *more)])
        # Labels are those of the active image.
        labels = [*values[:1], *[None] * (len(images) - 1), *values[1:]] if values else []
        sources = [
            self._source(image, shown, values)
            for (image, shown), values in zip(places, labels or [None] * len(places), strict=True)
        ]
        return FeatureRun(
            tuple(sources), len(images), self.state.model_name, self.models.adapters,
            self.settings.config, classes,
        )  # fmt: skip

    def _source(self, image: Image, plane: ShownPlane, labels: Any) -> PictureSource:
        settings = self.state.settings(image)
        return PictureSource(
            full_resolution(image), plane, settings.normalisation, settings.exclude_data_bar,
            pixel_size(image), labels,
        )  # fmt: skip

    # ------------------------------------------------------------------ tokens

    def _on_followed(self, on: bool) -> None:
        self.picker.is_on = on
        if on and self.picker.class_index is not None:
            self.picker.class_index = None
            self.picker.let_go()
            self.tokens.towards.setCurrentIndex(0)
        image = self.image
        if not on:
            self.picker.let_go()
        elif image is not None:
            # Clicks are ours now: they are not to set points for prompts.
            self.viewer.layers.selection.active = image

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
        seen, image = self.seen, self.image

        def add(mask: np.ndarray) -> None:
            if seen is None or image is None or image not in self.viewer.layers:
                return
            self.state.labels_layer(image)
            try:
                number = self.state.session(image).commit(
                    mask, plane=seen.plane.index, source="features", overlap="keep_existing"
                )
            except PhaseSAMError as error:
                self.show_error(str(error))
                return
            self.state.select_object(number)
            self.show_result(f"Object {number} added: {np.count_nonzero(mask)} pixels.")

        self._find_region(lambda mask: mask, add)

    def prompt(self) -> None:
        """Prompt for the similar region in the Prompt dock."""
        image = self.image
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
