"""Get the model ready before the first image, so that trouble with it shows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from phasesam.cli.batch_options import ModelOptions
from phasesam.cli.progress import transfer_bar
from phasesam.core.errors import InvalidSettingError, UnknownModelError
from phasesam.core.types import StopCallback

if TYPE_CHECKING:
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_loading import AdapterVersion


@dataclass(frozen=True)
class ChosenModel:
    """What the options name, before anything is loaded.

    Attributes
    ----------
    name : str
        Name in the registry.
    card : AdapterCard or None
        Of the adapter, if there is one.
    """

    name: str
    card: AdapterCard | None = None


def choose_model(options: ModelOptions) -> ChosenModel:
    """Find model and adapter; without a model named, that of the adapter.

    Raises
    ------
    InvalidSettingError
        If there is a strength of no adapter.
    ModelError
        If there is no such model or adapter, or the adapter is damaged.
    """
    from phasesam.models.adapter_store import card_of
    from phasesam.models.registry import DEFAULT_MODEL, get_spec

    if options.adapter is None:
        if options.adapter_strength is not None:
            raise InvalidSettingError("--adapter-strength needs an --adapter")
        return ChosenModel(get_spec(options.model or DEFAULT_MODEL).name)
    card = card_of(options.adapter)
    try:
        return ChosenModel(get_spec(options.model or card.base).name, card)
    except UnknownModelError as error:
        if options.model is not None:
            raise
        raise UnknownModelError(
            f"the adapter was made for a model called {card.base!r}, which is not here. Import "
            "it, or say with --model what it is called"
        ) from error


def prepare_model(
    options: ModelOptions, console: Console, should_stop: StopCallback
) -> AdapterVersion | str | None:
    """Choose the device, fetch weights where needed, and load the model.

    Parameters
    ----------
    options : ModelOptions
        What the user asked for.
    console : Console
        Where a download shows its progress.
    should_stop : callable
        Asked during a download.

    Returns
    -------
    AdapterVersion or None
        The adapter that was loaded, as it was then: it may be trained again while a batch runs.

    Raises
    ------
    InvalidSettingError
        If there is no such device or precision.
    ModelError
        If the model is unknown, cannot be fetched, is broken or too large, or the adapter does
        not fit it.
    CancelledError
        If the user asked to stop.
    """
    from phasesam.models.manager import get_manager
    from phasesam.models.registry import get_spec, locate

    spec = get_spec(choose_model(options).name)
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
    if options.adapter is not None and options.adapter_strength is not None:
        manager.set_strength(spec.name, options.adapter, options.adapter_strength)
    adapter = manager.adapter_version(spec.name, options.adapter)
    manager.load(spec.name, adapter, should_stop=should_stop)
    return adapter
