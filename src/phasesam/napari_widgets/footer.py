"""The last line of every dock: progress, or the last result."""

from __future__ import annotations

import re
import time

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

_ERROR_COLOUR = "#e8743b"  # vermilion, a little lighter to be read on dark grey
_ESTIMATE_AFTER = 1.0
_LONGEST_ERROR = 220


def duration_text(seconds: float) -> str:
    """Write a duration for people: ``"24 ms"``, ``"14 s"``, ``"3 min 5 s"``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def brief(text: str) -> str:
    """Shorten an error that is too long for a dock to what failed and its last sentence.

    What lies in between, such as the words of the system, is for the tooltip.
    """
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
    if len(text) <= _LONGEST_ERROR or len(sentences) < 2:
        return text
    return f"{sentences[0].split(': ')[0].rstrip('.')}. {sentences[-1]}"


class Footer(QStackedWidget):
    """Last line of a dock: progress with time left and Cancel, else the last result."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.result = QLabel()
        self.result.setWordWrap(True)
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.addWidget(self.result)
        running = QWidget()
        layout = QVBoxLayout(running)
        layout.setContentsMargins(0, 0, 0, 0)
        self.running_text = QLabel()
        for label in (self.result, self.running_text):
            # A long name is cut off rather than let the dock grow, for good.
            label.setSizePolicy(QSizePolicy.Policy.Ignored, label.sizePolicy().verticalPolicy())
        self._row = QHBoxLayout()
        self.bar = QProgressBar()
        self.cancel = QPushButton("Cancel")
        self._row.addWidget(self.bar, 1)
        self._row.addWidget(self.cancel)
        layout.addWidget(self.running_text)
        layout.addLayout(self._row)
        self.addWidget(running)
        self._title = ""
        self._started = 0.0

    def add_button(self, button: QPushButton) -> None:
        """Add a button before *Cancel*."""
        self._row.insertWidget(1, button)

    def begin(self, title: str) -> None:
        """Show an endless bar until the first progress comes."""
        self._title = title
        self._started = time.monotonic()
        self.running_text.setText(f"{title} …")
        self.bar.setRange(0, 0)
        self.cancel.setEnabled(True)
        self.setCurrentIndex(1)

    def progress(self, done: int, total: int) -> None:
        """Move the bar and estimate the time left."""
        self.bar.setRange(0, max(total, 0))
        self.bar.setValue(done)
        elapsed = time.monotonic() - self._started
        left = ""
        if 0 < done < total and elapsed > _ESTIMATE_AFTER:
            left = f" · about {duration_text(elapsed / done * (total - done))} left"
        self.running_text.setText(f"{self._title} …{left}")

    def stopping(self) -> None:
        """Say that Cancel was understood."""
        self.cancel.setEnabled(False)
        self.running_text.setText(f"{self._title}: stopping …")

    def end(self) -> None:
        """Show the last result again."""
        self.setCurrentIndex(0)

    def say(self, text: str, *, details: str = "", is_error: bool = False) -> None:
        """Show one sentence; errors stand out, their details are in the tooltip."""
        short = brief(text) if is_error else text
        self.result.setText(short)
        self.result.setToolTip(details if short == text else f"{text}\n\n{details}".strip())
        self.result.setStyleSheet(f"color: {_ERROR_COLOUR};" if is_error else "")
