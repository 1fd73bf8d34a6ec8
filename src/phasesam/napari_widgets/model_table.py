"""The table of the Models dock: every model, its adapters below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from phasesam.models.adapter_store import AdapterEntry
from phasesam.models.memory import format_bytes
from phasesam.models.registry import ModelSpec, where
from phasesam.napari_widgets.model_status import choice_tip, offered_adapters, offered_models

_COLUMNS = ("Model", "Weights", "In memory", "Licence")
_ROLE = Qt.ItemDataRole.UserRole
CANNOT_MERGE = "Conv-LoRA cannot be merged: what it adds depends on neighbouring places"


class Choice(NamedTuple):
    """One row: a model, or an adapter on it.

    Attributes
    ----------
    model : str
        Name in the registry; empty for an adapter that belongs to no model here.
    adapter : str or None
        Name in the store of adapters.
    """

    model: str
    adapter: str | None = None


class ModelTable(QTreeWidget):
    """Models with place, memory and licence; adapters are listed under their base."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setHeaderLabels(_COLUMNS)
        self.setRootIsDecorated(False)
        self.setItemsExpandable(False)
        self.setIndentation(14)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setMinimumHeight(240)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        header = self.header()
        if header is not None:
            header.setStretchLastSection(False)
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            header.setMinimumSectionSize(60)

    @property
    def choice(self) -> Choice | None:
        """The row that is selected."""
        items = self.selectedItems()
        return Choice(*items[0].data(0, _ROLE)) if items else None

    def select(self, choice: Choice | None) -> None:
        """Select a row, if it is there."""
        item = None if choice is None else self.row(choice)
        if item is not None:
            self.setCurrentItem(item)

    def row(self, choice: Choice) -> QTreeWidgetItem | None:
        """Find a row."""
        for index in range(self.topLevelItemCount()):
            top = self.topLevelItem(index)
            if top is None:
                continue
            for item in (top, *(top.child(i) for i in range(top.childCount()))):
                if item is not None and Choice(*item.data(0, _ROLE)) == choice:
                    return item
        return None

    def fill(self, used: Choice, resident: Mapping[Choice, Sequence[str]]) -> None:
        """Show all models and adapters; the selection stays.

        Parameters
        ----------
        used : Choice
            What the docks of this viewer segment with.
        resident : mapping of Choice to str
            What is in memory, and how.
        """
        chosen, bar = self.choice, self.verticalScrollBar()
        place = 0 if bar is None else bar.value()
        blocker = QSignalBlocker(self)
        self.clear()
        adapters = offered_adapters()
        for spec in offered_models():
            memory = resident.get(Choice(spec.name), ())
            texts = (spec.title, weights_text(spec), ", ".join(memory) or "—", spec.licence)
            top = self._add(Choice(spec.name), used, texts, model_tip(spec))
            for entry in adapters.pop(spec.name, []):
                choice = Choice(spec.name, entry.name)
                texts = _adapter_texts(entry, resident.get(choice, ()))
                top.addChild(self._add(choice, used, texts, adapter_tip(spec, entry)))
            top.setExpanded(True)
        for base, entries in adapters.items():
            for entry in entries:
                tip = entry.trouble or f"Made for a model called {base}, which is not here"
                self._add(Choice("", entry.name), used, _adapter_texts(entry, ()), tip)
        self.select(chosen)
        if bar is not None:
            bar.setValue(place)
        blocker.unblock()

    def _add(
        self, choice: Choice, used: Choice, texts: tuple[str, str, str, str], tip: str
    ) -> QTreeWidgetItem:
        """Make a row; one without an adapter, or without a base, stands on the top level."""
        nested = choice.adapter is not None and choice.model
        item = QTreeWidgetItem() if nested else QTreeWidgetItem(self)
        item.setData(0, _ROLE, tuple(choice))
        for column, text in enumerate(texts):
            mark = " ✓" if column == 0 and choice == used else ""
            item.setText(column, text + mark)
            item.setToolTip(column, tip)
        return item


def _adapter_texts(entry: AdapterEntry, memory: Sequence[str]) -> tuple[str, str, str, str]:
    place = "damaged" if entry.card is None else f"on disk, {format_bytes(entry.stamp.size)}"
    licence = "" if entry.card is None else str(entry.card.details.get("licence") or "")
    return f"+ {entry.title}", place, ", ".join(memory) or "—", licence


def weights_text(spec: ModelSpec) -> str:
    """Say where weights are, and how large."""
    place = where(spec)
    size = format_bytes(spec.size_bytes) if spec.size_bytes else ""
    if place == "to download":
        return f"↓ {size}"
    return place if place in ("bundled", "missing") or not size else f"{place}, {size}"


def model_tip(spec: ModelSpec) -> str:
    """Say what is known about a model."""
    lines = [
        f"{spec.title} ({where(spec)})",
        spec.description,
        f"Licence: {spec.licence}",
        spec.source,
    ]
    return "\n".join(line for line in lines if line)


def adapter_tip(spec: ModelSpec, entry: AdapterEntry) -> str:
    """Say what is known about an adapter."""
    card = entry.card
    if card is None:
        return entry.trouble
    recipe = card.details.get("recipe")
    lines = [
        choice_tip(spec, entry),
        f"Recipe: {recipe}" if recipe else "",
        "" if card.config.mergeable else CANNOT_MERGE,
        str(entry.path),
    ]
    return "\n".join(line for line in lines if line)
