"""Looks into the folder of a training now and then, never on the GUI thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from phasesam.napari_widgets.training_preview import preview_picture
from phasesam.napari_widgets.workers import Failure, Lane

if TYPE_CHECKING:
    from phasesam.napari_widgets.training_run import TrainingRun
    from phasesam.training.run_folder import RunStatus

_INTERVAL_MS = 400


@dataclass(frozen=True, eq=False)
class Glance:
    """What the folder of a training held at one moment.

    Attributes
    ----------
    status : RunStatus
        How far it is.
    rows : tuple of mapping of str to float
        The log, one row an epoch; as epoch 0 the model before, where it was measured.
    picture : (h, w, 3) uint8 array or None
        A validation image with outlines; None if it is as before, or there is none.
    output : str
        End of what a failed process printed.
    """

    status: RunStatus
    rows: tuple[Mapping[str, float], ...] = ()
    picture: NDArray[np.uint8] | None = None
    output: str = ""


class _Reader:
    """Reads what has changed; used by one worker at a time."""

    def __init__(self, training: TrainingRun) -> None:
        self._training = training
        self._base: tuple[Mapping[str, float], ...] = ()
        self._rows: tuple[Mapping[str, float], ...] = ()
        self._seen: dict[Path, tuple[int, int]] = {}

    def __call__(self, _progress: Any, _should_stop: Any) -> Glance:
        folder = self._training.folder
        # First: what comes after the end of a training has been written before it.
        status = self._training.status()
        if self._is_new(folder.base_file):
            base = folder.base_figures()
            self._base = ({"epoch": 0.0, **base},) if base else ()
        if self._is_new(folder.log_file):
            self._rows = tuple(folder.log())
        picture = None
        if self._is_new(folder.preview_file):
            preview = folder.preview()
            picture = None if preview is None else preview_picture(preview)
        output = self._training.output() if status.state == "failed" else ""
        return Glance(status, (*self._base, *self._rows), picture, output)

    def _is_new(self, path: Path) -> bool:
        try:
            found = path.stat()
        except OSError:
            return False
        stamp = found.st_mtime_ns, found.st_size
        if self._seen.get(path) == stamp:
            return False
        self._seen[path] = stamp
        return True


class TrainingWatch(QObject):
    """Reports what happens in the folder of a training until it is over.

    Parameters
    ----------
    training : TrainingRun
        Which.
    """

    seen = Signal(object)
    """A `Glance`."""

    def __init__(self, training: TrainingRun, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._read = _Reader(training)
        self._lane = Lane(self)
        self._timer = QTimer(self)
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.timeout.connect(self._look)

    def start(self) -> None:
        """Look now, and then again and again."""
        self._timer.start()
        self._look()

    def stop(self) -> None:
        """Report nothing any more."""
        self._timer.stop()
        self._lane.invalidate()

    def _look(self) -> None:
        if not self._lane.busy:
            self._lane.submit(self._read, self._on_glance, self._on_failed)

    def _on_glance(self, glance: Glance) -> None:
        if glance.status.is_over:
            self._timer.stop()
        self.seen.emit(glance)

    def _on_failed(self, _failure: Failure) -> None:
        """Look again later: the folder may be on a drive that is away for a moment."""
