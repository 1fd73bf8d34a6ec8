"""The *Fine-tune* dock: from labels to a model that knows one's own material."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QColor, QShowEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QMenu, QPushButton, QVBoxLayout, QWidget

from phasesam.core.errors import InvalidSettingError, PhaseSAMError
from phasesam.models.adapter_store import get_adapter
from phasesam.models.manager import get_manager
from phasesam.napari_widgets.class_colours import class_colour
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.finetune_data import DataPanel
from phasesam.napari_widgets.finetune_recipe import RecipePanel
from phasesam.napari_widgets.finetune_summary import SummaryView
from phasesam.napari_widgets.finetune_training import TrainingPage
from phasesam.napari_widgets.header import Status
from phasesam.napari_widgets.interrupted_run import InterruptedRun
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.training_estimate import in_words, notes
from phasesam.napari_widgets.training_run import (
    EarlierRun,
    TrainingRun,
    any_ending,
    earlier_runs,
    new_run,
    write_training,
)
from phasesam.napari_widgets.workers import Failure, Lane, Task, run_in_background
from phasesam.training.data_checks import DataSummary, check
from phasesam.training.run_folder import RunFolder
from phasesam.training.settings import TrainingSettings

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from phasesam.napari_widgets.training_request import DataRequest
    from phasesam.training.dataset import TrainingData

_SETTLE_MS = 300
_ESTIMATE_MS = 600
_ENDING_MS = 1000
_NOTHING = "Tick labels, or choose a folder, to see what will be learnt."
_WAITING = "Looking at the labels …"


class FineTuneDock(Dock):
    """Choose labels and a recipe, watch the training, use the result.

    The training runs in a process of its own. It is stopped when the dock is closed, and
    can be resumed from its checkpoint.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in; napari fills this in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.data = DataPanel(self.state)
        self.summary = SummaryView()
        self.recipe = RecipePanel()
        self.memory = QLabel()
        self.memory.setWordWrap(True)
        self.interrupted = InterruptedRun()
        self.page = TrainingPage(self)
        self._make_start()
        self._checking: Task | None = None
        self._found: tuple[TrainingData, DataSummary] | None = None
        self._fractions: tuple[float, float, float] | None = None
        self._estimates = Lane(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self.check)
        self._estimate_timer = QTimer(self)
        self._estimate_timer.setSingleShot(True)
        self._estimate_timer.setInterval(_ESTIMATE_MS)
        self._estimate_timer.timeout.connect(self._estimate)
        self._ending_timer = QTimer(self)
        self._ending_timer.setSingleShot(True)
        self._ending_timer.setInterval(_ENDING_MS)
        self._ending_timer.timeout.connect(self._list_earlier)
        self._lay_out_pages()
        self._connect()
        self.show_setup()

    def _make_start(self) -> None:
        self.start_button = QPushButton("Start training")
        self.start_button.setToolTip(
            "Train in the background. napari can be used meanwhile; closing it stops the\n"
            "training, which can be resumed."
        )
        self.earlier = QPushButton("Earlier trainings")
        self.earlier.setToolTip("Trainings on this computer: their curves and results")
        self.earlier.setMenu(QMenu(self.earlier))

    def _lay_out_pages(self) -> None:
        self.setup = QWidget()
        column = QVBoxLayout(self.setup)
        column.setContentsMargins(0, 0, 0, 0)
        start = QHBoxLayout()
        start.addWidget(self.start_button, 1)
        start.addWidget(self.earlier)
        for heading, part in (
            ("", self.interrupted),
            ("", self.data),
            ("What will be learnt", self.summary),
            ("How", self.recipe),
        ):
            if heading:
                column.addSpacing(4)
                column.addWidget(QLabel(f"<b>{heading}</b>"))
            column.addWidget(part)
        column.addWidget(self.memory)
        column.addLayout(start)
        self.body.addWidget(self.setup)
        self.body.addWidget(self.page)
        for label, widget, tooltip in self.recipe.advanced_rows():
            self.add_advanced(label, widget, tooltip)

    def _connect(self) -> None:
        self.data.changed.connect(self.ask_for_check)
        self.recipe.changed.connect(self._on_recipe)
        self.recipe.saved.connect(self.show_result)
        manager_watch().catalogue_changed.connect(self.recipe.load)
        for part in (self.data, self.recipe):
            part.failed.connect(self.show_error)
        for problem in self.recipe.problems:
            self.show_error(problem)
        self.start_button.clicked.connect(lambda *_: self.train())
        self.interrupted.resume_requested.connect(self.resume_earlier)
        self.page.new_requested.connect(self.show_setup)
        self.subscriptions.connect(self.state.events.model_changed, self._on_model)
        # Not `self.page.stop`: the dock may be gone by then.
        self.subscriptions.add(self.page.stopper())

    # ------------------------------------------------------------------ what will be learnt

    def show_setup(self) -> None:
        """Go back to data and recipe."""
        self.page.leave()
        self.page.hide()
        self.setup.show()
        self.advanced.show()
        self._list_earlier()
        self.ask_for_check()

    def ask_for_check(self) -> None:
        """Look at the data again as soon as nothing changes any more."""
        self.recipe.set_task(self.data.task.current)
        if self._checking is not None:
            self._checking.abandon()
            self._checking = None
        self._found = None
        self._timer.start()
        self._show_start()

    def check(self) -> None:
        """Look at the data in the background and say what will be learnt."""
        if not self.setup.isVisible():
            return  # behind another dock: when it is shown
        request = self._request()
        if request is None:
            self.summary.show_nothing(_WAITING if self.data.waits else _NOTHING)
            self._say_memory("")
            return

        def job(progress: Any, should_stop: Any) -> tuple[TrainingData, DataSummary]:
            data = request.read(should_stop)
            return data, check(data, progress=progress, should_stop=should_stop)

        self.summary.show_nothing(_WAITING)
        self._checking = run_in_background(
            job,
            on_done=self._on_checked,
            on_failed=self._on_check_failed,
            on_progress=self.summary.show_progress,
            parent=self,
        )

    def _request(self) -> DataRequest | None:
        request = self.data.request()
        recipe = self.recipe.original
        if request is None or recipe is None:
            return request
        self._fractions = recipe.fractions
        return request.with_fractions(recipe.fractions)

    def _on_checked(self, found: tuple[TrainingData, DataSummary]) -> None:
        self._checking, self._found = None, found
        data, summary = found
        self.data.show_found(data)
        self.summary.show_summary(data, summary, self._colours(data))
        self._show_start()
        self._estimate_timer.start()

    def _colours(self, data: TrainingData) -> list[QColor]:
        """Colours of the classes, as in the table of classes."""
        known = self.data.colours()
        return [
            known.get(value, class_colour(index)) for index, value in enumerate(data.class_values)
        ]

    def _on_check_failed(self, failure: Failure) -> None:
        self._checking = None
        self.summary.show_error(failure.message)
        self.summary.warnings.setToolTip(failure.details)
        self._say_memory("")
        self._show_start()

    def _show_start(self) -> None:
        self.start_button.setEnabled(self._found is not None and not self.running)
        self.earlier.setEnabled(bool(self.earlier.menu().actions()) and not self.running)
        self.interrupted.setEnabled(not self.running)

    def _estimate(self) -> None:
        """Say how much memory and time the training will need."""
        if self._found is None:
            return
        try:
            settings = self.settings()
            data, summary = self._found
            noted = notes(settings, self.state.adapter, data.task, summary.objects)
        except PhaseSAMError as error:
            self._say_memory(str(error))
            return
        classes = len(data.classes)
        self._estimates.submit(
            lambda _progress, stop: in_words(settings, data.task, classes, stop),
            lambda said: self._say_memory(f"{said[0]} {noted}".strip(), said[1]),
            lambda _failure: None,
        )

    def _say_memory(self, text: str, is_tight: bool = False) -> None:
        self.memory.setText(text)
        self.memory.setStyleSheet("color: #e69f00;" if is_tight else "")
        self.memory.setVisible(bool(text))

    def _on_recipe(self) -> None:
        """Divide the images anew if the recipe says so; else only the memory is another."""
        recipe = self.recipe.original
        if recipe is not None and recipe.fractions == self._fractions:
            self._estimate_timer.start()
        else:
            self.ask_for_check()

    def _on_model(self, _name: str) -> None:
        self._estimate_timer.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Look at what changed while the dock was behind another one."""
        super().showEvent(event)
        if self._found is None and self._checking is None:
            self._timer.start()

    # ------------------------------------------------------------------ training

    def settings(self) -> TrainingSettings:
        """Put together what was chosen.

        Raises
        ------
        InvalidSettingError
            If the settings do not go together.
        """
        base = self.recipe.base_model(self.state.model_name)
        device = get_manager().status().device
        colours = () if self._found is None else self._colours(self._found[0])
        names = tuple(colour.name() for colour in colours)
        return TrainingSettings(
            self.recipe.recipe(), base, device=device, class_colours=names, start=self._start(base)
        )

    def _start(self, base: str) -> str:
        """File of the adapter to go on from; empty for none."""
        if not self.recipe.goes_on.isChecked():
            return ""
        if self.state.adapter is None or base != self.state.model_name:
            raise InvalidSettingError(
                "there is no adapter to go on from: choose one beside the image, and its base"
            )
        return str(get_adapter(self.state.adapter).path)

    def train(self) -> None:
        """Write the data into a folder and start a process that learns from them."""
        request = self._request()
        if request is None or self._found is None:
            self.show_error("There is nothing to learn from yet: tick labels or choose a folder.")
            return
        try:
            settings = self.settings()
        except PhaseSAMError as error:
            self.show_error(str(error))
            return
        run = new_run(request.name)

        def job(progress: Any, should_stop: Any) -> None:
            write_training(run, request, settings, progress, should_stop)

        self.start(
            job,
            title="Writing the data",
            on_done=lambda _: self._begin(TrainingRun(run)),
        )
        self._show_start()

    def _begin(self, training: TrainingRun) -> None:
        self._show_page()
        self.page.begin(training)

    def _show_page(self) -> None:
        self._timer.stop()
        self.setup.hide()
        self.advanced.hide()
        self.page.show()

    # ------------------------------------------------------------------ earlier trainings

    def _list_earlier(self) -> None:
        run_in_background(
            lambda _progress, _stop: earlier_runs(), on_done=self._on_earlier, parent=self
        )

    def _on_earlier(self, runs: list[EarlierRun]) -> None:
        menu = self.earlier.menu()
        menu.clear()
        for run in runs:
            action = menu.addAction(run.title)
            action.setToolTip(str(run.path))
            action.triggered.connect(lambda _on=False, run=run: self.open_earlier(run))
        self._show_start()
        newest = runs[0] if runs else None
        unfinished = newest is not None and newest.can_resume
        self.interrupted.offer(newest if unfinished else None)
        # One that was cancelled may still save: it is listed when it has ended.
        if any_ending() and self.setup.isVisible():
            self._ending_timer.start()

    def open_earlier(self, run: EarlierRun) -> None:
        """Look at a training that is over."""
        self._turn_to(run, self.page.open)

    def resume_earlier(self, run: EarlierRun) -> None:
        """Go on with a training that was interrupted."""
        self._turn_to(run, self.page.go_on)

    def _turn_to(self, run: EarlierRun, show: Callable[[TrainingRun], None]) -> None:
        """Show a training, unless something is under way or its folder has gone meanwhile."""
        if self.running:
            return
        if not run.path.is_dir():
            self.show_error(f"The folder of this training is gone: {run.path}")
            self._list_earlier()
            return
        self._show_page()
        show(TrainingRun(RunFolder(run.path)))

    # ------------------------------------------------------------------ the frame of the dock

    def _finish(self, status: Status) -> None:
        super()._finish(status)
        self._show_start()

    @property
    def running(self) -> bool:
        """Whether data are being written, a training runs, or a result is being used."""
        return super().running or self.page.running

    def cancel(self) -> None:
        """Stop what is under way."""
        if super().running:
            super().cancel()
        else:
            self.page.cancel()

    def adapt_from(self, blocks: str) -> bool:
        """Adapt the encoder from a layer on in the next training; see `AdapterConfig.blocks`.

        Returns
        -------
        bool
            False if the recipe that is chosen leaves the encoder alone.
        """
        if not self.running:
            self.show_setup()
        return self.recipe.adapt_from(blocks)

    def use_folder(self, path: str | Path) -> None:
        """Learn from a folder or file."""
        self.data.use_folder(Path(path))
