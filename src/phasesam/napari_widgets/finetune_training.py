"""Second page of *Fine-tune*: starts, watches and ends one training, and uses its result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from phasesam.core.errors import PhaseSAMError, SaveError
from phasesam.formats.atomic import atomic_file
from phasesam.models.adapter_card import AdapterCard, read_card
from phasesam.models.adapter_store import AdapterEntry, import_adapter, list_adapters
from phasesam.napari_widgets.finetune_run import RunPanel
from phasesam.napari_widgets.footer import duration_text
from phasesam.napari_widgets.header import Status
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.training_figures import best_row, figures, score_title
from phasesam.napari_widgets.training_run import RunFacts, TrainingRun, plain_name
from phasesam.napari_widgets.training_watch import Glance, TrainingWatch
from phasesam.napari_widgets.workers import Failure, run_in_background
from phasesam.training.run_folder import DIED, OTHER

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock
    from phasesam.training.run_folder import RunStatus

_ADVICE = (
    "Resume goes on from what was kept, with this data and recipe; the folder has the details."
)
_ANEW = "Change data or recipe and start anew; the folder has the details."


class TrainingPage(QWidget):
    """One training at a time: under way, or what became of it.

    Parameters
    ----------
    dock : Dock
        Has the footer and the status dot.
    """

    new_requested = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock = dock
        # Shared with what runs when the dock is gone.
        self._present: list[TrainingRun] = []
        self._watch: TrainingWatch | None = None
        self._last: Glance | None = None
        self.facts = RunFacts()
        self.panel = RunPanel()
        self.pause_button = QPushButton("Pause")
        self.pause_button.setToolTip("Wait after the present step, with everything in memory")
        self.pause_button.hide()
        dock.footer.add_button(self.pause_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.panel)
        self.pause_button.clicked.connect(lambda *_: self.pause_or_go_on())
        self.panel.resume_requested.connect(self.resume)
        self.panel.new_requested.connect(self.new_requested)
        self.panel.folder_requested.connect(self._open_folder)
        self.panel.result.use_requested.connect(self.use)
        self.panel.result.export_requested.connect(self._choose_file)

    # ------------------------------------------------------------------ one training

    @property
    def training(self) -> TrainingRun | None:
        """The training that is shown."""
        return self._present[0] if self._present else None

    @property
    def running(self) -> bool:
        """Whether it is under way; a process takes a while to end after its last word."""
        is_over = self._last is not None and self._last.status.is_over
        return self.training is not None and self.training.is_running and not is_over

    def begin(self, training: TrainingRun) -> None:
        """Start what was prepared in the folder of a training."""
        goes_on = training is self.training
        try:
            training.begin()
        except (PhaseSAMError, OSError) as error:
            self._dock.show_error(f"The training could not be started: {error}")
            return
        self._follow(training, goes_on=goes_on)
        self.pause_button.setText("Pause")
        self.pause_button.setEnabled(True)
        self.pause_button.show()
        self._dock.footer.begin("Training")
        self._dock.header.dot.set_status(Status.WORKING)

    def go_on(self, training: TrainingRun) -> None:
        """Go on with a training that was interrupted."""

        def job(_progress: Any, _stop: Any) -> None:
            training.prepare()

        def failed(_failure: Failure) -> None:
            if training is not self.training:
                self.new_requested.emit()

        self._dock.start(
            job, title="Resuming", on_done=lambda _: self.begin(training), on_failed=failed
        )

    def open(self, training: TrainingRun) -> None:
        """Show a training that is over."""
        self._follow(training)

    def _follow(self, training: TrainingRun, *, goes_on: bool = False) -> None:
        self._stop_watching()
        self._last = None
        self._present[:] = [training]
        self.facts = RunFacts.read(training.folder)
        self.panel.begin(training.name, self.facts, goes_on=goes_on)
        self._watch = TrainingWatch(training, self)
        self._watch.seen.connect(self._on_glance)
        self._watch.start()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch.deleteLater()
        self._watch = None

    def leave(self) -> None:
        """Show no training any more; one that runs is stopped."""
        self.cancel()
        self._stop_watching()
        self._present.clear()
        self.pause_button.hide()

    def stopper(self) -> Callable[[], None]:
        """Make what stops the training when the dock is gone."""
        present = self._present

        def stop() -> None:
            for training in present:
                training.cancel()
                training.status()

        return stop

    # ------------------------------------------------------------------ the user's doing

    def pause_or_go_on(self) -> None:
        """Let the training wait, or go on."""
        if self.training is None or not self.running:
            return
        folder = self.training.folder
        try:
            if folder.is_paused:
                folder.resume()
            else:
                folder.pause()
        except SaveError as error:
            self._dock.show_error(str(error))
        self.pause_button.setText("Go on" if folder.is_paused else "Pause")

    def cancel(self) -> None:
        """Stop the training; its checkpoint is kept."""
        if self.training is not None and self.running:
            self.training.cancel()
            self.pause_button.setEnabled(False)
            self._dock.footer.stopping()

    def resume(self) -> None:
        """Go on from the checkpoint."""
        if self.training is not None:
            self.go_on(self.training)

    def _open_folder(self) -> None:
        if self.training is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.training.folder.path)))

    # ------------------------------------------------------------------ watching

    def _on_glance(self, glance: Glance) -> None:
        self._last = glance
        self.panel.show_glance(glance)
        if glance.status.is_over:
            self._on_over(glance)
        elif not self.running:
            # In another window: it can be looked at, and left.
            self.panel.show_buttons(running=False, can_resume=False)
        elif self._dock.footer.cancel.isEnabled():
            self._dock.header.dot.set_status(Status.WORKING)
            self._show_footer(glance.status)

    def _show_footer(self, status: RunStatus) -> None:
        footer = self._dock.footer
        footer.bar.setRange(0, status.steps)
        footer.bar.setValue(status.step)
        words = {
            "preparing": "Preparing the training …", "paused": "Training paused",
            "finishing": "Finding the threshold of the scores …",
        }  # fmt: skip
        text = words.get(status.state, "Training …")
        if status.seconds_left and status.state == "training":
            text += f" · about {duration_text(status.seconds_left)} left"
        footer.running_text.setText(text)

    def _on_over(self, glance: Glance) -> None:
        training, status = self.training, glance.status
        if training is None:
            return
        self.pause_button.hide()
        self._dock.footer.end()
        self._dock.header.dot.set_status(Status.IDLE)
        can_resume = status.state != "finished" and training.has_checkpoint
        self.panel.show_buttons(running=False, can_resume=can_resume)
        if status.state == "failed":
            self._dock.show_error(failure_text(status, can_resume), details=glance.output)
        elif status.state == "cancelled":
            where = f" after {status.epoch} of {status.epochs} epochs" if status.epochs else ""
            advice = " Resume goes on from there." if can_resume else ""
            self._dock.show_result(f"Training stopped{where}.{advice}")
        else:
            seconds = glance.rows[-1].get("seconds") if glance.rows else None
            took = f" in {duration_text(seconds)}" if seconds else ""
            self._dock.show_result(f"Training finished{took}.")
        if training.folder.best_file.is_file():
            self._show_result(training, glance)

    def _show_result(self, training: TrainingRun, glance: Glance) -> None:
        """Read the card of the adapter, and find a name that is free."""
        best = training.folder.best_file

        def job(_progress: Any, _stop: Any) -> tuple[AdapterCard, str]:
            return read_card(best), free_name(training.name)

        def done(found: tuple[AdapterCard, str]) -> None:
            card, name = found
            if training is not self.training:
                return
            lines = figures(glance.rows, card.task, card.classes)
            sentence = result_text(glance, card.task)
            self.panel.result.show_result(sentence, lines, name)

        def failed(failure: Failure) -> None:
            self._dock.show_error(failure.message, details=failure.details)

        run_in_background(job, on_done=done, on_failed=failed, parent=self)

    # ------------------------------------------------------------------ the result

    def use(self, name: str) -> None:
        """Keep the adapter under a name and work with it in all docks."""
        training = self.training
        if training is None:
            return
        best = training.folder.best_file
        dock = self._dock

        def done(entry: AdapterEntry) -> None:
            manager_watch().catalogue_changed.emit()
            if entry.card is not None:
                dock.state.choose_model(entry.card.base, entry.name)
            where = "The Phases dock maps" if self.facts.task == "semantic" else "All docks work"
            dock.show_result(f"{where} with {entry.name} now; it is listed in Models.")

        dock.start(
            lambda _progress, _stop: import_adapter(best, name),
            title="Keeping the adapter",
            on_done=done,
        )

    def _choose_file(self) -> None:
        name = self.panel.result.name.text() or "adapter"
        path, _ = QFileDialog.getSaveFileName(
            self, "Export the adapter", f"{name}.safetensors", "Adapters (*.safetensors)"
        )
        if path:
            self.export(Path(path))

    def export(self, path: Path) -> None:
        """Save the adapter as a file."""
        training = self.training
        if training is None:
            return
        best = training.folder.best_file

        def job(_progress: Any, _stop: Any) -> None:
            with best.open("rb") as source, atomic_file(path) as target:
                shutil.copyfileobj(source, target)

        self._dock.start(
            job,
            title="Exporting the adapter",
            on_done=lambda _: self._dock.show_result(f"Saved {path.name}."),
            must_finish=True,
        )


def failure_text(status: RunStatus, can_resume: bool) -> str:
    """Say why a training failed and what to do."""
    message = status.message.rstrip(".") or "unknown reason"
    if OTHER in message:
        # As often as it is resumed, unless what was changed is put back.
        return f"{message}."
    advice = _ADVICE if can_resume else _ANEW
    # Errors that we raise say themselves what to do; their last sentence stays.
    return f"Training failed: {message}. {advice}" if message == DIED else f"{message}. {advice}"


def result_text(glance: Glance, task: str) -> str:
    """Say the result in one sentence."""
    best = best_row(glance.rows)
    if best is None:
        return "An adapter was kept."
    epoch = f"epoch {best['epoch']:.0f}"
    if "val_score" not in best:
        return f"The adapter of {epoch} was kept; there was no image to validate it on."
    so_far = "" if glance.status.state == "finished" else " so far"
    return f"Best{so_far}: {score_title(task)} <b>{best['val_score']:.3f}</b> in {epoch}"


def free_name(wanted: str) -> str:
    """Find a name that no adapter of the store has; for workers."""
    name = plain_name(wanted)
    taken = {entry.name.casefold() for entry in list_adapters()}
    number, found = 2, name
    while found.casefold() in taken:
        found = f"{name}-{number}"
        number += 1
    return found
