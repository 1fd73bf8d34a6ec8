"""Which recipe a training follows, and the rare settings of it."""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QInputDialog,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from phasesam.core.errors import InvalidSettingError, PhaseSAMError
from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.model_status import choice_text, manager_watch, offered_models
from phasesam.training.recipes import find_recipes, save_recipe

if TYPE_CHECKING:
    from phasesam.training.recipes import Recipe

_LONGEST_NAME = 60
_WHOLE_IMAGE, _AUTOMATIC = "whole image", "automatic"


class RateBox(QDoubleSpinBox):
    """A learning rate, written as short as it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(8)
        self.setRange(1e-8, 1.0)
        self.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
        self.setKeyboardTracking(False)

    def textFromValue(self, value: float) -> str:
        """Write three digits: 0.0005, 1e-05."""
        return f"{value:.3g}"

    def valueFromText(self, text: str) -> float:
        """Read also 5e-4."""
        try:
            return float(text)
        except ValueError:
            return self.value()

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        """Let any number be typed, with an exponent, too."""
        good = re.fullmatch(r"\d*\.?\d*(e-?\d*)?", text) is not None
        state = QValidator.State.Acceptable if good else QValidator.State.Invalid
        return state, text, position


def _count_box(lowest: int, highest: int) -> QSpinBox:
    box = QSpinBox()
    box.setRange(lowest, highest)
    box.setKeyboardTracking(False)
    return box


class RecipePanel(QWidget):
    """A combo of recipes; what it says can be changed in the folded part of the dock."""

    changed = Signal()
    failed = Signal(str)
    saved = Signal(str)
    """What to tell the user."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._recipes: dict[str, Recipe] = {}
        self.problems: list[str] = []
        self._task = "promptable"
        self.recipes = narrow_combo("All settings of a training in one name")
        self.description = QLabel()
        self.description.setWordWrap(True)
        self._make_settings()
        self.takes_ratio.setEnabled(False)
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        grid.addWidget(QLabel("Recipe"), 0, 0)
        grid.addWidget(self.recipes, 0, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(grid)
        column.addWidget(self.description)
        self.recipes.activated.connect(self._on_recipe)
        self.load()

    def _make_settings(self) -> None:
        self.epochs = _count_box(1, 10_000)
        self.views = _count_box(1, 100_000)
        self.batch = _count_box(1, 256)
        self.rank = _count_box(1, 2048)
        self.blocks = QComboBox()
        for text, blocks in (("late half", "late"), ("all", "all")):
            self.blocks.addItem(text, blocks)
        self.blocks.activated.connect(self._on_setting)
        self.side = _count_box(0, 100_000)
        self.side.setSpecialValueText(_WHOLE_IMAGE)
        self.side.setSuffix(" px")
        self.side.setSingleStep(64)
        self.rates = {name: RateBox() for name in ("lr_encoder", "lr_decoder", "lr_heads")}
        self.takes_ratio = QCheckBox("amounts can be told")
        self.takes_ratio.toggled.connect(self._on_setting)
        self.goes_on = QCheckBox("go on from the adapter chosen above")
        self.goes_on.toggled.connect(self._on_setting)
        self.base = narrow_combo("Model that gets the adapter; its own weights stay as they are")
        self.save_button = QPushButton("Save recipe…")
        self.save_button.clicked.connect(self._ask_name)
        for box in (self.epochs, self.views, self.batch, self.rank, self.side):
            box.valueChanged.connect(self._on_setting)
        for rate in self.rates.values():
            rate.valueChanged.connect(self._on_setting)
        self.base.activated.connect(lambda _index: self.changed.emit())

    def advanced_rows(self) -> list[tuple[str, QWidget, str]]:
        """Label, widget and tooltip of each rare setting."""
        return [
            ("Epochs", self.epochs, "How often the validation images are looked at: the length."),
            ("Views per epoch", self.views, "Pictures drawn from the training images each epoch."),
            ("Batch", self.batch, "Views to one step. More are steadier and slower."),
            ("Rank", self.rank, "Width of the adapter: how much it can change in the model."),
            (
                "Encoder blocks",
                self.blocks,
                "Blocks of the encoder that are adapted, if the recipe adapts any. Encoder\n"
                "features can suggest where to begin. Earlier ones make training slower.",
            ),
            (
                "Window",
                self.side,
                "Side in image pixels of the square that the model sees at once. Small windows\n"
                "show small things large; one larger than the image shows all of it. The adapter\n"
                "is used with the same windows.",
            ),
            ("Rate, encoder", self.rates["lr_encoder"], "Learning rate in the image encoder."),
            ("Rate, decoder", self.rates["lr_decoder"], "Learning rate in the mask decoder."),
            ("Rate, classes", self.rates["lr_heads"], "Learning rate of what is new for phases."),
            (
                "Phase ratio",
                self.takes_ratio,
                "The network learns to take phase fractions as a hint of what is where; then\n"
                "Phase ratio can tell it some. For phases only.",
            ),
            ("Base model", self.base, ""),
            (
                "Begin",
                self.goes_on,
                "Train the adapter chosen beside the image further instead of beginning with the\n"
                "base alone. What is learnt must be what it has learnt: the same task and phases.",
            ),
            ("", self.save_button, "Keep these settings under a name of your own."),
        ]

    def load(self) -> None:
        """Read the recipes and list the models anew."""
        before = self.problems
        self._recipes, self.problems = find_recipes()
        for problem in self.problems:
            if problem not in before:
                self.failed.emit(problem)
        self._list(self.recipes.currentData())
        chosen = self.base.currentData()
        self.base.clear()
        self.base.addItem("as chosen above", None)
        for spec in offered_models():
            self.base.addItem(choice_text(spec), spec.name)
        self.base.setCurrentIndex(max(0, self.base.findData(chosen)))

    def set_task(self, task: str) -> None:
        """Offer the recipes that fit a task."""
        if task != self._task:
            self._task = task
            self.takes_ratio.setEnabled(task == "semantic")
            self._list(self.recipes.currentData())

    def select(self, name: str) -> None:
        """Choose a recipe."""
        index = self.recipes.findData(name)
        if index >= 0:
            self.recipes.setCurrentIndex(index)
            self._on_recipe()

    def _list(self, chosen: str | None) -> None:
        blocker = QSignalBlocker(self.recipes)
        self.recipes.clear()
        for name, recipe in self._recipes.items():
            if self._task in recipe.tasks:
                self.recipes.addItem(recipe.title, name)
                row = self.recipes.count() - 1
                tip = recipe.description
                self.recipes.setItemData(row, tip, Qt.ItemDataRole.ToolTipRole)
        kept = self.recipes.findData(chosen)
        self.recipes.setCurrentIndex(max(0, kept))
        blocker.unblock()
        if kept < 0 or chosen is None:
            self._show_recipe()

    # ------------------------------------------------------------------ what was chosen

    @property
    def original(self) -> Recipe | None:
        """The recipe chosen, without changes; None if there is none at all."""
        return self._recipes.get(self.recipes.currentData())

    def recipe(self) -> Recipe:
        """Make the recipe with the changes in the folded part.

        Raises
        ------
        InvalidSettingError
            If the settings do not go together.
        """
        original = self.original
        if original is None:
            raise InvalidSettingError("there is no recipe for this; choose what to learn")
        adapter, rank = original.adapter, self.rank.value()
        same = adapter.decoder_rank == adapter.rank
        rates = self.rates
        told = adapter.ratio if adapter.ratio != "none" else "located"
        changed = replace(
            original,
            adapter=replace(
                adapter,
                rank=rank,
                blocks=self.blocks.currentData(),
                decoder_rank=rank if same else adapter.decoder_rank,
                ratio=told if self._tells else "none",
            ),
            optimiser=replace(
                original.optimiser,
                lr_encoder=rates["lr_encoder"].value(),
                lr_decoder=rates["lr_decoder"].value(),
                lr_heads=rates["lr_heads"].value(),
            ),
            views=replace(original.views, window=self.side.value() or None),
            epochs=self.epochs.value(),
            views_per_epoch=self.views.value(),
            batch=self.batch.value(),
        )
        if changed == original:
            return original
        return replace(
            changed, name=f"{original.name[:50]}-changed", title=f"{original.title}, changed"
        )

    @property
    def _tells(self) -> bool:
        return self.takes_ratio.isChecked() and self._task == "semantic"

    def base_model(self, chosen_above: str) -> str:
        """Registry name of the model to train."""
        return str(self.base.currentData() or chosen_above)

    # ------------------------------------------------------------------ the user's doing

    def _on_recipe(self, _index: int = 0) -> None:
        self._show_recipe()
        self.changed.emit()

    def _show_recipe(self) -> None:
        recipe = self.original
        if recipe is None:
            return
        boxes = {
            self.epochs: recipe.epochs,
            self.views: recipe.views_per_epoch,
            self.batch: recipe.batch,
            self.rank: recipe.adapter.rank,
            self.side: recipe.views.window or 0,
        }
        for box, value in boxes.items():
            blocker = QSignalBlocker(box)
            box.setValue(value)
            blocker.unblock()
        self.blocks.setEnabled(bool(recipe.adapter.encoder))
        self._show_blocks(recipe.adapter.blocks)
        for name, rate in self.rates.items():
            blocker = QSignalBlocker(rate)
            rate.setValue(getattr(recipe.optimiser, name))
            blocker.unblock()
        blocker = QSignalBlocker(self.takes_ratio)
        self.takes_ratio.setChecked(recipe.adapter.ratio != "none")
        blocker.unblock()
        self.side.setSpecialValueText(_AUTOMATIC if recipe.auto_window else _WHOLE_IMAGE)
        self.description.setText(recipe.description)
        self.recipes.setToolTip(recipe.description)

    def _show_blocks(self, blocks: str) -> None:
        """Show a choice of blocks, also one that is not offered yet."""
        if self.blocks.findData(blocks) < 0:
            self.blocks.addItem(f"from {blocks} on", blocks)
        self.blocks.setCurrentIndex(self.blocks.findData(blocks))

    def adapt_from(self, blocks: str) -> bool:
        """Adapt other blocks of the encoder than the recipe says; False if it adapts none."""
        if not self.blocks.isEnabled():
            return False
        self._show_blocks(blocks)
        self.changed.emit()
        return True

    def _on_setting(self, _value: float) -> None:
        self.changed.emit()

    def _ask_name(self) -> None:
        title, good = QInputDialog.getText(self, "Save recipe", "Name of the recipe:")
        if good and title.strip():
            self.save(title.strip())

    def save(self, title: str) -> None:
        """Keep the present settings among the user's own recipes."""
        name = self._name_for(title)
        verb = "Replaced" if name in self._recipes else "Saved"
        try:
            recipe = self.recipe()
            description = f"Made of {recipe.title}."
            save_recipe(replace(recipe, name=name, title=title, description=description))
        except PhaseSAMError as error:
            self.failed.emit(str(error))
            return
        self.load()
        self.select(name)
        self.saved.emit(f"{verb} the recipe {title}.")
        # Other docks list it, too.
        manager_watch().catalogue_changed.emit()

    def _name_for(self, title: str) -> str:
        """Make the name of a file of a title: the same for the same, another for another."""
        plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:_LONGEST_NAME]
        alike = [r for r in self._recipes.values() if r.name.casefold() == name.casefold()]
        if title.isascii() and name and all(r.title == title for r in alike):
            return name
        return f"{name[: _LONGEST_NAME - 9] or 'recipe'}-{zlib.crc32(title.encode()):08x}"
