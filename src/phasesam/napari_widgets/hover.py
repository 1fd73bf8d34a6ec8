"""Shows what a click would select, before it is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from phasesam.napari_widgets.layers import world_to_data
from phasesam.napari_widgets.present_object import Answer, Question
from phasesam.napari_widgets.prompt_layers import HOVER, PlanePrompts
from phasesam.napari_widgets.workers import Failure, Lane

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.prompting import PromptController

_INTERVAL_MS = 40
_REST_MS = 350


class HoverPreview:
    """Asks the model about the pixel under the mouse while nothing else is being prompted.

    Previews are asked for at most 25 times a second, only the newest one waits, and none
    arrives after the first click. A plane, or a window of it, that is not encoded yet is
    encoded once the mouse has rested over it, so that moving about starts nothing.

    Parameters
    ----------
    dock : Dock
        Whose viewer is watched, as long as the dock is visible.
    controller : PromptController
        Knows the present object and shows the preview.
    is_on : callable
        Whether previews are wanted now.
    """

    def __init__(self, dock: Dock, controller: PromptController, is_on: Callable[[], bool]) -> None:
        self._dock = dock
        self._controller = controller
        self._is_on = is_on
        self._lane = Lane(dock, drop_older=False)
        self._position: tuple[float, ...] | None = None
        self._shown = False
        self._last = 0.0
        self._timer = self._single_shot(_INTERVAL_MS, self._ask)
        self._rest = self._single_shot(_REST_MS, self._on_rest)
        callbacks = dock.viewer.mouse_move_callbacks
        callbacks.append(self._on_move)
        dock.subscriptions.add(lambda: callbacks.remove(self._on_move))
        controller.events.present_changed.connect(self._on_present_changed)
        controller.events.encoded.connect(lambda *_: self._ask())

    def _single_shot(self, milliseconds: int, callback: Callable[[], None]) -> QTimer:
        timer = QTimer(self._dock)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(callback)
        return timer

    def clear(self) -> None:
        """Take the preview away."""
        self._lane.invalidate()
        self._timer.stop()
        image = self._controller.image
        if self._shown and image is not None:
            self._controller.layers(image).show([])
        self._shown = False

    def _on_present_changed(self) -> None:
        present = self._controller.present()
        if present is None or not present.is_empty:
            self._lane.invalidate()
            self._timer.stop()
            self._shown = False  # the layer shows the present object now

    def _may_ask(self) -> bool:
        present = self._controller.present()
        return (
            self._is_on()
            and self._dock.isVisibleTo(self._dock.window())
            and present is not None
            and present.is_empty
            and not self._controller.waits
        )

    def _on_move(self, _viewer: Any, event: Any) -> None:
        if event.is_dragging or not self._may_ask():
            return
        self._position = tuple(event.position)
        if not self._timer.isActive():
            wait = _INTERVAL_MS - (time.monotonic() - self._last) * 1000
            self._timer.start(max(0, int(wait)))
        self._rest.start()

    def _pixel(self, image: Image) -> np.ndarray | None:
        """Find the (y, x) under the mouse, None outside of the image (then nothing is shown)."""
        if self._position is None:
            return None
        point = world_to_data(self._dock.viewer, image, self._position)[-2:]
        shape = self._dock.state.plane(image).shape
        inside = (point >= -0.5).all() and (point < np.array(shape) - 0.5).all()
        return point if inside else None

    def _ask(self, rested: bool = False) -> None:
        image = self._controller.image
        if image is None or not self._may_ask():
            return
        self._last = time.monotonic()
        point = self._pixel(image)
        if point is None:
            self.clear()
            return
        segmenter = self._dock.state.segmenter(image)
        if not segmenter.is_encoded:
            return
        if segmenter.data_bar is not None and point[0] >= segmenter.data_bar:
            self.clear()
            return
        prompts = PlanePrompts(point[None], np.ones(1, np.int64))
        settings = self._controller.settings
        question = Question(prompts, None, None, settings)
        predict = self._controller.predictor(segmenter)

        def on_done(answer: Answer | None) -> None:
            if answer is None:
                return
            if image is not self._controller.image or not self._may_ask():
                return
            if segmenter is not self._dock.state.segmenter(image) or not len(answer.masks):
                return
            best = answer.masks.crops[question.chosen(answer.masks)]
            self._controller.layers(image).show([best], HOVER)
            self._shown = True

        def on_failed(failure: Failure) -> None:
            self._dock.show_error(failure.message, details=failure.details)

        def job(progress: ProgressCallback, should_stop: StopCallback) -> Answer | None:
            sees = segmenter.get()
            if not rested and sees.windows is not None and not sees.is_seen_at(*point):
                return None
            return question.put_to(predict)

        self._lane.submit(job, on_done, on_failed)

    def _on_rest(self) -> None:
        image = self._controller.image
        if image is None or not self._may_ask() or self._dock.running:
            return
        if self._pixel(image) is None:
            return
        if self._dock.state.segmenter(image).is_encoded:
            self._ask(rested=True)
        else:
            self._controller.prepare()
