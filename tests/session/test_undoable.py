"""Random sequences of edits against the rules that always hold."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from phasesam.core.errors import SessionError
from phasesam.core.mask_set import MaskSet
from phasesam.session import SegmentationSession

from .conftest import HEIGHT, WIDTH, check_consistent, rectangle

rectangles = st.tuples(
    st.integers(0, HEIGHT - 2), st.integers(0, WIDTH - 2), st.integers(1, 12), st.integers(1, 14)
).map(lambda r: rectangle(r[0], r[1], r[0] + r[2], r[1] + r[3]))
planes = st.sampled_from([(0,), (1,)])
overlaps = st.sampled_from(["new_on_top", "keep_existing"])


def snapshot(session):
    return session.labels.copy(), repr(session.objects)


class Edits(RuleBasedStateMachine):
    """Edits in any order; undo and redo retrace them exactly."""

    @initialize()
    def start(self):
        self.session = SegmentationSession((2, HEIGHT, WIDTH))
        self.states = [snapshot(self.session)]
        self.position = 0
        self.ever_used: set[int] = set()

    def after_edit(self):
        """Note the new state if the edit was a step."""
        now = snapshot(self.session)
        if np.array_equal(now[0], self.states[self.position][0]) and (
            now[1] == self.states[self.position][1]
        ):
            return
        del self.states[self.position + 1 :]
        self.states.append(now)
        self.position += 1

    def some_ids(self, data, most=3):
        ids = [record.id for record in self.session.objects]
        return data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=most, unique=True))

    @rule(mask=rectangles, plane=planes, overlap=overlaps)
    def commit(self, mask, plane, overlap):
        try:
            new = self.session.commit(mask, plane=plane, overlap=overlap, score=0.5)
        except SessionError:
            assert overlap == "keep_existing"
            return
        assert new not in self.ever_used
        self.ever_used.add(new)
        self.after_edit()

    @rule(
        masks=st.lists(rectangles, max_size=4),
        plane=planes,
        overlap=overlaps,
        replace=st.booleans(),
    )
    def commit_many(self, masks, plane, overlap, replace):
        mask_set = MaskSet.from_masks(masks) if masks else MaskSet((HEIGHT, WIDTH))
        ids = self.session.commit_many(mask_set, plane=plane, overlap=overlap, replace=replace)
        assert not set(ids) & self.ever_used
        self.ever_used.update(ids)
        self.after_edit()

    @rule(plane=planes, mask=rectangles, label=st.integers(0, 12))
    def paint(self, plane, mask, label):
        painted = self.session.labels[plane].copy()
        painted[mask] = label
        known = {record.id for record in self.session.objects if record.plane == plane}
        renamed = self.session.apply_labels(painted, plane=plane)
        wanted = renamed.get(label, label)
        assert (self.session.labels[plane][mask] == wanted).all()
        if wanted and wanted not in known:
            assert wanted not in self.ever_used
            self.ever_used.add(wanted)
        self.after_edit()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data())
    def delete(self, data):
        self.session.delete(self.some_ids(data))
        self.after_edit()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data())
    def merge(self, data):
        ids = self.some_ids(data)
        try:
            assert self.session.merge(ids) == ids[0]
        except SessionError:
            same_plane = len({self.session.record(i).plane for i in ids}) == 1
            assert len(ids) == 1 or not same_plane
        self.after_edit()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data(), column=st.integers(0, WIDTH), parts=st.none() | st.integers(2, 3))
    def split(self, data, column, parts):
        (object_id,) = self.some_ids(data, most=1)
        area = self.session.record(object_id).area
        try:
            if parts is None:
                ids = self.session.split_by_line(object_id, [(-1, column), (HEIGHT, column)])
            else:
                ids = self.session.split_by_watershed(object_id, min(parts, area))
        except SessionError:
            return
        assert ids[0] == object_id
        assert sum(self.session.record(i).area for i in ids) == area
        self.ever_used.update(ids)
        self.after_edit()

    @precondition(lambda self: self.session.objects)
    @rule(data=st.data(), what=st.sampled_from(["fill", "smooth", "class", "reopen"]))
    def change(self, data, what):
        ids = self.some_ids(data)
        if what == "fill":
            self.session.fill_holes(ids)
        elif what == "smooth":
            self.session.smooth(ids, 1.5)
        elif what == "class":
            self.session.set_class(ids, data.draw(st.sampled_from(["", "pore"])))
        else:
            self.session.remove_for_editing(ids[0])
        self.after_edit()

    @rule()
    def undo(self):
        assert (self.session.undo() is not None) == (self.position > 0)
        self.position = max(self.position - 1, 0)

    @rule()
    def redo(self):
        assert (self.session.redo() is not None) == (self.position < len(self.states) - 1)
        self.position = min(self.position + 1, len(self.states) - 1)

    @invariant()
    def holds(self):
        if not hasattr(self, "session"):
            return
        check_consistent(self.session)
        expected = self.states[self.position]
        assert np.array_equal(self.session.labels, expected[0])
        assert repr(self.session.objects) == expected[1]
        table = self.session.table()
        assert table["id"].tolist() == [record.id for record in self.session.objects]
        assert table["area_px"].tolist() == [record.area for record in self.session.objects]

    def teardown(self):
        if not hasattr(self, "session"):
            return
        while self.session.can_undo:
            self.session.undo()
        assert not self.session.labels.any()
        assert self.session.objects == ()
        while self.session.can_redo:
            self.session.redo()
        assert np.array_equal(self.session.labels, self.states[-1][0])
        assert repr(self.session.objects) == self.states[-1][1]


TestEdits = Edits.TestCase
TestEdits.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
