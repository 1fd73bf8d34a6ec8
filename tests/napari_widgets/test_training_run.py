"""Folders of trainings, and looking into them. The real process: test_finetune_clicks.py."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest

from phasesam.core.errors import CancelledError, CheckpointError, FileFormatError, SaveError
from phasesam.napari_widgets.training_request import DataRequest, PairToRead
from phasesam.napari_widgets.training_run import (
    RunFacts,
    TrainingRun,
    any_ending,
    earlier_runs,
    new_run,
    plain_name,
    training_folder,
    write_training,
)
from phasesam.napari_widgets.training_watch import TrainingWatch
from phasesam.training.dataset import DataOptions
from phasesam.training.process import Job
from phasesam.training.run_folder import Preview, RunFolder, RunStatus
from phasesam.training.settings import TrainingSettings


def request():
    labels = np.zeros((20, 30), np.int32)
    labels[4:9, 4:9] = 1
    image = np.full((20, 30), 9, np.uint8)
    pairs = tuple(PairToRead(name, image, labels, ((),)) for name in "ab")
    return DataRequest("promptable", "SEM", DataOptions(), pairs)


def begun(processes, name="SEM"):
    run = new_run(name)
    write_training(run, request(), TrainingSettings())
    training = TrainingRun(run)
    training.begin()
    return training, processes[-1]


def test_folders_are_named_and_never_shared():
    first = new_run("SEM 3: ä/b")
    first.create()
    second = new_run("SEM 3: ä/b")
    assert first.path != second.path
    assert first.path.parent == training_folder()
    assert TrainingRun(first).name == "SEM-3-b"
    assert plain_name("///") == "training"


def test_a_job_says_what_is_learnt(processes):
    training, process = begun(processes)
    assert (training.folder.path / "data" / "data.csv").is_file()
    assert not process.job.resume
    assert TrainingSettings.from_dict(process.job.settings) == TrainingSettings()
    assert RunFacts.read(training.folder) == RunFacts("promptable", "Default", "MobileSAM")
    assert RunFacts.read(RunFolder("nowhere")) == RunFacts()


def test_a_job_that_is_stopped_leaves_nothing(processes):
    run = new_run("SEM")
    with pytest.raises(CancelledError):
        write_training(run, request(), TrainingSettings(), should_stop=lambda: True)
    assert not run.path.exists()


def test_whatever_goes_wrong_leaves_nothing(processes, monkeypatch):
    def leave_in(self, folder, progress, should_stop):
        (folder / "data").mkdir(parents=True)
        raise MemoryError

    monkeypatch.setattr(DataRequest, "leave_in", leave_in)
    run = new_run("SEM")
    with pytest.raises(MemoryError):
        write_training(run, request(), TrainingSettings())
    assert not run.path.exists()


def test_while_it_finishes_it_is_asked_and_not_killed(processes):
    training, process = begun(processes)
    training.folder.write_status(RunStatus("finishing", epoch=4, epochs=4))
    assert not any_ending()
    training.cancel()
    assert not process.killed
    assert any_ending()
    process.is_running = False
    assert not any_ending()


def test_before_the_process_speaks_it_is_preparing(processes):
    training, process = begun(processes)
    assert training.status().state == "preparing"
    process.is_running = False
    assert training.status().state == "failed", "it died without a word"


@pytest.mark.parametrize(("said", "told"), [("preparing", "cancelled"), ("failed", "failed")])
def test_whoever_is_killed_has_been_cancelled_unless_it_was_over(processes, said, told):
    training, process = begun(processes)
    training.cancel()
    # What a process that has started writes, of which nothing is left.
    status = {"state": said, "message": "learning fine detail", "pid": 2**22 + 1, "started": 1.0}
    (training.folder.path / "status.json").write_text(json.dumps(status))
    assert process.killed
    assert training.status().state == told
    assert training.folder.status().state == told, "for others, too"


def test_cancel_kills_what_has_not_begun_and_asks_what_has(processes):
    training, process = begun(processes)
    training.cancel()
    assert process.killed
    assert training.status().state == "cancelled"
    assert training.folder.status().state == "cancelled", "for others, too"
    training, process = begun(processes)
    training.folder.write_status(RunStatus("training"))
    training.cancel()
    assert not process.killed
    assert training.folder.is_cancelled


def test_going_on(processes):
    training, process = begun(processes)
    training.folder.cancel()
    training.folder.write_status(RunStatus("cancelled"))
    process.is_running = False
    again = TrainingRun(RunFolder(training.folder.path))
    assert not again.is_running
    again.prepare()
    again.begin()
    assert not processes[-1].job.resume, "nothing is kept yet"
    assert again.status().state == "preparing", "not as the one before ended"
    assert not again.folder.is_cancelled
    again.folder.checkpoint_file.touch()
    again.prepare()
    again.begin()
    assert processes[-1].job.resume
    assert processes[-1].job.data == process.job.data


def test_another_window_trains_in_the_folder(processes, tmp_path):
    training, process = begun(processes)
    training.folder.write_status(RunStatus("cancelled"))
    process.is_running = False
    other = psutil.Process(os.getppid())
    file = training.folder.path / "status.json"
    values = {"state": "training", "pid": other.pid, "started": other.create_time()}
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    before = file.read_text()
    with pytest.raises(SaveError, match="under way"):
        training.prepare()
    assert file.read_text() == before


def test_a_folder_without_a_job(processes, tmp_path):
    with pytest.raises(FileFormatError):
        TrainingRun(RunFolder(tmp_path)).prepare()


def test_earlier_trainings_newest_first(processes):
    assert earlier_runs() == []
    for number, (state, has_checkpoint) in enumerate(
        (("finished", True), ("cancelled", True), ("failed", False), ("training", True))
    ):
        run = new_run(f"run {number}")
        run.write_status(RunStatus(state, epoch=2, epochs=9, best_score=0.75))
        if has_checkpoint:
            run.checkpoint_file.touch()
        os.utime(run.path / "status.json", (number, number))
    runs = earlier_runs()
    assert [run.name for run in runs] == ["run-2", "run-1", "run-0"], "not what still runs"
    assert [run.can_resume for run in runs] == [False, True, False]
    assert runs[1].title.endswith("cancelled in epoch 3 of 9")
    assert runs[2].title.endswith("finished, 0.750")


def test_output_of_a_process(tmp_path):
    training = TrainingRun(RunFolder(tmp_path))
    assert training.output() == ""
    (tmp_path / "output.txt").write_text("x" * 9000 + "\nImportError: no torch\n")
    assert training.output().endswith("ImportError: no torch")
    assert len(training.output()) < 5000


@pytest.fixture
def watch(qtbot, processes):
    training, _ = begun(processes)
    watch = TrainingWatch(training)
    glances = []
    watch.seen.connect(glances.append)
    yield training, watch, glances
    watch.stop()


def test_a_watch_reports_until_it_is_over(watch, until):
    training, watch, glances = watch
    folder = training.folder
    watch.start()
    until(lambda: glances)
    assert glances[-1].status.state == "preparing"
    folder.write_log([{"epoch": 1, "loss": 2.5}])
    picture = np.zeros((20, 30, 3), np.uint8)
    folder.write_preview(Preview(picture, *np.zeros((2, 20, 30), np.int32)))
    folder.write_status(RunStatus("training", epoch=1, epochs=3))
    until(lambda: glances[-1].rows)
    until(lambda: [g for g in glances if g.picture is not None])
    count = len(glances)
    until(lambda: len(glances) > count + 1)
    seen = [glance for glance in glances if glance.picture is not None]
    assert len(seen) == 1, "read once"
    assert glances[-1].rows == ({"epoch": 1.0, "loss": 2.5},)
    folder.write_base_figures({"dice_1": 0.25})
    until(lambda: glances[-1].rows[0] == {"epoch": 0.0, "dice_1": 0.25})
    folder.write_status(RunStatus("finished", epoch=3, epochs=3))
    until(lambda: glances[-1].status.state == "finished")
    assert not watch._timer.isActive()


def test_a_watch_shows_what_a_dead_process_printed(watch, processes, until):
    training, watch, glances = watch
    (training.folder.path / "output.txt").write_text("Killed")
    processes[-1].is_running = False
    watch.start()
    until(lambda: glances)
    assert (glances[-1].status.state, glances[-1].output) == ("failed", "Killed")


def test_a_watch_never_waits_for_a_slow_drive(watch, until, monkeypatch):
    _, watch, glances = watch
    monkeypatch.setattr(RunFolder, "status", lambda self: time.sleep(0.3) or RunStatus("finished"))
    start = time.perf_counter()
    watch.start()
    assert time.perf_counter() - start < 0.1
    until(lambda: glances)


def test_job_and_settings_are_plain(processes):
    _, process = begun(processes)
    assert Job.read(process.run) == process.job


def died_at_once(processes):
    """Return a training whose process has ended without a word."""
    run = new_run("steel")
    Job("x", "semantic", TrainingSettings().to_dict()).write(run)
    training = TrainingRun(run)
    training.prepare()
    training.begin()
    processes[0].is_running = False
    return training


def test_a_process_that_dies_at_once_can_be_resumed_later(processes):
    training = died_at_once(processes)
    run = training.folder
    run.checkpoint_file.write_bytes(b"1")
    assert training.status().state == "failed"
    (listed,) = earlier_runs()
    assert listed.path == run.path
    assert listed.can_resume, "while this program still runs"


def test_a_folder_that_was_deleted_is_not_made_again(processes):
    training = died_at_once(processes)
    run = training.folder
    shutil.rmtree(run.path)
    assert training.status().state == "failed"
    assert not run.path.exists()


def test_what_another_process_says_of_the_folder_stays(processes):
    training = died_at_once(processes)
    run = training.folder
    other = psutil.Process().parent()
    word = RunStatus("training", epoch=3, epochs=9, pid=other.pid, started=other.create_time())
    (run.path / "status.json").write_text(json.dumps(asdict(word)))
    assert training.status() == word
    assert run.last_word() == word, "somebody resumed it elsewhere"


def test_a_stop_that_comes_with_the_last_image_leaves_nothing(processes):
    run, asked = new_run("SEM"), []

    def late():
        asked.append((run.path / "data").is_dir() and any((run.path / "data").rglob("*.csv")))
        return asked[-1]

    with pytest.raises(CancelledError):
        write_training(run, request(), TrainingSettings(), should_stop=late)
    assert asked[0] is False
    assert not run.path.exists()


def test_the_adapter_to_go_on_from_stays_with_the_training(processes, tmp_path):
    start = tmp_path / "steel.safetensors"
    start.write_bytes(b"weights")
    run = new_run("SEM")
    write_training(run, request(), TrainingSettings(start=str(start)))
    start.write_bytes(b"trained again")
    kept = TrainingSettings.from_dict(Job.read(run).settings).start
    assert Path(kept).read_bytes() == b"weights"
    start.unlink()
    gone = new_run("other")
    with pytest.raises(CheckpointError, match=r"steel\.safetensors cannot be read"):
        write_training(gone, request(), TrainingSettings(start=str(start)))
    assert not gone.path.exists()
