import gc
import math
import subprocess
import sys
import weakref

import numpy as np
import pytest

from phasesam.core.errors import InvalidMaskError, InvalidSettingError, SessionError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.types import PixelSize
from phasesam.session import SegmentationSession

from .conftest import HEIGHT, WIDTH, check_consistent, rectangle


def state(session):
    return session.labels.copy(), session.objects


def same(a, b):
    return np.array_equal(a[0], b[0]) and repr(a[1]) == repr(b[1])


def test_commit_makes_an_object(session):
    assert [r.id for r in session.objects] == [1, 2, 3]
    record = session.record(1)
    assert (record.box, record.area, record.plane) == ((2, 2, 10, 10), 64, ())
    assert (record.score, record.class_name, record.source) == (0.9, "grain", "prompt")
    assert np.array_equal(session.labels == 1, rectangle(2, 2, 10, 10))
    assert session.labels.dtype == np.int32
    check_consistent(session)


def test_labels_cannot_be_written_by_accident(session):
    with pytest.raises(ValueError, match="read-only"):
        session.labels[0, 0] = 1


def test_crops_can_be_committed(session):
    new = session.commit(MaskCrop.from_array(np.ones((2, 3), bool), 22, 0))
    assert session.record(new).box == (22, 0, 24, 3)
    assert session.object_mask(new).area == 6


def test_a_new_object_lies_on_top_and_undo_brings_the_others_back(session):
    before = state(session)
    new = session.commit(rectangle(0, 0, 12, 12))
    assert [r.id for r in session.objects] == [2, 3, new]  # 1 is covered completely
    assert session.record(2).box == (2, 12, 10, 16)
    check_consistent(session)
    session.undo()
    assert same(before, state(session))


def test_existing_objects_may_keep_their_pixels(session):
    new = session.commit(rectangle(0, 0, 12, 12), overlap="keep_existing")
    assert session.record(1).area == 64
    assert session.record(new).area == 144 - 64 - 16
    with pytest.raises(SessionError, match="other objects already"):
        session.commit(rectangle(3, 3, 5, 5), overlap="keep_existing")
    check_consistent(session)


@pytest.mark.parametrize(
    ("mask", "options", "error", "message"),
    [
        (np.zeros((HEIGHT, WIDTH)), {}, InvalidMaskError, "at least one pixel"),
        (np.ones((3, 3)), {}, InvalidMaskError, "shape"),
        (MaskCrop.from_array(np.ones((9, 9), bool), 20, 0), {}, InvalidMaskError, "within"),
        (MaskCrop.from_array(np.ones((9, 9), bool), -1, 0), {}, InvalidMaskError, "within"),
        (np.ones((HEIGHT, WIDTH)), {"plane": (0,)}, SessionError, "plane"),
        (np.ones((HEIGHT, WIDTH)), {"plane": None}, SessionError, "plane"),
        (np.ones((HEIGHT, WIDTH)), {"overlap": "mix"}, InvalidSettingError, "overlap"),
    ],
)
def test_a_refused_mask_changes_nothing(session, mask, options, error, message):
    before, next_id = state(session), session.next_id
    with pytest.raises(error, match=message):
        session.commit(mask, **options)
    assert same(before, state(session))
    assert session.next_id == next_id


def automatic_masks() -> MaskSet:
    masks = [rectangle(0, 0, 11, 11), rectangle(12, 20, 20, 30), rectangle(14, 22, 16, 24)]
    return MaskSet.from_masks(masks, scores=[0.6, 0.7, 0.8])


def test_many_masks_are_one_step_with_the_smaller_on_top(session):
    empty = SegmentationSession((HEIGHT, WIDTH))
    ids = empty.commit_many(automatic_masks(), class_name="pore")
    assert ids == [1, 2, 3]
    assert [r.area for r in empty.objects] == [121, 76, 4]
    assert [round(r.score, 2) for r in empty.objects] == [0.6, 0.7, 0.8]
    assert {r.source for r in empty.objects} == {"automatic"}
    assert empty.class_names == ("pore",)
    check_consistent(empty)
    assert empty.undo() == "Add 3 objects"
    assert empty.objects == ()
    assert not empty.labels.any()


