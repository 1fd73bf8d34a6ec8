"""What comes of requests: maps to keep and to compare, and a log to export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from phasesam.core.errors import PhaseSAMError
from phasesam.formats.tables import save_table_csv
from phasesam.session.ratio_log import RatioExperiment, log_table
from phasesam.session.ratio_sheet import WHOLE

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from phasesam.napari_widgets.ratio_layers import RatioLayers
    from phasesam.napari_widgets.ratio_plane import MappedPlane
    from phasesam.napari_widgets.ratio_run import RatioAnswer
    from phasesam.napari_widgets.ratio_stack import StackAnswer
    from phasesam.session.ratio_sheet import RatioQuery

    Amounts = tuple[NDArray[np.float64], NDArray[np.float64]]


class RatioResults(QWidget):
    """Buttons for results, and the log.

    Parameters
    ----------
    layers : RatioLayers
        Where maps are shown.

    Attributes
    ----------
    log : list of RatioExperiment
        All requests so far, each of them once.
    """

    said = Signal(str)
    """What was done."""
    failed = Signal(str)
    """What went wrong."""
    asked = Signal(bool)
    """The user wants a map kept; and compared with others if true."""

    def __init__(self, layers: RatioLayers, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers = layers
        self.log: list[RatioExperiment] = []
        self.keep_button = QPushButton("Keep as Labels")
        self.keep_button.setToolTip("Add a layer with the present map that stays as it is")
        self.compare_button = QPushButton("Add to comparison")
        self.compare_button.setToolTip("Keep the present map, and show all layers side by side")
        self.grid = QCheckBox("Side by side")
        self.grid.setToolTip("Show the layers beside one another instead of on top")
        self.margin = QCheckBox("Flips first")
        self.margin.setToolTip(
            "Also make a layer that is bright where a small change of the shares would change\n"
            "the phase."
        )
        self.logged = QLabel()
        self.export_button = QPushButton("Export …")
        self.export_button.setToolTip("Write all requests and what came of them as a CSV file")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widgets in (
            (self.keep_button, self.compare_button),
            (self.grid, self.margin),
            (self.logged, self.export_button),
        ):
            row = QHBoxLayout()
            for widget in widgets:
                row.addWidget(widget)
            column.addLayout(row)
        self.keep_button.clicked.connect(lambda *_: self.asked.emit(False))
        self.compare_button.clicked.connect(lambda *_: self.asked.emit(True))
        self.grid.toggled.connect(layers.set_grid)
        self.export_button.clicked.connect(lambda *_: self._ask_where_to_export())
        self.set_ready(False)

    def set_ready(self, ready: bool) -> None:
        """Say whether there is a map."""
        for widget in (self.keep_button, self.compare_button, self.margin):
            widget.setEnabled(ready)
        self.logged.setText(f"Experiments: {len(self.log)} logged")
        self.export_button.setEnabled(bool(self.log))

    def note(self, image: str, mapped: MappedPlane, answer: RatioAnswer) -> None:
        """Log what a plane was asked and what came of it, unless it is the same again."""
        query = answer.task.query
        if query is None or answer.solution is None:
            return
        where = (image, mapped.title, mapped.plane)
        for number in query.fractions:
            if number in answer.own:
                region = number if answer.task.has_regions else None
                amounts = (answer.own[number], answer.achieved[number])
                self._log(where, mapped.card.classes, (query, region), amounts, answer)

    def note_stack(
        self, image: str, mapped: MappedPlane, query: RatioQuery, answer: StackAnswer
    ) -> None:
        """Log what was asked of a stack, and what came of it."""
        where = (f"{image} (stack)", mapped.adapter, None)
        amounts = (answer.own, answer.solution.achieved)
        self._log(where, mapped.card.classes, (query, None), amounts, answer)

    def _log(
        self,
        where: tuple[str, str, tuple[int, ...] | None],
        classes: tuple[str, ...],
        asked: tuple[RatioQuery, int | None],
        amounts: Amounts,
        answer: RatioAnswer | StackAnswer,
    ) -> None:
        query, region = asked
        number = WHOLE if region is None else region
        own, achieved = (tuple(values.tolist()) for values in amounts)
        wanted = (share if isinstance(share, float) else None for share in query.fractions[number])
        solution = answer.solution
        if solution is None:
            return
        entry = RatioExperiment(
            *where, classes, region, tuple(wanted), tuple(query.errors[number]), own, achieved,
            answer.config, solution.changed, solution.contradicted, solution.cost,
        )  # fmt: skip
        # Looking at a map again, in another order of regions or after an undo, is no new request.
        if entry not in self.log:
            self.log.append(entry)

    def keep(self, image: Image, name: str, *, compares: bool) -> None:
        """Add a layer with the present map; show all side by side if they are compared."""
        layer: Labels | None = self._layers.copy(image, name, opaque=compares)
        if layer is None:
            self.failed.emit("There is no map yet.")
            return
        if compares:
            self.grid.setChecked(True)
            self._layers.set_grid(True)
        self.said.emit(f"Kept as {layer.name}.")

    def _ask_where_to_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Export requests", "ratio_experiments.csv", "CSV (*.csv)"
        )
        if path:
            self.export(path)

    def export(self, path: str) -> None:
        """Write all requests as a table."""
        try:
            save_table_csv(path, log_table(self.log))
        except PhaseSAMError as error:
            self.failed.emit(str(error))
            return
        self.said.emit(f"{len(self.log)} requests written to {path}.")
