"""Encodes planes in the background, newest wish first, with progress in a dock's footer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from phasesam.models.registry import get_spec, where
from phasesam.napari_widgets.header import Status

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.segmenters import LazySegmenter


class EncodingQueue:
    """Encodes one plane at a time; a newer wish replaces the one that waits.

    Parameters
    ----------
    dock : Dock
        Runs the work, and shows progress and Cancel.
    on_ready : callable
        Called without arguments when the plane wished for last is encoded.
    on_given_up : callable
        Called without arguments when it failed or was cancelled; the footer says why.
    """

    def __init__(
        self, dock: Dock, on_ready: Callable[[], None], on_given_up: Callable[[], None]
    ) -> None:
        self._dock = dock
        self._on_ready = on_ready
        self._on_given_up = on_given_up
        self._running: LazySegmenter | None = None
        self._wanted: tuple[LazySegmenter, Image] | None = None
        dock.footer.cancel.clicked.connect(self._forget)

    @property
    def busy(self) -> bool:
        """Whether a plane is being encoded or waits to be."""
        return self._running is not None or self._wanted is not None

    def want(self, segmenter: LazySegmenter, image: Image) -> None:
        """Encode the plane of ``segmenter``, unless that is done or under way."""
        if segmenter.is_encoded:
            return
        if self._running is None:
            self._start(segmenter, image)
        elif self._running is segmenter:
            self._wanted = None
        else:
            self._wanted = (segmenter, image)
            self._dock.cancel()

    def _forget(self) -> None:
        self._wanted = None

    def _start(self, segmenter: LazySegmenter, image: Image) -> None:
        try:
            spec = get_spec(segmenter.model)
        except LookupError as error:
            self._dock.show_error(str(error))
            self._on_given_up()
            return

        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            segmenter.encode(progress=progress, should_stop=should_stop)

        downloads = where(spec) == "to download"
        title = f"Downloading {spec.title}" if downloads else f"Encoding {image.name}"
        task = self._dock.start(
            job,
            title=title,
            on_done=lambda _: self._ended(self._on_ready),
            on_failed=lambda _: self._ended(self._on_given_up),
            on_cancelled=lambda: self._ended(self._on_given_up),
            layer=image,
        )
        if task is None:
            self._on_given_up()
            return
        self._running = segmenter
        if downloads:
            self._dock.header.dot.set_status(Status.DOWNLOADING)

    def _ended(self, callback: Callable[..., Any]) -> None:
        self._running = None
        wanted, self._wanted = self._wanted, None
        if wanted is not None and wanted[1] in self._dock.viewer.layers:
            self.want(*wanted)
        else:
            callback()
