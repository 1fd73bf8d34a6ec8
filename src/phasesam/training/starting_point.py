"""Go on from an adapter instead of from the base alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phasesam.core.errors import CheckpointError, TrainingDataError
from phasesam.models.adapter_card import read_card
from phasesam.models.adapter_store import content_hash

if TYPE_CHECKING:
    from accelerate import Accelerator

    from phasesam.training.dataset import TrainingData
    from phasesam.training.run_folder import RunFolder
    from phasesam.training.settings import TrainingSettings


def going_on(settings: TrainingSettings, data: TrainingData, base_hash: str) -> TrainingSettings:
    """Take over from the adapter what its weights were made for.

    Parameters
    ----------
    settings : TrainingSettings
        Returned as they are where they name no adapter to go on from.
    data : TrainingData
        What is learnt now.
    base_hash : str
        `weights_hash` of the base.

    Returns
    -------
    TrainingSettings
        With layers, window and stretch of the adapter, and no head start for its head of fine
        detail.

    Raises
    ------
    CheckpointError
        If the file is no adapter, or was made for another base.
    TrainingDataError
        If it knows other classes or another task than the data.
    """
    if not settings.start:
        return settings
    path = Path(settings.start)
    card = read_card(path)
    if card.base_hash != base_hash:
        raise CheckpointError(
            f"{path} was made for other weights than those of {settings.base}: it names "
            f"{card.base} ({card.base_hash[:12]})"
        )
    if card.task != data.task or card.classes != data.classes:
        raise TrainingDataError(
            f"expected data for what {path} has learnt, {_knowledge(card.task, card.classes)}, "
            f"got {_knowledge(data.task, data.classes)}"
        )
    recipe = replace(
        settings.recipe,
        adapter=card.config,
        views=replace(settings.recipe.views, window=card.window),
        auto_window=False,
        stretch=card.details.get("stretch") is True,
        detail_steps=0,
    )
    return replace(settings, recipe=recipe)


def keep_start(
    settings: TrainingSettings, run: RunFolder, resume: bool, accelerator: Accelerator
) -> TrainingSettings:
    """Copy the adapter to go on from where the training would overwrite it.

    Parameters
    ----------
    settings : TrainingSettings
        Returned as they are unless the adapter is the result that lies in the folder already.
    run : RunFolder
        Of the training.
    resume : bool
        Whether the copy of the training that goes on now counts.
    accelerator : accelerate.Accelerator
        Tells which process copies.

    Returns
    -------
    TrainingSettings
        With the path of the copy.

    Raises
    ------
    SaveError
        If it cannot be copied.
    CheckpointError
        If there is no such adapter.
    """
    if not settings.start or Path(settings.start).resolve() != run.best_file.resolve():
        return settings
    if accelerator.is_main_process and not (resume and run.start_file.exists()):
        read_card(run.best_file)
        run.keep_start(run.best_file)
    accelerator.wait_for_everyone()
    return replace(settings, start=str(run.start_file))


def learnt_before(start: str) -> dict[str, list[str]]:
    """Collect what an adapter, and those that it went on from, have learnt from.

    Parameters
    ----------
    start : str
        The adapter; empty for none.

    Returns
    -------
    dict
        "pictures" (see `LabelledImage.picture_key`) and "specimens"; empty where there is no
        adapter.
    """
    if not start:
        return {}
    details = read_card(Path(start)).details
    earlier, keys = details.get("learnt_before", {}), details.get("picture_keys", {})
    pictures, specimens = set(earlier.get("pictures", ())), set(earlier.get("specimens", ()))
    for split in ("train", "val"):
        pictures |= {keys[n] for n in details.get("splits", {}).get(split, ()) if n in keys}
        specimens |= set(details.get("specimens", {}).get(split, ()))
    return {"pictures": sorted(pictures), "specimens": sorted(specimens)}


def content_key(start: str) -> str:
    """Hash of the adapter to go on from; empty for none. A file can move, or be another one."""
    return content_hash(Path(start)) if start else ""


def _knowledge(task: str, classes: tuple[str, ...]) -> str:
    return f"{task} ({', '.join(classes)})" if classes else task
