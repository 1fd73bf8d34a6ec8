"""The folder of one training: settings, progress, results; the only link to who watches it.

The process that trains writes; any other may read at any time, and may ask it to pause, to go
on or to stop by leaving a file.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from phasesam.core.errors import CheckpointError, FileFormatError, SaveError
from phasesam.formats.atomic import atomic_file

State = Literal["preparing", "training", "paused", "finishing", "cancelled", "finished", "failed"]
DIED = "the process that trained has ended"
"""Why a training failed whose process ended without a word."""
OTHER = "belongs to a training with other data or settings"
"""Why a training is not resumed that was changed since; what to do follows."""
_OVER: tuple[State, ...] = ("cancelled", "finished", "failed")


@dataclass(frozen=True)
class RunStatus:
    """How far a training is.

    Attributes
    ----------
    state : str
        "preparing", "training", "paused", "finishing" (all epochs are done, the adapter is not
        yet), "cancelled", "finished" or "failed".
    message : str
        What it is doing, or why it ended.
    epoch, epochs, step, steps : int
        Done and all; steps of all epochs.
    seconds_left : float or None
        Estimated time to the end; None while unknown.
    best_score : float or None
        Best validation score so far.
    pid : int
        Process that trains.
    started : float
        When that process began, seconds since 1970: process numbers are used again.
    """

    state: State = "preparing"
    message: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    best_score: float | None = None
    pid: int = 0
    started: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in _OVER


@dataclass(frozen=True, eq=False)
class Preview:
    """One validation image with what is true and what the model says.

    Attributes
    ----------
    rgb : (h, w, 3) uint8 array
        Picture.
    truth, prediction : (h, w) int32 array
        Labels.
    """

    rgb: NDArray[np.uint8]
    truth: NDArray[np.int32]
    prediction: NDArray[np.int32]


class RunFolder:
    """Files of one training.

    Parameters
    ----------
    path : path-like
        Folder; made when something is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.settings_file = self.path / "settings.json"
        self.log_file = self.path / "log.csv"
        self.best_file = self.path / "best.safetensors"
        self.start_file = self.path / "start.safetensors"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.preview_file = self.path / "preview.npz"
        self.base_file = self.path / "base.json"
        self.cache_folder = self.path / "cache"
        self._status_file = self.path / "status.json"
        self._pause_file = self.path / "pause"
        self._cancel_file = self.path / "cancel"

    def create(self) -> None:
        """Make the folder; a `SaveError` says why that cannot be done."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"could not make the folder {self.path}: {error.strerror}") from error

    # Read by whoever watches

    def status(self) -> RunStatus:
        """Progress; a process that died without a word counts as failed."""
        status = self.last_word()
        if not status.is_over and status.pid and not _is_alive(status):
            return replace(status, state="failed", message=DIED)
        return status

    def last_word(self) -> RunStatus:
        """Tell what the process said last, whether it is still alive or not."""
        try:
            return RunStatus(**json.loads(self._status_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return RunStatus()

    def refuse_if_taken(self, but: int = 0) -> None:
        """Refuse to begin where a process trains.

        Parameters
        ----------
        but : int
            Process that may have written the status: who starts others, and says so there.

        Raises
        ------
        SaveError
            If one does.
        """
        status = self.status()
        if status.pid not in (0, but) and not status.is_over:
            raise SaveError(f"a training is under way in {self.path}")

    def log(self) -> list[dict[str, float]]:
        """Rows of the log, one an epoch, oldest first."""
        try:
            text = self.log_file.read_text(encoding="utf-8")
        except OSError:
            return []
        rows = []
        for row in csv.DictReader(io.StringIO(text)):
            rows.append({key: float(value) for key, value in row.items() if value})
        return rows

    def base_figures(self) -> dict[str, float]:
        """Figures of the model before the first step; empty where it has none."""
        try:
            values = json.loads(self.base_file.read_text(encoding="utf-8"))
            return {str(name): float(value) for name, value in values.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def preview(self) -> Preview | None:
        """Newest picture of what the model says, None before there is one."""
        try:
            with np.load(self.preview_file, allow_pickle=False) as arrays:
                return Preview(arrays["rgb"], arrays["truth"], arrays["prediction"])
        except (OSError, ValueError, KeyError):
            return None

    def settings(self) -> dict[str, Any]:
        """Read the settings it was started with.

        Raises
        ------
        FileFormatError
            If there are none.
        """
        try:
            values = json.loads(self.settings_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{self.path} is no folder of a training: {error}") from error
        return dict(values)

    # Asked by whoever watches

    def pause(self) -> None:
        """Ask the training to wait after its present step; a `SaveError` says why it cannot be."""
        self._leave(self._pause_file)

    def resume(self) -> None:
        """Let a paused training go on."""
        self._pause_file.unlink(missing_ok=True)

    def cancel(self) -> None:
        """Ask the training to save and end after its present step; may raise `SaveError`."""
        self._leave(self._cancel_file)

    def _leave(self, file: Path) -> None:
        self.create()
        try:
            file.touch()
        except OSError as error:
            raise SaveError(f"could not write {file}: {error.strerror}") from error

    def keep_start(self, adapter: str | os.PathLike[str]) -> str:
        """Copy the adapter to go on from into the folder: its own place may hold another soon.

        Parameters
        ----------
        adapter : path-like
            Its file.

        Returns
        -------
        str
            Path of the copy.

        Raises
        ------
        CheckpointError
            If it cannot be read.
        SaveError
            If it cannot be written.
        """
        try:
            content = Path(adapter).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{adapter} cannot be read: {error.strerror}") from error
        with atomic_file(self.start_file) as file:
            file.write(content)
        return str(self.start_file)

    # Written by the process that trains

    @property
    def is_paused(self) -> bool:
        """Whether somebody asked to pause."""
        return self._pause_file.exists()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._cancel_file.exists()

    def clear_requests(self) -> None:
        """Forget what was asked of an earlier process."""
        self._pause_file.unlink(missing_ok=True)
        self._cancel_file.unlink(missing_ok=True)

    def write_status(self, status: RunStatus) -> None:
        """Tell how far the training is."""
        own = psutil.Process()
        known = replace(status, pid=own.pid, started=own.create_time())
        self._write(self._status_file, json.dumps(asdict(known)).encode())

    def write_settings(self, values: Mapping[str, Any]) -> None:
        """Keep the settings."""
        self._write(self.settings_file, json.dumps(values, indent=1).encode())

    def write_base_figures(self, figures: Mapping[str, float]) -> None:
        """Keep the figures of the model before the first step."""
        self._write(self.base_file, json.dumps(dict(figures)).encode())

    def write_log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace the log."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write(self.log_file, text.getvalue().encode())

    def write_preview(self, preview: Preview) -> None:
        """Replace the preview."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, rgb=preview.rgb, truth=preview.truth, prediction=preview.prediction
        )
        self._write(self.preview_file, buffer.getvalue())

    def _write(self, path: Path, content: bytes) -> None:
        self.create()
        with atomic_file(path) as file:
            file.write(content)


def _is_alive(status: RunStatus) -> bool:
    """Whether the process that wrote a status still runs."""
    try:
        process = psutil.Process(status.pid)
        same = abs(process.create_time() - status.started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
