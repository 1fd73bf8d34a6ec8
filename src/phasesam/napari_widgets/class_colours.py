"""Colours and names of classes: Okabe-Ito, or what a Labels layer has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QColor

from phasesam.formats.overlay import PALETTE

if TYPE_CHECKING:
    from napari.layers import Labels

BACKGROUND = QColor("#7f7f7f")
_NAME_COLUMNS = ("class", "name", "label", "phase")


def class_colour(index: int) -> QColor:
    """Colour of the class number ``index``, from 0; it comes again after seven."""
    return QColor(*(int(part) for part in PALETTE[index % len(PALETTE)]))


def layer_colour(labels: Labels, value: int) -> QColor | None:
    """Colour that a Labels layer gives a value; None where it is transparent."""
    colour = labels.get_color(value)
    if colour is None or colour[3] == 0:
        return None
    red, green, blue = (float(part) for part in colour[:3])
    return QColor.fromRgbF(red, green, blue)


def layer_class_names(labels: Labels) -> dict[int, str]:
    """Names of the values of a Labels layer, from its features: columns ``index`` and ``class``."""
    table: Any = labels.features
    columns = {str(name).casefold(): name for name in table.columns}
    found = next((columns[name] for name in _NAME_COLUMNS if name in columns), None)
    if found is None:
        return {}
    values = table[columns["index"]] if "index" in columns else range(len(table))
    numbered = ((_number(value), name) for value, name in zip(values, table[found], strict=True))
    return {
        value: str(name)
        for value, name in numbered
        if isinstance(name, str) and name.strip() and value is not None
    }


def _number(value: Any) -> int | None:
    """Read a value of a table, in some of which numbers are text; None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) else None


def shows_classes(labels: Labels, names: Iterable[str]) -> bool:
    """Whether the values of a Labels layer are those of these classes; blank names tell nothing."""
    return list(layer_class_names(labels).values()) == [name for name in names if name.strip()]


def class_features(names: Mapping[int, str]) -> dict[str, list[Any]]:
    """Features for a Labels layer from which `layer_class_names` reads the same names."""
    return {"index": list(names), "class": list(names.values())}
