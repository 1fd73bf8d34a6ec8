"""Corrections of committed objects: each is one undo step and says what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import PhaseSAMError
from phasesam.napari_widgets.candidate_filter import objects_text
from phasesam.napari_widgets.edit_runner import EditRunner, ObjectEdit
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
        self._runner = EditRunner(dock)

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
            self._delete(session, layer, ids)
        elif key == "merge":
            self._merge(session, layer, ids)
        elif key == "fill":
            self._fill(session, layer, ids)
        elif key == "smooth":
            self._smooth(session, layer, ids)
        elif key == "split_necks":
            self._split(session, layer, ids[0], lambda s, i: s.split_by_watershed(i[0]))
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

    def _delete(self, session: SegmentationSession, layer: Image, ids: list[int]) -> None:
        row = int(self._dock.table.table.rows_of(ids)[0])

        def done(_result: None, _changed: bool) -> None:
            self._dock.refresh()
            rest = self._dock.table.table.ids
            if len(ids) == 1 and len(rest):
                # The next row, so that Del can be pressed again.
                self._dock.select([int(rest[min(row, len(rest) - 1)])])
            self._dock.show_result(f"Deleted {objects_text(len(ids))}.")

        self._run("Deleting", session, layer, ids, lambda s, i: s.delete(i), done)

    def _fill(self, session: SegmentationSession, layer: Image, ids: list[int]) -> None:
        def make(scene: SegmentationSession, present: list[int]) -> int:
            areas = [scene.record(object_id).area for object_id in present]
            scene.fill_holes(present)
            return sum(
                scene.record(object_id).area > area
                for object_id, area in zip(present, areas, strict=True)
            )

        def done(filled: int, _changed: bool) -> None:
            if filled:
                self._dock.show_result(f"Filled the holes of {objects_text(filled)}.")
            else:
                self._dock.show_result(f"Nothing to fill: no holes in {objects_text(len(ids))}.")

        self._run("Filling holes", session, layer, ids, make, done)

    def _smooth(self, session: SegmentationSession, layer: Image, ids: list[int]) -> None:
        def done(_result: None, changed: bool) -> None:
            said = "Smoothed" if changed else "Nothing to smooth on"
            self._dock.show_result(f"{said} {objects_text(len(ids))}.")

        def make(scene: SegmentationSession, present: list[int]) -> None:
            scene.smooth(present, radius=_SMOOTHING_RADIUS)

        self._run("Smoothing", session, layer, ids, make, done)

    def _merge(self, session: SegmentationSession, layer: Image, ids: list[int]) -> None:
        def done(merged: int, _changed: bool) -> None:
            self._dock.refresh()
            self._dock.select([merged])
            self._dock.show_result(f"Merged {objects_text(len(ids))} into object {merged}.")

        self._run("Merging", session, layer, ids, lambda s, i: s.merge(i), done)

    def _split(
        self,
        session: SegmentationSession,
        layer: Image,
        object_id: int,
        make: Callable[[SegmentationSession, list[int]], list[int]],
    ) -> None:
        def done(parts: list[int], _changed: bool) -> None:
            self._dock.refresh()
            self._dock.select(parts)
            self._dock.show_result(f"Split into {objects_text(len(parts))}.")

        self._run("Splitting", session, layer, [object_id], make, done)

    def _run(
        self,
        title: str,
        session: SegmentationSession,
        layer: Image,
        ids: list[int],
        make: Callable[[SegmentationSession, list[int]], Any],
        done: Callable[[Any, bool], None],
    ) -> None:
        def finish(result: Any, changed: bool) -> None:
            # Another image may have come up while a long edit went on.
            if self._dock.state.image_layer is layer:
                done(result, changed)

        self._runner.run(ObjectEdit(title, tuple(ids), make, finish), session, layer)

    def _ask_for_line(self, session: SegmentationSession, layer: Image, object_id: int) -> None:
        if self.split_line.waiting:
            self.split_line.cancel()
            self._dock.show_result("Split: cancelled.")
            return
        self._dock.look_at(layer, object_id)

        def cut(line_yx: NDArray[np.float64]) -> None:
            try:
                self._split(session, layer, object_id, lambda s, i: s.split_by_line(i[0], line_yx))
            except PhaseSAMError as error:
                self._dock.show_error(str(error))

        self.split_line.ask(layer, cut)
        self._dock.show_result(
            f"Draw a line across object {object_id} with the mouse held down, from outside to "
            "outside. Choose Split again to stop."
        )

    def _say_step(self, what: str, name: str | None) -> None:
        self._dock.show_result(f"{what}: {name}." if name else "Nothing left to do.")
