"""Many objects are measured beside the GUI."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from phasesam.napari_widgets import object_measuring
from phasesam.napari_widgets.objects import ObjectsDock
from phasesam.session import table as session_table

SHAPE = (240, 300)


def grid():
    """Squares of 8 × 8 pixels with 4 between them."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    cells = (rows // 12) * (SHAPE[1] // 12) + columns // 12 + 1
    return np.where((rows % 12 < 8) & (columns % 12 < 8), cells, 0).astype(np.int32)


@pytest.fixture
def threads(monkeypatch):
    """Threads in which objects were measured; the first measuring waits for `gate`."""
    asked = []
    gate = threading.Event()
    measure = session_table.measure

    def slow(labels, *args, **kwargs):
        if labels.size:
            asked.append(threading.current_thread())
            if asked[-1] is not threading.main_thread():
                assert gate.wait(20)
        return measure(labels, *args, **kwargs)

    monkeypatch.setattr(session_table, "measure", slow)
    asked_and_gate = (asked, gate)
    yield asked_and_gate
    gate.set()


@pytest.fixture
def dock(qtbot, viewer_model, threads):
    viewer_model.add_image(np.zeros(SHAPE, np.uint8), name="SEM")
    dock = ObjectsDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    session(dock).apply_labels(grid())
    qtbot.wait(20)
    return dock


def session(dock):
    return dock.state.session(dock.state.image_layer)


def finish(dock, qtbot, threads):
    threads[1].set()
    qtbot.waitUntil(lambda: not dock.measurer.measuring, timeout=20_000)


def check_up_to_date(dock):
    table = session(dock).table()
    assert dock.table.table.ids.tolist() == table["id"].tolist()
    np.testing.assert_array_equal(dock.table.table.shown("area"), table["area_px"])


def test_many_objects_are_measured_outside_the_gui_thread(dock, qtbot, threads):
    assert dock.measurer.measuring
    assert dock.count.text() == "measuring …"
    assert dock.summary.text() == "Measuring the objects …"
    finish(dock, qtbot, threads)
    assert threading.main_thread() not in threads[0]
    assert dock.count.text() == "500"
    assert dock.summary.text().startswith("500 objects")
    check_up_to_date(dock)


def test_few_objects_are_measured_at_once(dock, qtbot, threads):
    finish(dock, qtbot, threads)
    session(dock).merge([1, 2])
    dock.refresh()
    assert not dock.measurer.measuring
    assert threads[0][-1] is threading.main_thread()
    check_up_to_date(dock)


def test_edits_while_measuring_are_measured_afterwards(dock, qtbot, threads):
    session(dock).merge([3, 4])
    session(dock).delete([10, 11])
    qtbot.wait(20)
    finish(dock, qtbot, threads)
    assert dock.table.table.total == 497
    check_up_to_date(dock)


def test_old_rows_stay_until_the_new_ones_are_there(dock, qtbot, threads, monkeypatch):
    finish(dock, qtbot, threads)
    threads[1].clear()
    monkeypatch.setattr(object_measuring, "_AT_ONCE_OBJECTS", 1)
    session(dock).delete([5])
    session(dock).merge([1, 2])
    session(dock).merge([30, 31])
    qtbot.wait(20)
    assert dock.measurer.measuring
    assert dock.table.table.total == 497
    assert dock.table.table.shown("area")[0] == 64
    dock._on_requested("csv")
    assert "export them in a moment" in dock.footer.result.text()
    finish(dock, qtbot, threads)
    check_up_to_date(dock)
    assert dock.table.table.shown("area")[0] == 128


def test_another_image_is_measured_without_waiting(dock, qtbot, threads, viewer_model):
    viewer_model.add_image(np.zeros((40, 50), np.uint8), name="second")
    dock.state.image_layer = viewer_model.layers["second"]
    session(dock).commit(np.pad(np.ones((5, 5), bool), ((3, 32), (3, 42))))
    qtbot.wait(20)
    assert not dock.measurer.measuring
    assert dock.table.table.ids.tolist() == [1]
    threads[1].set()
    qtbot.wait(50)
    assert dock.table.table.ids.tolist() == [1]


def test_a_failure_is_said(dock, qtbot, threads, monkeypatch):
    finish(dock, qtbot, threads)
    monkeypatch.setattr(object_measuring, "_AT_ONCE_OBJECTS", 0)
    monkeypatch.setattr(session_table, "measure", lambda *_a, **_k: 1 / 0)
    session(dock).merge([1, 2])
    qtbot.waitUntil(lambda: "division" in dock.footer.result.text(), timeout=20_000)
    assert not dock.measurer.measuring
