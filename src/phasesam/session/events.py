"""What a session tells those who show it."""

from __future__ import annotations

from psygnal import Signal, SignalGroup


class SessionEvents(SignalGroup):
    """Signals of one session; bound methods that are connected are held weakly.

    They are emitted in the thread that makes the edit, after the edit is complete.
    """

    labels_changed = Signal(tuple, tuple)
    """``(plane, (y0, x0, y1, x1))``: labels inside this half-open box may be different."""

    objects_changed = Signal()
    """Objects came, went, or changed their outline or class."""

    history_changed = Signal()
    """The names of the next undo and redo step may be different."""

    candidates_changed = Signal()
    """Other candidates are held, or none."""
