"""Which classes a model learns: from values of Labels layers, or from classes of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, eq=False)
class Classes:
    """What is known about the classes of some layers.

    Attributes
    ----------
    rows : tuple of ClassRow
        The classes by rising value.
    of_objects : mapping of Labels to mapping of int to int
        For layers with committed objects: the class value of each object.
    """

    rows: tuple[ClassRow, ...]
    of_objects: Mapping[Labels, Mapping[int, int]] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """Name by value."""
        return {row.value: row.name for row in self.rows}


def classes_of(
    pairs: Sequence[ChosenPair], given: Mapping[int, str], zero_is_class: bool
) -> Classes:
    """Find the classes of the layers that are to be learnt from.

    Values of painted layers are classes; of committed objects, the class names are: they
    get the value of the painted class of that name, or a new one.

    Parameters
    ----------
    pairs : sequence of ChosenPair
        The layers.
    given : mapping of int to str
        Names that the user gave.
    zero_is_class : bool
        Whether 0 is a class, too, instead of "not labelled".
    """
    names: dict[int, str] = {}
    colours: dict[int, QColor] = {}
    objects = {pair.labels: object_classes(pair.labels) for pair in pairs}
    for pair in pairs:
        if objects[pair.labels] is None:
            known = layer_class_names(pair.labels)
            for value in pair.scan.values:
                names.setdefault(value, known.get(value, f"class {value}"))
                colour = layer_colour(pair.labels, value)
                if colour is not None:
                    colours.setdefault(value, colour)
    of_objects = {}
    for labels, classes in objects.items():
        if classes is not None:
            of_objects[labels] = _values_of_objects(classes, names)
    if zero_is_class and pairs:
        names[0] = _BACKGROUND_NAME
        colours[0] = BACKGROUND
    rows = tuple(
        ClassRow(
            value,
            given.get(value) or names[value],
            colours.get(value) or class_colour(value - 1),
        )
        for value in sorted(names)
    )
    return Classes(rows, of_objects)


def _values_of_objects(classes: Mapping[int, str], names: dict[int, str]) -> dict[int, int]:
    """Give every object the value of its class, adding classes to ``names``."""
    values = {name: value for value, name in names.items()}
    found = {}
    for number, class_name in classes.items():
        name = class_name or _NAMELESS
        if name not in values:
            values[name] = max([*names, 0]) + 1
            names[values[name]] = name
        found[number] = values[name]
    return found