def test_many_masks_leave_existing_objects_alone(session):
    ids = session.commit_many(automatic_masks())
    # More than half of the first mask belongs to object 1: only its rim would remain.
    assert len(ids) == 2
    assert session.record(1).area == 64
    check_consistent(session)


def test_many_masks_may_lie_on_top(session):
    ids = session.commit_many(automatic_masks(), overlap="new_on_top")
    assert len(ids) == 3
    assert 1 not in [r.id for r in session.objects]
    check_consistent(session)


def test_replacing_removes_what_has_the_same_source(session):
    before = state(session)
    ids = session.commit_many(automatic_masks(), replace=True)
    assert [r.id for r in session.objects] == [1, 2, *ids]
    check_consistent(session)
    again = session.commit_many(automatic_masks(), replace=True)
    assert [r.id for r in session.objects] == [1, 2, *again]
    assert not set(again) & set(ids)
    session.undo()
    session.undo()
    assert same(before, state(session))
    session.commit_many(MaskSet((HEIGHT, WIDTH)), replace=True)
    assert [r.id for r in session.objects] == [1, 2]


def test_hidden_masks_make_no_object():
    session = SegmentationSession((HEIGHT, WIDTH))
    twice = MaskSet.from_masks([rectangle(1, 1, 5, 5)] * 2)
    assert len(session.commit_many(twice)) == 1
    assert session.commit_many(MaskSet((HEIGHT, WIDTH))) == []
    assert session.undo_name == "Add 2 objects"
    with pytest.raises(InvalidMaskError, match="masks of shape"):
        session.commit_many(MaskSet.from_masks(np.ones((1, 2, 2))))


def test_masks_that_hardly_show_make_no_object():
    masks = [rectangle(0, 0, 10, 20), rectangle(2, 2, 6, 8), rectangle(2, 3, 6, 8)]
    mask_set = MaskSet.from_masks(masks, scores=[0.6, 0.7, 0.8])
    session = SegmentationSession((HEIGHT, WIDTH))
    ids = session.commit_many(mask_set, min_area=9)
    assert [round(session.record(i).score, 2) for i in ids] == [0.6, 0.8]
    assert [r.area for r in session.objects] == np.bincount(session.labels.ravel())[1:].tolist()
    assert session.labels[3, 2] == ids[0]
    check_consistent(session)
    # What other objects leave of a mask counts as well.
    other = SegmentationSession((HEIGHT, WIDTH))
    other.commit(rectangle(0, 0, 4, 4))
    half_free = MaskSet.from_masks([rectangle(0, 0, 3, 8)])
    assert other.commit_many(half_free, min_area=20) == []
    assert len(other.commit_many(half_free, min_area=10)) == 1


def test_delete(session):
    session.delete([1, 3, 1])
    assert [r.id for r in session.objects] == [2]
    assert session.undo_name == "Delete 2 objects"
    session.undo()
    session.delete(2)
    assert session.undo_name == "Delete object 2"
    check_consistent(session)


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.delete([1, 99]),
        lambda s: s.merge([1, 99]),
        lambda s: s.split_by_line(99, [(0, 0), (1, 1)]),
        lambda s: s.split_by_watershed(99),
        lambda s: s.fill_holes(99),
        lambda s: s.smooth([99]),
        lambda s: s.set_class(99, "x"),
        lambda s: s.remove_for_editing(99),
        lambda s: s.object_mask(99),
        lambda s: s.record(0),
    ],
)
def test_unknown_objects_are_refused(session, edit):
    before = state(session)
    with pytest.raises(SessionError, match="there is no object"):
        edit(session)
    assert same(before, state(session))


