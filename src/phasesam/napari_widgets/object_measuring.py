"""Measures the objects of a session beside the GUI, as far as that takes long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from phasesam.napari_widgets.workers import Failure, Lane

if TYPE_CHECKING:
    from phasesam.core.measurements import ObjectTable
    from phasesam.session import SegmentationSession
    from phasesam.session.objects import Plane
    from phasesam.session.table import Measuring

_AT_ONCE_PIXELS = 300_000
_AT_ONCE_OBJECTS = 300


class TableMeasurer:
    """Keeps the measurements of one session at a time up to date.

    Few objects are measured at once; for many, what was known before is shown until a
    worker has measured them. What the user edits in the meantime is measured after that.

    Parameters
    ----------
    parent : QObject
        The widget that shows the table.
    on_measured : callable
        Called when `table` can tell more than before.
    on_failed : callable
        Called with a `Failure`.
    """

    def __init__(
        self,
        parent: QObject,
        on_measured: Callable[[], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self._lane = Lane(parent)
        self._on_measured = on_measured
        self._on_failed = on_failed
        self._asked: Measuring | None = None

    @property
    def measuring(self) -> bool:
        """Whether objects are being measured, so that some rows are old or missing."""
        return self._asked is not None

    def table(self, session: SegmentationSession, plane: Plane | None) -> ObjectTable:
        """Return what is known, and begin to measure the rest.

        Parameters
        ----------
        session : SegmentationSession
            Whose objects; call `stop` before asking about another one.
        plane : tuple of int or None
            Which objects; None for all.
        """
        if self._asked is None:
            missing = session.measuring(plane)
            if missing.pixels <= _AT_ONCE_PIXELS and len(missing.records) <= _AT_ONCE_OBJECTS:
                return session.table(plane)
            self._ask(session, missing)
        return session.known_table(plane)

    def stop(self) -> None:
        """Drop what is being measured."""
        self._lane.invalidate()
        self._asked = None

    def _ask(self, session: SegmentationSession, missing: Measuring) -> None:
        def done(table: ObjectTable) -> None:
            self._asked = None
            session.take_measured(missing, table)
            self._on_measured()

        def failed(failure: Failure) -> None:
            self._asked = None
            if session.measuring().serial != missing.serial:
                # An object was deleted while it was being looked at.
                self._on_measured()
            else:
                self._on_failed(failure)

        self._asked = missing
        self._lane.submit(missing.work_out, done, failed)
