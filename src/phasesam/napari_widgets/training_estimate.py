"""How much memory a training will need, without loading torch where napari runs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import CancelledError
from phasesam.models.free_memory import free_memory
from phasesam.models.memory import format_bytes
from phasesam.models.registry import get_spec, where
from phasesam.training.visible_objects import unseen_objects

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        The adapter that prompts are answered with now.
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


def estimate_text(needed: int, device: str) -> tuple[str, bool]:
    """Write an estimate for the user, and whether it may not fit."""
    text = f"Needs about {format_bytes(needed)} of memory"
    if device == "cpu":
        free = free_memory()
        text += f"; {format_bytes(free)} are free"
        if needed > free:
            return f"{text}, so that it may not fit.", True
    return f"{text}. The time shows after the first steps.", False
