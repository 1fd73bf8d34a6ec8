import threading
import time

import numpy as np
import pytest
from napari.components import ViewerModel

from phasesam.core.images import content_hash
from phasesam.napari_widgets import autosaving
from phasesam.napari_widgets.autosaving import autosaver_of
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.viewer_state import state_of
from phasesam.session import SegmentationSession, storage

IMAGE = np.random.default_rng(0).random((40, 50))


@pytest.fixture
def interrupted(qtbot, until, monkeypatch):
    """An autosave of three objects on `IMAGE`, whose process is gone."""
    viewer = ViewerModel()
    image = viewer.add_image(IMAGE, name="first")
    dock = Dock(viewer)
    qtbot.addWidget(dock)
    session = dock.state.session(image)
    until(lambda: session.autosave_path is not None)
    for row in (2, 12, 22):
        mask = np.zeros((40, 50), bool)
        mask[row : row + 5, 10:20] = True
        session.commit(mask, score=0.9)
    saver = autosaver_of(dock.state)
    assert saver._timer.isActive()
    saver.save_now()
    assert session.autosave_path.is_file()
    monkeypatch.setattr(storage, "_is_running", lambda owner: False)
    return session.autosave_path


@pytest.fixture
def reopened(qtbot, interrupted):
    viewer = ViewerModel()
    viewer.add_image(IMAGE.copy(), name="same picture, other name")
    dock = Dock(viewer)
    qtbot.addWidget(dock)
    dock.state.session(dock.state.image_layer)
    return dock


def test_interrupted_session_is_offered_and_recovered(reopened, until, interrupted):
    until(lambda: not reopened.notice.isHidden())
    assert reopened.notice.text.text().startswith("3 objects from an earlier session")
    reopened.notice.recover_button.click()
    image = reopened.state.image_layer
    assert len(reopened.state.session(image).objects) == 3
    assert reopened.state.labels_layer(image).data.max() == 3
    assert reopened.notice.isHidden()
    assert reopened.state.session(image).autosave_path == interrupted


def test_recovering_keeps_what_was_made_meanwhile(reopened, until, interrupted):
    until(lambda: not reopened.notice.isHidden())
    image = reopened.state.image_layer
    mask = np.zeros((40, 50), bool)
    mask[0:4, 12:16] = True  # on a part of the first earlier object
    present = reopened.state.session(image)
    present.commit(mask, class_name="new")
    autosaver_of(reopened.state).save_now()
    reopened.notice.recover_button.click()
    session = reopened.state.session(image)
    assert session is not present
    assert [record.class_name for record in session.objects] == ["", "", "", "new"]
    assert session.objects[-1].area == mask.sum()
    assert not present.autosave_path.exists()


def test_interrupted_session_can_be_discarded(reopened, until, interrupted):
    until(lambda: not reopened.notice.isHidden())
    reopened.notice.discard_button.click()
    assert reopened.notice.isHidden()
    assert not interrupted.exists()


def test_broken_autosave_is_not_offered(reopened, until, interrupted, qtbot):
    until(lambda: not reopened.notice.isHidden())
    interrupted.write_bytes(b"half a file")
    reopened.notice.recover_button.click()
    assert "not a complete session" in reopened.footer.result.text()
    assert interrupted.exists()


def test_other_images_get_no_offer(qtbot, until, interrupted, viewer_model):
    image = viewer_model.add_image(IMAGE + 1)
    dock = Dock(viewer_model)
    qtbot.addWidget(dock)
    session = dock.state.session(image)
    until(lambda: session.autosave_path is not None)
    assert dock.notice.isHidden()


def test_sessions_of_a_running_process_are_left_alone(qtbot, until, interrupted, monkeypatch):
    monkeypatch.setattr(storage, "_is_running", lambda owner: True)
    viewer = ViewerModel()
    viewer.add_image(IMAGE.copy())
    dock = Dock(viewer)
    qtbot.addWidget(dock)
    session = state_of(viewer).session(dock.state.image_layer)
    until(lambda: session.autosave_path is not None)
    assert dock.notice.isHidden()


def test_empty_session_leaves_no_file(reopened, until, interrupted):
    image = reopened.state.image_layer
    until(lambda: not reopened.notice.isHidden())
    reopened.notice.recover_button.click()
    session = reopened.state.session(image)
    session.delete([record.id for record in session.objects])
    autosaver_of(reopened.state).save_now()
    assert not interrupted.exists()


