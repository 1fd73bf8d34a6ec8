"""The Models dock: which models there are, where they are, and what is in memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
)

from phasesam.core.errors import PhaseSAMError
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
from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.header import Status, narrow_combo
from phasesam.napari_widgets.model_status import manager_watch, offered_models

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from phasesam.core.types import ProgressCallback, StopCallback

_COLUMNS = ("Model", "Weights", "In memory", "Licence")
_NAME = Qt.ItemDataRole.UserRole
_GB = 1e9
_NAME_LENGTH = 60
_DEVICES = (
    ("auto", "Automatic", "The fastest device of this computer"),
    ("cpu", "CPU", "Works everywhere"),
    ("cuda", "CUDA", "NVIDIA or AMD graphics card"),
    ("mps", "MPS", "Graphics of Apple silicon"),
)


class ModelsDock(Dock):
    """Load, unload, download and import models; choose device and memory budget.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Filled in by napari.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(napari_viewer)
        self._make_widgets()
        watch = manager_watch()
        watch.changed.connect(self.refresh)
        watch.catalogue_changed.connect(self.refresh)
        self.subscriptions.connect(self.state.events.model_changed, self._on_model_changed)
        self.refresh()
        self._select(self.state.model_name)

    def _make_widgets(self) -> None:
        self.table = QTreeWidget()
        self.table.setHeaderLabels(_COLUMNS)
        self.table.setRootIsDecorated(False)
        self.table.setUniformRowHeights(True)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setMinimumHeight(240)
        self.table.setTextElideMode(Qt.TextElideMode.ElideRight)
        header = self.table.header()
        if header is not None:
            header.setStretchLastSection(False)
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            header.setMinimumSectionSize(60)
        self.table.itemSelectionChanged.connect(self._refresh_buttons)
        self.table.itemDoubleClicked.connect(lambda *_: self.use())
        self.body.addWidget(self.table)
        self._make_buttons()
        self._make_device_rows()

    def _make_buttons(self) -> None:
        self.use_button = self._button("Use", "Segment with this model in all docks", self.use)
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
            "Import…", "Add a checkpoint of the SAM family from a file", self.choose_file
        )
        self.forget_button = self._button(
            "Remove", "Remove an imported model and its copy of the weights", self.forget
        )
        buttons = QGridLayout()
        for number, button in enumerate(
            (
                self.use_button,
                self.load_button,
                self.unload_button,
                self.download_button,
                self.import_button,
                self.forget_button,
            )
        ):
            buttons.addWidget(button, number // 3, number % 3)
        self.body.addLayout(buttons)

    def _make_device_rows(self) -> None:
        self.device = narrow_combo("Where models compute from now on")
        for name, title, tip in _DEVICES:
            self.device.addItem(title, name)
            self.device.setItemData(self.device.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.device.activated.connect(self._on_device)
        self.budget = QDoubleSpinBox()
        self.budget.setRange(0, 1000)
        self.budget.setDecimals(1)
        self.budget.setSingleStep(0.5)
        self.budget.setSuffix(" GB")
        self.budget.setSpecialValueText("automatic")
        self.budget.setKeyboardTracking(False)
        self.budget.setToolTip(
            "Memory that weights may fill. When a model does not fit, the one that was not\n"
            "used for longest leaves."
        )
        self.budget.valueChanged.connect(self._on_budget)
        self.figures = QLabel()
        self.figures.setWordWrap(True)
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        for row, (text, widget) in enumerate(
            (("Device", self.device), ("Memory budget", self.budget), ("Now", self.figures))
        ):
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(widget, row, 1)
        self.body.addLayout(grid)

    def _button(self, text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda *_: action())
        return button

    # ------------------------------------------------------------------ what is there

    @property
    def selected(self) -> ModelSpec | None:
        """The model chosen in the table."""
        items = self.table.selectedItems()
        return get_spec(items[0].data(0, _NAME)) if items else None

    def _select(self, name: str) -> None:
        for row in range(self.table.topLevelItemCount()):
            item = self.table.topLevelItem(row)
            if item is not None and item.data(0, _NAME) == name:
                self.table.setCurrentItem(item)

    def refresh(self) -> None:
        """Show the present state of all models and of the memory."""
        chosen = self.selected.name if self.selected is not None else ""
        resident: dict[str, list[str]] = {}
        try:
            for model in get_manager().resident():
                state = "loading" if model.loading else format_bytes(model.bytes)
                resident.setdefault(model.name, []).append(f"{model.device} · {state}")
        except PhaseSAMError as error:
            self.show_error(str(error))
        blocker = QSignalBlocker(self.table)
        self.table.clear()
        for spec in offered_models():
            item = QTreeWidgetItem(self.table)
            item.setData(0, _NAME, spec.name)
            used = " ✓" if spec.name == self.state.model_name else ""
            for column, text in enumerate(
                (
                    spec.title + used,
                    _weights_text(spec),
                    ", ".join(resident.get(spec.name, ["—"])),
                    spec.licence,
                )
            ):
                item.setText(column, text)
                item.setToolTip(column, _tooltip(spec))
        self._select(chosen)
        blocker.unblock()
        self._refresh_buttons()
        self._refresh_figures()

    def _refresh_buttons(self) -> None:
        spec = self.selected
        names: set[str] = set()
        if spec is not None:
            names = {model.name for model in get_manager().resident()}
        self.use_button.setEnabled(spec is not None and spec.name != self.state.model_name)
        self.load_button.setEnabled(spec is not None and spec.name not in names)
        self.unload_button.setEnabled(spec is not None and spec.name in names)
        self.download_button.setEnabled(spec is not None and where(spec) == "to download")
        self.forget_button.setEnabled(
            spec is not None and spec.url is None and where(spec) in ("on disk", "missing")
        )

    def _refresh_figures(self) -> None:
        try:
            status = get_manager().status()
        except PhaseSAMError as error:
            self.figures.setText(str(error))
            return
        models = "1 model" if status.n_models == 1 else f"{status.n_models} models"
        text = f"{models}, {format_bytes(status.bytes)}"
        if status.budget_bytes:
            text += f" of {format_bytes(status.budget_bytes)} allowed"
        if status.device_total:
            text += (
                f"\n{status.device}: {format_bytes(status.device_used or 0)} of "
                f"{format_bytes(status.device_total)} in use by all programs"
            )
        self.figures.setText(text)

    def _on_model_changed(self, _name: str) -> None:
        self.refresh()

    # ------------------------------------------------------------------ actions

    def use(self) -> None:
        """Segment with the chosen model in all docks of this viewer."""
        spec = self.selected
        if spec is not None:
            self.state.model_name = spec.name
            self.show_result(f"All docks of this viewer now use {spec.title}.")

    def load(self) -> None:
        """Bring the chosen model into memory."""
        spec = self.selected
        if spec is None:
            return

        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            get_manager().load(spec.name, progress=progress, should_stop=should_stop)

        self._run(spec, job, "Loading", "is in memory")

    def unload(self) -> None:
        """Take the chosen model out of memory."""
        spec = self.selected
        if spec is None:
            return

        def on_done(freed: int) -> None:
            if freed:
                self.show_result(f"{format_bytes(freed)} given back.")
            else:
                self.show_result(f"{spec.title} leaves when the run that uses it has ended.")
            self.refresh()

        self.start(
            lambda progress, should_stop: get_manager().unload(spec.name),
            title=f"Unloading {spec.title}",
            on_done=on_done,
        )

    def download(self) -> None:
        """Fetch the weights of the chosen model."""
        spec = self.selected
        if spec is None:
            return

        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            locate(spec, download=True, progress=progress, should_stop=should_stop)

        self._run(spec, job, "Downloading", "is on disk")
        self.header.dot.set_status(Status.DOWNLOADING)

    def _run(self, spec: ModelSpec, job: Any, verb: str, outcome: str) -> None:
        def on_done(_: Any) -> None:
            self.show_result(f"{spec.title} {outcome}.")
            manager_watch().catalogue_changed.emit()

        self.start(job, title=f"{verb} {spec.title}", on_done=on_done)

    def choose_file(self) -> None:
        """Ask for a checkpoint and import it."""
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Import a checkpoint of the SAM family",
            "",
            "Checkpoints (*.pt *.pth *.safetensors *.bin);;All files (*)",
        )
        if path:
            self.import_file(Path(path))

    def import_file(self, path: Path) -> None:
        """Import a checkpoint under the name of its file; its architecture is recognised."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:_NAME_LENGTH] or "imported"

        def job(progress: ProgressCallback, should_stop: StopCallback) -> ModelSpec:
            return import_checkpoint(path, name)

        def on_done(spec: ModelSpec) -> None:
            manager_watch().catalogue_changed.emit()
            self._select(spec.name)
            self.show_result(f"Imported {spec.title} ({spec.architecture}).")

        self.start(job, title=f"Importing {path.name}", on_done=on_done)

    def forget(self) -> None:
        """Remove the chosen imported model."""
        spec = self.selected
        if spec is None:
            return

        def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
            get_manager().unload(spec.name)
            forget(spec.name)

        def on_done(_: Any) -> None:
            if self.state.model_name == spec.name:
                self.state.model_name = DEFAULT_MODEL
            manager_watch().catalogue_changed.emit()
            self.show_result(f"{spec.title} was removed.")

        self.start(job, title=f"Removing {spec.title}", on_done=on_done)

    def _on_device(self, _index: int) -> None:
        name = self.device.currentData()

        def on_failed(_: Any) -> None:
            self.device.setCurrentIndex(0)

        self.start(
            lambda progress, should_stop: get_manager().set_device(name),
            title="Changing the device",
            on_done=lambda _: self.show_result(
                f"Models compute on: {self.device.currentText()}. They load there when needed."
            ),
            on_failed=on_failed,
        )

    def _on_budget(self, gigabytes: float) -> None:
        budget = round(gigabytes * _GB) or None
        self.start(
            lambda progress, should_stop: get_manager().set_budget(budget),
            title="Changing the memory budget",
            on_done=lambda _: self.show_result(
                f"Weights may fill {self.budget.text()}."
                if budget
                else "Weights may fill the usual share of the memory."
            ),
        )


def _weights_text(spec: ModelSpec) -> str:
    place = where(spec)
    size = format_bytes(spec.size_bytes) if spec.size_bytes else ""
    if place == "to download":
        return f"↓ {size}"
    return place if place in ("bundled", "missing") or not size else f"{place}, {size}"


def _tooltip(spec: ModelSpec) -> str:
    lines = [
        f"{spec.title} ({where(spec)})",
        spec.description,
        f"Licence: {spec.licence}",
        spec.source,
    ]
    return "\n".join(line for line in lines if line)
