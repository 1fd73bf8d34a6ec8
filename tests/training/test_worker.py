"""The process that trains, seen from outside."""

from __future__ import annotations

import time

import numpy as np
import psutil
import pytest

from phasesam.training.dataset import from_arrays
from phasesam.training.process import Job, start
from phasesam.training.recipes import get_recipe
from phasesam.training.run_folder import RunFolder
from phasesam.training.saving import save_training_folder

_SECONDS = 120


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Two discs to learn from, for longer than anybody waits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    y, x = np.mgrid[:64, :64]
    disc = ((y - 30) ** 2 + (x - 30) ** 2 < 200).astype(np.int32)
    image = (60 + 120 * disc).astype(np.uint8)
    classes = {"classes": {0: "ground", 1: "disc"}}
    data = from_arrays([("a", image, disc, None), ("b", image, disc, None)], "semantic", **classes)
    folder = save_training_folder(data, tmp_path / "data")
    changes = {"epochs": 1000, "views_per_epoch": 1, "detail_steps": 0}
    recipe = get_recipe("default").to_dict() | changes
    settings = {"recipe": recipe, "base": "tiny", "device": "cpu", "trackers": []}
    return Job(str(folder), "semantic", settings)


def test_a_training_ends_with_the_program_that_started_it(job, tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(run, job)
    pid = process._process.pid
    end = time.monotonic() + _SECONDS
    while run.status().epoch == 0 and time.monotonic() < end:
        time.sleep(0.05)
    assert run.status().pid == pid
    assert psutil.Process(pid).nice() > psutil.Process().nice()
    # What the system does when a program ends, however it ends.
    process._process.stdin.close()
    process.wait(_SECONDS)
    assert run.status().state == "cancelled"
    assert run.checkpoint_file.exists()
    assert not process.is_running
