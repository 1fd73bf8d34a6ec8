"""Work in the background. Threads start in this file and nowhere else.

No exception ever leaves a worker: it comes back as a `Failure`. superqt loses a
``RuntimeError`` of a generator (and running out of device memory is one), and napari
0.9 shows a false message for every worker that reports an error by its signal.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from qtpy.compat import isalive
from qtpy.QtCore import QObject, QThreadPool, Signal
from superqt.utils import WorkerBase

from phasesam.core.errors import CancelledError
from phasesam.core.types import ProgressCallback, StopCallback

Job = Callable[[ProgressCallback, StopCallback], Any]
"""``job(progress, should_stop)``, run in a worker thread; must not touch Qt or layers."""

_PROGRESS_INTERVAL = 0.1
_THREADS = 8


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker.

    Attributes
    ----------
    kind : str
        Name of the exception class.
    message : str
        What to tell the user.
    details : str
        The traceback, for a report.
    """

    kind: str
    message: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Keep the message and the traceback of ``error``, not the frames it came through."""
        details = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error) or type(error).__name__, details)


@dataclass(frozen=True)
class _Cancelled:
    """Outcome of a job that was stopped."""


class _WorkerSignals(QObject):
    started = Signal()
    finished = Signal()
    _finished = Signal(object)  # superqt then forgets the worker
    progressed = Signal(int, int)
    outcome = Signal(object)


class _Worker(WorkerBase):
    """One job in napari's set of workers, so that closing napari waits for it."""

    signals: _WorkerSignals  # type: ignore[assignment]  # only these are used, see run

    def __init__(self, job: Job, must_finish: bool) -> None:
        super().__init__(SignalsClass=_WorkerSignals)  # type: ignore[arg-type]
        self._job: Job | None = job
        self.must_finish = must_finish
        self._last_progress = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        """Run the job and send its outcome.

        superqt's own ``run`` replaces ``warnings.showwarning`` of the whole process while
        a worker runs; two workers at once then restore it in the wrong order.
        """
        self._running = True
        outcome = self.work()
        self._job = None  # frees arrays held by the job before the result is used
        self._running = False
        self.ended.set()
        self._emit("outcome", outcome)
        self._emit("finished")
        self._emit("_finished", self)

    def _emit(self, name: str, *values: Any) -> None:
        """Emit a signal, unless the program is being closed and nobody is left to hear it."""
        try:
            getattr(self.signals, name).emit(*values)
        except RuntimeError:
            if isalive(self.signals):
                raise

    def work(self) -> Any:
        """Call the job; whatever happens becomes a value."""
        if self._job is None or self._should_stop():
            return _Cancelled()
        try:
            return self._job(self._report, self._should_stop)
        except CancelledError:
            return _Cancelled()
        except Exception as error:  # noqa: BLE001 - an exception must not leave a worker
            return Failure.of(error)

    def _should_stop(self) -> bool:
        return bool(self.abort_requested) and not self.must_finish

    def _report(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - self._last_progress >= _PROGRESS_INTERVAL:
            self._last_progress = now
            self._emit("progressed", int(done), int(total))


class Task:
    """One run in the background; its callbacks are called on the GUI thread.

    Attributes
    ----------
    running : bool
        Whether an outcome is still to come.
    """

    def __init__(self, worker: _Worker, callbacks: _Callbacks, parent: QObject | None) -> None:
        self._worker: _Worker | None = worker
        self._callbacks: _Callbacks | None = callbacks
        self._parent = parent
        self._must_finish = worker.must_finish
        self.cancelled = False
        worker.signals.progressed.connect(self._on_progress)
        worker.signals.outcome.connect(self._on_outcome)
        if parent is not None:
            parent.destroyed.connect(self.abandon)

    @property
    def running(self) -> bool:
        """Whether an outcome is still to come."""
        return self._worker is not None

    def cancel(self) -> None:
        """Ask the job to stop; ``on_cancelled`` follows when it has.

        A job that ends before it notices is treated as cancelled too: its result is dropped.
        """
        self.cancelled = True
        if self._worker is not None:
            self._worker.quit()

    def abandon(self) -> None:
        """Cancel and forget: no callback will be called any more."""
        self._callbacks = None
        self.cancel()

    def _live_callbacks(self) -> _Callbacks | None:
        if self._parent is not None and not isalive(self._parent):
            self.abandon()
        return self._callbacks

    def _on_progress(self, done: int, total: int) -> None:
        callbacks = self._live_callbacks()
        if callbacks is not None and callbacks.progress is not None and not self.cancelled:
            callbacks.progress(done, total)

    def _on_outcome(self, outcome: Any) -> None:
        callbacks = self._live_callbacks()
        self._worker = None
        self._callbacks = None
        _running.discard(self)
        if callbacks is None:
            return
        stopped = self.cancelled and not self._must_finish
        if stopped or isinstance(outcome, _Cancelled):
            if callbacks.cancelled is not None:
                callbacks.cancelled()
        elif isinstance(outcome, Failure):
            if callbacks.failed is not None:
                callbacks.failed(outcome)
        elif callbacks.done is not None:
            callbacks.done(outcome)


@dataclass(frozen=True)
class _Callbacks:
    done: Callable[[Any], None] | None
    failed: Callable[[Failure], None] | None
    progress: Callable[[int, int], None] | None
    cancelled: Callable[[], None] | None


# Bound methods connected to Qt signals do not keep their object alive; this does.
_running: set[Task] = set()
# Workers that write files.
_saving: WeakSet[_Worker] = WeakSet()


def run_in_background(
    job: Job,
    *,
    on_done: Callable[[Any], None] | None = None,
    on_failed: Callable[[Failure], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_cancelled: Callable[[], None] | None = None,
    parent: QObject | None = None,
    must_finish: bool = False,
) -> Task:
    """Run ``job(progress, should_stop)`` in a worker thread.

    Exactly one of ``on_done``, ``on_failed`` and ``on_cancelled`` is called, on the GUI
    thread, unless ``parent`` has been destroyed: then none is.

    Parameters
    ----------
    job : callable
        The work. It must not touch widgets, layers or the viewer; it ends early with
        `CancelledError` when ``should_stop()`` is true.
    on_done : callable, optional
        Called with what the job returned.
    on_failed : callable, optional
        Called with a `Failure` if the job raised.
    on_progress : callable, optional
        Called with ``(done, total)``, at most ten times a second and at the end.
    on_cancelled : callable, optional
        Called if the job was cancelled.
    parent : QObject, optional
        The widget that wants the result; when it is destroyed the job is cancelled.
    must_finish : bool
        For work such as saving, which the user relies on: it is done even if nobody wants
        the result any more, and `finish_saving` waits for it. Such a job may not need the GUI.

    Returns
    -------
    Task
    """
    pool = QThreadPool.globalInstance()
    # With one thread per core a run that waits for the device would hold up every click.
    pool.setMaxThreadCount(max(_THREADS, pool.maxThreadCount()))
    worker = _Worker(job, must_finish)
    if must_finish:
        _saving.add(worker)
    task = Task(worker, _Callbacks(on_done, on_failed, on_progress, on_cancelled), parent)
    _running.add(task)
    worker.start()
    return task


def finish_saving() -> None:
    """Wait until everything that must finish has; call it before a viewer closes."""
    for worker in list(_saving):
        worker.ended.wait()


class Lane:
    """Runs one job at a time; of those waiting only the newest is kept.

    For hover previews and clicks: no answer arrives after `invalidate`, and with
    ``drop_older`` none to a question that is not the newest.

    Parameters
    ----------
    parent : QObject
        The widget that wants the results.
    drop_older : bool
        Whether an answer is dropped when a newer question waits. Off for a preview that
        follows the mouse, which would otherwise stay away as long as the mouse moves.
    """

    def __init__(self, parent: QObject | None, *, drop_older: bool = True) -> None:
        self._parent = parent
        self._drop_older = drop_older
        self._generation = 0
        self._task: Task | None = None
        self._waiting: tuple[Job, Callable[[Any], None], Callable[[Failure], None]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self._task is not None or self._waiting is not None

    def submit(
        self,
        job: Job,
        on_done: Callable[[Any], None],
        on_failed: Callable[[Failure], None],
        *,
        at_once: bool = False,
    ) -> None:
        """Run ``job`` as soon as the present one has ended, instead of any other waiting.

        With ``at_once`` here and now if none runs: for jobs shorter than drawing the window,
        which would be drawn once more while a worker has it.
        """
        if self._drop_older:
            self._generation += 1
        if at_once and not self.busy:
            outcome = _Worker(job, must_finish=False).work()
            if isinstance(outcome, Failure):
                on_failed(outcome)
            elif not isinstance(outcome, _Cancelled):
                on_done(outcome)
            return
        self._waiting = (job, on_done, on_failed)
        if self._task is None:
            self._next()

    def invalidate(self) -> None:
        """Drop what waits and the answer of what runs."""
        self._generation += 1
        self._waiting = None
        if self._task is not None:
            self._task.cancel()

    def _next(self) -> None:
        self._task = None
        if self._waiting is None:
            return
        job, on_done, on_failed = self._waiting
        self._waiting = None
        generation = self._generation

        def deliver(callback: Callable[[Any], None], value: Any) -> None:
            current = generation == self._generation
            self._next()
            if current:
                callback(value)

        self._task = run_in_background(
            job,
            on_done=lambda result: deliver(on_done, result),
            on_failed=lambda failure: deliver(on_failed, failure),
            on_cancelled=self._next,
            parent=self._parent,
        )


class GuiRelay(QObject):
    """Brings calls from any thread to the GUI thread.

    ``relay.received`` is emitted on the GUI thread for every call of ``relay.send(...)``;
    connect `send` to events that may fire in any thread.
    """

    received = Signal(object)
    _sent = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._sent.connect(self._deliver)

    def send(self, *values: Any) -> None:
        """Send ``values``; they arrive as one tuple."""
        if isalive(self):
            self._sent.emit(values)

    def _deliver(self, values: tuple[Any, ...]) -> None:
        self.received.emit(values)
