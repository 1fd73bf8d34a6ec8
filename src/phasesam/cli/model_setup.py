"""Get the model ready before the first image, so that trouble with it shows at once."""

from __future__ import annotations

from rich.console import Console

from phasesam.cli.progress import transfer_bar
from phasesam.cli.segment_options import ModelOptions
from phasesam.core.types import StopCallback


def prepare_model(options: ModelOptions, console: Console, should_stop: StopCallback) -> None:
    """Choose the device, fetch weights where needed, and load the model.

    Parameters
    ----------
    options : ModelOptions
        What the user asked for.
    console : Console
        Where a download shows its progress.
    should_stop : callable
        Asked during a download.

    Raises
    ------
    InvalidSettingError
        If there is no such device or precision.
    ModelError
        If the model is unknown, cannot be fetched, is broken or too large.
    CancelledError
        If the user asked to stop.
    """
    from phasesam.models.manager import get_manager
    from phasesam.models.registry import get_spec, locate

    spec = get_spec(options.model)
    manager = get_manager()
    if options.device is not None:
        manager.set_device(options.device)
    if options.precision is not None:
        manager.set_precision(options.precision)
    with transfer_bar(console, f"Fetching {spec.title}") as progress:
        locate(spec, options.download, progress=progress, should_stop=should_stop)
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    manager.load(spec.name, should_stop=should_stop)
