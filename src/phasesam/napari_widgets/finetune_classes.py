"""Which classes a model learns: from values of Labels layers, or from classes of objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtpy.QtGui import QColor

from phasesam.napari_widgets.class_colours import (
    BACKGROUND,
    class_colour,
    layer_class_names,
    layer_colour,
)
from phasesam.napari_widgets.class_table import ClassRow
from phasesam.napari_widgets.training_layers import object_classes

if TYPE_CHECKING:
    from napari.layers import Labels

    from phasesam.napari_widgets.training_pairs import ChosenPair

_BACKGROUND_NAME = "background"
_NAMELESS = "object"
Key = int | str
"""What a layer calls a class: its value where classes are painted, else the name of a class."""


@dataclass(frozen=True, eq=False)
class Classes:
    """What is known about the classes of some layers.

    Attributes
    ----------
    rows : tuple of ClassRow
        The classes by rising value.
    of_values : mapping of Labels to mapping of int to int
        For layers whose values are not those of the classes: the class value of each object
        or painted value.
    sources : mapping of int to sequence of (Labels, int or str)
        Where the class of each value comes from: layers, and what they call it.
    """

    rows: tuple[ClassRow, ...]
    of_values: Mapping[Labels, Mapping[int, int]] = field(default_factory=dict)
    sources: Mapping[int, Sequence[tuple[Labels, Key]]] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """Name by value."""
        return {row.value: row.name for row in self.rows}


@dataclass(eq=False)
class _Class:
    """A class of one layer; one without a name gets one later."""

    labels: Labels
    key: Key
    name: str

    @property
    def wish(self) -> int | None:
        """The value that it would like to have."""
        return self.key if isinstance(self.key, int) else None


def classes_of(
    pairs: Sequence[ChosenPair],
    given: Mapping[Labels, Mapping[Key, str]],
    zero_is_class: bool,
) -> Classes:
    """Find the classes of the layers that are to be learnt from.

    Classes of the same name are one, whatever their values in the layers are. A painted value
    without a name is the class that another layer calls so, if all others agree.

    Parameters
    ----------
    pairs : sequence of ChosenPair
        The layers.
    given : mapping of Labels to mapping of (int or str) to str
        Names that the user gave to the classes of a layer, by what the layer calls them.
    zero_is_class : bool
        Whether 0 is a class, too, instead of "not labelled".
    """
    found = [each for pair in pairs for each in _classes_in(pair, given.get(pair.labels, {}))]
    _name_the_rest(found)
    if zero_is_class:
        found[:0] = _backgrounds(pairs, given)
    values = _values_by_name(found)
    names: dict[int, str] = {}
    colours: dict[int, QColor] = {}
    sources: dict[int, list[tuple[Labels, Key]]] = {}
    for each in found:
        value = values[each.name]
        names[value] = each.name
        sources.setdefault(value, []).append((each.labels, each.key))
        colour = BACKGROUND if each.key == 0 else _colour(each)
        if colour is not None:
            colours.setdefault(value, colour)
    rows = tuple(
        ClassRow(value, names[value], colours.get(value) or class_colour(value - 1))
        for value in sorted(names)
    )
    return Classes(rows, _class_values(pairs, found, values), sources)


def _classes_in(pair: ChosenPair, given: Mapping[Key, str]) -> Iterator[_Class]:
    objects = object_classes(pair.labels)
    if objects is not None:
        for name in dict.fromkeys(name or _NAMELESS for name in objects.values()):
            yield _Class(pair.labels, name, given.get(name) or name)
        return
    known = layer_class_names(pair.labels)
    for value in pair.scan.values:
        yield _Class(pair.labels, value, given.get(value) or known.get(value, ""))


def _name_the_rest(found: Sequence[_Class]) -> None:
    """Name values that their layer does not name."""
    elsewhere: dict[Key, set[str]] = {}
    for each in found:
        if each.name and each.wish is not None:
            elsewhere.setdefault(each.key, set()).add(each.name)
    for each in found:
        if not each.name:
            names = elsewhere.get(each.key, set())
            each.name = next(iter(names)) if len(names) == 1 else f"class {each.key}"


def _backgrounds(
    pairs: Sequence[ChosenPair], given: Mapping[Labels, Mapping[Key, str]]
) -> list[_Class]:
    """Make 0 one class of all layers, called as the user called it for any of them."""
    typed = [given.get(pair.labels, {}).get(0, "") for pair in pairs]
    name = next(filter(None, typed), _BACKGROUND_NAME)
    return [_Class(pair.labels, 0, name) for pair in pairs]


def _values_by_name(found: Sequence[_Class]) -> dict[str, int]:
    """Give every class the value it has in the first layer with it, or a new one."""
    values: dict[str, int] = {}
    for each in found:
        free = each.name not in values and each.wish not in values.values()
        if each.wish is not None and free:
            values[each.name] = each.wish
    highest = max((each.wish or 0 for each in found), default=0)
    for each in found:
        if each.name not in values:
            highest += 1
            values[each.name] = highest
    return values


def _class_values(
    pairs: Sequence[ChosenPair], found: Sequence[_Class], values: Mapping[str, int]
) -> dict[Labels, dict[int, int]]:
    """Class value of each object or painted value, for layers where it is another."""
    changed = {}
    for pair in pairs:
        of_key = {each.key: values[each.name] for each in found if each.labels is pair.labels}
        objects = object_classes(pair.labels)
        if objects is not None:
            changed[pair.labels] = {
                number: of_key[name or _NAMELESS] for number, name in objects.items()
            }
            continue
        painted = {value: of_key[value] for value in pair.scan.values}
        if any(value != new for value, new in painted.items()):
            changed[pair.labels] = painted
    return changed


def _colour(each: _Class) -> QColor | None:
    return None if each.wish is None else layer_colour(each.labels, each.wish)
