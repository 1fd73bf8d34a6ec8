"""Objects that can be saved, and that save themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from phasesam.core.errors import SaveError
from phasesam.core.types import PixelSize
from phasesam.session import storage
from phasesam.session.objects import Box, ObjectMap
from phasesam.session.open_objects import ReopenableObjects


class OrderedFile:
    """A file that several threads write: an older content never replaces a newer one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last_ticket = 0
        self._done = 0

    def ticket(self) -> int:
        """Return the place of a content in the order; call it when the content is fixed."""
        self._last_ticket += 1
        return self._last_ticket

    def write(self, ticket: int, action: Callable[[], None]) -> None:
        """Call ``action``, which writes or deletes, unless something newer was done already."""
        with self._lock:
            if ticket > self._done:
                action()
                self._done = ticket


class SavedObjects(ReopenableObjects):
    """Objects and what is saved with them.

    Parameters
    ----------
    objects : ObjectMap
        What is edited.
    """

    def __init__(self, objects: ObjectMap) -> None:
        super().__init__(objects)
        self.pixel_size = PixelSize()
        self.name = ""
        self.image_key = ""
        self.autosave_path: Path | None = None
        self.field_of_view: Box | None = None
        self._autosave_file = OrderedFile()
        self._autosaved_version = 0

    def save(self, path: Path | str) -> None:
        """Write objects and settings (not the undo history) to an ``.npz`` file.

        Objects that are open (`remove_for_editing`) are written as they were.

        Raises
        ------
        SaveError
            If it cannot be written; an older file is then intact.
        """
        storage.write(Path(path), storage.pack(self._objects, self._facts(), self._open))

    def autosave(self) -> bool:
        """Write to `autosave_path` if anything changed since; returns whether it wrote.

        Raises
        ------
        SaveError
            If it cannot be written; the next call tries again.
        """
        job = self.autosave_job()
        return job is not None and job()

    def autosave_job(self) -> Callable[[], bool] | None:
        """Do what `autosave` does in a worker; None if nothing changed since the last time.

        Returns
        -------
        callable or None
            Writes and returns True. It may be called in a worker, and raises `SaveError` like
            `autosave`. It returns False, and the next call tries again, if the objects were
            edited while it copied them. It writes nothing if something newer was written or
            the autosave was discarded by then.
        """
        path, version = self.autosave_path, self._version
        if path is None or self._autosaved_version == version:
            return None
        # Records can be copied at once, pixels take too long for the thread of the session.
        present, facts, opened = self._objects.at_present(), self._facts(), dict(self._open)
        ticket, writes = self._autosave_file.ticket(), self._writes
        self._autosaved_version = version

        def job() -> bool:
            packed = storage.pack(present, facts, opened)
            if self._writes != writes:
                self._autosaved_version = 0
                return False
            try:
                self._autosave_file.write(ticket, lambda: storage.write(path, packed))
            except SaveError:
                self._autosaved_version = 0
                raise
            return True

        return job

    def discard_autosave(self) -> None:
        """Delete the autosave: the work was saved elsewhere, or is not wanted."""
        path = self.autosave_path
        if path is not None:
            self._autosave_file.write(
                self._autosave_file.ticket(), lambda: path.unlink(missing_ok=True)
            )
            self._autosaved_version = 0

    def _facts(self) -> storage.SessionFacts:
        return storage.SessionFacts(
            name=self.name,
            image_key=self.image_key,
            pixel_size=self.pixel_size,
            field_of_view=self.field_of_view,
        )
