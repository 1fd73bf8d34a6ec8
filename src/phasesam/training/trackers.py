"""Curves for other programs: Weights & Biases and TensorBoard, through accelerate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import InvalidSettingError
from phasesam.training.trainer import Callback, Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

    from phasesam.training.run_folder import Preview

_PROJECT = "phasesam"


class TrackerCallback(Callback):
    """Sends loss and figures on.

    Parameters
    ----------
    accelerator : Accelerator
        Made with ``log_with`` for these trackers.
    names : sequence of {"wandb", "tensorboard"}
        Trackers.
    folder : Path
        Where their files go.
    settings : mapping
        Settings of the training, shown beside the curves.

    Raises
    ------
    InvalidSettingError
        If one of them is not installed.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        names: Sequence[str],
        folder: Path,
        settings: Mapping[str, Any],
    ) -> None:
        self._accelerator = accelerator
        options: dict[str, dict[str, Any]] = {}
        if "wandb" in names:
            # Nothing leaves the machine unless the user said so.
            os.environ.setdefault("WANDB_MODE", "offline")
            options["wandb"] = {"dir": str(folder), "name": folder.name}
        accelerator.init_trackers(_PROJECT, config=_flat(settings), init_kwargs=options)

    def on_step(self, progress: Progress, loss: float) -> None:
        """Send the loss."""
        self._accelerator.log({"loss": loss}, step=progress.step)

    def on_epoch(
        self, progress: Progress, row: Mapping[str, float], preview: Preview | None
    ) -> None:
        """Send the figures of the validation."""
        figures = {f"epoch/{key}": value for key, value in row.items()}
        self._accelerator.log(figures, step=progress.step)


def check_installed(names: Sequence[str]) -> None:
    """Refuse trackers that are not there, before anything has been computed.

    Raises
    ------
    InvalidSettingError
        With the command that installs them.
    """
    from accelerate.utils import is_tensorboard_available, is_wandb_available

    present = {"wandb": is_wandb_available(), "tensorboard": is_tensorboard_available()}
    missing = [name for name in names if not present[name]]
    if missing:
        raise InvalidSettingError(
            f"{' and '.join(missing)} not installed: pip install 'napari-phasesam[trackers]'"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Put settings on one level of numbers and strings, which all trackers take."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            result[f"{prefix}{key}"] = value if plain else str(value)
    return result
