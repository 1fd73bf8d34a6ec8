"""Model and adapter as one file for other tools, from the Models dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QWidget

from phasesam.models.adapter_store import AdapterEntry
from phasesam.models.manager import get_manager
from phasesam.napari_widgets.model_table import CANNOT_MERGE

if TYPE_CHECKING:
    from phasesam.core.types import ProgressCallback, StopCallback
    from phasesam.napari_widgets.workers import Job

MERGE_TIP = "Write model and adapter as one checkpoint, which other tools load too"


def why_not_mergeable(adapter: AdapterEntry | None) -> str:
    """Say why an adapter cannot be merged; empty where it can."""
    card = None if adapter is None else adapter.card
    if card is None:
        return "Choose an adapter in the table first."
    if not card.config.mergeable:
        return CANNOT_MERGE
    if card.classes:
        return "An adapter with classes cannot be merged: other tools have no place for them"
    return ""


def ask_for_file(parent: QWidget, adapter: AdapterEntry) -> Path | None:
    """Ask where the checkpoint is to be written; None if the user cancels."""
    path, _ = QFileDialog.getSaveFileName(
        parent,
        "Write model and adapter as one checkpoint",
        f"{adapter.title}_merged.pth",
        "PyTorch checkpoint (*.pth);;safetensors (*.safetensors)",
    )
    if not path:
        return None
    return Path(path) if Path(path).suffix else Path(path).with_suffix(".pth")


def merging(base: str, adapter: str, path: Path) -> Job:
    """Make the job that writes a base and its adapter, at the strength chosen now."""
    strength = get_manager().adapter_strength(base, adapter)

    def job(progress: ProgressCallback, should_stop: StopCallback) -> None:
        from phasesam.models.merging import save_merged

        save_merged(adapter, path, base=base, strength=strength, should_stop=should_stop)

    return job