def test_merge_keeps_the_first_id(session):
    assert session.merge([2, 1]) == 2
    record = session.record(2)
    assert (record.area, record.box) == (64 + 48, (2, 2, 10, 16))
    assert math.isnan(record.score)
    assert record.class_name == "grain"
    check_consistent(session)
    with pytest.raises(SessionError, match="at least two"):
        session.merge([2])


def test_split_by_line(session):
    ids = session.split_by_line(3, [(10, 9), (23, 9)])
    assert ids == [3, 4]
    assert session.record(3).area + session.record(4).area == 96
    assert session.record(3).area > session.record(4).area
    assert session.record(4).source == "split"
    check_consistent(session)
    with pytest.raises(SessionError, match="does not cut"):
        session.split_by_line(3, [(0, 0), (0, 5)])


def test_split_by_watershed(session):
    with pytest.raises(SessionError, match="no neck"):
        session.split_by_watershed(3)
    assert len(session.split_by_watershed(3, 4)) == 4
    check_consistent(session)


def test_a_split_object_keeps_its_class(session):
    ids = session.split_by_line(1, [(0, 6), (23, 6)])
    assert {session.record(i).class_name for i in ids} == {"grain"}


def test_filling_leaves_other_objects_in_the_hole():
    session = SegmentationSession((HEIGHT, WIDTH))
    ring = rectangle(2, 2, 16, 16) & ~rectangle(5, 5, 12, 12)
    outer = session.commit(ring)
    inner = session.commit(rectangle(6, 6, 8, 8))
    session.fill_holes(outer)
    assert session.record(inner).area == 4
    assert session.record(outer).area == 14 * 14 - 4
    check_consistent(session)
    undo_name = session.undo_name
    session.fill_holes(outer)  # nothing to do is no step
    assert session.undo_name == undo_name


def test_smoothing_takes_nothing_from_others(session):
    session.merge([1, 2])
    rough = session.commit(rectangle(10, 2, 12, 16) | rectangle(11, 5, 13, 7))
    others = session.labels.copy()
    others[others == rough] = 0
    session.smooth(rough, radius=2)
    after = session.labels.copy()
    after[after == rough] = 0
    assert np.array_equal(after, others)
    check_consistent(session)


def test_classes(session):
    session.set_class([2, 3], "pore")
    assert session.class_names == ("grain", "pore")
    session.set_class(2, "")
    assert session.record(2).class_name == ""
    session.undo()
    session.undo()
    assert [r.class_name for r in session.objects] == ["grain", "", ""]
    assert session.redo() == "Set class 'pore'"


def test_painting_is_one_step(session):
    before = state(session)
    painted = session.labels.copy()
    painted[20:24, 20:30] = session.next_id  # a new object
    painted[2:10, 2:10] = 0  # 1 erased
    painted[14:16, 0:4] = 3  # 3 grows
    assert session.apply_labels(painted) == {}
    assert [r.id for r in session.objects] == [2, 3, 4]
    assert session.record(4).source == "painted"
    assert session.record(3).area == 96 + 8
    assert np.array_equal(session.labels, painted)
    check_consistent(session)
    assert session.undo() == "Paint"
    assert same(before, state(session))
    assert session.apply_labels(session.labels) == {}
    assert session.undo_name == "Add object"


def test_painting_with_a_used_label_gets_a_new_id(session):
    session.delete(2)
    painted = session.labels.copy()
    painted[20:24, 20:30] = 2
    assert session.apply_labels(painted) == {2: 4}
    assert [r.id for r in session.objects] == [1, 3, 4]
    check_consistent(session)


def test_painting_with_a_far_label_moves_the_next_id(session):
    painted = session.labels.copy()
    painted[22, 0:3] = 1000
    painted[23, 0:3] = 900
    session.apply_labels(painted)
    assert session.next_id == 1001
    assert session.commit(rectangle(22, 20, 24, 24)) == 1001


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((HEIGHT, WIDTH)),
        np.zeros((3, 3), int),
        np.full((HEIGHT, WIDTH), -1),
        np.full((HEIGHT, WIDTH), 2**31),
    ],
)
def test_painted_nonsense_is_refused(session, labels):
    before = state(session)
    with pytest.raises(InvalidMaskError):
        session.apply_labels(labels)
    assert same(before, state(session))


