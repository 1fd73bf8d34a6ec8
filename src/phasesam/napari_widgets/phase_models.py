"""Adapters that map phases, and the colours of their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QColor

from phasesam.models.adapter_store import list_adapters
from phasesam.napari_widgets.class_colours import class_colour

if TYPE_CHECKING:
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_store import AdapterEntry


def phase_adapters() -> list[tuple[AdapterEntry, AdapterCard]]:
    """List the adapters of the store that have classes, with their cards."""
    return [
        (entry, entry.card)
        for entry in list_adapters()
        if entry.card is not None and entry.card.classes
    ]


def class_colours(card: AdapterCard) -> list[QColor]:
    """Colours of the classes of an adapter: those of the labels it learnt from, or Okabe-Ito."""
    given = card.details.get("class_colours")
    if isinstance(given, list) and len(given) == len(card.classes):
        colours = [QColor(str(name)) for name in given]
        if all(colour.isValid() for colour in colours):
            return colours
    return [class_colour(index) for index in range(len(card.classes))]
