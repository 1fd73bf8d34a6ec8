import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phasesam.session.history import History, LabelChange, Step

pieces = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(
        *(arrays(np.int32, shape, elements=st.sampled_from([0, 1, 2, 2**31 - 1])) for _ in "ab")
    )
)


@settings(max_examples=80, deadline=None)
@given(pieces)
def test_a_change_goes_both_ways(piece):
    before, after = piece
    labels = np.zeros((2, 20, 20), dtype=np.int32)
    where = np.s_[1, 5 : 5 + before.shape[0], 7 : 7 + before.shape[1]]
    labels[where] = before
    change = LabelChange.between((1,), (5, 7), before, after)
    if change is None:
        assert np.array_equal(before, after)
        return
    start = labels.copy()
    change.write(labels, forward=True)
    assert np.array_equal(labels[where], after)
    assert not labels[0].any()
    change.write(labels, forward=False)
    assert np.array_equal(labels, start)
    y0, x0, y1, x1 = change.box
    different = np.argwhere(before != after) + np.array([5, 7])
    assert (y0, x0) == tuple(different.min(axis=0))
    assert (y1, x1) == tuple(different.max(axis=0) + 1)


def test_differences_are_small():
    before = np.zeros((1000, 1000), dtype=np.int32)
    after = before.copy()
    after[100:900, 100:900] = 3
    change = LabelChange.between((), (0, 0), before, after)
    assert change.nbytes < 100_000  # 4 MB as a copy


def step(name: str, side: int = 8) -> Step:
    before = np.zeros((side, side), dtype=np.int32)
    change = LabelChange.between((), (0, 0), before, before + 1)
    return Step(name, (change,), {}, frozenset())


def names(history: History) -> list[str]:
    found = []
    while history.undo_name:
        found.append(history.undo_name)
        history.undo()
    return found


def test_the_oldest_steps_go_first():
    size = step("a", 800).nbytes
    history = History(int(2.5 * size))
    for name in "abcd":
        history.push(step(name, 800))
    assert history.nbytes <= history.max_bytes
    assert names(history) == ["d", "c"]


def test_the_latest_step_always_stays():
    history = History(1)
    history.push(step("a"))
    history.push(step("b"))
    assert names(history) == ["b"]


def test_pushing_forgets_what_was_undone():
    history = History(10**6)
    history.push(step("a"))
    history.undo()
    assert (history.undo_name, history.redo_name) == (None, "a")
    history.push(step("b"))
    assert (history.undo_name, history.redo_name) == ("b", None)
    assert history.redo() is None
    assert history.undo().name == "b"
    assert history.undo() is None


def test_boxes_are_joined_by_plane():
    zeros = np.zeros((2, 2), dtype=np.int32)
    changes = [
        LabelChange.between((0,), (1, 1), zeros, zeros + 1),
        LabelChange.between((0,), (5, 9), zeros, zeros + 1),
        LabelChange.between((3,), (0, 0), zeros, zeros + 1),
    ]
    boxes = Step("x", tuple(changes), {}, frozenset()).boxes()
    assert boxes == {(0,): (1, 1, 7, 11), (3,): (0, 0, 2, 2)}


def test_steps_are_frozen():
    with pytest.raises(AttributeError):
        step("a").name = "b"  # type: ignore[misc]
