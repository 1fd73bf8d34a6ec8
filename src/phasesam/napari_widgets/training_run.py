"""One training as a dock sees it: its folder, and the process that works in it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import CancelledError, PhaseSAMError, SaveError
from phasesam.models.download import cache_folder
from phasesam.models.registry import list_models
from phasesam.training.process import Job, TrainingProcess
from phasesam.training.run_folder import DIED, RunFolder, RunStatus

if TYPE_CHECKING:
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.napari_widgets.training_request import DataRequest
    from phasesam.training.settings import TrainingSettings

_OUTPUT = "output.txt"
_TAIL_BYTES = 4000
_DATE = "%Y-%m-%d-%H%M%S"
_DATED = re.compile(r"(.*)-(\d{4}-\d{2}-\d{2}-\d{6})")
_MOST_EARLIER = 12

# Python would complain of processes that nobody holds any more, and stop them.
_processes: set[TrainingProcess] = set()


def training_folder() -> Path:
    """Where the folders of trainings are."""
    return cache_folder().parent / "training"


def plain_name(text: str) -> str:
    """Make a name that files and adapters can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:40] or "training"


def new_run(name: str) -> RunFolder:
    """Choose the folder of a new training."""
    base = f"{plain_name(name)}-{time.strftime(_DATE)}"
    path = training_folder() / base
    number = 2
    while path.exists():
        path = training_folder() / f"{base}-{number}"
        number += 1
    return RunFolder(path)


