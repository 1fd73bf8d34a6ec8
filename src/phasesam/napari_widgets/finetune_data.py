"""Top of *Fine-tune*: what is learnt, and from which labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from phasesam.napari_widgets.class_colours import class_colour
from phasesam.napari_widgets.class_table import ClassRow, ClassTable
from phasesam.napari_widgets.finetune_classes import Classes, Key, classes_of
from phasesam.napari_widgets.layers import pixel_size
from phasesam.napari_widgets.planes import full_resolution
from phasesam.napari_widgets.toggle_row import ToggleRow
from phasesam.napari_widgets.training_layers import doubt_about, object_classes
from phasesam.napari_widgets.training_pairs import ChosenPair, PairTable
from phasesam.napari_widgets.training_request import DataRequest, PairToRead
from phasesam.training.dataset import DataOptions
from phasesam.training.label_values import MOST_CLASSES, check_task

if TYPE_CHECKING:
    from napari.layers import Labels

    from phasesam.napari_widgets.viewer_state import ViewerState
    from phasesam.training.dataset import TrainingData

TASKS = (
    (
        "promptable",
        "Objects from prompts",
        "A click or a box gives the object you mean, with fewer clicks than before.",
    ),
    (
        "instance",
        "All objects",
        "As with prompts; the model also learns what is no object, so that Automatic masks\n"
        "finds all objects of your kind and tells touching ones apart.",
    ),
    (
        "semantic",
        "Phases",
        "Every pixel gets a class, without prompts: maps of phases in the Phases dock.",
    ),
)
_SOURCES = (
    ("layers", "Layers", "Learn from labels in this viewer."),
    (
        "folder",
        "Folder or file",
        "Learn from a folder with images and labels, a CSV table or a COCO file.",
    ),
)
_HINT = (
    "Paint a Labels layer on an image, or keep objects of Prompt or Automatic masks: labels "
    "that fit an image are listed here."
)
_MOST_MISFITS = 3
_ZERO_TIP = (
    "On: only what is painted counts, as with a few strokes per class. The rest is neither\n"
    "learnt nor judged. Off: what is not painted is background."
)


class DataPanel(QWidget):
    """Task, source, and what belongs to them.

    Parameters
    ----------
    state : ViewerState
        Whose layers.
    """

    changed = Signal()
    """Something else is to be learnt."""
    failed = Signal(str)

    def __init__(self, state: ViewerState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._zero_choices: dict[tuple[str, str], bool] = {}
        self._names: WeakKeyDictionary[Labels, dict[Key, str]] = WeakKeyDictionary()
        # By folder and experiment, and the value of the class.
        self._folder_names: dict[tuple[str, str], dict[int, str]] = {}
        self._last_place = ("", "")
        self._classes = Classes(())
        self.task = ToggleRow(TASKS, columns=3)
        self.task.set_current("promptable")
        self.source = ToggleRow(_SOURCES, columns=2)
        self.source.set_current("layers")
        self.pairs = PairTable(state)
        self.path = QLineEdit()
        self.zero = QCheckBox("0 means unlabelled")
        self.zero.setToolTip(_ZERO_TIP)
        self.parts = QCheckBox("Parts are objects")
        self.parts.setToolTip(
            "On: parts of a label that do not touch are objects of their own, for masks in which\n"
            "all particles have the same number."
        )
        self.experiment = QLineEdit()
        self.classes = ClassTable()
        self._lay_out()
        self.task.chosen.connect(self._on_choice)
        self.source.chosen.connect(self._on_choice)
        self.zero.toggled.connect(self._on_zero)
        self.pairs.changed.connect(self._on_pairs)
        self.pairs.failed.connect(self.failed)
        self.parts.toggled.connect(lambda _on: self.changed.emit())
        self.path.editingFinished.connect(self._on_path)
        self.experiment.editingFinished.connect(self._on_path)
        self.classes.renamed.connect(self._on_renamed)
        self._show_choice()
        self._show_classes()

    def _lay_out(self) -> None:
        layers = QWidget()
        column = QVBoxLayout(layers)
        column.setContentsMargins(0, 0, 0, 0)
        self.hint = QLabel(_HINT)
        self.hint.setWordWrap(True)
        column.addWidget(self.pairs)
        column.addWidget(self.hint)
        self._sources = {"layers": layers, "folder": self._make_files()}
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        grid.setContentsMargins(0, 0, 0, 0)
        for number, (text, choice) in enumerate((("Learn", self.task), ("From", self.source))):
            grid.addWidget(QLabel(text), number, 0)
            grid.addWidget(choice, number, 1)
        ticks = QHBoxLayout()
        ticks.addWidget(self.zero)
        ticks.addStretch(1)
        ticks.addWidget(self.parts)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addLayout(grid)
        for part in (*self._sources.values(), self.classes):
            whole.addWidget(part)
        whole.addLayout(ticks)

    def _make_files(self) -> QWidget:
        self.path.setPlaceholderText("folder with images and labels, .csv or .json")
        self.path.setToolTip(
            "A folder with the folders images and labels (matched by the names of the files), a\n"
            "CSV table with the columns image, label, split and specimen, or a COCO file."
        )
        self.experiment.setPlaceholderText("experiment, if a table holds several")
        self.experiment.setToolTip("Rows of the table with this word in the column experiment")
        folder, file = QPushButton("Folder…"), QPushButton("File…")
        folder.clicked.connect(lambda: self._browse(True))
        file.clicked.connect(lambda: self._browse(False))
        files = QWidget()
        grid = QGridLayout(files)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.path, 0, 0)
        grid.addWidget(folder, 0, 1)
        grid.addWidget(file, 0, 2)
        grid.addWidget(self.experiment, 1, 0, 1, 3)
        return files

    # ------------------------------------------------------------------ what was chosen

    @property
    def waits(self) -> bool:
        """Whether labels are still being looked at."""
        return self.source.current == "layers" and self.pairs.is_scanning

    def request(self) -> DataRequest | None:
        """Return what is to be learnt; None if nothing was chosen."""
        task = check_task(self.task.current)
        unlabelled = 0 if self.zero.isChecked() else None
        names = None
        if task == "semantic":
            # While a name is being typed, the table shows what was there before.
            if self.source.current == "layers":
                rows = self._classes.rows
                # So many are objects, as reading them will say.
                names = {row.value: row.name for row in rows[:MOST_CLASSES]} or None
                names = names if len(rows) <= MOST_CLASSES else None
            else:
                names = {value: name for value, name, _ in self.classes.rows()} or None
        parts = self.parts.isChecked() and task != "semantic"
        options = DataOptions(classes=names, unlabelled=unlabelled, components=parts)
        if self.source.current == "folder":
            text = self.path.text().strip()
            path = Path(text).expanduser()
            options = replace(options, experiment=self.experiment.text().strip() or None)
            return DataRequest(task, path.stem or "data", options, path=path) if text else None
        chosen = self.pairs.chosen()
        pairs = tuple(self._to_read(pair) for pair in chosen)
        warnings = tuple(self._warnings(chosen))
        return (
            DataRequest(task, pairs[0].name, options, pairs, warnings=warnings) if pairs else None
        )

    def _warnings(self, chosen: list[ChosenPair]) -> Iterator[str]:
        for name, count in Counter(pair.image.name for pair in chosen).items():
            if count > 1:
                yield (
                    f"{count} layers of labels lie on {name!r}: they are learnt as one, and where "
                    "they overlap, the upper one counts"
                )
        for pair in chosen:
            doubt = doubt_about(self._state, pair.labels, pair.image)
            if doubt:
                yield (
                    f"the labels {pair.labels.name!r} {doubt}; they are learnt pixel by pixel as "
                    f"those of {pair.image.name!r}"
                )

    def _to_read(self, pair: ChosenPair) -> PairToRead:
        is_semantic = self.task.current == "semantic"
        shown = self._state.settings(pair.image)
        return PairToRead(
            pair.image.name,
            full_resolution(pair.image),
            full_resolution(pair.labels),
            pair.planes,
            pixel_size(pair.image),
            self._classes.of_values.get(pair.labels) if is_semantic else None,
            pair.image.name,
            shown.normalisation,
        )

    def colours(self) -> dict[int, QColor]:
        """Colour of each class by its value, as far as layers say it."""
        layers = self.source.current == "layers"
        return {row.value: row.colour for row in self._classes.rows} if layers else {}

    def show_found(self, data: TrainingData) -> None:
        """Show the classes that were found in a folder, as the user named them before."""
        if self.source.current == "folder" and data.task == "semantic":
            known = self._folder_names.get(self._place(), {})
            names = [
                known.get(value, name)
                for value, name in zip(data.class_values, data.classes, strict=True)
            ]
            self.classes.set_rows(
                [
                    ClassRow(value, name, class_colour(index))
                    for index, (value, name) in enumerate(
                        zip(data.class_values, names, strict=True)
                    )
                ]
            )
            self._show_parts()
            if names != list(data.classes):
                self.changed.emit()

    def use_folder(self, path: Path) -> None:
        """Learn from a folder or file."""
        self.source.set_current("folder")
        self.path.setText(str(path))
        self._last_place = self._place()
        self._on_choice()

    def use_task(self, task: str) -> None:
        """Learn something else."""
        self.task.set_current(task)
        self._on_choice()

    # ------------------------------------------------------------------ the user's doing

    def _browse(self, for_folder: bool) -> None:
        start = self.path.text()
        if for_folder:
            path = QFileDialog.getExistingDirectory(self, "Images and labels to learn from", start)
        else:
            path, _ = QFileDialog.getOpenFileName(
                self,
                "Images and labels to learn from",
                start,
                "Tables and COCO files (*.csv *.json);;Images (*.tif *.tiff);;All files (*)",
            )
        if path:
            self.use_folder(Path(path))

    def _on_choice(self, _key: str = "") -> None:
        self._show_choice()
        self._show_classes()
        self.changed.emit()

    def _on_path(self) -> None:
        if self._place() != self._last_place:
            self._last_place = self._place()
            self._on_choice()

    def _place(self) -> tuple[str, str]:
        return self.path.text().strip(), self.experiment.text().strip()

    def _on_zero(self, on: bool) -> None:
        self._zero_choices[self.source.current, self.task.current] = on
        self._on_choice()

    def _on_pairs(self) -> None:
        self._show_zero()
        self._show_classes()
        self.changed.emit()

    def _on_renamed(self, value: int, name: str) -> None:
        if self.source.current == "layers":
            for labels, key in self._classes.sources.get(value, ()):
                self._names.setdefault(labels, {})[key] = name
            self._show_classes()
        else:
            names = self._folder_names.setdefault(self._place(), {})
            names.pop(value, None)
            if name:
                names[value] = name
        self.changed.emit()

    # ------------------------------------------------------------------ showing

    def _show_choice(self) -> None:
        self._show_zero()
        # Classes of a folder are found anew; see `show_found`.
        self.classes.set_rows(())
        for key, widget in self._sources.items():
            widget.setVisible(key == self.source.current)

    def _show_zero(self) -> None:
        """Tick what 0 means, as the user did last, or as is usual."""
        key = self.source.current, self.task.current
        # Around committed objects is background; between strokes there is nothing known.
        painted = any(object_classes(pair.labels) is None for pair in self.pairs.chosen())
        usual = key == ("layers", "semantic") and painted
        blocker = QSignalBlocker(self.zero)
        self.zero.setChecked(self._zero_choices.get(key, usual))
        blocker.unblock()

    def _show_classes(self) -> None:
        """Show the classes of the layers; those of a folder come with `show_found`."""
        if self.source.current == "layers":
            self._classes = classes_of(self.pairs.chosen(), self._names, not self.zero.isChecked())
            self.classes.set_rows(self._classes.rows)
        self._show_parts()

    def _show_parts(self) -> None:
        layers = self.source.current == "layers"
        misfits = list(self.pairs.misfits)
        if len(misfits) > _MOST_MISFITS:
            misfits[_MOST_MISFITS:] = [f"And {len(misfits) - _MOST_MISFITS} more do not fit."]
        self.hint.setText("\n".join([*misfits, *(() if self.pairs.has_rows else (_HINT,))]))
        self.hint.setVisible(layers and bool(self.hint.text()))
        self.pairs.setVisible(self.pairs.has_rows)
        has_classes = bool(self.classes.rows())
        is_semantic = self.task.current == "semantic"
        self.classes.setVisible(is_semantic and has_classes)
        self.parts.setVisible(not is_semantic)
