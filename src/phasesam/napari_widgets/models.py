"""The Models dock: which models and adapters there are, and what is in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QGridLayout, QPushButton

from phasesam.core.errors import PhaseSAMError
from phasesam.models.adapter_card import is_adapter
from phasesam.models.adapter_store import (
    AdapterEntry,
    import_adapter,
    list_adapters,
    remove_adapter,
)
from phasesam.models.manager import get_manager
from phasesam.models.memory import format_bytes
from phasesam.models.registry import (
    DEFAULT_MODEL,
    ModelSpec,
    forget,
    get_spec,
    import_checkpoint,
    locate,
    where,
)
from phasesam.napari_widgets.device_panel import DevicePanel
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.header import Status
from phasesam.napari_widgets.merged_file import (
    MERGE_TIP,
    ask_for_file,
    merging,
    why_not_mergeable,
)
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.model_table import Choice, ModelTable
from phasesam.napari_widgets.strength_row import AdapterOnModel, StrengthRow
from phasesam.napari_widgets.viewer_state import announce_adapter
from phasesam.napari_widgets.workers import Failure, Lane

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.models.ledger import ResidentModel

_NAME_LENGTH = 60


class ModelsDock(Dock):
    """Load, unload, download and import models and adapters; choose device and memory budget.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Filled in by napari.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(napari_viewer)
        # One for each: the newest strength of an adapter replaces none of another.
        self._strengths: dict[AdapterOnModel, Lane] = {}
        self._make_widgets()
        watch = manager_watch()
        watch.changed.connect(self.refresh)
        watch.catalogue_changed.connect(self.refresh)
        self.subscriptions.connect(self.state.events.model_changed, self._on_model_changed)
        self.refresh()
        self.table.select(Choice(self.state.model_name, self.state.adapter))

    def _make_widgets(self) -> None:
        self.table = ModelTable()
        self.table.itemSelectionChanged.connect(self._refresh_buttons)
        self.table.itemDoubleClicked.connect(lambda *_: self.use())
        self.strength = StrengthRow()
        self.strength.changed.connect(self._on_strength)
        self.devices = DevicePanel()
        self.devices.device_chosen.connect(self._on_device)
        self.devices.budget_chosen.connect(self._on_budget)
        self.body.addWidget(self.table)
        self.body.addWidget(self.strength)
        self._make_buttons()
        self.body.addWidget(self.devices)

    def _make_buttons(self) -> None:
        self.use_button = self._button("Use", "Segment with it in all docks", self.use)
        self.load_button = self._button(
            "Load", "Bring it into memory now, so that the first click is fast", self.load
        )
        self.unload_button = self._button(
            "Unload", "Give its memory back; it loads again when needed", self.unload
        )
        self.download_button = self._button(
            "Download", "Fetch the weights; they are checked and kept on disk", self.download
        )
        self.import_button = self._button(
            "Import…",
            "Add a checkpoint of the SAM family, or an adapter, from a file",
            self.choose_file,
        )
        self.merge_button = self._button("Merge…", MERGE_TIP, self.choose_merged_file)
        self.forget_button = self._button(
            "Remove", "Remove an imported model or an adapter, with its file", self.forget
        )
        buttons = QGridLayout()
        for number, button in enumerate(
            (
                self.use_button,
                self.load_button,
                self.unload_button,
                self.download_button,
                self.import_button,
                self.merge_button,
                self.forget_button,
            )
        ):
            buttons.addWidget(button, number // 3, number % 3)
        self.body.addLayout(buttons)

    def _button(self, text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda *_: action())
        return button

    # ------------------------------------------------------------------ what is there

    @property
    def selected(self) -> ModelSpec | None:
        """The model chosen in the table, or the base of the adapter chosen."""
        choice = self.table.choice
        try:
            return get_spec(choice.model) if choice is not None and choice.model else None
        except PhaseSAMError:
            return None  # gone since the table was filled

    @property
    def selected_adapter(self) -> AdapterEntry | None:
        """The adapter chosen in the table."""
        choice = self.table.choice
        if choice is None or choice.adapter is None:
            return None
        return next((entry for entry in list_adapters() if entry.name == choice.adapter), None)

    def refresh(self) -> None:
        """Show the present state of all models and of the memory."""
        resident: dict[Choice, list[str]] = {}
        for model in self._resident():
            state = "loading" if model.loading else format_bytes(model.bytes)
            resident.setdefault(Choice(model.name, model.adapter), []).append(
                f"{model.device} · {state}"
            )
        self.table.fill(Choice(self.state.model_name, self.state.adapter), resident)
        self._refresh_buttons()
        self.devices.refresh()

    def _resident(self) -> Sequence[ResidentModel]:
        """List what is in memory; nothing while the settings of the manager make no sense."""
        try:
            return get_manager().resident()
        except PhaseSAMError as error:
            self.show_error(str(error))
            return ()

    def _refresh_buttons(self) -> None:
        spec, adapter, choice = self.selected, self.selected_adapter, self.table.choice
        used = Choice(self.state.model_name, self.state.adapter)
        usable = spec is not None and (adapter is None or adapter.card is not None)
        loaded = False
        if spec is not None:
            names = {Choice(m.name, m.adapter) for m in self._resident()}
            loaded = choice in names
        self.use_button.setEnabled(usable and choice != used)
        self.load_button.setEnabled(usable and not loaded)
        self.unload_button.setEnabled(loaded)
        on_model = spec is not None and adapter is None
        self.download_button.setEnabled(
            on_model and spec is not None and where(spec) == "to download"
        )
        own = spec is not None and spec.url is None and where(spec) in ("on disk", "missing")
        removable = adapter is not None and not adapter.is_bundled
        self.forget_button.setEnabled(removable or (on_model and own))
        self._refresh_adapter(spec, adapter)

    def _refresh_adapter(self, spec: ModelSpec | None, adapter: AdapterEntry | None) -> None:
        reason = why_not_mergeable(adapter if spec is not None else None)
        self.merge_button.setEnabled(not reason)
        self.merge_button.setToolTip(reason or MERGE_TIP)
        if spec is None or adapter is None or adapter.card is None:
            self.strength.clear()
            return
        try:
            strength = get_manager().adapter_strength(spec.name, adapter.name)
        except PhaseSAMError:
            self.strength.clear()  # gone since the table was filled
        else:
            self.strength.show_strength(AdapterOnModel(spec.name, adapter.name), strength)

    def _title(self, spec: ModelSpec, adapter: AdapterEntry | None) -> str:
        return spec.title if adapter is None else f"{spec.title} + {adapter.title}"

    def _on_model_changed(self, _name: str) -> None:
        self.refresh()

    # ------------------------------------------------------------------ actions

    def use(self) -> None:
        """Segment with the chosen model or adapter in all docks of this viewer."""
        spec, adapter = self.selected, self.selected_adapter
        if spec is not None and (adapter is None or adapter.card is not None):
            self.state.choose_model(spec.name, None if adapter is None else adapter.name)
            self.show_result(f"All docks of this viewer now use {self._title(spec, adapter)}.")

    def load(self) -> None:
        """Bring the chosen model or adapter into memory."""
        spec, adapter = self.selected, self.selected_adapter
        if spec is None:
            return
        name = None if adapter is None else adapter.name

        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            get_manager().load(spec.name, name, progress=progress, should_stop=should_stop)

        self._run(self._title(spec, adapter), job, "Loading", "is in memory")

    def unload(self) -> None:
        """Take the chosen model, with its adapters, or the chosen adapter out of memory."""
        spec, adapter = self.selected, self.selected_adapter
        if spec is None:
            return
        name = None if adapter is None else adapter.name
        title = self._title(spec, adapter)

        def on_done(freed: int) -> None:
            if freed:
                self.show_result(f"{format_bytes(freed)} given back.")
            else:
                self.show_result(f"{title} leaves when the run that uses it has ended.")
            self.refresh()

        self.start(
            lambda progress, should_stop: get_manager().unload(spec.name, name),
            title=f"Unloading {title}",
            on_done=on_done,
        )

    def download(self) -> None:
        """Fetch the weights of the chosen model."""
        spec = self.selected
        if spec is None:
            return

        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            locate(spec, download=True, progress=progress, should_stop=should_stop)

        self._run(spec.title, job, "Downloading", "is on disk")
        self.header.dot.set_status(Status.DOWNLOADING)

    def _run(self, title: str, job: Any, verb: str, outcome: str) -> None:
        def on_done(_: Any) -> None:
            self.show_result(f"{title} {outcome}.")
            manager_watch().catalogue_changed.emit()

        self.start(job, title=f"{verb} {title}", on_done=on_done)

    def choose_file(self) -> None:
        """Ask for a checkpoint or an adapter and import it."""
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Import a checkpoint of the SAM family, or an adapter",
            "",
            "Checkpoints and adapters (*.pt *.pth *.safetensors *.bin);;All files (*)",
        )
        if path:
            self.import_file(Path(path))

    def import_file(self, path: Path) -> None:
        """Import a checkpoint or an adapter under the name of its file; it is recognised."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:_NAME_LENGTH] or "imported"

        def job(progress: ProgressCallback, should_stop: StopCallback) -> ModelSpec | AdapterEntry:
            return import_adapter(path, name) if is_adapter(path) else import_checkpoint(path, name)

        def on_done(found: ModelSpec | AdapterEntry) -> None:
            manager_watch().catalogue_changed.emit()
            if isinstance(found, ModelSpec):
                self.table.select(Choice(found.name))
                self.show_result(f"Imported {found.title} ({found.architecture}).")
            elif found.card is not None:
                self.table.select(Choice(found.card.base, found.name))
                self.show_result(f"Imported {found.title}, an adapter of {found.card.base}.")

        self.start(job, title=f"Importing {path.name}", on_done=on_done)

    def choose_merged_file(self) -> None:
        """Ask where model and adapter are to be written as one checkpoint."""
        adapter = self.selected_adapter
        path = None if adapter is None else ask_for_file(self, adapter)
        if path is not None:
            self.merge_into(path)

    def merge_into(self, path: Path) -> None:
        """Write the chosen adapter and its base as one checkpoint."""
        spec, adapter = self.selected, self.selected_adapter
        if spec is not None and adapter is not None:
            self.start(
                merging(spec.name, adapter.name, path),
                title=f"Merging {self._title(spec, adapter)}",
                on_done=lambda _: self.show_result(f"Written: {path.name}."),
                must_finish=True,
            )

    def forget(self) -> None:
        """Remove the chosen imported model, or the chosen adapter from the store."""
        spec, adapter = self.selected, self.selected_adapter
        if adapter is not None:
            self._forget_adapter("" if spec is None else spec.name, adapter)
        elif spec is not None:
            self._forget_model(spec)

    def _forget_model(self, spec: ModelSpec) -> None:
        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            get_manager().unload(spec.name)
            forget(spec.name)

        def on_done(_: Any) -> None:
            if self.state.model_name == spec.name:
                self.state.model_name = DEFAULT_MODEL
            manager_watch().catalogue_changed.emit()
            self.show_result(f"{spec.title} was removed.")

        self.start(job, title=f"Removing {spec.title}", on_done=on_done)

    def _forget_adapter(self, base: str, adapter: AdapterEntry) -> None:
        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            get_manager().unload(base, adapter.name)
            remove_adapter(adapter.name)

        def on_done(_: Any) -> None:
            if self.state.adapter == adapter.name:
                self.state.choose_model(self.state.model_name)
            manager_watch().catalogue_changed.emit()
            self.show_result(f"The adapter {adapter.title} was removed.")

        self.start(job, title=f"Removing {adapter.title}", on_done=on_done)

    # ------------------------------------------------------------------ settings

    def _on_strength(self, subject: AdapterOnModel, strength: float) -> None:
        def on_done(_: Any) -> None:
            announce_adapter(*subject)
            self.show_result(f"{subject.adapter} acts with a strength of {strength:.2f}.")

        def on_failed(failure: Failure) -> None:
            self.show_error(failure.message, details=failure.details)

        # Not as the dock's own work: a slider must not wait for a download.
        self._strengths.setdefault(subject, Lane(self)).submit(
            lambda progress, should_stop: get_manager().set_strength(*subject, strength),
            on_done,
            on_failed,
        )

    def _on_device(self, name: str) -> None:
        self.start(
            lambda progress, should_stop: get_manager().set_device(name),
            title="Changing the device",
            on_done=lambda _: self.show_result(
                f"Models compute on: {self.devices.device.currentText()}. They load there when "
                "needed."
            ),
            on_failed=lambda _: self.devices.show_chosen(),
        )

    def _on_budget(self, budget: int | None) -> None:
        self.start(
            lambda progress, should_stop: get_manager().set_budget(budget),
            title="Changing the memory budget",
            on_done=lambda _: self.show_result(
                f"Weights may fill {self.devices.budget.text()}."
                if budget
                else "Weights may fill the usual share of the memory."
            ),
        )
