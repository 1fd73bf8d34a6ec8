"""All that is needed to go on with a training as if it had never been interrupted."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phasesam.core.errors import CheckpointError, OtherTrainingError
from phasesam.formats.atomic import atomic_file
from phasesam.training.run_folder import OTHER

_FORMAT = "phasesam-training-1"


@dataclass
class TrainingState:
    """Where a training is: before its first epoch, at the end of one, or between two steps.

    Attributes
    ----------
    epoch, step : int
        Epochs and steps done.
    best_score : float or None
        Best validation score.
    best_epoch : int
        Its epoch.
    rows : list of dict
        The log.
    seconds : float
        Time spent.
    seconds_before : float
        Part of it before the first step.
    is_prepared : bool
        Whether what comes before the first epoch has been done.
    losses : list of float
        Of the steps done in an epoch that was not completed.
    """

    epoch: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    seconds_before: float = 0.0
    is_prepared: bool = False
    losses: list[float] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    state: TrainingState,
    weights: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    key: str,
) -> None:
    """Write a checkpoint completely or not at all.

    Parameters
    ----------
    path : Path
        File; an earlier one stays if this one cannot be written.
    state : TrainingState
        Where the training is.
    weights : mapping of str to Tensor
        All that is trained.
    optimiser : Optimizer
        With its memory.
    key : str
        Fingerprint of data and settings; only the same training may go on from it.

    Raises
    ------
    SaveError
        If it cannot be written.
    """
    buffer = io.BytesIO()
    device = next(iter(weights.values())).device
    content = {
        "format": _FORMAT,
        "key": key,
        "state": dict(vars(state)),
        "weights": {name: tensor.detach().cpu() for name, tensor in weights.items()},
        "optimiser": optimiser.state_dict(),
        "chance": torch.get_rng_state(),
        # Dropout draws where the weights are.
        "device_chance": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    torch.save(content, buffer)
    with atomic_file(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(
    path: Path, weights: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, key: str
) -> TrainingState:
    """Go back to a checkpoint.

    Parameters
    ----------
    path : Path
        File that `save_checkpoint` wrote.
    weights : mapping of str to Tensor
        Filled.
    optimiser : Optimizer
        Filled.
    key : str
        As when it was saved.

    Raises
    ------
    CheckpointError
        If the file is damaged; `OtherTrainingError` if it belongs to another training.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content.get("format") != _FORMAT:
            raise ValueError("another format")
        saved: dict[str, Tensor] = content["weights"]
        state = TrainingState(**content["state"])
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if content["key"] != key:
        raise OtherTrainingError(f"{path} {OTHER}; start anew, or restore what was changed")
    if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in weights.items()}:
        raise CheckpointError(f"{path} holds other weights than this training has")
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(saved[name])
    optimiser.load_state_dict(content["optimiser"])
    torch.set_rng_state(content["chance"])
    device, chance = next(iter(weights.values())).device, content.get("device_chance")
    if device.type == "cuda" and chance is not None:
        torch.cuda.set_rng_state(chance, device)
    return state
