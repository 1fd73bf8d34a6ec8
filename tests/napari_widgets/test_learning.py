"""Learning while annotating from the Prompt dock."""

from __future__ import annotations

import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QInputDialog

from phasesam.core.errors import CancelledError, CheckpointError
from phasesam.models.adapter_loading import AdapterVersion
from phasesam.models.adapter_store import get_adapter, import_adapter, list_adapters
from phasesam.models.manager import get_manager
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.training.annotation_history import LearningHistory, LearntState, Trial

CENTRES = ((24, 30), (24, 90), (70, 30), (70, 90))
AREA = 613  # pixels of one disc


class LearnerStandIn:
    """Stands in for `AnnotationLearner`: learns nothing, and waits for `gate` before that."""

    gate = threading.Event()
    made: list[LearnerStandIn] = []  # noqa: RUF012
    failure: Exception | None = None

    def __init__(self, model, adapter=None):
        self.model, self.adapter = model, adapter
        self.history = LearningHistory()
        self.asked, self.replayed, self.released, self.stopped = [], [], 0, 0
        self.made.append(self)

    def learn(self, new, replay=None, should_stop=None):
        before = self.history.present
        self.asked.append([example.source.object_id for example in new])
        self.replayed.append([example.mask.area for example in replay])
        while not self.gate.wait(0.005):
            if should_stop():
                self.stopped += 1
                raise CancelledError("stopped")
        if self.failure is not None:
            raise self.failure
        count = len(new) + (0 if before is None else before.count)
        return LearntState(
            weights={},
            moments={},
            examples=(*replay, *new),
            trials=(Trial(0.7, 0.8),) * (count - 1),
            count=count,
            sources=frozenset(example.source for example in new),
            version=AdapterVersion("learnt", Path(f"/{len(self.asked)}"), str(len(self.asked))),
        )

    def prepare(self, state):
        pass

    def release(self, but=None):
        self.released += 1

    def keep(self, name):
        if name == "full":
            raise CheckpointError("the disk is full")
        self.kept = name


@pytest.fixture
def learners(monkeypatch):
    gate = threading.Event()
    gate.set()
    monkeypatch.setattr(LearnerStandIn, "gate", gate)
    monkeypatch.setattr(LearnerStandIn, "made", [])
    monkeypatch.setattr(LearnerStandIn, "failure", None)
    module = types.ModuleType("phasesam.training.annotation_learner")
    module.AnnotationLearner = LearnerStandIn
    monkeypatch.setitem(sys.modules, "phasesam.training.annotation_learner", module)
    yield LearnerStandIn.made
    gate.set()


@pytest.fixture
def segmenters(region_segmenter, monkeypatch):
    """Let the stand-in have embeddings and adapters."""
    plain = region_segmenter.encode

    def encode(self, progress=None, should_stop=None):
        plain(self, progress, should_stop)
        return types.SimpleNamespace(key="key", image_shape=self.shape, input_size=(768, 1024))

    def look_at(self, box, should_stop=None):
        return encode(self, should_stop=should_stop), (0, 0, *self.shape)

    monkeypatch.setattr(region_segmenter, "look_at", look_at, raising=False)

    def with_adapter(self, version):
        self.asked.append({"version": version})
        return self

    monkeypatch.setattr(region_segmenter, "encode", encode)
    monkeypatch.setattr(region_segmenter, "with_adapter", with_adapter, raising=False)
    return region_segmenter


@pytest.fixture
def image():
    """Four bright discs on a dark ground."""
    y, x = np.mgrid[:96, :128]
    discs = [(y - cy) ** 2 + (x - cx) ** 2 <= 14**2 for cy, cx in CENTRES]
    return np.where(np.any(discs, axis=0), np.float32(0.9), np.float32(0.1))


@pytest.fixture
def dock(qtbot, viewer_model, segmenters, learners, image):
    viewer_model.add_image(image, name="discs")
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    return dock


@pytest.fixture
def panel(dock):
    dock.learning.switch.setChecked(True)
    return dock.learning


def session_of(dock):
    return dock.state.session(dock.state.image_layer)


