"""Train in a process of its own, so that nothing else waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from phasesam.core.errors import FileFormatError
from phasesam.formats.atomic import atomic_file
from phasesam.training.run_folder import RunFolder

_JOB = "job.json"
_OUTPUT = "output.txt"


@dataclass(frozen=True)
class Job:
    """What a process is to train, as plain values.

    Attributes
    ----------
    data : str
        Path for `read_training_data`.
    task : str
        "promptable", "instance" or "semantic".
    settings : mapping
        ``TrainingSettings.to_dict()``.
    options : mapping
        Fields of `DataOptions`, without a normalisation.
    resume : bool
        Whether to go on from the checkpoint.
    """

    data: str
    task: str
    settings: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False

    def write(self, run: RunFolder) -> None:
        """Leave the job in a run folder."""
        run.create()
        with atomic_file(run.path / _JOB) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, run: RunFolder) -> Job:
        """Find the job in a run folder.

        Raises
        ------
        FileFormatError
            If there is none.
        """
        try:
            return cls(**json.loads((run.path / _JOB).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FileFormatError(f"{run.path} holds no training to do: {error}") from error


class TrainingProcess:
    """A process that does the job in a run folder.

    It gives way to other programs, and saves and ends when the one that started it has ended.

    Parameters
    ----------
    run : RunFolder
        With a job; its status, log and preview tell what happens.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        run.clear_requests()
        output: IO[bytes]
        with (run.path / _OUTPUT).open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "phasesam.training.worker", str(run.path)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """Status it ended with; None while it runs."""
        code = self._process.poll()
        if code is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return code

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the end and return the status.

        Raises
        ------
        subprocess.TimeoutExpired
            If it runs longer.
        """
        self._process.wait(seconds)
        return int(self.exit_code or 0)

    def kill(self) -> None:
        """End it at once; its checkpoint is not lost."""
        if self.is_running:
            self._process.kill()
        self.wait()


def start(run: RunFolder, job: Job) -> TrainingProcess:
    """Leave a job in a folder and start a process that does it."""
    job.write(run)
    return TrainingProcess(run)
