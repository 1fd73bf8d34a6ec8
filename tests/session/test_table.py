from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.errors import CancelledError, InvalidMaskError
from phasesam.core.measurements import measure
from phasesam.core.types import PixelSize
from phasesam.session import SegmentationSession
from phasesam.session.transaction import Transaction

SIZE = PixelSize(0.5, 0.25, "um")


def many_discs(seed: int = 0) -> np.ndarray:
    """Discs, some of them large, over several parts of a plane."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((700, 600), np.int32)
    y, x = np.ogrid[:700, :600]
    for label in rng.permutation(np.arange(1, 41)):
        centre, radius = rng.uniform((0, 0), (700, 600)), rng.uniform(3, 80)
        labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = label
    return labels


@pytest.fixture
def large() -> SegmentationSession:
    session = SegmentationSession((700, 600), pixel_size=SIZE)
    session.apply_labels(many_discs())
    return session


def check_equal(session: SegmentationSession) -> None:
    table, expected = session.table(), measure(session.labels, SIZE)
    for name, column in expected.columns.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(table[name], column, rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            assert table[name].tolist() == column.tolist(), name


def test_parts_of_a_plane_give_the_measurements_of_the_whole(large):
    check_equal(large)
    ids = [record.id for record in large.objects]
    large.smooth(ids[:5])
    large.merge([ids[0], ids[-1]])
    check_equal(large)
    large.undo()
    check_equal(large)


def test_only_what_changed_is_measured_again(large):
    large.table()
    assert large.measuring().records == ()
    by_place = sorted(large.objects, key=lambda record: record.box)
    changed = [record.id for record in (by_place[0], by_place[-1])]
    labels = large.labels.copy()
    for label in changed:
        labels[tuple(np.argwhere(labels == label)[0])] = 0
    large.apply_labels(labels)
    assert [record.id for record in large.measuring().records] == sorted(changed)
    # The box around both is most of the image; they are looked at one by one.
    assert large.measuring().pixels < 0.3 * large.labels.size


def test_objects_edited_while_others_are_measured_stay_unmeasured(large):
    measuring = large.measuring()
    measured = measuring.work_out()
    first, second, third, *_ = (record.id for record in large.objects)
    large.smooth([first])
    large.delete(second)
    large.undo()
    large.delete(third)
    large.take_measured(measuring, measured)
    assert [record.id for record in large.measuring().records] == [first, second]
    assert not np.isin([first, second, third], large.known_table()["id"]).any()
    check_equal(large)


def test_an_edit_that_fails_spoils_what_was_measured_meanwhile(large, monkeypatch):
    measuring = large.measuring()
    first = large.objects[0].id
    monkeypatch.setattr(Transaction, "finish", lambda _edit, _name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        large.delete(first)
    large.take_measured(measuring, measuring.work_out())
    assert [record.id for record in large.measuring().records] == [first]


def test_known_measurements_follow_classes_and_deletions_at_once(large):
    large.table()
    first, second, *_ = (record.id for record in large.objects)
    large.set_class(first, "pore")
    large.delete(second)
    known = large.known_table()
    assert known["class"][0] == "pore"
    assert second not in known["id"]
    assert len(known) == len(large.objects)


def test_another_pixel_size_forgets_everything(large):
    measuring = large.measuring()
    measured = measuring.work_out()
    large.pixel_size = PixelSize(1, 1, "um")
    large.table()
    large.take_measured(measuring, measured)
    assert large.known_table().pixel_size == PixelSize(1, 1, "um")
    assert large.measuring().records == ()


def test_measuring_can_be_stopped_and_says_how_far_it_is(large):
    calls: list[tuple[int, int]] = []
    measuring = large.measuring()
    measuring.work_out(lambda done, total: calls.append((done, total)))
    n = len(measuring.records)
    assert calls[-1] == (n, n)
    assert calls == sorted(calls)
    with pytest.raises(CancelledError):
        measuring.work_out(should_stop=lambda: True)


def test_an_object_that_vanished_is_reported(large):
    measuring = large.measuring()
    large.delete(large.objects[0].id)
    with pytest.raises(InvalidMaskError):
        measuring.work_out()


def test_an_empty_table_has_all_columns():
    session = SegmentationSession((2, 20, 20), pixel_size=SIZE)
    assert len(session.known_table()) == 0
    assert {"id", "class", "area_um2", "plane_0"} <= set(session.table((1,)).columns)
