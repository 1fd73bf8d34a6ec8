"""Writes what was seen of the layers: the contact sheet, the table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from phasesam.core.errors import PhaseSAMError

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.feature_run import SeenLayers


class FeatureSaving(QWidget):
    """Buttons that ask where to, and write there.

    Parameters
    ----------
    dock : Dock
        Does the work, and says what came of it.
    """

    def __init__(self, dock: Dock, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._dock = dock
        self._seen: SeenLayers | None = None
        self._titles: tuple[str, ...] = ()
        self.sheet_button = QPushButton("Save sheet …")
        self.sheet_button.setToolTip("All layers on one page, A above B, as PNG or SVG")
        self.table_button = QPushButton("Save table …")
        self.table_button.setToolTip("The figures of all layers as CSV")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.sheet_button)
        row.addWidget(self.table_button)
        self.sheet_button.clicked.connect(lambda *_: self._ask_for_sheet())
        self.table_button.clicked.connect(lambda *_: self._ask_for_table())

    def set_seen(self, seen: SeenLayers | None, titles: tuple[str, ...]) -> None:
        """Say what there is to write, and what the models are called."""
        self._seen, self._titles = seen, titles
        for button in (self.sheet_button, self.table_button):
            button.setEnabled(seen is not None)

    def _ask_for_sheet(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save sheet", "layers.png", "Pictures (*.png *.svg)"
        )
        if path:
            self.save_sheet(path)

    def _ask_for_table(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save table", "layers.csv", "CSV (*.csv)")
        if path:
            self.save_table(path)

    def save_sheet(self, path: str) -> None:
        """Write the contact sheet as PNG or SVG, in the background."""
        seen, titles = self._seen, self._titles
        if seen is None:
            return

        def job(_progress: Any, _should_stop: Any) -> str:
            from phasesam.evaluation.feature_sheet import SheetTexts, Target, contact_sheet

            target = None
            if seen.labels is not None:
                target = Target.of(seen.labels, seen.classes)
            sheet = contact_sheet(
                seen.layers, seen.rgb, SheetTexts(titles), target=target, index=seen.index
            )
            sheet.save(Path(path))
            return path

        self._dock.start(
            job,
            title="Saving the sheet",
            on_done=lambda name: self._dock.show_result(f"Sheet written to {name}."),
            must_finish=True,
        )

    def save_table(self, path: str) -> None:
        """Write the figures as CSV."""
        from phasesam.evaluation.feature_tables import layer_columns
        from phasesam.formats.tables import save_table_csv

        seen = self._seen
        if seen is None:
            return
        try:
            save_table_csv(path, layer_columns(seen.layers, self._titles, seen.classes))
        except PhaseSAMError as error:
            self._dock.show_error(str(error))
            return
        self._dock.show_result(f"Table written to {path}.")
