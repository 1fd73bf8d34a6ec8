"""Find the classes that semantic labels hold, and name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from phasesam.core.errors import TrainingDataError
from phasesam.training.data_stacks import Pair
from phasesam.training.label_values import (
    MOST_CLASSES,
    UNLABELLED,
    label_integers,
    values_and_counts,
)


def name_classes(
    pairs: Sequence[Pair],
    given: Sequence[str] | Mapping[int, str] | None,
    unlabelled: int | None = None,
) -> dict[int, str]:
    """Name the classes by their values.

    Parameters
    ----------
    pairs : sequence of Pair
        Their labels are read, unless all values are given.
    given : sequence of str, mapping of int to str, or None
        Names in the order of the values, or by value; ``class VALUE`` where left out or blank.
        That of the value for "not labelled" does not count.
    unlabelled : int or None
        Value that is no class.

    Returns
    -------
    dict of int to str
        In no particular order.

    Raises
    ------
    TrainingDataError
        If there are too many values for classes, or another number than names, or two classes
        have one name.
    """
    named = {
        value: str(name).strip() or f"class {value}"
        for value, name in _by_value(pairs, given, unlabelled).items()
    }
    twice = sorted(name for name, count in Counter(named.values()).items() if count > 1)
    if twice:
        raise TrainingDataError(
            f"expected a name of its own for each class, got {', '.join(twice)} more than once"
        )
    return named


def _by_value(
    pairs: Sequence[Pair],
    given: Sequence[str] | Mapping[int, str] | None,
    unlabelled: int | None,
) -> dict[int, str]:
    """Find the value that each name belongs to."""
    if isinstance(given, Mapping):
        names = {int(value): name for value, name in given.items()}
        return {v: name for v, name in names.items() if v not in (UNLABELLED, unlabelled)}
    found = _values_found(pairs, unlabelled)
    if given is None:
        return dict.fromkeys(found, "")
    usual = [value for value in range(len(given) + 1) if value != unlabelled][: len(given)]
    if not found or (usual and found[-1] <= usual[-1]):
        return dict(zip(usual, given, strict=True))
    if len(found) != len(given):
        raise TrainingDataError(
            f"expected {len(given)} classes ({', '.join(given)}), got the values {found}"
        )
    return dict(zip(found, given, strict=True))


def _values_found(pairs: Sequence[Pair], unlabelled: int | None) -> list[int]:
    found: set[int] = set()
    for pair in pairs:
        values = set(values_and_counts(label_integers(pair.labels.read(), pair.labels.name)))
        values -= {UNLABELLED, unlabelled}
        found |= values
        if len(found) > MOST_CLASSES:
            raise TrainingDataError(
                f"{pair.labels.name}: expected at most {MOST_CLASSES} classes, got "
                f"{len(found)} different values; are these objects? Then the task is instance "
                "or promptable"
            )
    return sorted(found)