def say(dock, until, y, x):
    plane = dock.state.plane(dock.state.image_layer)
    layers = dock.controller.layers(dock.state.image_layer)
    before = dock.controller.present().prompts.count
    layers.points.add(plane.at(np.array([y, x])))
    until(lambda: dock.controller.present().prompts.count > before)
    until(lambda: dock.controller.present().answer is not None)


def add(dock, until, *centres, wait=True):
    for y, x in centres:
        say(dock, until, y, x)
        dock.maker.add()
        if wait:
            until(lambda: not dock.learning.learning.busy)


def versions_asked(dock):
    """Content hashes of the adapters that answered, in order; of the present segmenter."""
    asked = dock.state.segmenter(dock.state.image_layer).get().asked
    return [question["version"].content_hash for question in asked if "version" in question]


def test_off_there_is_a_check_box_and_nothing_is_learnt(dock, until, learners):
    panel = dock.learning
    assert not panel.switch.isChecked()
    assert panel.isVisibleTo(dock.advanced)
    assert not panel.details.isVisibleTo(panel)
    add(dock, until, *CENTRES[:2])
    assert learners == []
    assert versions_asked(dock) == []
    panel.switch.setChecked(True)
    assert panel.details.isVisibleTo(panel)
    assert panel.line.text() == "learns from each object you add"
    assert not panel.keep.isEnabled()
    assert not panel.forget.isEnabled()


def test_every_object_is_learnt_and_the_next_click_answered_with_it(dock, panel, until, learners):
    add(dock, until, CENTRES[0])
    (learner,) = learners
    assert (learner.model, learner.adapter) == ("mobile_sam", None)
    assert learner.asked == [[1]]
    assert panel.line.text() == "learnt from 1 object"
    assert versions_asked(dock) == []
    add(dock, until, CENTRES[1])
    assert versions_asked(dock) == ["1"]
    assert learner.asked == [[1], [2]]
    assert learner.replayed == [[], [AREA]]
    assert panel.line.text() == "learnt from 2 objects"
    add(dock, until, *CENTRES[2:])
    assert panel.line.text() == "learnt from 4 objects · first click 0.70 → 0.80"
    assert versions_asked(dock) == ["1", "2", "3"]


def test_undo_and_redo_take_what_was_learnt_along(dock, panel, until, learners):
    add(dock, until, *CENTRES[:2])
    history = learners[0].history
    one, two = history.states()
    dock.maker.undo()
    assert history.present is one
    assert panel.line.text() == "learnt from 1 object"
    say(dock, until, *CENTRES[1])
    assert versions_asked(dock)[-1] == "1"
    dock.maker.undo()  # the click
    dock.maker.undo()
    assert history.present is None
    assert panel.line.text() == "learns from each object you add"
    dock.maker.redo()
    assert history.present is one
    dock.maker.redo()
    assert history.present is two
    assert learners[0].asked == [[1], [2]]


def test_an_object_that_is_corrected_is_learnt_anew(dock, panel, until, learners):
    add(dock, until, *CENTRES[:2])
    history = learners[0].history
    one, two = history.states()
    assert dock.maker.reopen(2)
    assert history.present is one
    dock.maker.clear()
    assert history.present is two
    assert dock.maker.reopen(2)
    dock.maker.add()
    until(lambda: not panel.learning.busy)
    assert learners[0].asked == [[1], [2], [3]]
    assert learners[0].replayed[-1] == [AREA]
    assert history.present.count == 2
    assert not history.undone


def test_deleted_and_changed_objects_are_replayed_as_they_are_now(dock, panel, until, learners):
    add(dock, until, *CENTRES[:2])
    session = session_of(dock)
    labels = session.labels.copy()
    labels[:25][labels[:25] == 1] = 0
    session.apply_labels(labels)
    session.delete(2)
    session.redo()
    assert session.record(1).area < AREA
    add(dock, until, CENTRES[2])
    assert learners[0].replayed[-1] == [session.record(1).area]
    # Object 3 is there, so what was learnt from all stays although object 1 goes.
    state = learners[0].history.present
    session.delete(1)
    assert learners[0].history.present is state


def test_an_object_that_comes_back_brings_its_update_though_an_earlier_one_is_gone(
    dock, panel, until, learners
):
    add(dock, until, *CENTRES[:2])
    history, session = learners[0].history, session_of(dock)
    both = history.present
    session.delete(1)
    assert history.present is both
    session.delete(2)
    assert history.present is None
    session.undo()
    assert history.present is both
    session.undo()
    assert history.present is both


