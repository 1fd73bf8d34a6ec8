"""Go back to a checkpoint, if it is of the same training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import FileFormatError, OtherTrainingError
from phasesam.training.plain_values import differences
from phasesam.training.starting_point import content_key

if TYPE_CHECKING:
    from phasesam.training.dataset import TrainingData
    from phasesam.training.run_folder import RunFolder
    from phasesam.training.settings import TrainingSettings
    from phasesam.training.trainer import Trainer

# Settings that change nothing in what is learnt; of the adapter to go on from, the content counts.
_OF_NO_ACCOUNT = ("trackers", "device", "licence", "class_colours", "start")
_WORDING = ("name", "title", "description")


def decisive_parts(
    data: TrainingData, settings: TrainingSettings, base_hash: str
) -> dict[str, Any]:
    """Collect everything the result depends on, as plain values by name."""
    start = content_key(settings.start)
    parts = {"data_hash": data.key, "base_hash": base_hash, "start_hash": start}
    parts |= {k: v for k, v in settings.to_dict().items() if k not in _OF_NO_ACCOUNT}
    recipe = settings.recipe.to_dict()
    return {**parts, "recipe": {k: v for k, v in recipe.items() if k not in _WORDING}}


def training_key(parts: Mapping[str, Any]) -> str:
    """Fingerprint what `decisive_parts` collected."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def resumed(trainer: Trainer, run: RunFolder, decisive: Mapping[str, Any]) -> bool:
    """Go back to the checkpoint of a trainer.

    Parameters
    ----------
    trainer : Trainer
        With the path of the checkpoint.
    run : RunFolder
        Its settings are those of the checkpoint.
    decisive : mapping
        What `decisive_parts` collected now.

    Returns
    -------
    bool
        Whether there was a checkpoint.

    Raises
    ------
    OtherTrainingError
        If it is another training's; the message says in what they differ.
    CheckpointError
        If it is damaged.
    """
    try:
        return trainer.resume()
    except OtherTrainingError as error:
        try:
            known = run.settings()
        except FileFormatError:
            raise error from None
        before = {name: value for name, value in known.items() if name in decisive}
        recipe = known.get("recipe", {})
        before["recipe"] = {n: v for n, v in recipe.items() if n in decisive["recipe"]}
        changed = "; ".join(differences(before, {name: decisive[name] for name in before}))
        raise OtherTrainingError(f"{error} ({changed})" if changed else str(error)) from None
