"""Second page of *Fine-tune*: a training under way, or what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from phasesam.napari_widgets.finetune_result import ResultCard
from phasesam.napari_widgets.training_curves import CurvePlot
from phasesam.napari_widgets.training_figures import base_row, best_row, score_title
from phasesam.napari_widgets.training_preview import PreviewView

if TYPE_CHECKING:
    from phasesam.napari_widgets.training_run import RunFacts
    from phasesam.napari_widgets.training_watch import Glance
    from phasesam.training.run_folder import RunStatus

# Okabe-Ito: sky blue and orange on dark grey, blue and vermilion on white.
_LOSS = QColor("#56B4E9"), QColor("#0072B2")
_SCORE = QColor("#E69F00"), QColor("#D55E00")
_TASKS = {"promptable": "objects from prompts", "instance": "all objects", "semantic": "phases"}


class RunPanel(QWidget):
    """Curves, a picture, and what can be done next."""

    resume_requested = Signal()
    new_requested = Signal()
    folder_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.loss = CurvePlot("Loss", *_LOSS)
        self.loss.setToolTip("What training minimises, as a mean over each epoch")
        self.score = CurvePlot("Validation score", *_SCORE)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.preview = PreviewView()
        self.result = ResultCard()
        self.resume = self._button("Resume", "Go on from what was kept last", self.resume_requested)
        self.folder = self._button(
            "Open folder", "Settings, log and checkpoint of this training", self.folder_requested
        )
        self.new = self._button(
            "New training", "Back to data and recipe; this one stays listed", self.new_requested
        )
        self._lay_out()

    def _button(self, text: str, tip: str, signal: Signal) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda *_: signal.emit())
        return button

    def _lay_out(self) -> None:
        curves = QHBoxLayout()
        curves.setSpacing(12)
        curves.addWidget(self.loss)
        curves.addWidget(self.score)
        buttons = QHBoxLayout()
        for button in (self.resume, self.folder, self.new):
            buttons.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.title)
        column.addLayout(curves)
        column.addWidget(self.state)
        column.addWidget(self.preview)
        column.addWidget(self.result)
        column.addLayout(buttons)
        column.addStretch(1)

    # ------------------------------------------------------------------ showing

    def begin(self, name: str, facts: RunFacts, *, goes_on: bool = False) -> None:
        """Show a training from its beginning.

        Parameters
        ----------
        name : str
            What it is called.
        facts : RunFacts
            What it learns, and how.
        goes_on : bool
            Whether curves and picture of it are there already.
        """
        words = [_TASKS.get(facts.task, ""), facts.recipe, facts.base]
        self.title.setText(" · ".join([f"<b>{name}</b>", *filter(None, words)]))
        self.score.setToolTip(
            f"On the validation images: {score_title(facts.task)}. 1 is perfect.\n"
            "The circle marks the epoch that is kept, the dashed line the model before."
        )
        if not goes_on:
            self._show_curves((), 1)
            self.preview.set_picture(None)
            self.state.setText("")
        self.result.hide()
        self.show_buttons(running=True, can_resume=False)

    def show_glance(self, glance: Glance) -> None:
        """Show how far the training is."""
        self._show_curves(glance.rows, glance.status.epochs)
        if glance.picture is not None:
            self.preview.set_picture(glance.picture)
        self.state.setText(progress_text(glance.status, glance.rows))

    def _show_curves(self, rows: Sequence[Mapping[str, float]], epochs: int) -> None:
        trained = [row for row in rows if row.get("epoch", 0) > 0]
        best, base = best_row(rows), base_row(rows)
        marked = None if best is None else best["epoch"]
        self.loss.set_points([(r["epoch"], r["loss"]) for r in trained if "loss" in r], epochs)
        self.score.set_points(
            [(r["epoch"], r["val_score"]) for r in trained if "val_score" in r],
            epochs,
            marked=marked,
            base=None if base is None else base.get("val_score"),
        )

    def show_buttons(self, *, running: bool, can_resume: bool) -> None:
        """Offer what can be done now."""
        self.resume.setVisible(not running and can_resume)
        for button in (self.folder, self.new):
            button.setVisible(not running)


def progress_text(status: RunStatus, rows: Sequence[Mapping[str, float]]) -> str:
    """Say epoch and scores in one line."""
    if status.state == "preparing":
        return f"Preparing: {status.message} …" if status.message else "Preparing …"
    epoch = min(status.epoch + 1, status.epochs)
    words = [f"epoch {epoch} of {status.epochs}"]
    if status.is_over:
        done = f"{status.epoch} of {status.epochs} epochs"
        words = [done if status.epochs else "before the first epoch"]
    best = best_row(rows)
    if best is not None and "val_score" in best:
        words.append(f"best score {best['val_score']:.3f} in epoch {best['epoch']:.0f}")
    text = " · ".join(words)
    return text[:1].upper() + text[1:]
