from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import QItemSelectionModel, Qt

from phasesam.core.errors import InvalidSettingError
from phasesam.napari_widgets.object_table import ObjectTableView, TableColumn

COLUMNS = (
    TableColumn("id", "ID", "Label", 0),
    TableColumn("class", "Class", "Phase", editable=True),
    TableColumn("area", "Area (px)", "Size", 0),
    TableColumn("score", "Score", "Predicted IoU", 2),
    TableColumn("edge", "Edge", "Cut off"),
)


def table(n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "id": np.arange(1, n + 1),
        "class": rng.choice(["pore", "particle", ""], n).astype(object),
        "area": rng.integers(10, 5000, n).astype(float),
        "score": np.where(rng.random(n) < 0.1, np.nan, rng.random(n)),
        "edge": rng.random(n) < 0.2,
    }


@pytest.fixture
def view(qtbot):
    widget = ObjectTableView()
    qtbot.addWidget(widget)
    widget.resize(420, 300)
    widget.show()
    widget.show_table(COLUMNS, table(50))
    return widget


def click_row(qtbot, view, row, modifier=Qt.KeyboardModifier.NoModifier):
    view.scrollTo(view.table.index(row, 2))
    place = view.visualRect(view.table.index(row, 2)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, modifier, place)


def test_cells_are_written_for_people(view):
    view.show_table(
        COLUMNS,
        {
            "id": np.array([7]),
            "class": np.array(["pore"], dtype=object),
            "area": np.array([12345.6]),
            "score": np.array([np.nan]),
            "edge": np.array([True]),
        },
    )
    texts = [view.table.data(view.table.index(0, column)) for column in range(5)]
    assert texts == ["7", "pore", "12\u202f346", "–", "yes"]


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("column", range(5))
def test_sorting_agrees_with_python(view, column, ascending):
    order = Qt.SortOrder.AscendingOrder if ascending else Qt.SortOrder.DescendingOrder
    view.sortByColumn(column, order)
    key = COLUMNS[column].key
    got = view.table.shown(key)
    if got.dtype.kind == "O":
        assert got.tolist() == sorted(got.tolist(), reverse=not ascending)
    else:
        finite = got[np.isfinite(got.astype(float))]
        assert finite.tolist() == sorted(finite.tolist(), reverse=not ascending)
        assert np.isfinite(got[: len(finite)].astype(float)).all(), "missing numbers come last"


def test_filter_and_sort_survive_new_data(view):
    view.table.set_filter("area > 1000")
    view.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    view.show_table(COLUMNS, table(80, seed=1))
    areas = view.table.shown("area")
    assert (areas > 1000).all()
    assert (np.diff(areas) <= 0).all()
    assert view.table.total == 80 > view.table.rowCount()


def test_a_wrong_filter_leaves_the_rows(view):
    view.table.set_filter("area > 1000")
    ids = view.table.ids
    with pytest.raises(InvalidSettingError):
        view.table.set_filter("area > and")
    np.testing.assert_array_equal(view.table.ids, ids)


def test_a_filter_for_columns_that_are_gone_keeps_all_rows(view):
    view.table.set_filter("area > 1000")
    view.show_table((), {"id": np.arange(4)})
    assert view.table.rowCount() == 4
    view.show_table(COLUMNS, table(50))
    assert (view.table.shown("area") > 1000).all()


def test_click_control_click_and_shift_click(view, qtbot):
    with qtbot.waitSignal(view.ids_selected) as first:
        click_row(qtbot, view, 2)
    assert first.args == [[3]]
    click_row(qtbot, view, 5, Qt.KeyboardModifier.ControlModifier)
    assert view.selected_ids() == [3, 6]
    click_row(qtbot, view, 5)
    click_row(qtbot, view, 7, Qt.KeyboardModifier.ShiftModifier)
    assert view.selected_ids() == [6, 7, 8]


def test_selecting_by_program_is_silent_and_scrolls(view, qtbot):
    with qtbot.assertNotEmitted(view.ids_selected):
        view.select_ids([48, 2])
    assert view.selected_ids() == [2, 48]
    with qtbot.assertNotEmitted(view.ids_selected):
        view.select_ids([49])
    rect = view.visualRect(view.table.index(48, 0))
    assert view.viewport().rect().contains(rect.center())


def test_selection_is_kept_by_sorting_filtering_and_new_data(view, qtbot):
    click_row(qtbot, view, 4)
    click_row(qtbot, view, 9, Qt.KeyboardModifier.ControlModifier)
    with qtbot.assertNotEmitted(view.ids_selected):
        view.sortByColumn(2, Qt.SortOrder.DescendingOrder)
        assert set(view.selected_ids()) == {5, 10}
        view.table.set_filter("id < 8")
        assert view.selected_ids() == [5]
        view.table.set_filter("")
        assert set(view.selected_ids()) == {5, 10}
        view.show_table(COLUMNS, table(60))
        assert set(view.selected_ids()) == {5, 10}


def test_delete_key_asks(view, qtbot):
    click_row(qtbot, view, 0)
    with qtbot.waitSignal(view.delete_requested):
        qtbot.keyClick(view, Qt.Key.Key_Delete)


def test_editing_the_class_asks_the_session_and_changes_nothing_itself(view, qtbot):
    index = view.table.index(0, 1)
    before = view.table.data(index)
    with qtbot.waitSignal(view.table.value_edited) as edited:
        view.table.setData(index, "inclusion")
    assert edited.args == [1, "class", "inclusion"]
    assert view.table.data(index) == before
    assert not view.table.flags(view.table.index(0, 2)) & Qt.ItemFlag.ItemIsEditable


def test_thousands_of_rows_stay_smooth(view, qtbot):
    data = table(5000)
    view.show_table(COLUMNS, data)
    view.selectionModel().select(
        view.table.index(10, 0),
        QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows,
    )
    seconds = {}
    for name, action in {
        "reset": lambda: view.show_table(COLUMNS, data),
        "sort": lambda: view.sortByColumn(2, Qt.SortOrder.DescendingOrder),
        "sort text": lambda: view.sortByColumn(1, Qt.SortOrder.DescendingOrder),
        "filter": lambda: view.table.set_filter("area > 500 and score < 0.9"),
        "select all": view.selectAll,
        "every second": lambda: view.select_ids(range(1, 5001, 2)),
    }.items():
        start = time.perf_counter()
        action()
        view.viewport().repaint()
        seconds[name] = time.perf_counter() - start
    assert seconds["reset"] < 0.1, seconds
    assert max(seconds.values()) < 0.3, seconds
