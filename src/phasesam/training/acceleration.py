"""Device, precision and processes of a training, by accelerate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from phasesam.models.devices import asked_device
from phasesam.models.half_precision import trains_in_bf16

if TYPE_CHECKING:
    from accelerate import Accelerator

    from phasesam.training.run_folder import RunFolder
    from phasesam.training.settings import TrainingSettings


def is_main_process() -> bool:
    """Whether this process is the first of those that train together (``accelerate launch``)."""
    return os.environ.get("RANK", "0") == "0"


def make_accelerator(settings: TrainingSettings, run: RunFolder) -> Accelerator:
    """Choose device and precision.

    Raises
    ------
    InvalidSettingError
        If the machine has no such device.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import AutocastKwargs

    # What an earlier training of this process chose would hold for ever.
    AcceleratorState._reset_state(reset_partial_state="RANK" not in os.environ)
    device = asked_device(settings.device)
    if device.type == "cuda" and device.index is not None and "RANK" not in os.environ:
        # Of several, accelerate takes the present one.
        torch.cuda.set_device(device)
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if trains_in_bf16(device) else "fp32"
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        # A cast weight that is kept from a round without gradients would stay without them.
        kwargs_handlers=[AutocastKwargs(cache_enabled=False)],
        log_with=list(settings.trackers) or None,
        project_dir=str(run.path),
    )
