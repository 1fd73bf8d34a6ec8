import pytest

from phasesam.core.errors import SessionError
from phasesam.session import SegmentationSession

from .conftest import check_consistent, rectangle


def state(session):
    return session.labels.tolist(), repr(session.objects)


def test_an_open_object_is_put_back_by_undoing_the_step_that_took_it_out(session):
    before = state(session)
    session.remove_for_editing(1)
    assert [record.id for record in session.open_objects] == [1]
    assert [record.id for record in session.objects] == [2, 3]
    session.put_back(1)
    assert state(session) == before
    assert session.open_objects == ()
    assert session.undo_name == "Add object"


def test_an_open_object_is_put_back_after_other_edits(session):
    session.remove_for_editing(1)
    new = session.commit(rectangle(0, 0, 4, 4))  # covers its corner of 2 by 2
    session.put_back(1)
    record = session.record(1)
    assert (record.area, record.score, record.class_name) == (60, 0.9, "grain")
    assert session.record(new).area == 16
    assert session.undo_name == "Put back object 1"
    check_consistent(session)
    session.undo()
    assert [r.id for r in session.objects] == [2, 3, new]


def test_an_object_that_came_back_by_undo_is_not_put_back_twice(session):
    session.remove_for_editing(1)
    session.undo()
    before = state(session)
    assert session.open_objects == ()
    session.put_back(1)
    assert state(session) == before


def test_a_replaced_object_stays_away(session):
    session.remove_for_editing(1)
    session.commit(rectangle(2, 2, 8, 8))
    session.finish_editing(1)
    before = state(session)
    assert session.put_all_back() == 0
    assert state(session) == before


def test_an_object_without_room_cannot_be_put_back(session):
    session.remove_for_editing(1)
    session.commit(rectangle(2, 2, 10, 10))
    session.remove_for_editing(3)
    with pytest.raises(SessionError, match="other objects cover object 1"):
        session.put_back(1)
    assert session.put_all_back() == 1
    assert 3 in [record.id for record in session.objects]


def test_open_objects_are_saved(session, tmp_path):
    before = state(session)
    session.remove_for_editing(1)
    session.remove_for_editing(3)
    session.save(tmp_path / "file.npz")
    loaded = SegmentationSession.load(tmp_path / "file.npz")
    assert state(loaded) == before
    check_consistent(loaded)


def test_open_objects_are_saved_beside_what_took_their_place(session, tmp_path):
    session.remove_for_editing(1)
    new = session.commit(rectangle(2, 2, 10, 6))
    session.remove_for_editing(new)
    session.commit(rectangle(2, 2, 4, 3))
    session.save(tmp_path / "file.npz")
    loaded = SegmentationSession.load(tmp_path / "file.npz")
    check_consistent(loaded)
    assert loaded.record(1).area + loaded.record(new).area == 64 - 2


def test_objects_of_several_planes_are_open_at_once(tmp_path):
    session = SegmentationSession((2, 24, 32))
    ids = [session.commit(rectangle(2, 2, 10, 10), plane=(z,)) for z in (0, 1)]
    for object_id in ids:
        session.remove_for_editing(object_id)
    session.save(tmp_path / "file.npz")
    loaded = SegmentationSession.load(tmp_path / "file.npz")
    assert [record.plane for record in loaded.objects] == [(0,), (1,)]
    assert session.put_all_back() == 2
    assert [record.id for record in session.objects] == ids
    check_consistent(session)
