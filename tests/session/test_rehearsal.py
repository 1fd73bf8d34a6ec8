from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from phasesam.core.errors import CancelledError, SessionError
from phasesam.session import SegmentationSession, rehearse

from .conftest import check_consistent, rectangle

EDITS = {
    "fill": lambda session: session.fill_holes([1, 2, 4]),
    "smooth": lambda session: session.smooth([1, 2, 4]),
    "merge": lambda session: session.merge([2, 4, 1]),
    "delete": lambda session: session.delete([4, 1]),
    "split": lambda session: session.split_by_watershed(3, 2),
    "class": lambda session: session.set_class([1, 3], "pore"),
}


@pytest.fixture
def scene(session) -> SegmentationSession:
    """The usual objects and one with a hole."""
    ring = rectangle(2, 20, 12, 30) & ~rectangle(5, 23, 8, 26)
    session.commit(ring)
    return session


def state(session):
    return session.labels.tobytes(), repr(session.objects), session.next_id, session.undo_name


@pytest.mark.parametrize("name", EDITS)
def test_it_does_what_the_edit_does_in_one_step(scene, name, tmp_path):
    scene.save(tmp_path / "twin.npz")
    twin = SegmentationSession.load(tmp_path / "twin.npz")
    expected = EDITS[name](twin)
    before, rehearsal = state(scene), rehearse(scene, [1, 2, 3, 4])
    with ThreadPoolExecutor(1) as pool:
        rehearsed = pool.submit(rehearsal.perform, EDITS[name]).result()
    assert state(scene) == before
    assert rehearsal.adopt(rehearsed) == expected
    assert state(scene) == state(twin)
    check_consistent(scene)
    scene.undo()
    assert scene.labels.tobytes() == before[0]
    scene.redo()
    assert state(scene) == state(twin)


def test_only_the_planes_of_the_objects_are_copied():
    session = SegmentationSession((50, 400, 400))
    session.commit(np.ones((400, 400), bool), plane=(3,))
    other = session.commit(np.ones((400, 400), bool), plane=(7,))
    rehearsal = rehearse(session, [other])
    assert rehearsal.planes == {(7,)}
    rehearsal.adopt(rehearsal.perform(lambda copy: copy.delete(other)))
    assert [record.id for record in session.objects] == [1]
    check_consistent(session)


@pytest.mark.parametrize(
    "edit",
    [
        lambda session: session.delete(3),
        lambda session: session.set_class(3, "pore"),
        lambda session: session.undo(),
    ],
    ids=["delete", "class", "undo"],
)
def test_a_session_edited_meanwhile_refuses(scene, edit):
    rehearsal = rehearse(scene, [1])
    rehearsed = rehearsal.perform(lambda copy: copy.delete(1))
    edit(scene)
    after = state(scene)
    assert rehearsal.is_outdated
    with pytest.raises(SessionError, match="in the meantime"):
        rehearsal.adopt(rehearsed)
    assert state(scene) == after


def test_an_edit_that_failed_meanwhile_counts_too(scene):
    rehearsal = rehearse(scene, [1])
    with pytest.raises(SessionError):
        scene.merge([1])
    assert rehearsal.is_outdated


def test_an_edit_that_changes_nothing_makes_no_step(scene):
    rehearsal, before, version = rehearse(scene, [1]), state(scene), scene.version
    rehearsal.adopt(rehearsal.perform(lambda copy: copy.fill_holes([1])))
    assert state(scene) == before
    assert scene.version == version


def test_progress_and_stop(scene):
    calls: list[tuple[int, int]] = []
    rehearsal = rehearse(scene, [1, 2, 4])
    rehearsal.perform(
        lambda copy: copy.delete([1, 2, 4]), lambda done, total: calls.append((done, total))
    )
    assert calls == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(CancelledError):
        rehearsal.perform(lambda copy: copy.delete([1, 2, 4]), should_stop=lambda: len(calls) > 0)
    assert not rehearsal.is_outdated


def test_unknown_objects_are_refused(scene):
    with pytest.raises(SessionError):
        rehearse(scene, [77])