def test_reopening(session):
    before = state(session)
    mask = session.remove_for_editing(1)
    assert np.array_equal(mask, rectangle(2, 2, 10, 10))
    assert [r.id for r in session.objects] == [2, 3]
    assert session.undo_name == "Re-open object 1"
    session.undo()
    assert same(before, state(session))


def test_steps_in_a_stack_name_their_plane():
    session = SegmentationSession((2, 3, HEIGHT, WIDTH))
    first = session.commit(rectangle(0, 0, 5, 5), plane=(0, 1))
    second = session.commit(rectangle(0, 0, 5, 5), plane=(1, 2))
    session.set_class(first, "pore")
    assert session.undo_name == "Set class 'pore' (plane 0, 1)"
    session.delete([first, second])
    assert session.undo() == "Delete 2 objects (2 planes)"
    session.undo()
    assert session.undo() == "Add object (plane 1, 2)"
    assert session.redo_name == "Add object (plane 1, 2)"
    assert session.redo() == "Add object (plane 1, 2)"


def test_painted_planes_are_one_step():
    session = SegmentationSession((3, HEIGHT, WIDTH))
    old = session.commit(rectangle(0, 0, 5, 5), plane=(0,))
    before = state(session)
    painted = np.where(rectangle(2, 2, 8, 8), 9, 0)
    renamed = session.apply_planes([((z,), painted) for z in (1, 2)], name="Take over x")
    assert {record.plane: record.id for record in session.objects} == {(0,): old, (1,): 9, (2,): 10}
    assert renamed == {(2,): {9: 10}}
    assert session.undo_name == "Take over x (2 planes)"
    check_consistent(session)
    session.undo()
    assert same(before, state(session))


def test_painted_planes_are_taken_over_together_or_not_at_all():
    session = SegmentationSession((3, HEIGHT, WIDTH))
    painted = np.where(rectangle(2, 2, 8, 8), 9, 0)
    with pytest.raises(InvalidMaskError):
        session.apply_planes([((0,), painted), ((1,), -painted)])
    assert not session.labels.any()
    assert not session.can_undo


def test_planes_of_a_stack():
    session = SegmentationSession((2, 3, HEIGHT, WIDTH))
    first = session.commit(rectangle(0, 0, 5, 5), plane=(0, 1))
    second = session.commit(rectangle(0, 0, 5, 5), plane=(1, 2))
    assert session.record(second).plane == (1, 2)
    assert (session.labels[1, 2] > 0).sum() == 25
    check_consistent(session)
    with pytest.raises(SessionError, match="different planes"):
        session.merge([first, second])
    # A label of another plane is another object.
    painted = session.labels[1, 2].copy()
    painted[10:12, 10:12] = first
    assert session.apply_labels(painted, plane=(1, 2)) == {first: 3}
    check_consistent(session)
    assert session.table(plane=(1, 2))["id"].tolist() == [2, 3]
    assert session.table()["plane_1"].tolist() == [1, 2, 2]
    for plane in ((2, 0), (0,), (0, -1), ()):
        with pytest.raises(SessionError, match="plane"):
            session.commit(rectangle(0, 0, 5, 5), plane=plane)


def test_untouched_planes_take_no_memory():
    psutil = pytest.importorskip("psutil")
    before = psutil.Process().memory_info().rss
    session = SegmentationSession((400, 1024, 1024))  # 1.7 GB if it were written
    session.commit(MaskCrop.from_array(np.ones((5, 5), bool), 100, 100), plane=(123,))
    assert session.table()["area_px"].tolist() == [25]
    assert psutil.Process().memory_info().rss - before < 100e6


@pytest.mark.parametrize("shape", [(10**6, 10**7), (10**10, 10**10)])
def test_a_shape_beyond_memory_is_refused(shape):
    with pytest.raises(SessionError, match="no room"):
        SegmentationSession(shape)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (-1, 5, 5), ()])
