"""A process that trains, for a run folder: ``python -m phasesam.training.worker RUN``.

Started by `phasesam.training.process`. It speaks through the run folder only; what libraries
print goes to ``output.txt`` there.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import psutil

from phasesam.core.errors import PhaseSAMError, SaveError
from phasesam.models.registry import get_spec, locate
from phasesam.training.dataset import DataOptions, read_training_data
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.memory_estimate import require_memory
from phasesam.training.process import Job
from phasesam.training.run_folder import RunFolder, RunStatus

_NICE = 5
_TELL_SECONDS = 0.5


def main(folder: str) -> int:
    """Do the job in a run folder.

    Returns
    -------
    int
        0 when the adapter is there, 1 when not; the status says why.
    """
    run = RunFolder(Path(folder))
    _give_way()
    threading.Thread(target=_end_with_starter, args=(run,), daemon=True).start()
    run.write_status(RunStatus("preparing", "starting"))
    try:
        job = Job.read(run)
        options = DataOptions(**job.options)
        data = read_training_data(job.data, job.task, options)
        settings = TrainingSettings.from_dict(job.settings)
        _fetch(run, settings.base)
        require_memory(settings, len(data.classes))
        # Somebody may have asked for something while this process was starting.
        train(data, run.path, settings, resume=job.resume, keep_requests=True)
    except PhaseSAMError as error:
        if not run.status().is_over:
            run.write_status(RunStatus("failed", str(error)))
        return 1
    except Exception as error:
        if not run.status().is_over:
            run.write_status(RunStatus("failed", f"{type(error).__name__}: {error}"))
        raise
    return 0


def _fetch(run: RunFolder, base: str) -> None:
    """Download the base if it is not here, and tell how far that is."""
    spec, told = get_spec(base), [0.0]

    def tell(done: int, total: int) -> None:
        if time.monotonic() - told[0] > _TELL_SECONDS:
            told[0] = time.monotonic()
            share = f": {done / total:.0%}" if total else ""
            run.write_status(RunStatus("preparing", f"downloading {spec.title}{share}"))

    locate(spec, progress=tell, should_stop=lambda: run.is_cancelled)


def _give_way() -> None:
    """Leave the processor to whoever sits in front of the screen."""
    if os.name == "posix":
        os.nice(_NICE)
    else:
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)


def _end_with_starter(run: RunFolder) -> None:
    """Ask the training to save and end when whoever started it has ended, however it did.

    Its end of the pipe at our standard input is closed then.
    """
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        return  # started by hand, without a standard input
    try:
        run.cancel()
    except SaveError:
        # Nor could the next checkpoint be written; the one before is kept.
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
