"""Corrections of committed objects: each is one undo step and says what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phasesam.core.errors import PhaseSAMError
from phasesam.napari_widgets.candidate_filter import objects_text
from phasesam.napari_widgets.reopening import reopen_in_prompt_dock
from phasesam.napari_widgets.split_line import SplitLine

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Image
    from numpy.typing import NDArray

    from phasesam.napari_widgets.objects import ObjectsDock
    from phasesam.session import SegmentationSession

KEYBOARD_EDITS = ("undo", "redo", "delete", "next_object", "previous_object", "reopen")
_SMOOTHING_RADIUS = 2.0


class ObjectEditor:
    """Carries out what the buttons of the *Objects* dock ask for.

    Parameters
    ----------
    dock : ObjectsDock
        Shows the result and the new selection.
    """

    def __init__(self, dock: ObjectsDock) -> None:
        self._dock = dock
        self.split_line = SplitLine(dock.viewer)

    def carry_out(
        self, key: str, session: SegmentationSession, layer: Image, ids: list[int]
    ) -> None:
        """Do one edit of the objects ``ids``.

        Raises
        ------
        SessionError
            If it cannot be done; nothing has changed then.
        """
        if key == "undo":
            self._say_step("Undone", session.undo())
        elif key == "redo":
            self._say_step("Redone", session.redo())
        elif key in ("next_object", "previous_object"):
            self._step(layer, ids, 1 if key == "next_object" else -1)
        elif not ids:
            self._dock.show_result("Select an object first: click it in the table or the picture.")
        elif key == "delete":
            self._delete(session, ids)
        elif key == "merge":
            self._merge(session, ids)
        elif key == "fill":
            self._fill(session, ids)
        elif key == "smooth":
            self._smooth(session, ids)
        elif key == "split_necks":
            self._show_parts(session.split_by_watershed(ids[0]))
        elif key == "split_line":
            self._ask_for_line(session, layer, ids[0])
        elif key == "reopen":
            reopen_in_prompt_dock(self._dock, ids[0])

    def _step(self, layer: Image, ids: list[int], step: int) -> None:
        """Select the next row or the one before, in the order of the table."""
        shown = self._dock.table.table.ids
        if not len(shown):
            self._dock.show_result("No objects to select.")
            return
        start = int(self._dock.table.table.rows_of(ids)[0]) if ids else (-1 if step > 0 else 0)
        object_id = int(shown[(start + step) % len(shown)])
        self._dock.select([object_id])
        self._dock.state.select_object(object_id)
        self._dock.look_at(layer, object_id)

    def _delete(self, session: SegmentationSession, ids: list[int]) -> None:
        row = int(self._dock.table.table.rows_of(ids)[0])
        session.delete(ids)
        self._dock.refresh()
        rest = self._dock.table.table.ids
        if len(ids) == 1 and len(rest):
            # The next row, so that Del can be pressed again.
            self._dock.select([int(rest[min(row, len(rest) - 1)])])
        self._dock.show_result(f"Deleted {objects_text(len(ids))}.")

    def _fill(self, session: SegmentationSession, ids: list[int]) -> None:
        areas = {object_id: session.record(object_id).area for object_id in ids}
        session.fill_holes(ids)
        filled = sum(session.record(object_id).area > area for object_id, area in areas.items())
        if filled:
            self._dock.show_result(f"Filled the holes of {objects_text(filled)}.")
        else:
            self._dock.show_result(f"Nothing to fill: no holes in {objects_text(len(ids))}.")

    def _smooth(self, session: SegmentationSession, ids: list[int]) -> None:
        # Only an edit that changes a pixel becomes a step, and only a step is announced.
        steps: list[str | None] = []

        def note() -> None:
            steps.append(session.undo_name)

        session.events.history_changed.connect(note)
        try:
            session.smooth(ids, radius=_SMOOTHING_RADIUS)
        finally:
            session.events.history_changed.disconnect(note)
        if steps:
            self._dock.show_result(f"Smoothed {objects_text(len(ids))}.")
        else:
            self._dock.show_result(f"Nothing to smooth on {objects_text(len(ids))}.")

    def _merge(self, session: SegmentationSession, ids: list[int]) -> None:
        merged = session.merge(ids)
        self._dock.refresh()
        self._dock.select([merged])
        self._dock.show_result(f"Merged {objects_text(len(ids))} into object {merged}.")

    def _show_parts(self, parts: list[int]) -> None:
        self._dock.refresh()
        self._dock.select(parts)
        self._dock.show_result(f"Split into {objects_text(len(parts))}.")

    def _ask_for_line(self, session: SegmentationSession, layer: Image, object_id: int) -> None:
        if self.split_line.waiting:
            self.split_line.cancel()
            self._dock.show_result("Split: cancelled.")
            return
        self._dock.look_at(layer, object_id)

        def cut(line_yx: NDArray[np.float64]) -> None:
            try:
                self._show_parts(session.split_by_line(object_id, line_yx))
            except PhaseSAMError as error:
                self._dock.show_error(str(error))

        self.split_line.ask(layer, cut)
        self._dock.show_result(
            f"Draw a line across object {object_id} with the mouse held down, from outside to "
            "outside. Choose Split again to stop."
        )

    def _say_step(self, what: str, name: str | None) -> None:
        self._dock.show_result(f"{what}: {name}." if name else "Nothing left to do.")
