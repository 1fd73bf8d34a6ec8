"""How much memory and time a training will need, without loading torch where napari runs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import CancelledError, PhaseSAMError
from phasesam.models.free_memory import free_memory
from phasesam.models.memory import format_bytes
from phasesam.models.registry import get_spec, where
from phasesam.napari_widgets.training_run import earlier_runs
from phasesam.training.process import Job
from phasesam.training.run_folder import RunFolder
from phasesam.training.visible_objects import unseen_objects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phasesam.core.types import StopCallback
    from phasesam.training.label_values import Task
    from phasesam.training.settings import TrainingSettings
    from phasesam.training.visible_objects import ImageObjects

_POLL_SECONDS = 0.2
_CODE = """
import json, sys
from phasesam.training.memory_estimate import estimate_memory
from phasesam.training.settings import TrainingSettings
settings, n_classes = json.load(sys.stdin)
print(estimate_memory(TrainingSettings.from_dict(settings), n_classes))
"""

_known: dict[str, int] = {}


def estimate(settings: dict[str, Any], n_classes: int, should_stop: StopCallback) -> int | None:
    """Estimate the memory of a training; for workers.

    Loading torch holds up all of Python for tenths of a second, so that another process
    does it.

    Parameters
    ----------
    settings : dict
        ``TrainingSettings.to_dict()``.
    n_classes : int
        Classes to learn; 0 for objects.
    should_stop : callable
        Asked several times a second.

    Returns
    -------
    int or None
        Bytes; None if it cannot be said.

    Raises
    ------
    CancelledError
        If ``should_stop()`` is true.
    """
    question = json.dumps((settings, n_classes))
    if question not in _known:
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            answer = _answer(process, question, should_stop)
        if process.returncode != 0 or not answer.strip().isdigit():
            return None
        _known[question] = int(answer)
    return _known[question]


def earlier_seconds(settings: dict[str, Any], task: Task) -> float | None:
    """Estimate the time of a training by the newest earlier one of its kind; for workers.

    Parameters
    ----------
    settings : dict
        ``TrainingSettings.to_dict()``.
    task : {"promptable", "instance", "semantic"}
        What is learnt.

    Returns
    -------
    float or None
        Seconds for all epochs; None if nothing like it was trained on this computer.
    """
    for earlier in earlier_runs():
        try:
            found = _seconds_by(RunFolder(earlier.path), settings, task)
        except (PhaseSAMError, KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
        if found is not None:
            return found
    return None


def _seconds_by(run: RunFolder, settings: Mapping[str, Any], task: Task) -> float | None:
    job, rows = Job.read(run), run.log()
    before = job.settings
    # Of one epoch alone it cannot be told what came before it.
    if job.task != task or len(rows) < 2 or _pace(before) != _pace(settings):
        return None
    for name in ("device", "precision"):
        # What "auto" is, is the same on the same computer.
        if before[name] != settings[name] and "auto" not in (before[name], settings[name]):
            return None
    recipe = settings["recipe"]
    views = recipe["views_per_epoch"] / before["recipe"]["views_per_epoch"]
    return _scaled(rows, recipe["epochs"], views)


def _pace(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Collect what a step takes its time for."""
    recipe = settings["recipe"]
    parts = ("adapter", "prompts", "batch", "pool", "detail_steps")
    return (settings["base"], *(recipe[name] for name in parts))


def _scaled(rows: Sequence[Mapping[str, float]], epochs: int, views: float) -> float:
    """Seconds of so many epochs of so many times the views; the first takes longer than others."""
    first, last = rows[0], rows[-1]
    each = (last["seconds"] - first["seconds"]) / (last["epoch"] - first["epoch"])
    return first["seconds"] + max(0.0, each * (views * epochs - 1))


def _answer(process: subprocess.Popen[str], question: str, should_stop: StopCallback) -> str:
    asked: str | None = question
    while True:
        try:
            answer, _ = process.communicate(asked, timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            asked = None
            if should_stop():
                process.kill()
                raise CancelledError("the estimate is not needed any more") from None
        else:
            return answer


def notes(
    settings: TrainingSettings,
    adapter: str | None,
    task: Task = "semantic",
    objects: Sequence[ImageObjects] = (),
) -> str:
    """Say what users might not expect: a download, an adapter or objects that are left out.

    Parameters
    ----------
    settings : TrainingSettings
        Of the training.
    adapter : str or None
        The adapter that is chosen beside the image.
    task : {"promptable", "instance", "semantic"}
        What is learnt.
    objects : sequence of ImageObjects
        Of the training images.

    Raises
    ------
    UnknownModelError
        If there is no such base.
    TrainingDataError
        If the model could not tell any object.
    """
    spec, found = get_spec(settings.base), []
    if where(spec) == "to download":
        size = f" ({format_bytes(spec.size_bytes)})" if spec.size_bytes else ""
        found.append(f"{spec.title} is downloaded first{size}.")
    if adapter is not None and not settings.start:
        found.append(f"Begins with {spec.title} alone; Advanced can go on from {adapter}.")
    unseen = unseen_objects(settings, task, objects)
    if unseen:
        found.append(f"{unseen[0].upper()}{unseen[1:]}.")
    return " ".join(found)


def in_words(
    settings: TrainingSettings, task: Task, n_classes: int, should_stop: StopCallback
) -> tuple[str, bool]:
    """Say what a training needs, and whether it may not fit; for workers, as `estimate`."""
    values = settings.to_dict()
    needed = estimate(values, n_classes, should_stop)
    if needed is None:
        return "", False
    return estimate_text(needed, settings.device, earlier_seconds(values, task))


def estimate_text(needed: int, device: str, seconds: float | None = None) -> tuple[str, bool]:
    """Write an estimate for the user, and whether it may not fit.

    Parameters
    ----------
    needed : int
        Bytes.
    device : str
        Where it will be trained.
    seconds : float, optional
        As from `earlier_seconds`.
    """
    text = f"Needs about {format_bytes(needed)} of memory"
    if device == "cpu":
        free = free_memory()
        text += f"; {format_bytes(free)} are free"
        if needed > free:
            return f"{text}, so that it may not fit.", True
    if seconds is None:
        return f"{text}. The time shows after the first steps.", False
    minutes = max(1, round(seconds / 60))
    time = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} hours"
    return f"{text}. It takes about {time}, going by an earlier training.", False
