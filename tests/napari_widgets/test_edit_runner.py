"""Edits of many objects in the Objects dock are made beside the GUI."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from phasesam.core import curation
from phasesam.napari_widgets import edit_runner
from phasesam.napari_widgets.objects import ObjectsDock

SHAPE = (120, 160)


def rings():
    """Twelve rings with a hole in each."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(rows % 40 - 20, columns % 40 - 20)
    cells = (rows // 40) * 4 + columns // 40 + 1
    return np.where((distance < 15) & (distance > 4), cells, 0).astype(np.int32)


@pytest.fixture
def gate(monkeypatch):
    """Edits in a worker wait for this before every object; `gate.threads` made them."""
    gate = threading.Event()
    gate.threads = set()
    fill = curation.fill_holes

    def slow(mask, max_area=None):
        gate.threads.add(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert gate.wait(20)
        return fill(mask, max_area)

    monkeypatch.setattr(curation, "fill_holes", slow)
    monkeypatch.setattr(edit_runner, "_AT_ONCE_OBJECTS", 2)
    yield gate
    gate.set()


@pytest.fixture
def dock(qtbot, viewer_model, gate):
    viewer_model.add_image(np.zeros(SHAPE, np.uint8), name="SEM")
    dock = ObjectsDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    dock.state.labels_layer(dock.state.image_layer)
    session(dock).apply_labels(rings())
    dock.refresh()
    return dock


def session(dock):
    return dock.state.session(dock.state.image_layer)


def said(dock):
    return dock.footer.result.text()


def press(dock, key, ids):
    dock.select(ids)
    dock.actions_bar.buttons[key].click()


def wait_for_end(dock, qtbot):
    qtbot.waitUntil(lambda: not dock.running, timeout=20_000)
    qtbot.wait(20)


def check_shown(dock):
    """The layer and the table show what the session has."""
    own = session(dock)
    np.testing.assert_array_equal(dock.viewer.layers["SEM objects"].data, own.labels)
    assert dock.table.table.ids.tolist() == [record.id for record in own.objects]
    areas = [record.area for record in own.objects]
    np.testing.assert_allclose(dock.table.table.shown("area"), areas)


ALL = list(range(1, 13))


def test_many_are_edited_outside_the_gui_thread_as_one_step(dock, qtbot, gate):
    press(dock, "fill", ALL)
    assert dock.running
    assert (session(dock).labels == rings()).all()
    gate.set()
    wait_for_end(dock, qtbot)
    assert gate.threads
    assert threading.main_thread() not in gate.threads
    assert said(dock) == "Filled the holes of 12 objects."
    check_shown(dock)
    assert session(dock).undo_name == "Fill holes of 12 objects"
    dock.actions_bar.undo.click()
    assert (session(dock).labels == rings()).all()
    assert session(dock).undo_name == "Paint"


def test_few_are_edited_at_once(dock, gate):
    press(dock, "fill", [1, 2])
    assert not dock.running
    assert gate.threads == {threading.main_thread()}
    assert said(dock) == "Filled the holes of 2 objects."


@pytest.mark.parametrize(
    ("key", "step", "words"),
    [
        ("smooth", "Smooth 12 objects", "Smoothed 12 objects."),
        ("merge", "Merge 12 objects", "Merged 12 objects into object 1."),
        ("delete", "Delete 12 objects", "Deleted 12 objects."),
    ],
)
def test_other_edits_of_many(dock, qtbot, key, step, words):
    press(dock, key, ALL)
    assert dock.running
    wait_for_end(dock, qtbot)
    assert session(dock).undo_name == step
    assert said(dock) == words
    check_shown(dock)
    assert dock.table.selected_ids() == {"smooth": ALL, "merge": [1], "delete": []}[key]
    session(dock).undo()
    assert (session(dock).labels == rings()).all()


def test_what_is_edited_meanwhile_is_kept(dock, qtbot, gate):
    press(dock, "fill", ALL)
    qtbot.waitUntil(lambda: bool(gate.threads), timeout=20_000)
    session(dock).delete([5])
    gate.set()
    qtbot.waitUntil(lambda: "Filled" in said(dock), timeout=20_000)
    wait_for_end(dock, qtbot)
    assert session(dock).undo_name == "Fill holes of 11 objects"
    assert 5 not in session(dock).labels
    check_shown(dock)
    session(dock).undo()
    assert session(dock).undo_name == "Delete object 5"


def test_it_gives_up_when_the_objects_are_gone(dock, qtbot, gate):
    press(dock, "fill", [1, 2, 3])
    qtbot.waitUntil(lambda: bool(gate.threads), timeout=20_000)
    session(dock).delete([1, 2, 3])
    gate.set()
    qtbot.waitUntil(lambda: "select them again" in said(dock), timeout=20_000)
    assert session(dock).undo_name == "Delete 3 objects"


def test_it_gives_up_when_the_objects_never_stay_the_same(dock, qtbot, gate, monkeypatch):
    monkeypatch.setattr(edit_runner.Rehearsal, "is_outdated", True)
    gate.set()
    press(dock, "fill", ALL)
    qtbot.waitUntil(lambda: "nothing was done" in said(dock), timeout=20_000)
    assert (session(dock).labels == rings()).all()


def test_cancel_changes_nothing(dock, qtbot, gate):
    press(dock, "fill", ALL)
    qtbot.waitUntil(lambda: bool(gate.threads), timeout=20_000)
    dock.cancel()
    gate.set()
    wait_for_end(dock, qtbot)
    assert said(dock) == "Filling holes: cancelled."
    assert (session(dock).labels == rings()).all()
    assert session(dock).undo_name == "Paint"


def test_a_failure_is_said_and_changes_nothing(dock, qtbot, monkeypatch):
    monkeypatch.setattr(curation, "smooth", lambda *_: 1 / 0)
    press(dock, "smooth", ALL)
    wait_for_end(dock, qtbot)
    assert "division" in said(dock)
    assert (session(dock).labels == rings()).all()


def test_another_image_is_left_alone(dock, qtbot, gate, viewer_model):
    own = session(dock)
    press(dock, "merge", ALL)
    viewer_model.add_image(np.zeros(SHAPE, np.uint8), name="second")
    dock.state.image_layer = viewer_model.layers["second"]
    wait_for_end(dock, qtbot)
    assert own.undo_name == "Merge 12 objects"
    assert session(dock).objects == ()