def test_shapes_without_pixels_are_refused(shape):
    with pytest.raises(InvalidMaskError, match="shape"):
        SegmentationSession(shape)


def test_undo_and_redo_over_everything(session):
    states = [state(session)]
    for edit in (
        lambda: session.merge([1, 2]),
        lambda: session.split_by_line(3, [(10, 9), (23, 9)]),
        lambda: session.set_class(1, "pore"),
        lambda: session.smooth([1, 3]),
        lambda: session.commit_many(automatic_masks(), replace=True),
        lambda: session.remove_for_editing(1),
        lambda: session.delete([r.id for r in session.objects]),
    ):
        edit()
        check_consistent(session)
        states.append(state(session))
    for expected in states[-2::-1]:
        assert session.undo() is not None
        assert same(expected, state(session))
        check_consistent(session)
    for expected in states[1:]:
        assert session.redo() is not None
        assert same(expected, state(session))
    assert session.redo() is None
    assert not session.can_redo


def test_a_new_edit_ends_redo(session):
    session.undo()
    assert session.can_redo
    session.delete(1)
    assert not session.can_redo
    assert session.redo_name is None


def test_ids_are_not_used_again(session):
    session.delete(3)
    assert session.commit(rectangle(20, 20, 22, 22)) == 4


def test_history_is_limited_by_bytes(session):
    session.limit_history(0)
    session.delete(1)
    assert session.undo_name == "Delete object 1"
    assert session.undo() == "Delete object 1"
    assert not session.can_undo
    with pytest.raises(InvalidSettingError, match="history"):
        session.limit_history(-1)


def test_events_say_what_changed(session):
    seen = []
    session.events.labels_changed.connect(lambda plane, box: seen.append((plane, box)))
    session.events.objects_changed.connect(lambda: seen.append("objects"))
    session.events.history_changed.connect(lambda: seen.append("history"))
    session.delete(2)
    assert seen == [((), (2, 10, 10, 16)), "objects", "history"]
    seen.clear()
    session.undo()
    assert seen == [((), (2, 10, 10, 16)), "objects", "history"]
    seen.clear()
    session.set_class(1, "x")
    assert seen == ["objects", "history"]
    seen.clear()
    with pytest.raises(SessionError):
        session.delete(99)
    session.fill_holes(1)
    assert seen == []


def test_listeners_see_the_finished_edit(session):
    seen = []
    session.events.labels_changed.connect(
        lambda plane, box: seen.append((session.undo_name, len(session.objects), session.table()))
    )
    session.delete(2)
    name, count, table = seen[0]
    assert (name, count) == ("Delete object 2", 2)
    assert table["id"].tolist() == [1, 3]


def test_listeners_are_held_weakly(session):
    class Listener:
        def on_change(self, plane, box):
            raise AssertionError("a dead listener was called")

    listener = Listener()
    session.events.labels_changed.connect(listener.on_change)
    reference = weakref.ref(listener)
    del listener
    gc.collect()
    assert reference() is None
    session.delete(1)


def test_candidates_are_held_and_announced(session):
    seen = []
    session.events.candidates_changed.connect(lambda: seen.append(session.candidates))
    assert session.candidates is None
    session.set_candidates("anything")
    assert seen == ["anything"]


def test_table_has_scores_classes_and_sizes():
    session = SegmentationSession((HEIGHT, WIDTH), pixel_size=PixelSize(0.5, 0.5, "um"))
    session.commit(rectangle(2, 2, 10, 10), score=0.5, class_name="pore")
    row = session.table().rows()[0]
    assert (row["id"], row["class"], row["score"], row["area_um2"]) == (1, "pore", 0.5, 16)


def test_no_torch_and_no_qt():
    code = (
        "import sys, phasesam.session; "
        "print([m for m in ('torch', 'qtpy', 'napari') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[]", run.stderr