def write_training(
    run: RunFolder,
    request: DataRequest,
    settings: TrainingSettings,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> None:
    """Write data and settings for a process to come; for workers.

    Raises
    ------
    PhaseSAMError
        If it cannot be done, or ``should_stop()`` is true. Whatever goes wrong, nothing is left
        behind.
    """
    try:
        run.path.mkdir(parents=True)
    except OSError as error:
        # Not ours to remove: another window may have begun there in the same second.
        raise SaveError(f"could not make {run.path}: {error.strerror}") from error
    try:
        if settings.start:
            settings = replace(settings, start=run.keep_start(settings.start))
        data, options = request.leave_in(run.path, progress, should_stop)
        job = Job(data, request.task, settings.to_dict(), options)
        TrainingRun(run).prepare(job)
        if should_stop is not None and should_stop():
            raise CancelledError("writing the data was stopped")
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


class TrainingRun:
    """A training that runs, ran, or may go on.

    Parameters
    ----------
    folder : RunFolder
        Where it is.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._process: TrainingProcess | None = None
        self._is_killed = False

    @property
    def name(self) -> str:
        """Name of the folder without the date."""
        dated = _DATED.match(self.folder.path.name)
        return dated[1] if dated else self.folder.path.name

    @property
    def is_running(self) -> bool:
        """Whether a process that we started works in the folder."""
        return self._process is not None and self._process.is_running

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return self.folder.checkpoint_file.is_file()

    def prepare(self, job: Job | None = None) -> None:
        """Leave what the process needs in the folder; for workers.

        Parameters
        ----------
        job : Job, optional
            A new one; otherwise the one in the folder goes on.

        Raises
        ------
        FileFormatError
            If the folder holds no job.
        SaveError
            If it cannot be written, or another process trains there.
        """
        self.folder.refuse_if_taken(but=os.getpid())
        if job is None:
            job = replace(Job.read(self.folder), resume=self.has_checkpoint)
        job.write(self.folder)
        # Until the process has come to itself the folder says how the one before ended.
        self.folder.write_status(RunStatus("preparing", "starting a process"))

    def begin(self) -> None:
        """Start a process that does what was prepared."""
        self._is_killed = False
        self._process = TrainingProcess(self.folder)
        _processes.difference_update([p for p in _processes if not p.is_running])
        _processes.add(self._process)

    def status(self) -> RunStatus:
        """How far it is; a process that ended without a word has failed. For workers."""
        ended = self._process is not None and not self._process.is_running
        if not ended:
            return self.folder.status()
        # What it had finished before it ended counts.
        status = self.folder.last_word()
        is_of_another = status.pid not in (0, os.getpid()) and self.folder.status() == status
        if not status.is_over and not is_of_another:
            status = replace(status, state="failed", message=DIED)
            if self._is_killed:
                status = replace(status, state="cancelled", message="stopped")
            # Else it would seem to begin as long as this program runs.
            with contextlib.suppress(SaveError):
                if self.folder.path.is_dir():
                    self.folder.write_status(status)
        return status

    def cancel(self) -> None:
        """Stop it; its checkpoint is kept."""
        if self._process is None or not self._process.is_running:
            return
        try:
            self.folder.cancel()
            is_asked = True
        except SaveError:
            is_asked = False
        if not is_asked or self.folder.status().state == "preparing":
            # No epoch to lose, and while it reads data it would not look; nor where it cannot be
            # told. Its checkpoint is kept anyway.
            self._is_killed = True
            self._process.kill()

    def output(self) -> str:
        """Return the end of what the process printed."""
        try:
            with (self.folder.path / _OUTPUT).open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                return file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""


@dataclass(frozen=True)
class RunFacts:
    """What a folder says about its training, besides how far it is.

    Attributes
    ----------
    task : str
        What is learnt; empty if it is not known.
    recipe, base : str
        Titles of the recipe and of the model.
    """

    task: str = ""
    recipe: str = ""
    base: str = ""

    @classmethod
    def of(cls, job: Job) -> RunFacts:
        """Take them from a job."""
        recipe: Mapping[str, Any] = job.settings.get("recipe", {})
        base = str(job.settings.get("base", ""))
        titles = {spec.name: spec.title for spec in list_models()}
        return cls(job.task, str(recipe.get("title", "")), titles.get(base, base))

    @classmethod
    def read(cls, run: RunFolder) -> RunFacts:
        """Find them in a folder."""
        try:
            return cls.of(Job.read(run))
        except PhaseSAMError:
            return cls()


@dataclass(frozen=True)
class EarlierRun:
    """A folder of a training that is not under way.

    Attributes
    ----------
    path : Path
        The folder.
    name : str
        What it was called.
    when : float
        When it was last written to, seconds since 1970.
    status : RunStatus
        How it ended.
    can_resume : bool
        Whether it may go on.
    """

    path: Path
    name: str
    when: float
    status: RunStatus
    can_resume: bool

    @property
    def title(self) -> str:
        """One line about it."""
        when = time.strftime("%d %b, %H:%M", time.localtime(self.when))
        status = self.status
        how: str = status.state
        if status.state in ("cancelled", "failed") and status.epochs:
            how += f" in epoch {min(status.epoch + 1, status.epochs)} of {status.epochs}"
        elif status.best_score is not None:
            how += f", {status.best_score:.3f}"
        return f"{self.name} · {when} · {how}"


def any_ending() -> bool:
    """Whether a process that was asked to stop, by a dock that may be gone, has not ended yet."""
    return any(process.is_running and process.run.is_cancelled for process in _processes)


def earlier_runs() -> list[EarlierRun]:
    """List what is in the folder of trainings, newest first; for workers."""
    found: list[EarlierRun] = []
    for when, path in sorted(_status_files(), reverse=True):
        run = RunFolder(path.parent)
        status = run.status()
        if status.is_over:
            training = TrainingRun(run)
            unfinished = status.state != "finished" and training.has_checkpoint
            found.append(EarlierRun(run.path, training.name, when, status, unfinished))
        if len(found) == _MOST_EARLIER:
            break
    return found


def _status_files() -> Iterator[tuple[float, Path]]:
    for path in training_folder().glob("*/status.json"):
        # Somebody may delete a folder while we look.
        with contextlib.suppress(OSError):
            yield path.stat().st_mtime, path
