"""From prompts to a mask: asks the model about the object in the making and shows the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.layers import Image, Layer
from psygnal import Signal, SignalGroup
from qtpy.QtCore import QTimer

from phasesam.core.errors import PhaseSAMError, UnsupportedViewError
from phasesam.models.registry import get_spec, where
from phasesam.napari_widgets.encoding import EncodingQueue
from phasesam.napari_widgets.present_object import (
    Answer,
    MaskSettings,
    PresentObject,
)
from phasesam.napari_widgets.prompt_layers import PlanePrompts, PromptLayers
from phasesam.napari_widgets.workers import Failure, Lane

if TYPE_CHECKING:
    from phasesam.core.mask_set import MaskSet
    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.planes import ShownPlane
    from phasesam.napari_widgets.segmenters import LazySegmenter
    from phasesam.session import SegmentationSession


class PromptEvents(SignalGroup):
    """What happens to the object in the making."""

    present_changed = Signal()
    """Prompts, answer or plane of the present object are different."""

    encoded = Signal()
    """The plane wished for last is encoded: prompts are answered at once now."""

    answered = Signal(bool)
    """The model has answered (True), or will not (False)."""


class PromptController:
    """Keeps one object in the making for every plane and asks the model about it.

    All methods are for the GUI thread; the model works in the background.

    Parameters
    ----------
    dock : Dock
        Runs the encoding (with progress and Cancel) and shows messages.

    Attributes
    ----------
    settings : MaskSettings
        How masks are made of answers; call `ask_again` after a change.
    first_prompt_hook : callable
        Called with image, plane and prompts when the first prompt of an object is made;
        returns whether it has dealt with it.
    predictor : callable
        ``predictor(segmenter)`` is what answers prompts in a worker: the segmenter itself,
        unless something else is put here.
    """

    def __init__(self, dock: Dock) -> None:
        self.events = PromptEvents()
        self.settings = MaskSettings()
        self.first_prompt_hook: Callable[[Image, ShownPlane, PlanePrompts], bool] = lambda *_: False
        self.predictor: Callable[[LazySegmenter], Callable[..., MaskSet]] = lambda s: s.predict
        self._dock = dock
        self._state = dock.state
        self._layers: WeakKeyDictionary[Layer, PromptLayers] = WeakKeyDictionary()
        self._present: WeakKeyDictionary[Layer, dict[tuple[int, ...], PresentObject]] = (
            WeakKeyDictionary()
        )
        self._lane = Lane(dock)
        self.encoding = EncodingQueue(dock, self._on_encoded, self._on_not_encoded)
        self._shown_plane: tuple[int, ...] | None = None
        # napari reports a new point before it has finished adding it: look a moment later.
        self._prompts_timer = _single_shot(dock, 0, self._on_prompts_changed)
        self._plane_timer = _single_shot(dock, 30, self._on_plane_changed)
        connect = dock.subscriptions.connect
        connect(self._state.events.model_changed, self._on_model_changed)
        connect(self._state.events.settings_changed, self._on_model_changed)
        connect(self._state.events.image_changed, self._on_image_changed)
        connect(self._state.events.data_replaced, self._on_data_replaced)
        connect(dock.viewer.layers.events.removed, self._on_layer_removed)
        dims = dock.viewer.dims.events
        for emitter in (dims.current_step, dims.point, dims.order, dims.ndisplay):
            connect(emitter, self._on_dims_changed)
        dock.subscriptions.add(self._close)

    # ------------------------------------------------------------------ where we are

    @property
    def image(self) -> Image | None:
        """The image that is worked on."""
        return self._state.image_layer

    def plane(self) -> ShownPlane | None:
        """Find the plane that is shown; None, with a message, if there is none."""
        image = self.image
        if image is None:
            self._dock.show_error("Open an image first: drag it into the viewer.")
            return None
        try:
            return self._state.plane(image)
        except UnsupportedViewError as error:
            self._dock.show_error(str(error), about_view=True)
            return None

    @property
    def session(self) -> SegmentationSession | None:
        """The session of the present image."""
        return None if self.image is None else self._state.session(self.image)

    def layers(self, image: Image) -> PromptLayers:
        """Get the prompt layers of an image."""
        if image not in self._layers:
            self._layers[image] = PromptLayers(self._state.viewer, image, self._prompts_timer.start)
        return self._layers[image]

    def present(self) -> PresentObject | None:
        """Get the object in the making on the plane that is shown."""
        image = self.image
        if image is None:
            return None
        try:
            index = self._state.plane(image).index
        except UnsupportedViewError:
            return None
        return self._present.setdefault(image, {}).setdefault(index, PresentObject())

    @property
    def has_open(self) -> bool:
        """Whether any plane of the image has an object in the making."""
        planes = {} if self.image is None else self._present.get(self.image, {})
        return any(not present.is_empty for present in planes.values())

    @property
    def waits(self) -> bool:
        """Whether an answer is still to come."""
        return self._lane.busy or self.encoding.busy

    # ------------------------------------------------------------------ asking

    def prepare(self) -> None:
        """Encode the plane that is shown, if the model's weights are on this machine."""
        image = self.image
        if image is None:
            return
        try:
            segmenter = self._state.segmenter(image)
            at_hand = where(get_spec(segmenter.model)) not in ("to download", "missing")
        except PhaseSAMError:
            return
        if at_hand:
            self.encoding.want(segmenter, image)

    def ask(self) -> None:
        """Ask the model about the present object, now or as soon as the plane is encoded."""
        present, image = self.present(), self.image
        if present is None or image is None or present.prompts.count == 0:
            return
        if present.answer is not None:
            return
        segmenter = self._state.segmenter(image)
        if not segmenter.is_encoded:
            self.encoding.want(segmenter, image)
            self.events.present_changed.emit()
            return
        question, predict = present.question(self.settings), self.predictor(segmenter)

        def on_done(answer: Answer) -> None:
            present.answer = answer
            self._show(image, segmenter.plane)
            self.events.answered.emit(True)

        def on_failed(failure: Failure) -> None:
            if failure.kind == "InvalidPromptError" and present.step_back():
                present.future.clear()
                self.restore()
            self._dock.show_error(failure.message, details=failure.details)
            self.events.answered.emit(False)
            self.events.present_changed.emit()

        self._lane.submit(
            lambda progress, should_stop: question.put_to(predict), on_done, on_failed
        )
        self.events.present_changed.emit()

    def ask_again(self) -> None:
        """Ask anew because settings are different; what was refined stays refined."""
        present = self.present()
        if present is not None and present.prompts.count and present.answer is not None:
            present.answer = None
            self.ask()

    def _show(self, image: Image, plane: ShownPlane) -> None:
        """Show the present object of an image, if its plane is still shown."""
        if image not in self._state.viewer.layers or image is not self.image:
            return
        present = self.present()
        if present is None or self._state.plane(image).index != plane.index:
            return
        layers = self.layers(image)
        if present.is_empty:
            layers.show([])
        elif present.answer is not None:
            masks = present.answer.masks
            layers.show([masks.crops[i] for i in present.chosen(self.settings.scale)])
        self.events.present_changed.emit()

    def show(self) -> None:
        """Bring preview and dock up to date."""
        image = self.image
        if image is None or self.present() is None:
            self.events.present_changed.emit()
            return
        self._show(image, self._state.plane(image))

    # ------------------------------------------------------------------ changing the present object

    def begin(self, image: Image, plane: ShownPlane, present: PresentObject) -> None:
        """Put another present object in place, with its prompts and preview."""
        self._lane.invalidate()
        self._present.setdefault(image, {})[plane.index] = present
        self.layers(image).write(present.prompts, plane)
        self.show()

    def restore(self) -> None:
        """Bring the layers in step with a present object that went back or forward."""
        present, image = self.present(), self.image
        if present is None or image is None:
            return
        self._lane.invalidate()
        self.layers(image).write(present.prompts, self._state.plane(image))
        self.show()
        self.ask()

    # ------------------------------------------------------------------ events

    def _on_prompts_changed(self) -> None:
        image = self.image
        plane = None if image is None else self.plane()
        present = self.present()
        if image is None or plane is None or present is None:
            return
        layers = self.layers(image)
        prompts = layers.read(plane)
        layers.settle(plane)
        if prompts.same_as(present.prompts):
            return
        if present.is_empty and self.first_prompt_hook(image, plane, prompts):
            return
        present.say(prompts)
        if prompts.count == 0:
            self._lane.invalidate()
            self.show()
        else:
            self.ask()

    def _on_layer_removed(self, event: Any) -> None:
        self._present.pop(event.value, None)
        self._prompts_timer.start()  # it may have been the layer of the prompts

    def _on_dims_changed(self, _event: Any = None) -> None:
        self._plane_timer.start()

    def _on_plane_changed(self) -> None:
        image = self.image
        if image is None:
            return
        try:
            index = self._state.plane(image).index
        except UnsupportedViewError:
            return
        if index == self._shown_plane:
            return
        self._shown_plane = index
        self._lane.invalidate()
        self.layers(image).show([])
        self.show()
        self.ask()

    def _on_model_changed(self, _what: Any = None) -> None:
        self._lane.invalidate()
        for planes in self._present.values():
            for present in planes.values():
                present.forget_answer()
        self.ask()
        self.events.present_changed.emit()

    def _on_image_changed(self, layer: Image | None) -> None:
        self._lane.invalidate()
        self._shown_plane = None
        for image, layers in list(self._layers.items()):
            if image not in self._state.viewer.layers:
                layers.close()
                self._layers.pop(image, None)
            else:
                layers.set_visible(image is layer)
        self.show()
        self.ask()

    def _on_data_replaced(self, image: Image, resized: bool) -> None:
        """Drop what was said about other data, or ask again if it still fits."""
        if not resized:
            self._on_model_changed()
            return
        self._lane.invalidate()
        self._present.pop(image, None)
        layers = self._layers.pop(image, None)
        if layers is not None:
            layers.close()

    def _on_encoded(self) -> None:
        self._dock.show_result("Ready for prompts.")
        self.ask()
        self.events.present_changed.emit()
        self.events.encoded.emit()

    def _on_not_encoded(self) -> None:
        self.events.answered.emit(False)
        self.events.present_changed.emit()

    def _close(self) -> None:
        """Take the prompt layers away with the dock; objects that were re-opened come back."""
        for image in list(self._present):
            if self._state.has_session(image):
                self._state.session(image).put_all_back()
        for layers in self._layers.values():
            layers.close()


def _single_shot(dock: Dock, milliseconds: int, callback: Any) -> QTimer:
    timer = QTimer(dock)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(callback)
    return timer
