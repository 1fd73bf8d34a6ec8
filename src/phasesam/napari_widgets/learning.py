"""Lets the model learn from the objects that are added, in the background, one after the other."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from qtpy.QtCore import QObject, Signal

from phasesam.core.errors import SessionError
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.segmenters import adapter_stamp
from phasesam.napari_widgets.workers import Failure, Task, run_in_background
from phasesam.training.annotation_history import Example

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.core.mask_set import MaskCrop, MaskSet
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.segmenters import LazySegmenter
    from phasesam.session import ObjectRecord, SegmentationSession
    from phasesam.training.annotation_history import LearntState
    from phasesam.training.annotation_learner import AnnotationLearner

_LEARNER = "phasesam.training.annotation_learner"
_KEPT_LEARNERS = 4
_KEPT_WITHDRAWN = 50
_ENOUGH_TRIALS = 3


class Source(NamedTuple):
    """An object: number of its session, and its id there."""

    session: int
    object_id: int


@dataclass(frozen=True)
class Lesson:
    """An object that waits to be learnt from."""

    source: Source
    segmenter: LazySegmenter
    mask: MaskCrop


@dataclass
class _Update:
    """An update that is being worked out."""

    key: Hashable
    lessons: list[Lesson]
    after: LearntState | None
    task: Task | None = None


class AnnotationLearning(QObject):
    """Keeps what was learnt in step with the objects that there are.

    An object that is taken out again (by undo, or deleted) takes the update with it that was
    made for it last; brought back, it brings the update back. All methods are for the GUI
    thread.

    Parameters
    ----------
    dock : Dock
        Whose sessions and model; jobs end with it.
    """

    changed = Signal()
    """What there is to say about it is different."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.is_on = False
        self.trouble = ""
        self._dock = dock
        self._state = dock.state
        self._learners: OrderedDict[Hashable, AnnotationLearner] = OrderedDict()
        self._update: _Update | None = None
        self._waiting: list[Lesson] = []
        self._withdrawn: list[Lesson] = []
        self._numbers: WeakKeyDictionary[SegmentationSession, int] = WeakKeyDictionary()
        self._sessions: WeakValueDictionary[int, SegmentationSession] = WeakValueDictionary()
        self._count = itertools.count(1)
        dock.subscriptions.connect(self._state.events.model_changed, self._on_model_changed)
        dock.subscriptions.add(self._close)

    # ------------------------------------------------------------------ what was learnt

    def _key(self) -> Hashable:
        """Tell what prompts are answered with now; another content or strength is another key."""
        model, adapter = self._state.model_name, self._state.adapter
        return model, adapter_stamp(model, adapter)

    @property
    def learner(self) -> AnnotationLearner | None:
        """Who learnt on the model in use; None if nobody did yet."""
        return self._learners.get(self._key())

    @property
    def learnt(self) -> LearntState | None:
        """What was learnt on the model in use."""
        learner = self.learner
        return None if learner is None else learner.history.present

    @property
    def busy(self) -> bool:
        """Whether something is being learnt, or waits for it."""
        return self._update is not None or bool(self._waiting)

    def predictor(self, segmenter: LazySegmenter) -> Callable[..., MaskSet]:
        """Return who answers prompts: the model with what was learnt, if that is on."""
        learnt = self.learnt if self.is_on else None
        return segmenter.predict if learnt is None else partial(_predict, segmenter, learnt)

    def text(self) -> str:
        """Say in one line what was learnt and what came of it."""
        learnt = self.learnt
        if self.trouble:
            return self.trouble
        if learnt is None:
            return "learning …" if self.busy else self._promise()
        text = f"learnt from {_objects(learnt.count)}"
        effect = learnt.effect
        if effect is None or len(learnt.trials) < _ENOUGH_TRIALS:
            return text
        return f"{text} · first click {effect.before:.2f} → {effect.after:.2f}"

    def _promise(self) -> str:
        others = [x for x in self._learners.values() if x.history.present is not None]
        if others:
            return "learns anew: what it learnt waits with the other model or strength"
        return "learns from each object you add"

    # ------------------------------------------------------------------ what the user does

    def set_on(self, is_on: bool) -> None:
        """Learn from now on and answer with what was learnt; or do neither."""
        self.is_on = is_on
        self.trouble = ""
        if is_on:
            # Takes seconds the first time: better now than after the first object.
            run_in_background(lambda progress, should_stop: import_module(_LEARNER))
        else:
            self._stop()
            self._release(self._learners.values())
        self.changed.emit()

    def forget(self) -> None:
        """Go back to the model as it was."""
        self._stop()
        learner = self._learners.pop(self._key(), None)
        self._release([learner] if learner is not None else [])
        self.trouble = ""
        self.changed.emit()

    def keep(self, name: str) -> None:
        """Put what was learnt into the store of adapters; the footer says what came of it."""
        learner = self.learner
        if learner is None:
            return

        def on_done(_entry: Any) -> None:
            manager_watch().catalogue_changed.emit()
            self._dock.show_result(f"Kept as the adapter {name}: choose it beside the image.")

        def on_failed(failure: Failure) -> None:
            self._dock.show_error(failure.message, details=failure.details)

        run_in_background(
            lambda progress, should_stop: learner.keep(name),
            on_done=on_done,
            on_failed=on_failed,
            parent=self._dock,
            must_finish=True,
        )

    def add(self, image: Image, ids: list[int]) -> None:
        """Learn from objects that were just added to the plane that is shown."""
        if not self.is_on:
            return
        session = self._state.session(image)
        segmenter = self._state.segmenter(image)
        number = self._number(session)
        for object_id in ids:
            mask = session.object_mask(object_id)
            self._waiting.append(Lesson(Source(number, object_id), segmenter, mask))
        self._next()

    def _number(self, session: SegmentationSession) -> int:
        """Give a session a number and follow it from then on."""
        if session not in self._numbers:
            number = self._numbers[session] = next(self._count)
            self._sessions[number] = session
            self._dock.subscriptions.connect(session.events.objects_changed, self._follow)
        return self._numbers[session]

    # ------------------------------------------------------------------ learning

    def _next(self) -> None:
        """Begin with all that waits, unless something is being learnt already."""
        if self._update is not None or not self._waiting:
            return
        lessons, self._waiting = self._waiting, []
        learner, replay = self.learner, self._replay()
        model, adapter = self._state.model_name, self._state.adapter
        after = None if learner is None else learner.history.present
        update = self._update = _Update(self._key(), lessons, after)

        def job(
            progress: ProgressCallback, should_stop: StopCallback
        ) -> tuple[AnnotationLearner, LearntState | None]:
            from phasesam.training.annotation_learner import AnnotationLearner

            pupil = learner or AnnotationLearner(model, adapter)
            new = [each.segmenter.example(each.mask, each.source, should_stop) for each in lessons]
            state = pupil.learn(new, replay, should_stop)
            if state is not None:
                pupil.prepare(state)
            return pupil, state

        update.task = run_in_background(
            job,
            on_done=lambda result: self._on_learnt(update, *result),
            on_failed=lambda failure: self._on_failed(update, failure),
            on_cancelled=lambda: self._end(update),
            parent=self._dock,
        )
        self.changed.emit()

    def _replay(self) -> tuple[Example, ...]:
        """List the earlier objects as they are now, without those that are gone."""
        learnt = self.learnt
        found = []
        for example in () if learnt is None else learnt.examples:
            session = self._session_of(example.source)
            if session is None:
                found.append(example)  # its image was closed
                continue
            record = self._record(example.source)
            if record is None:
                continue
            if (record.box, record.area) != (example.mask.box, example.mask.area):
                example = replace(example, mask=session.object_mask(record.id))
            # One that has outgrown its window would be learnt cut off. Of a whole image, only
            # the data bar is not seen.
            if example.is_whole or example.corner == (0, 0):
                found.append(example)
        return tuple(found)

    def _on_learnt(
        self, update: _Update, learner: AnnotationLearner, state: LearntState | None
    ) -> None:
        if update.key != self._key():
            self._release([learner] if learner not in self._learners.values() else [])
            self._end(update)
            return
        self._learners[update.key] = learner
        while len(self._learners) > _KEPT_LEARNERS:
            self._release([self._learners.popitem(last=False)[1]])
        gone = self._withdraw(update.lessons)
        if gone or learner.history.present is not update.after:
            # Something was taken out meanwhile: work it out anew without that.
            self._waiting = [x for x in update.lessons if x not in gone] + self._waiting
        elif state is not None:
            learner.history.accept(state)
            self.trouble = ""
        else:
            self.trouble = "the last object is too small to learn from, or fills the picture"
        self._end(update)

    def _on_failed(self, update: _Update, failure: Failure) -> None:
        self.trouble = f"could not learn from the last object: {failure.message}"
        self._end(update)

    def _end(self, update: _Update) -> None:
        if self._update is update:
            self._update = None
        self._next()
        self.changed.emit()

    def _stop(self) -> None:
        """Drop what waits and what is being learnt."""
        self._waiting, self._withdrawn = [], []
        if self._update is not None and self._update.task is not None:
            self._update.task.cancel()
            self._update.lessons.clear()

    # ------------------------------------------------------------------ following the objects

    def _session_of(self, source: Any) -> SegmentationSession | None:
        return self._sessions.get(source.session)

    def _record(self, source: Any) -> ObjectRecord | None:
        session = self._session_of(source)
        try:
            return None if session is None else session.record(source.object_id)
        except SessionError:
            return None

    def _is_there(self, source: Any) -> bool:
        """Whether an object is there; those of sessions that were closed stay as they were."""
        return self._session_of(source) is None or self._record(source) is not None

    def _withdraw(self, lessons: list[Lesson]) -> list[Lesson]:
        """Put lessons aside whose objects are gone, until they come back."""
        gone = [lesson for lesson in lessons if not self._is_there(lesson.source)]
        self._withdrawn = [*self._withdrawn, *gone][-_KEPT_WITHDRAWN:]
        return gone

    def _follow(self) -> None:
        """Take updates back whose objects are gone; bring them back with their objects."""
        learner = self.learner
        history = None if learner is None else learner.history
        while history is not None and history.present is not None:
            if any(self._is_there(s) for s in history.present.sources) or not history.undo():
                break
        if history is not None:
            # The furthest one whose own objects are there: what came before it was learnt from
            # objects that may have gone since, as long as it held.
            there = [all(map(self._is_there, state.sources)) for state in history.undone]
            for _ in range(max((i for i, holds in enumerate(there, 1) if holds), default=0)):
                history.redo()
        gone = self._withdraw(self._waiting)
        back = [lesson for lesson in self._withdrawn if self._is_there(lesson.source)]
        self._withdrawn = [lesson for lesson in self._withdrawn if lesson not in back]
        self._waiting = [lesson for lesson in self._waiting if lesson not in gone] + back
        update = self._update
        if update is not None and update.task is not None:
            gone = self._withdraw(update.lessons)
            if gone:
                self._waiting = [x for x in update.lessons if x not in gone] + self._waiting
                update.lessons.clear()
                update.task.cancel()
        self._next()
        self.changed.emit()

    # ------------------------------------------------------------------ events

    def _on_model_changed(self, _name: str) -> None:
        self._stop()
        key = self._key()
        self._release(x for other, x in self._learners.items() if other != key)
        self.trouble = ""
        self._follow()

    def _release(self, learners: Iterable[AnnotationLearner]) -> None:
        """Take what was learnt out of memory."""
        leaving = list(learners)

        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            for learner in leaving:
                learner.release()

        if leaving:
            run_in_background(job)

    def _close(self) -> None:
        self._stop()
        self._release(self._learners.values())
        self._learners.clear()


def _predict(segmenter: LazySegmenter, learnt: LearntState, **prompts: Any) -> MaskSet:
    """Answer with what was learnt, whose file is kept as long as this may be called."""
    return segmenter.predict(version=learnt.version, **prompts)


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"
