"""Adapters that map phases, and the colours of their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor

from phasesam.core.errors import UnknownModelError
from phasesam.models.adapter_store import list_adapters
from phasesam.napari_widgets.class_colours import class_colour
from phasesam.napari_widgets.header import narrow_combo

if TYPE_CHECKING:
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_store import AdapterEntry


NO_PHASE_MODEL = "No model of phases yet: train one in Fine-tune, or import an adapter in Models."


def phase_adapters() -> list[tuple[AdapterEntry, AdapterCard]]:
    """List the adapters of the store that have classes, with their cards."""
    return [
        (entry, entry.card)
        for entry in list_adapters()
        if entry.card is not None and entry.card.classes
    ]


class PhaseAdapterChoice:
    """A combo box with the adapters that map phases.

    Attributes
    ----------
    combo : QComboBox
        The widget.
    """

    def __init__(self) -> None:
        self.combo = narrow_combo("Adapter that was trained on phases")
        self._adapters: list[tuple[AdapterEntry, AdapterCard]] = []

    @property
    def chosen(self) -> tuple[AdapterEntry, AdapterCard] | None:
        """The adapter chosen, with its card."""
        index = self.combo.currentIndex()
        return self._adapters[index] if 0 <= index < len(self._adapters) else None

    def refresh(self) -> None:
        """List the adapters anew; the one chosen stays so."""
        before = self.chosen
        self._adapters = phase_adapters()
        blocker = QSignalBlocker(self.combo)
        self.combo.clear()
        for row, (entry, card) in enumerate(self._adapters):
            self.combo.addItem(entry.title)
            tip = f"{', '.join(card.classes)}\non {card.base}"
            self.combo.setItemData(row, tip, Qt.ItemDataRole.ToolTipRole)
        blocker.unblock()
        self.combo.setEnabled(bool(self._adapters))
        if before is not None:
            self.choose(before[0].name)

    def look_again(self) -> tuple[AdapterEntry, AdapterCard] | None:
        """List the adapters anew: another program may have trained the chosen one, or removed it.

        Returns
        -------
        AdapterEntry and AdapterCard, or None
            The adapter chosen, as it is now.

        Raises
        ------
        UnknownModelError
            If it is gone; then none is chosen any more.
        """
        before = self.chosen
        self.refresh()
        if before is not None and not self.choose(before[0].name):
            self.combo.setCurrentIndex(-1)
            raise UnknownModelError(f"the adapter {before[0].title} is gone; choose another one")
        return self.chosen

    def choose(self, name: str) -> bool:
        """Choose an adapter by its name; False if it maps no phases."""
        names = [entry.name for entry, _ in self._adapters]
        if name not in names:
            return False
        self.combo.setCurrentIndex(names.index(name))
        return True


def class_colours(card: AdapterCard) -> list[QColor]:
    """Colours of the classes of an adapter: those of the labels it learnt from, or Okabe-Ito."""
    given = card.details.get("class_colours")
    if isinstance(given, list) and len(given) == len(card.classes):
        colours = [QColor(str(name)) for name in given]
        if all(colour.isValid() for colour in colours):
            return colours
    return [class_colour(index) for index in range(len(card.classes))]
