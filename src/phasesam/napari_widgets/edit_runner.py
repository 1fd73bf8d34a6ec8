"""Runs edits of objects: short ones at once, long ones beside the GUI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phasesam.session.rehearsal import Rehearsal, Rehearsed, rehearse

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.workers import Failure
    from phasesam.session import SegmentationSession

_AT_ONCE_PIXELS = 200_000
_AT_ONCE_OBJECTS = 50
_ATTEMPTS = 3


@dataclass(frozen=True)
class ObjectEdit:
    """An edit of some objects.

    Attributes
    ----------
    title : str
        What is being done, such as ``"Smoothing"``.
    ids : tuple of int
        The objects.
    make : callable
        ``make(session, ids)`` calls one edit of a session; must not touch the GUI.
    done : callable
        ``done(result, changed)``: what ``make`` returned, and whether anything changed.
    """

    title: str
    ids: tuple[int, ...]
    make: Callable[[SegmentationSession, list[int]], Any]
    done: Callable[[Any, bool], None]


class EditRunner:
    """Makes edits, each as one undo step.

    Long ones are made on a copy, with progress and Cancel in the footer. If the objects
    are edited in the meantime, the edit is made again with what there is then.

    Parameters
    ----------
    dock : Dock
        Runs the work and says what went wrong.
    """

    def __init__(self, dock: Dock) -> None:
        self._dock = dock

    def run(self, edit: ObjectEdit, session: SegmentationSession, layer: Image) -> None:
        """Make an edit of the objects of a layer.

        Raises
        ------
        SessionError
            If it cannot be made. Long ones say so in the dock instead.
        """
        boxes = [session.record(object_id).box for object_id in edit.ids]
        pixels = sum((y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in boxes)
        if pixels > _AT_ONCE_PIXELS or len(boxes) > _AT_ONCE_OBJECTS:
            self._begin(edit, session, layer, _ATTEMPTS)
            return
        version = session.version
        result = edit.make(session, list(edit.ids))
        edit.done(result, session.version != version)

    def _begin(
        self, edit: ObjectEdit, session: SegmentationSession, layer: Image, attempts: int
    ) -> None:
        present = {record.id for record in session.objects}
        ids = [object_id for object_id in edit.ids if object_id in present]
        if not ids:
            self._dock.show_error(f"{edit.title}: the objects have changed; select them again.")
            return
        rehearsal: Rehearsal = rehearse(session, ids)

        def again() -> None:
            if attempts > 1:
                self._begin(edit, session, layer, attempts - 1)
            else:
                self._dock.show_error(
                    f"{edit.title}: the objects were edited again and again in the meantime; "
                    "nothing was done."
                )

        def done(rehearsed: Rehearsed) -> None:
            if rehearsal.is_outdated:
                again()
            else:
                edit.done(rehearsal.adopt(rehearsed), rehearsed.step is not None)

        def failed(_failure: Failure) -> None:
            if rehearsal.is_outdated:
                again()

        self._dock.start(
            lambda progress, stop: rehearsal.perform(
                lambda copy: edit.make(copy, ids), progress, stop
            ),
            title=edit.title,
            on_done=done,
            on_failed=failed,
            layer=layer,
        )
