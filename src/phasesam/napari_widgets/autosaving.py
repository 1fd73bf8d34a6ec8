"""Saves sessions by themselves, and offers those that were interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication, QFrame, QHBoxLayout, QLabel, QPushButton, QWidget

from phasesam.core.errors import PhaseSAMError
from phasesam.core.images import content_hash
from phasesam.napari_widgets.planes import (
    ShownPlane,
    full_resolution,
    read_plane,
    spatial_shape,
)
from phasesam.napari_widgets.workers import finish_saving, run_in_background
from phasesam.session import SavedSession, SegmentationSession, autosave_path_for, find_recoverable
from phasesam.session.storage import autosave_folder

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.napari_widgets.viewer_state import ViewerState

_DELAY_MS = 5000


class Autosaver(QObject):
    """Writes every session of a viewer a few seconds after a change.

    Images are known by their content, so an interrupted session is found again whatever
    the image is called by then.

    Parameters
    ----------
    state : ViewerState
        Whose sessions.
    """

    offered = Signal(object, object)
    """An interrupted session was found: the image layer and a `SavedSession`."""

    settled = Signal(object)
    """The offer for this image layer was accepted or turned down."""

    def __init__(self, state: ViewerState) -> None:
        super().__init__(QApplication.instance())
        self._state = ref(state)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY_MS)
        self._timer.timeout.connect(self.save_beside)
        self._widgets: WeakSet[QWidget] = WeakSet()
        state.events.session_opened.connect(self._on_session_opened)
        state.viewer.layers.events.removed.connect(self._on_layer_removed)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.flush)
        for image in state.images():
            if state.has_session(image):
                self._on_session_opened(image)

    def _on_session_opened(self, image: Image) -> None:
        state = self._state()
        if state is None:
            return
        session = state.session(image)
        session.events.history_changed.connect(self._on_history_changed)
        session_ref, image_ref = ref(session), ref(image)
        shape, middle = spatial_shape(image), _middle_plane(image)
        data = full_resolution(image)

        def job(
            progress: ProgressCallback, should_stop: StopCallback
        ) -> tuple[str, list[SavedSession]]:
            key = content_hash(read_plane(data, middle))
            found = find_recoverable(autosave_folder())
            return key, [
                saved
                for saved in found
                if saved.image_key == key and saved.shape == shape and saved.n_objects
            ]

        def done(result: tuple[str, list[SavedSession]]) -> None:
            session, image = session_ref(), image_ref()
            if session is not None:
                self._on_known(session, image, *result)

        # An image that cannot be hashed is an image without autosave; prompting it says why.
        run_in_background(job, on_done=done, parent=self)

    def _on_known(
        self,
        session: SegmentationSession,
        image: Image | None,
        key: str,
        found: list[SavedSession],
    ) -> None:
        """Go on when the content of an image is known."""
        _name(session, key)
        if session.objects:
            self._on_history_changed()
        state = self._state()
        if state is None or not state.has_viewer:
            return
        state.reattach_sessions()
        if image not in state.images() or state.session(image) is not session:
            return  # removed, or it has another session by now
        if found and not session.objects:
            self.offered.emit(image, found[0])

    def _on_history_changed(self) -> None:
        for widget in filter(isalive, self._widgets):
            # Only now: a dock is made before it is put into its window.
            _outermost(widget).installEventFilter(self)
        if not self._timer.isActive():
            self._timer.start()

    def _on_layer_removed(self, _event: Any) -> None:
        if self._timer.isActive():
            self.save_now()

    def watch(self, widget: QWidget) -> None:
        """Save when the window closes that ``widget`` is in."""
        self._widgets.add(widget)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Save before the viewer's window closes."""
        if event.type() == QEvent.Type.Close:
            self.flush()
        return bool(super().eventFilter(watched, event))

    def flush(self) -> None:
        """Save at once, on the GUI thread: there is no time left."""
        state = self._state()
        if state is None:
            return
        images = state.images() if state.has_viewer else []
        for image in filter(state.has_session, images):
            session = state.session(image)
            if session.autosave_path is None and (session.objects or session.open_objects):
                # Edited and closed before the background was through with the image.
                try:
                    plane = read_plane(full_resolution(image), _middle_plane(image))
                    _name(session, content_hash(plane))
                except PhaseSAMError:
                    continue  # it cannot be hashed
        # What a worker could not save, because objects were edited meanwhile, is saved now.
        finish_saving()
        self.save_now()

    def save_beside(self) -> None:
        """Like `save_now`, but in a worker, unless objects are edited while it copies them."""

        def done(written: bool) -> None:
            if not written:
                self.save_now()

        self._save(
            lambda job: run_in_background(
                lambda _progress, _stop: job(), on_done=done, parent=self, must_finish=True
            )
        )

    def save_now(self) -> None:
        """Write what has changed; an autosave without objects is removed."""
        self._save(lambda job: job())

    def _save(self, write: Callable[[Callable[[], bool]], object]) -> None:
        self._timer.stop()
        state = self._state()
        if state is None:
            return
        for session in state.sessions():
            try:
                if not session.objects and not session.open_objects:
                    session.discard_autosave()
                elif (job := session.autosave_job()) is not None:
                    write(job)
            except PhaseSAMError:
                # No place or no permission: nothing the user could do while segmenting. The
                # next change tries again.
                continue

    def recover(self, image: Image, saved: SavedSession) -> None:
        """Go on with an interrupted session of an image.

        What was made in the meantime is kept, on top.

        Raises
        ------
        SessionError
            If its file is broken.
        """
        state = self._state()
        if state is not None:
            present, recovered = state.session(image), SegmentationSession.recover(saved.path)
            present.put_all_back()
            for record in present.objects:
                recovered.commit(
                    present.object_mask(record.id),
                    plane=record.plane,
                    score=record.score,
                    class_name=record.class_name,
                    source=record.source,
                )
            present.discard_autosave()
            state.set_session(image, recovered)
        self.settled.emit(image)

    def discard(self, image: Image, saved: SavedSession) -> None:
        """Delete an interrupted session."""
        Path(saved.path).unlink(missing_ok=True)
        self.settled.emit(image)


