import threading
import time
import warnings

import pytest
from qtpy.QtWidgets import QWidget

from phasesam.core.errors import CancelledError
from phasesam.napari_widgets.workers import (
    Failure,
    GuiRelay,
    Lane,
    _Worker,
    finish_saving,
    run_in_background,
)


class Outcome:
    """Collects what a task reports, with the thread it was told in."""

    def __init__(self):
        self.calls = []

    def callbacks(self):
        def record(name):
            return lambda *values: self.calls.append((name, values, threading.current_thread()))

        return {f"on_{name}": record(name) for name in ("done", "failed", "progress", "cancelled")}

    def names(self):
        return [name for name, _, _ in self.calls if name != "progress"]


def test_result_arrives_once_on_the_gui_thread(qtbot, until):
    outcome = Outcome()
    threads = []

    def job(progress, should_stop):
        threads.append(threading.current_thread())
        progress(1, 2)
        progress(2, 2)
        return 42

    task = run_in_background(job, **outcome.callbacks())
    until(lambda: not task.running)
    assert outcome.names() == ["done"]
    assert outcome.calls[-1][1] == (42,)
    assert threads[0] is not threading.main_thread()
    assert all(thread is threading.main_thread() for _, _, thread in outcome.calls)


@pytest.mark.parametrize("error", [ValueError("bad"), RuntimeError("CUDA out of memory")])
def test_errors_come_back_as_values(qtbot, until, error):
    outcome = Outcome()

    def job(progress, should_stop):
        raise error

    task = run_in_background(job, **outcome.callbacks())
    until(lambda: not task.running)
    assert outcome.names() == ["failed"]
    failure = outcome.calls[0][1][0]
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == (type(error).__name__, str(error))
    assert "Traceback" in failure.details


def test_cancel_stops_the_job_and_says_so(qtbot, until):
    outcome = Outcome()
    started = threading.Event()

    def job(progress, should_stop):
        started.set()
        while not should_stop():
            time.sleep(0.005)
        raise CancelledError("stopped")

    task = run_in_background(job, **outcome.callbacks())
    until(started.is_set)
    task.cancel()
    until(lambda: not task.running)
    assert outcome.names() == ["cancelled"]


def test_result_after_cancel_is_dropped(qtbot, until):
    outcome = Outcome()
    release = threading.Event()
    task = run_in_background(lambda *_: release.wait(5), **outcome.callbacks())
    task.cancel()
    release.set()
    until(lambda: not task.running)
    assert outcome.names() == ["cancelled"]


def test_destroyed_parent_hears_nothing_and_the_job_stops(qtbot, until):
    outcome = Outcome()
    stopped = threading.Event()
    started = threading.Event()
    parent = QWidget()

    def job(progress, should_stop):
        started.set()
        while not should_stop():
            time.sleep(0.005)
        stopped.set()
        return "late"

    task = run_in_background(job, parent=parent, **outcome.callbacks())
    until(started.is_set)
    parent.deleteLater()
    until(stopped.is_set)
    until(lambda: not task.running)
    assert outcome.names() == []


def test_progress_is_throttled_and_ends_full(qtbot, until):
    outcome = Outcome()

    def job(progress, should_stop):
        for step in range(1000):
            progress(step + 1, 1000)

    task = run_in_background(job, **outcome.callbacks())
    until(lambda: not task.running)
    reported = [values for name, values, _ in outcome.calls if name == "progress"]
    assert len(reported) < 50
    assert reported[-1] == (1000, 1000)


def test_workers_leave_the_process_wide_warnings_alone(qtbot, until):
    before = warnings.showwarning
    tasks = [run_in_background(lambda *_: time.sleep(0.02)) for _ in range(4)]
    until(lambda: not any(task.running for task in tasks))
    assert warnings.showwarning is before


def test_lane_answers_the_newest_question_only(qtbot, until):
    lane = Lane(None)
    answers = []
    release = threading.Event()

    def submit(number):
        def job(progress, should_stop):
            release.wait(5)
            return number

        lane.submit(job, answers.append, answers.append)

    for number in range(5):
        submit(number)
    release.set()
    until(lambda: not lane.busy)
    assert answers == [4]


def test_lane_that_follows_the_mouse_keeps_late_answers(qtbot, until):
    lane = Lane(None, drop_older=False)
    answers = []
    release = threading.Event()

    def submit(number):
        def job(progress, should_stop):
            release.wait(5)
            return number

        lane.submit(job, answers.append, answers.append)

    for number in range(5):
        submit(number)
    release.set()
    until(lambda: not lane.busy)
    assert answers == [0, 4]


def test_lane_drops_everything_when_invalidated(qtbot, until):
    lane = Lane(None, drop_older=False)
    answers = []
    release = threading.Event()
    lane.submit(lambda *_: release.wait(5), answers.append, answers.append)
    lane.submit(lambda *_: 2, answers.append, answers.append)
    lane.invalidate()
    release.set()
    until(lambda: not lane.busy)
    assert answers == []


def test_relay_brings_calls_to_the_gui_thread(qtbot, until):
    relay = GuiRelay()
    received = []
    relay.received.connect(lambda values: received.append((values, threading.current_thread())))
    thread = threading.Thread(target=relay.send, args=(1, "two"))
    thread.start()
    thread.join()
    until(lambda: received)
    assert received == [((1, "two"), threading.main_thread())]


def test_worker_that_outlives_qt_ends_in_silence(qtbot):
    from qtpy.compat import isalive

    outcomes = []
    worker = _Worker(lambda progress, should_stop: progress(1, 1) or outcomes.append(1), False)
    worker.signals.deleteLater()
    qtbot.waitUntil(lambda: not isalive(worker.signals))
    worker.run()  # as when the viewer is closed during a run
    assert outcomes == [1]


def test_saving_goes_on_when_its_dock_is_closed(qtbot, tmp_path):
    gate, started = threading.Event(), threading.Event()
    path = tmp_path / "saved"

    def job(progress, should_stop):
        started.set()
        gate.wait(10)
        if not should_stop():
            path.write_text("all of it")

    widget = QWidget()
    task = run_in_background(job, parent=widget, must_finish=True)
    assert started.wait(10)
    widget.deleteLater()
    qtbot.waitUntil(lambda: task.cancelled)
    threading.Timer(0.05, gate.set).start()
    finish_saving()
    assert path.read_text() == "all of it"


def test_what_was_saved_is_not_reported_as_cancelled(qtbot, until):
    outcome = Outcome()
    gate = threading.Event()
    task = run_in_background(
        lambda progress, should_stop: gate.wait(10), must_finish=True, **outcome.callbacks()
    )
    task.cancel()
    gate.set()
    until(lambda: not task.running)
    assert outcome.names() == ["done"]
