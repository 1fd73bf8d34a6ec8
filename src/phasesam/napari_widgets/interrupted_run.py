"""A line that offers to go on with a training that was interrupted."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QWidget

from phasesam.napari_widgets.training_run import EarlierRun


class InterruptedRun(QFrame):
    """Says which training was interrupted, and when; hidden otherwise."""

    resume_requested = Signal(object)
    """The user wants to go on with this `EarlierRun`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._run: EarlierRun | None = None
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.resume = QPushButton("Resume")
        self.dismiss = QPushButton("Not now")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.resume)
        layout.addWidget(self.dismiss)
        self.resume.clicked.connect(self._on_resume)
        self.dismiss.clicked.connect(lambda *_: self.offer(None))
        self.hide()

    def offer(self, run: EarlierRun | None) -> None:
        """Offer a training, or none."""
        self._run = run
        if run is not None:
            self.text.setText(f"Interrupted: {run.title}")
            self.text.setToolTip(f"{run.status.message}\n{run.path}".strip())
        self.setVisible(run is not None)

    def _on_resume(self) -> None:
        run = self._run
        self.offer(None)
        if run is not None:
            self.resume_requested.emit(run)
