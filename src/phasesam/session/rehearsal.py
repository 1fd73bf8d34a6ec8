"""Edits that take long: a worker makes them on a copy, the session then takes over the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError, SessionError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.session.history import Step
from phasesam.session.objects import ObjectMap, ObjectRecord, Plane
from phasesam.session.session import SegmentationSession


@dataclass(frozen=True, eq=False)
class Rehearsed:
    """What an edit did to the copy.

    Attributes
    ----------
    step : Step or None
        The edit; None if it changed nothing.
    next_id : int
        Larger than every id that was ever used.
    result : object
        What the edit returned.
    """

    step: Step | None
    next_id: int
    result: Any


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """State of a session from which a worker makes a copy; get it with `rehearse`.

    Attributes
    ----------
    session : SegmentationSession
        Whose state; a worker must leave it alone.
    labels : (..., h, w) int32 array
        Of the session, not copied yet.
    records : dict of int to ObjectRecord
        By id.
    next_id : int
        Larger than every id that was ever used.
    planes : frozenset of tuple of int
        What has to be copied.
    n_objects : int
        How many objects are to be edited.
    writes : int
        State of the session.
    """

    session: SegmentationSession
    labels: NDArray[np.int32]
    records: dict[int, ObjectRecord]
    next_id: int
    planes: frozenset[Plane]
    n_objects: int
    writes: int

    @property
    def is_outdated(self) -> bool:
        """Whether the session was edited since; ask on its own thread."""
        return self.session.writes != self.writes

    def perform(
        self,
        edit: Callable[[SegmentationSession], Any],
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> Rehearsed:
        """Make one edit on a copy; may be called in a worker.

        Parameters
        ----------
        edit : callable
            Gets the copy and calls one of its edits.
        progress, should_stop : callable, optional
            Called for every object.

        Raises
        ------
        SessionError
            If the edit cannot be done.
        CancelledError
            If ``should_stop`` said so.
        """
        objects = ObjectMap(self.labels.shape)
        objects.records, objects.next_id = dict(self.records), self.next_id
        # The session may be edited while this copies; `adopt` then refuses the result.
        for plane in self.planes:
            objects.labels[plane] = self.labels[plane]
        written = 0

        def on_write() -> None:
            nonlocal written
            if should_stop is not None and should_stop():
                raise CancelledError("the edit was stopped")
            if progress is not None:
                progress(min(written, self.n_objects), self.n_objects)
            written += 1
            # Lets a waiting GUI thread go on at once, not after Python's 5 ms.
            time.sleep(0)

        copy = SegmentationSession.around(objects, on_write)
        result = edit(copy)
        return Rehearsed(copy.last_step, objects.next_id, result)

    def adopt(self, rehearsed: Rehearsed) -> Any:
        """Make the edit in the session as one undo step; returns what the edit returned.

        Raises
        ------
        SessionError
            If the session was edited in the meantime; it stays as it is.
        """
        if self.is_outdated:
            raise SessionError("the objects were edited in the meantime: do it again")
        self.session.take_over(rehearsed.step, rehearsed.next_id)
        return rehearsed.result


def rehearse(session: SegmentationSession, ids: Iterable[int]) -> Rehearsal:
    """Prepare an edit of some objects that is made in a worker.

    Raises
    ------
    SessionError
        If there is no such object.
    """
    records = {record.id: record for record in session.objects}
    planes = [session.record(object_id).plane for object_id in ids]
    return Rehearsal(
        session=session,
        labels=session.labels,
        records=records,
        next_id=session.next_id,
        planes=frozenset(planes),
        n_objects=len(planes),
        writes=session.writes,
    )
