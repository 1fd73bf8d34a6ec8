"""A process that trains and speaks through a run folder: ``python -m phasesam.training.worker RUN``.

Started by `phasesam.training.process`. It speaks through the run folder only; what libraries
print goes to ``output.txt`` there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from phasesam.core.errors import PhaseSAMError
from phasesam.training.dataset import DataOptions, read_training_data
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.process import Job
from phasesam.training.run_folder import RunFolder, RunStatus


def main(folder: str) -> int:
    """Do the job in a run folder.

    Returns
    -------
    int
        0 when the adapter is there, 1 when not; the status says why.
    """
    run = RunFolder(Path(folder))
    run.write_status(RunStatus("preparing", "starting"))
    try:
        job = Job.read(run)
        options = DataOptions(**job.options)
        data = read_training_data(job.data, job.task, options)
        train(data, run.path, TrainingSettings.from_dict(job.settings), resume=job.resume)
    except PhaseSAMError as error:
        if not run.status().is_over:
            run.write_status(RunStatus("failed", str(error)))
        return 1
    except Exception as error:
        run.write_status(RunStatus("failed", f"{type(error).__name__}: {error}"))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
