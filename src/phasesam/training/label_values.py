"""What the numbers in a label image mean while training."""

from __future__ import annotations

from typing import Literal, get_args

from phasesam.core.errors import InvalidSettingError

UNLABELLED = -1
"""Label of pixels about which nothing is said; they are left out everywhere."""

Task = Literal["promptable", "instance", "semantic"]
"""What is learnt: objects from prompts, objects without prompts, or classes of pixels."""


def check_task(task: str) -> Task:
    """Return the task if it is one.

    Raises
    ------
    InvalidSettingError
        If it is none of the three.
    """
    for known in get_args(Task):
        if task == known:
            return known
    raise InvalidSettingError(f"expected one of the tasks {get_args(Task)}, got {task!r}")