def test_learners_that_leave_take_what_they_learnt_out_of_memory(
    dock, panel, until, learners, monkeypatch
):
    monkeypatch.setattr("phasesam.napari_widgets.learning._KEPT_LEARNERS", 1)
    add(dock, until, CENTRES[0])
    dock.state.choose_model("tiny")
    until(lambda: learners[0].released == 1)
    add(dock, until, CENTRES[1])
    until(lambda: learners[0].released == 2)
    dock.state.choose_model("mobile_sam")
    assert panel.learning.learner is None


def test_what_is_added_meanwhile_waits_and_is_learnt_together(dock, panel, until, learners):
    LearnerStandIn.gate.clear()
    add(dock, until, CENTRES[0], wait=False)
    until(lambda: learners and learners[0].asked)
    assert panel.line.text() == "learning …"
    add(dock, until, *CENTRES[1:3], wait=False)  # clicks are answered all the time
    LearnerStandIn.gate.set()
    until(lambda: not panel.learning.busy)
    assert learners[0].asked == [[1], [2, 3]]
    assert learners[0].history.present.count == 3


def test_undone_while_it_is_being_learnt(dock, panel, until, learners):
    LearnerStandIn.gate.clear()
    add(dock, until, CENTRES[0], wait=False)
    until(lambda: learners and learners[0].asked)
    dock.maker.undo()
    until(lambda: not panel.learning.busy)
    assert learners[0].stopped == 1
    assert learners[0].history.present is None
    LearnerStandIn.gate.set()
    dock.maker.redo()
    until(lambda: panel.learning.learnt is not None)
    assert panel.learning.learnt.sources == {(1, 1)}


def test_of_several_the_one_undone_is_left_out(dock, panel, until, learners):
    LearnerStandIn.gate.clear()
    add(dock, until, CENTRES[0], wait=False)
    until(lambda: learners and learners[0].asked)
    add(dock, until, *CENTRES[1:3], wait=False)
    dock.maker.undo()
    LearnerStandIn.gate.set()
    until(lambda: not panel.learning.busy)
    assert learners[0].asked == [[1], [2]]
    assert panel.learning.learnt.count == 2


def test_off_and_on_again(dock, panel, until, learners):
    add(dock, until, CENTRES[0])
    panel.switch.setChecked(False)
    until(lambda: learners[0].released == 1)
    add(dock, until, CENTRES[1])
    assert versions_asked(dock) == []
    assert learners[0].asked == [[1]]
    panel.switch.setChecked(True)
    assert panel.line.text() == "learnt from 1 object"
    say(dock, until, *CENTRES[0])
    assert versions_asked(dock) == ["1"]


def test_off_stops_what_is_being_learnt(dock, panel, until, learners):
    LearnerStandIn.gate.clear()
    add(dock, until, CENTRES[0], wait=False)
    until(lambda: learners and learners[0].asked)
    panel.switch.setChecked(False)
    until(lambda: not panel.learning.busy)
    assert learners[0].stopped == 1
    assert panel.learning.learnt is None


def test_forget(dock, panel, until, learners):
    add(dock, until, CENTRES[0])
    assert panel.forget.isEnabled()
    panel.forget.click()
    until(lambda: learners[0].released == 1)
    assert panel.line.text() == "learns from each object you add"
    assert not panel.forget.isEnabled()
    add(dock, until, CENTRES[1])
    assert versions_asked(dock) == []
    assert len(learners) == 2
    assert learners[1].replayed == [[]]


def test_every_model_has_its_own(dock, panel, until, learners):
    add(dock, until, CENTRES[0])
    dock.state.choose_model("tiny")
    assert panel.line.text() == "learns anew: what it learnt waits with the other model or strength"
    add(dock, until, CENTRES[1])
    assert versions_asked(dock) == []
    assert learners[1].model == "tiny"
    dock.state.choose_model("mobile_sam")
    assert panel.line.text() == "learnt from 1 object"
    say(dock, until, *CENTRES[0])
    assert versions_asked(dock) == ["1"]


