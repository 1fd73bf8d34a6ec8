"""What labels mean where an adapter has learnt from some before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phasesam.cli.evaluation_output import tell

if TYPE_CHECKING:
    from phasesam.cli.label_options import LabelOptions
    from phasesam.models.adapter_card import AdapterCard

_NO_LABEL = 1 << 30


def options_as_learnt(
    place: Path, labels: LabelOptions, card: AdapterCard, *, to_learn: bool = False
) -> dict[str, Any]:
    """Read labels as the training of an adapter did where the user does not say otherwise.

    Parameters
    ----------
    place : Path
        The data; classes are the adapter's unless the user or the data name them.
    labels : LabelOptions
        What the user says.
    card : AdapterCard
        Of the adapter.
    to_learn : bool
        Whether it is to learn from them: then classes that the data name are those that are learnt,
        else those of other names may be left out.

    Returns
    -------
    dict
        Fields of `phasesam.training.dataset.DataOptions`.
    """
    from phasesam.training.data_collection import collect
    from phasesam.training.data_pairs import Choice
    from phasesam.training.label_values import check_task

    options = labels.data_options()
    _as_learnt(options, labels, card)
    values = card.details.get("class_values")
    if options["classes"] is None and card.classes and values:
        choice = Choice(options["labels"], options["experiment"], options["unlabelled"])
        own = collect(place, choice, check_task(card.task)).classes
        learnt = dict(zip(values, card.classes, strict=True))
        if not to_learn:
            options["classes"] = values_of_classes(own, learnt)
        elif not own:
            options["classes"] = learnt
    return options


def _as_learnt(options: dict[str, Any], labels: LabelOptions, card: AdapterCard) -> None:
    said = []
    unlabelled = card.details.get("unlabelled")
    if labels.unlabelled is None and isinstance(unlabelled, int):
        options["unlabelled"] = unlabelled
        said.append(f"the value {unlabelled} means unlabelled")
    if labels.components is None and card.details.get("components") is True:
        options["components"] = True
        said.append("parts of a label that do not touch are objects each")
    if said:
        tell([f"as in the training, {' and '.join(said)}"])


def values_of_classes(own: Mapping[int, str], learnt: Mapping[int, str]) -> dict[int, str]:
    """Name values as the data do where they mean the classes that were learnt, else as then."""
    if not set(own.values()) & set(learnt.values()):
        return dict(learnt)
    # What the data do not name has a value that no label has.
    missing = [name for name in learnt.values() if name not in own.values()]
    return {**own, **{_NO_LABEL + number: name for number, name in enumerate(missing)}}
