"""Between a training and its folder: tells how far it is, obeys what is asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace

from phasesam.core.errors import SaveError
from phasesam.training.run_folder import Preview, RunFolder, RunStatus
from phasesam.training.trainer import Callback, Progress

_PAUSE_SECONDS = 0.2
_STATUS_SECONDS = 0.5


class RunWatch(Callback):
    """Writes the status and obeys requests to pause and to stop."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._written = 0.0
        self.last = RunStatus()

    def tell(self, status: RunStatus) -> None:
        """Write a status."""
        self.last = status
        self._run.write_status(status)
        self._written = time.monotonic()

    def _mention(self, status: RunStatus) -> None:
        """Write a status that others follow soon: not worth the end of a training."""
        with suppress(SaveError):
            self.tell(status)

    def on_prepare(self, done: int, total: int) -> None:
        """Tell how far the head of fine detail is."""
        self.last = RunStatus("preparing", f"learning fine detail: {done} of {total}")
        if time.monotonic() - self._written > _STATUS_SECONDS:
            self._mention(self.last)

    def on_step(self, progress: Progress, loss: float) -> None:
        """Tell step and loss, now and then."""
        self.last = RunStatus("training", f"loss {loss:.3f}", **asdict(progress))
        if time.monotonic() - self._written > _STATUS_SECONDS:
            self._mention(self.last)

    def on_epoch(
        self, progress: Progress, row: Mapping[str, float], preview: Preview | None
    ) -> None:
        """Tell that an epoch is done."""
        self._mention(RunStatus("training", f"loss {row['loss']:.3f}", **asdict(progress)))

    def should_stop(self) -> bool:
        """Wait while a pause is asked for; whether somebody asked to stop."""
        if self._run.is_paused and not self._run.is_cancelled:
            word = self._run.last_word()
            before = word if word.state == "finishing" else self.last
            self._mention(replace(before, state="paused"))
            while self._run.is_paused and not self._run.is_cancelled:
                time.sleep(_PAUSE_SECONDS)
            self._mention(before)
        return self._run.is_cancelled