def test_the_model_is_changed_while_something_is_learnt(dock, panel, until, learners):
    LearnerStandIn.gate.clear()
    add(dock, until, CENTRES[0], wait=False)
    until(lambda: learners and learners[0].asked)
    dock.state.choose_model("tiny")
    LearnerStandIn.gate.set()
    until(lambda: not panel.learning.busy)
    assert panel.learning.learnt is None
    dock.state.choose_model("mobile_sam")
    assert panel.learning.learnt is None


def test_an_adapter_that_was_trained_again_is_another_model(
    dock, panel, until, learners, make_adapter, tmp_path
):
    path = make_adapter(tmp_path / "powder.safetensors")
    import_adapter(path, "powder")
    dock.state.choose_model("tiny", "powder")
    add(dock, until, CENTRES[0])
    assert learners[0].adapter == "powder"
    assert panel.learning.learnt is not None
    make_adapter(path, seed=1)
    import_adapter(path, "powder", replace=True)
    assert panel.learning.learnt is None
    say(dock, until, *CENTRES[1])
    assert versions_asked(dock) == []


def test_failures_are_said_and_go_by(dock, panel, until, learners, monkeypatch):
    monkeypatch.setattr(LearnerStandIn, "failure", CheckpointError("the file is damaged"))
    add(dock, until, CENTRES[0])
    assert "could not learn from the last object: the file is damaged" in panel.line.text()
    monkeypatch.setattr(LearnerStandIn, "failure", None)
    add(dock, until, CENTRES[1])
    assert panel.line.text() == "learnt from 1 object"


def test_keep(dock, panel, until, learners, monkeypatch):
    add(dock, until, CENTRES[0])
    answers = [("discs", True)]
    monkeypatch.setattr(
        QInputDialog, "getText", lambda *_, text: answers.append(text) or answers[0]
    )
    panel.keep.click()
    until(lambda: "Kept as the adapter discs" in dock.footer.result.text())
    assert learners[0].kept == "discs"
    assert answers[1] == "discs-learnt"
    answers[0] = ("no/name", True)
    panel.keep.click()
    assert "the name of an adapter" in dock.footer.result.text()
    answers[0] = ("full", True)
    panel.keep.click()
    until(lambda: "the disk is full" in dock.footer.result.text())
    answers[0] = ("", False)
    panel.keep.click()


def test_the_dock_is_closed_while_something_is_learnt(
    viewer_model, segmenters, learners, image, until
):
    viewer_model.add_image(image, name="discs")
    dock = PromptDock(viewer_model)
    dock.learning.switch.setChecked(True)
    LearnerStandIn.gate.clear()
    add(dock, until, CENTRES[0], wait=False)
    until(lambda: learners and learners[0].asked)
    gone = []
    dock.destroyed.connect(lambda: gone.append(True))
    dock.deleteLater()
    until(lambda: gone)
    until(lambda: learners[0].stopped == 1)


@pytest.fixture
def real_dock(qtbot, viewer_model, image):
    viewer_model.add_image((image * 255).astype(np.uint8), name="discs")
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    dock.state.choose_model("tiny")
    yield dock
    dock.learning.switch.setChecked(False)
    get_manager().unload_all()


def test_with_a_real_model(real_dock, until, monkeypatch):
    dock, panel = real_dock, real_dock.learning
    panel.switch.setChecked(True)
    say(dock, until, *CENTRES[0])
    plain = dock.controller.present().answer.masks.logits
    dock.maker.add()
    own_work = time.thread_time()
    until(lambda: not panel.learning.busy, timeout=60_000)
    assert time.thread_time() - own_work < 0.5  # the rest was done elsewhere
    assert panel.line.text() == "learnt from 1 object"
    say(dock, until, *CENTRES[0])
    learnt = dock.controller.present().answer.masks.logits
    assert not np.array_equal(learnt, plain)
    dock.maker.undo()
    dock.maker.undo()
    assert session_of(dock).objects == ()
    say(dock, until, *CENTRES[0])
    np.testing.assert_array_equal(dock.controller.present().answer.masks.logits, plain)
    dock.maker.add()
    until(lambda: not panel.learning.busy, timeout=60_000)
    assert panel.line.text() == "learnt from 1 object"
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, text: (text, True))
    panel.keep.click()
    until(lambda: list_adapters())
    assert get_adapter("discs-learnt").card.base == "tiny"