def test_an_object_that_is_being_changed_is_saved_too(reopened, until, interrupted):
    image = reopened.state.image_layer
    until(lambda: not reopened.notice.isHidden())
    reopened.notice.recover_button.click()
    session = reopened.state.session(image)
    session.delete([2, 3])
    session.remove_for_editing(1)
    autosaver_of(reopened.state).save_now()
    assert [r.id for r in SegmentationSession.load(interrupted).objects] == [1]


def test_closing_the_window_saves_at_once(make_napari_viewer, qtbot, until, tmp_path):
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(IMAGE)
    dock = Dock(viewer)
    viewer.window.add_dock_widget(dock)
    session = dock.state.session(image)
    until(lambda: session.autosave_path is not None)
    session.commit(np.eye(40, 50, dtype=bool))
    assert not session.autosave_path.exists()
    viewer.close()
    assert len(SegmentationSession.load(session.autosave_path).objects) == 1


def test_what_is_quit_before_its_image_is_known_is_saved(qtbot, viewer_model, monkeypatch):
    # The worker that reads the image never gets there.
    monkeypatch.setattr(autosaving, "run_in_background", lambda *args, **options: None)
    image = viewer_model.add_image(np.stack([IMAGE] * 3))
    dock = Dock(viewer_model)
    qtbot.addWidget(dock)
    session = dock.state.session(image)
    session.commit(np.eye(40, 50, dtype=bool), plane=(1,))
    autosaver_of(dock.state).flush()
    saved = SegmentationSession.load(session.autosave_path)
    assert (len(saved.objects), saved.image_key) == (1, content_hash(IMAGE))


def known_session(qtbot, until):
    """The session of an image whose content is known, and what saves it."""
    viewer = ViewerModel()
    dock = Dock(viewer)
    qtbot.addWidget(dock)
    session = dock.state.session(viewer.add_image(IMAGE, name="first"))
    until(lambda: session.autosave_path is not None)
    return session, autosaver_of(dock.state)


def test_a_change_is_written_outside_the_gui_thread(qtbot, until, monkeypatch):
    session, saver = known_session(qtbot, until)
    threads = []
    gate = threading.Event()
    write = storage.write

    def slow(path, packed):
        threads.append(threading.current_thread())
        assert threads[-1] is threading.main_thread() or gate.wait(20)
        write(path, packed)

    monkeypatch.setattr(storage, "write", slow)
    session.commit(np.ones((40, 50), bool))
    saver._timer.timeout.emit()
    until(lambda: threads)
    # What is edited while a worker writes is not in its file, but in the next one.
    session.commit(np.eye(40, 50, dtype=bool))
    gate.set()
    until(session.autosave_path.is_file)
    assert len(SegmentationSession.load(session.autosave_path).objects) == 1
    assert threading.main_thread() not in threads
    saver.save_now()
    assert threads[-1] is threading.main_thread()
    assert len(SegmentationSession.load(session.autosave_path).objects) == 2


def test_objects_edited_while_a_worker_copies_them_are_saved_whole(qtbot, until, monkeypatch):
    session, saver = known_session(qtbot, until)
    gate = threading.Event()
    pack = storage.pack

    def slow(*args):
        assert threading.current_thread() is threading.main_thread() or gate.wait(20)
        return pack(*args)

    monkeypatch.setattr(storage, "pack", slow)
    session.commit(np.ones((40, 50), bool))
    saver.save_beside()
    session.commit(np.eye(40, 50, dtype=bool))
    gate.set()
    until(session.autosave_path.is_file)
    saved = SegmentationSession.load(session.autosave_path)
    np.testing.assert_array_equal(saved.labels, session.labels)


def test_closing_waits_for_what_a_worker_writes(qtbot, until, monkeypatch):
    session, saver = known_session(qtbot, until)
    write = storage.write

    def slow(path, packed):
        time.sleep(0.2)
        write(path, packed)

    monkeypatch.setattr(storage, "write", slow)
    session.commit(np.ones((40, 50), bool))
    saver.save_beside()
    assert not session.autosave_path.exists()
    saver.flush()
    assert len(SegmentationSession.load(session.autosave_path).objects) == 1