def _name(session: SegmentationSession, key: str) -> None:
    """Tell a session the content of its image, and where to save itself."""
    session.image_key = key
    if session.autosave_path is None:
        session.autosave_path = autosave_path_for(autosave_folder(), session.name)


def _middle_plane(image: Image) -> ShownPlane:
    """Choose the plane by which a stack is known."""
    shape = spatial_shape(image)
    return ShownPlane(tuple(n // 2 for n in shape[:-2]), (shape[-2], shape[-1]))


def _outermost(widget: QWidget) -> QWidget:
    while (parent := widget.parentWidget()) is not None:
        widget = parent
    return widget


_savers: WeakKeyDictionary[ViewerState, Autosaver] = WeakKeyDictionary()


def autosaver_of(state: ViewerState) -> Autosaver:
    """Get the one autosaver of a viewer."""
    if state not in _savers:
        _savers[state] = Autosaver(state)
    return _savers[state]


class RecoveryNotice(QFrame):
    """A line that offers an interrupted session of the present image; hidden otherwise.

    Parameters
    ----------
    state : ViewerState
        Whose image.
    """

    failed = Signal(str)

    def __init__(self, state: ViewerState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._saver = autosaver_of(state)
        self._saver.watch(self)
        self._offers: WeakKeyDictionary[Image, SavedSession] = WeakKeyDictionary()
        self._state = state
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.recover_button = QPushButton("Recover")
        self.discard_button = QPushButton("Discard")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.recover_button)
        layout.addWidget(self.discard_button)
        self.recover_button.clicked.connect(self._on_recover)
        self.discard_button.clicked.connect(self._on_discard)
        self._saver.offered.connect(self._on_offered)
        self._saver.settled.connect(self._on_settled)
        self.hide()

    def refresh(self, image: Image | None) -> None:
        """Show the offer for an image, if there is one."""
        saved = None if image is None else self._offers.get(image)
        if saved is not None:
            when = time.strftime("%d %b, %H:%M", time.localtime(saved.saved_at))
            objects = "1 object" if saved.n_objects == 1 else f"{saved.n_objects} objects"
            self.text.setText(f"{objects} from an earlier session ({when})")
            self.text.setToolTip(str(saved.path))
        self.setVisible(saved is not None)

    def _on_offered(self, image: Image, saved: SavedSession) -> None:
        self._offers[image] = saved
        self.refresh(self._state.image_layer)

    def _on_settled(self, image: Image) -> None:
        self._offers.pop(image, None)
        self.refresh(self._state.image_layer)

    def _on_recover(self) -> None:
        image = self._state.image_layer
        if image is None or image not in self._offers:
            return
        try:
            self._saver.recover(image, self._offers[image])
        except PhaseSAMError as error:
            self._on_settled(image)
            self.failed.emit(str(error))

    def _on_discard(self) -> None:
        image = self._state.image_layer
        if image is not None and image in self._offers:
            self._saver.discard(image, self._offers[image])
