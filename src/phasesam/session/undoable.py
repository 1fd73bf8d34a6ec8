"""Objects with undo: every edit is a step, complete or not made at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.session.events import SessionEvents
from phasesam.session.history import History, Step
from phasesam.session.objects import ObjectMap, ObjectRecord
from phasesam.session.transaction import Transaction

_HISTORY_BYTES = 256 * 1024**2


class UndoableObjects:
    """Labels, records and the history of their edits.

    Parameters
    ----------
    objects : ObjectMap
        What is edited.

    Attributes
    ----------
    events : SessionEvents
        Emitted after every edit, undo and redo.
    """

    def __init__(self, objects: ObjectMap) -> None:
        self.events = SessionEvents()
        self._objects = objects
        self._history = History(_HISTORY_BYTES)
        self._version = 0
        self._writes = 0
        self._on_write: Callable[[], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(..., h, w)`` of the array."""
        return self._objects.labels.shape

    @property
    def labels(self) -> NDArray[np.int32]:
        """Label image ``(..., h, w)``, a read-only view: pass changes to `apply_labels`."""
        view = self._objects.labels.view()
        view.flags.writeable = False
        return view

    @property
    def objects(self) -> tuple[ObjectRecord, ...]:
        """Records of all objects by ascending id."""
        return tuple(self._objects.in_plane(None))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in use, sorted."""
        return tuple(sorted({r.class_name for r in self._objects.records.values()} - {""}))

    @property
    def next_id(self) -> int:
        """Id that the next new object gets: the label to paint a new object with."""
        return self._objects.next_id

    def record(self, object_id: int) -> ObjectRecord:
        """Return the record of one object; `SessionError` if there is none."""
        return self._objects.records[self._objects.checked_ids(object_id)[0]]

    def object_mask(self, object_id: int) -> MaskCrop:
        """Return the pixels of one object; `SessionError` if there is none."""
        return self._objects.mask(object_id)

    @property
    def writes(self) -> int:
        """Number that changes whenever labels may have been written, even for a moment."""
        return self._writes

    @property
    def version(self) -> int:
        """Number that changes with every edit that changed something, undo and redo."""
        return self._version

    @property
    def last_step(self) -> Step | None:
        """The step that `undo` takes back, None if there is none."""
        return self._history.last

    def take_over(self, step: Step | None, next_id: int) -> None:
        """Make an edit that was worked out on a copy of the present state; see `Rehearsal`."""
        self._objects.next_id = next_id
        if step is not None:
            self._writes += 1
            step.replay(self._objects, forward=True)
            self._history.push(step)
            self._announce(step)

    @contextmanager
    def _step(self, name: str) -> Iterator[Transaction]:
        self._writes += 1
        edit = Transaction(self._objects, self._on_write)
        try:
            yield edit
            step = edit.finish(name)
        except BaseException:
            edit.roll_back()
            # A worker may have looked at pixels that were written for a moment.
            self._forget(edit.reached)
            raise
        if step is not None:
            self._history.push(step)
            self._announce(step)

    def _forget(self, ids: Iterable[int]) -> None:
        """Drop what is known about the pixels of these objects; there is nothing here."""

    def _announce(self, step: Step) -> None:
        self._version += 1
        self._forget(step.touched)
        for plane, box in step.boxes().items():
            self.events.labels_changed.emit(plane, box)
        self.events.objects_changed.emit()
        self.events.history_changed.emit()

    # History

    def undo(self) -> str | None:
        """Take back the last step; returns its name (and plane), None if there was none."""
        return self._replay(self._history.undo(), forward=False)

    def redo(self) -> str | None:
        """Make the last undone step again; returns its name (and plane) or None likewise."""
        return self._replay(self._history.redo(), forward=True)

    def _replay(self, step: Step | None, forward: bool) -> str | None:
        if step is None:
            return None
        self._writes += 1
        step.replay(self._objects, forward)
        self._announce(step)
        return step.title

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self._history.undo_name is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to make again."""
        return self._history.redo_name is not None

    @property
    def undo_name(self) -> str | None:
        """Name of the step that `undo` takes back."""
        return self._history.undo_name

    @property
    def redo_name(self) -> str | None:
        """Name of the step that `redo` makes again."""
        return self._history.redo_name

    @property
    def history_bytes(self) -> int:
        """Memory that undo and redo take."""
        return self._history.nbytes

    def limit_history(self, max_bytes: int) -> None:
        """Forget the oldest steps beyond this many bytes from the next edit on."""
        if max_bytes < 0:
            raise InvalidSettingError(f"the history limit must not be negative, got {max_bytes}")
        self._history.max_bytes = max_bytes
