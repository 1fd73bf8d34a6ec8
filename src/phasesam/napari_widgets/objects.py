"""The *Objects* dock: table, sizes and phase fraction of what was segmented, and corrections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from phasesam.core.errors import InvalidSettingError, PhaseSAMError
from phasesam.napari_widgets.candidate_filter import grouped
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.keys import bind_keys, keys_help
from phasesam.napari_widgets.object_actions import ObjectActionBar
from phasesam.napari_widgets.object_columns import shown_columns, table_data
from phasesam.napari_widgets.object_editing import KEYBOARD_EDITS, ObjectEditor
from phasesam.napari_widgets.object_export import Exporter
from phasesam.napari_widgets.object_highlight import ObjectHighlight
from phasesam.napari_widgets.object_measuring import TableMeasurer
from phasesam.napari_widgets.object_picking import ObjectPicker
from phasesam.napari_widgets.object_summary import (
    FRACTION_TOOLTIP,
    FractionQuestion,
    summarise_sizes,
)
from phasesam.napari_widgets.object_table import ObjectTableView
from phasesam.napari_widgets.plane_layer import show_point
from phasesam.napari_widgets.size_histogram import SizeHistogram
from phasesam.napari_widgets.workers import Lane

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from phasesam.core.measurements import ObjectTable
    from phasesam.core.phase_fraction import PhaseFraction
    from phasesam.session import SegmentationSession

_COUNTED_AT_ONCE = 1_000_000


class ObjectsDock(Dock):
    """What was segmented, one object a row, linked both ways with the Labels layer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in; napari fills this in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self._session: SegmentationSession | None = None
        self._table: ObjectTable | None = None
        self._counting = Lane(self)
        self.measurer = TableMeasurer(
            self, self.refresh, lambda failure: self.show_error(failure.message)
        )
        self._fraction_text = ""
        self.highlight = ObjectHighlight(self.viewer)
        self.editor = ObjectEditor(self)
        self.exporter = Exporter(self)
        picker = ObjectPicker(self.state, self._on_picked)
        self.subscriptions.add(picker.stop)
        self._fill()
        self._connect()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self.refresh)
        self._on_image_changed(self.state.image_layer)

    def _fill(self) -> None:
        self.filter_box = QLineEdit()
        self.filter_box.setPlaceholderText("Filter: area > 500 and aspect < 2, or a class")
        self.filter_box.setClearButtonEnabled(True)
        self.filter_box.setToolTip(
            "Comparisons of id, class, area, diameter, aspect, circularity, score and edge,\n"
            "joined by and, or, not; or a class, or the number of an object.\n"
            "Lengths are in the unit of the table."
        )
        self.count = QLabel()
        self.this_plane = QCheckBox("This plane")
        self.this_plane.setToolTip("Show the objects of the plane in view, not of the whole stack.")
        self.table = ObjectTableView()
        self.actions_bar = ObjectActionBar()
        self.histogram = SizeHistogram()
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.setToolTip(FRACTION_TOOLTIP)
        self.summary.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row = QHBoxLayout()
        row.addWidget(self.filter_box, 1)
        row.addWidget(self.this_plane)
        row.addWidget(self.count)
        self.body.addLayout(row)
        self.body.addWidget(self.table, 1)
        self.body.addWidget(self.actions_bar)
        self.body.addWidget(self.histogram)
        self.body.addWidget(self.summary)
        # The table takes the height that is left, not the space below it.
        column = self.body.parent()
        if isinstance(column, QVBoxLayout):
            column.setStretchFactor(self.body, 1000)

    def _connect(self) -> None:
        self.filter_box.textChanged.connect(self._on_filter)
        self.this_plane.toggled.connect(self._on_scope)
        self.table.ids_selected.connect(self._on_rows_selected)
        self.table.delete_requested.connect(lambda: self._on_requested("delete"))
        self.table.table.value_edited.connect(self._on_value_edited)
        self.actions_bar.requested.connect(self._on_requested)
        actions = {key: partial(self._on_requested, key) for key in KEYBOARD_EDITS}
        bind_keys(self, actions, rank=1)
        self.body.addWidget(keys_help(actions))
        state = self.state
        self.subscriptions.connect(state.events.image_changed, self._on_image_changed)
        self.subscriptions.connect(state.events.object_selected, self._on_object_selected)
        self.subscriptions.connect(self.viewer.dims.events.current_step, self._on_step)
        self.subscriptions.add(self._follow_no_session)

    # ------------------------------------------------------------------ what is shown

    def _on_image_changed(self, layer: Image | None) -> None:
        self._follow_no_session()
        self.measurer.stop()
        self._counting.invalidate()
        self.editor.split_line.cancel()
        self.highlight.leave()
        if layer is not None and layer.ndim >= 2:
            self._session = self.state.session(layer)
            self._session.events.objects_changed.connect(self._on_objects_changed)
            self._session.events.history_changed.connect(self._show_history)
        self.this_plane.setVisible(layer is not None and layer.ndim > 2)
        self.refresh()

    def _follow_no_session(self) -> None:
        if self._session is not None:
            self._session.events.objects_changed.disconnect(self._on_objects_changed)
            self._session.events.history_changed.disconnect(self._show_history)
        self._session = None

    def _on_objects_changed(self) -> None:
        # Many edits in a row (an undo of a merge, a stroke over planes) need one refresh.
        self._timer.start()

    def _on_step(self, _event: Any = None) -> None:
        if self.this_plane.isChecked() and self._session is not None:
            self._timer.start()

    def _on_scope(self, _checked: bool) -> None:
        self.refresh()

    def _plane(self) -> tuple[int, ...] | None:
        """Plane to which the table is limited; None for all."""
        layer = self.state.image_layer
        if not self.this_plane.isChecked() or layer is None or layer.ndim <= 2:
            return None
        try:
            return self.state.plane(layer).index
        except PhaseSAMError:
            return None

    def refresh(self) -> None:
        """Show what changed; what takes long to measure follows."""
        self._timer.stop()
        session = self._session
        if session is None:
            self._table = None
            self.table.show_table((), {"id": np.zeros(0, np.int64)})
            self.histogram.set_diameters((), "px")
            self.summary.setText("Open an image first.")
        else:
            self._table = self.measurer.table(session, self._plane())
            physical = session.pixel_size.is_physical
            data = table_data(self._table, physical)
            self.table.show_table(shown_columns(data, physical, len(session.shape) - 2), data)
            self._count_fraction(session, self._table)
            self._show_sizes()
            self._show_highlight()
        self._show_counts()
        self._show_history()

    def _show_sizes(self) -> None:
        """Describe the objects that the filter leaves."""
        if self._table is None:
            return
        if self.measurer.measuring and not len(self._table):
            self.summary.setText("Measuring the objects …")
            return
        sizes = summarise_sizes(self._shown_table(), len(self._table))
        self.histogram.set_diameters(sizes.diameters, sizes.unit, sizes.marks)
        self.summary.setText(" · ".join(filter(None, (sizes.text, self._fraction_text))))

    def _count_fraction(self, session: SegmentationSession, table: ObjectTable) -> None:
        """Work out the phase fraction of all objects, in the background if it takes long."""
        question = FractionQuestion.of(session, self._plane())
        self._counting.invalidate()
        self._fraction_text = ""

        def show(fraction: PhaseFraction | None) -> None:
            self._fraction_text = question.text(fraction)
            self._show_sizes()

        if len(table) and question.pixels <= _COUNTED_AT_ONCE:
            self._fraction_text = question.text(question.answer())
        elif len(table):
            self._counting.submit(
                lambda _progress, _stop: question.answer(),
                show,
                lambda failure: self.show_error(failure.message),
            )

    def _show_counts(self) -> None:
        shown, total = self.table.table.rowCount(), self.table.table.total
        if self.measurer.measuring:
            self.count.setText("measuring …")
            self.count.setToolTip("Sizes of objects that changed follow in a moment.")
        else:
            of_all = "" if shown == total else f" of {grouped(total)}"
            self.count.setText(f"{grouped(shown)}{of_all}")
            self.count.setToolTip("Number of objects shown")
        selected = self.table.selected_ids()
        self.actions_bar.show_state(len(selected), total)
        if self._table is not None and len(self.table.table.columns):
            rows = np.isin(self.table.table.ids, selected)
            self.histogram.set_selected(self.table.table.shown("diameter")[rows])

    def _show_history(self) -> None:
        session = self._session
        self.actions_bar.show_history(
            None if session is None else session.undo_name,
            None if session is None else session.redo_name,
        )

    def _on_filter(self, text: str) -> None:
        try:
            self.table.table.set_filter(text)
        except InvalidSettingError as error:
            # Half-typed text is no mistake yet: say what is missing, keep the rows.
            self.filter_box.setStyleSheet("QLineEdit { border: 1px solid #E69F00; }")
            self.count.setToolTip(str(error))
            self.count.setText("?")
            return
        self.filter_box.setStyleSheet("")
        self._show_sizes()
        self._show_counts()

    # ------------------------------------------------------------------ selection, both ways

    def _on_rows_selected(self, ids: list[int]) -> None:
        self._show_highlight()
        self._show_counts()
        layer = self.state.image_layer
        if not ids or layer is None or self._session is None:
            return
        self.state.select_object(ids[0] if len(ids) == 1 else 0)
        if len(ids) == 1:
            self.look_at(layer, ids[0])

    def look_at(self, layer: Image, object_id: int) -> None:
        """Bring an object to the middle of the canvas."""
        session = self._session
        if session is None:
            return
        record = session.record(object_id)
        y0, x0, y1, x1 = record.box
        point = (*record.plane, (y0 + y1 - 1) / 2.0, (x0 + x1 - 1) / 2.0)
        show_point(self.viewer, layer, point, max(y1 - y0, x1 - x0))

    def _show_highlight(self) -> None:
        layer = self.state.image_layer
        if layer is not None and self._session is not None:
            self.highlight.show(layer, self._session, self.table.selected_ids())

    def _on_picked(self, object_id: int, add: bool) -> None:
        """Select the row of an object that was clicked in the picture."""
        if self._session is None or not self.isVisible():
            return
        if add and object_id:
            chosen = self.table.selected_ids()
            toggled = [i for i in chosen if i != object_id]
            ids = toggled if object_id in chosen else [*chosen, object_id]
        else:
            ids = [object_id] if object_id else []
        self.select(ids)
        self.state.select_object(ids[0] if len(ids) == 1 else 0)

    def _on_object_selected(self, object_id: int) -> None:
        """Follow a selection made elsewhere (next and previous object, Prompt dock)."""
        layer = self.state.image_layer
        if object_id == 0 or layer is None or self.table.selected_ids() == [object_id]:
            return
        if self._timer.isActive():
            self.refresh()
        self.select([object_id])

    def select(self, ids: list[int]) -> None:
        """Select rows and outline their objects; the camera stays where it is."""
        self.table.select_ids(ids)
        self._show_highlight()
        self._show_counts()
        hidden = set(ids) - set(self.table.selected_ids())
        if hidden and not self.measurer.measuring:
            self.show_result(f"Object {min(hidden)} is hidden by the filter.")

    # ------------------------------------------------------------------ edits

    def _on_requested(self, key: str) -> None:
        session, layer = self._session, self.state.image_layer
        if session is None or layer is None:
            return
        try:
            if key in ("csv", "coco") and self.measurer.measuring:
                self.show_result("Objects are still being measured; export them in a moment.")
            elif key in ("csv", "coco", "tiff"):
                self.exporter.ask(key, session, self._shown_table(), self._plane())
            else:
                self.editor.carry_out(key, session, layer, self.table.selected_ids())
        except PhaseSAMError as error:
            self.show_error(str(error))

    def _on_value_edited(self, object_id: int, key: str, text: str) -> None:
        session = self._session
        if session is not None and key == "class":
            chosen = self.table.selected_ids()
            ids = chosen if object_id in chosen else [object_id]
            session.set_class(ids, text.strip())

    def _shown_table(self) -> ObjectTable:
        """Rows as shown: filtered and in the order of the table."""
        table = self._table
        if table is None:
            raise InvalidSettingError("there is no table to export")
        return table.select(np.searchsorted(table["id"], self.table.table.ids))
