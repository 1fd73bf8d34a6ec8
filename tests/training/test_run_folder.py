"""The folder between who trains and who watches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from phasesam.core.errors import FileFormatError, SaveError
from phasesam.training.run_folder import Preview, RunFolder, RunStatus
from phasesam.training.run_watch import RunWatch


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert (run.status(), run.log(), run.preview()) == (RunStatus(), [], None)
    run.write_status(RunStatus("training", "loss", 1, 2, 3, 4, 5.5, 0.5))
    assert run.status().seconds_left == 5.5
    assert run.status().state == "training"
    run.write_log([{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25, "val_score": 0.1}])
    assert run.log() == [
        {"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25, "val_score": 0.1},
    ]  # fmt: skip
    rgb = np.zeros((4, 5, 3), np.uint8)
    labels = np.arange(20, dtype=np.int32).reshape(4, 5)
    run.write_preview(Preview(rgb, labels, labels + 1))
    preview = run.preview()
    assert preview is not None
    assert np.array_equal(preview.prediction, labels + 1)
    run.write_settings({"base": "tiny"})
    assert run.settings() == {"base": "tiny"}


def test_a_process_that_died_has_failed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    script = (
        "import sys; from phasesam.training.run_folder import *;"
        "RunFolder(sys.argv[1]).write_status(RunStatus('training'))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert run.status().state == "failed"
    assert run.status().is_over


def test_another_process_with_the_same_number_is_not_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_status(RunStatus("training"))
    file = tmp_path / "status.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "started": values["started"] - 1000}))
    assert run.status().state == "failed"


def test_requests(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.pause()
    assert run.is_paused
    run.resume()
    run.resume()
    assert not run.is_paused
    run.cancel()
    run.pause()
    assert run.is_cancelled
    run.clear_requests()
    assert not run.is_cancelled
    assert not run.is_paused


def test_half_written_files_count_as_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "status.json").write_text('{"state": "tra')
    (tmp_path / "preview.npz").write_bytes(b"PK")
    assert run.status() == RunStatus()
    assert run.preview() is None
    with pytest.raises(FileFormatError, match="no folder of a training"):
        run.settings()


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.refuse_if_taken()
    run.write_status(RunStatus("training"))
    run.refuse_if_taken(but=os.getpid())
    with pytest.raises(SaveError, match="under way in"):
        run.refuse_if_taken()
    parent = psutil.Process(os.getppid())
    file = tmp_path / "status.json"
    other = {"pid": parent.pid, "started": parent.create_time()}
    file.write_text(json.dumps({**json.loads(file.read_text()), **other}))
    with pytest.raises(SaveError, match="under way in"):
        run.refuse_if_taken(but=os.getpid())
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": "finished"}))
    run.refuse_if_taken()


def test_a_pause_ends_with_what_was_said_before(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    watch = RunWatch(run)
    for state in ("training", "finishing"):
        watch.tell(RunStatus("training", "loss 1.000", epoch=1, epochs=2))
        if state == "finishing":
            run.write_status(RunStatus(state, "looking for the best threshold"))
        run.pause()
        waiting = threading.Thread(target=watch.should_stop)
        waiting.start()
        while run.last_word().state != "paused":
            time.sleep(0.01)
        run.resume()
        waiting.join(10)
        assert run.last_word().state == state
