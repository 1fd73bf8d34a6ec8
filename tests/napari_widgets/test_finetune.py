"""The Fine-tune dock without a canvas or a process. The real thing: test_finetune_clicks.py."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from phasesam.core.errors import SaveError, UnknownModelError
from phasesam.models.adapter_store import get_adapter, import_adapter, list_adapters
from phasesam.napari_widgets import finetune, training_estimate
from phasesam.napari_widgets.finetune import FineTuneDock
from phasesam.napari_widgets.header import Status
from phasesam.napari_widgets.training_run import (
    TrainingRun,
    earlier_runs,
    new_run,
    training_folder,
)
from phasesam.training.process import Job
from phasesam.training.run_folder import OTHER, Preview, RunFolder, RunStatus
from phasesam.training.settings import TrainingSettings

SHAPE = (40, 60)
CHECKING_MS = 20_000


def spots(seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(40, 80, SHAPE, dtype=np.uint8)
    labels = np.zeros(SHAPE, np.int32)
    for number, (y, x) in enumerate(((8, 10), (25, 40), (28, 12)), 1):
        labels[y : y + 7, x : x + 9] = number
    return image + 100 * (labels > 0).astype(np.uint8), labels


@pytest.fixture(autouse=True)
def _no_estimate(monkeypatch):
    """Loading torch in another process takes seconds."""
    monkeypatch.setattr(training_estimate, "estimate", lambda s, n_classes, stop: 3_000_000_000)


@pytest.fixture
def dock(viewer_model, processes, shown):
    return shown(FineTuneDock(viewer_model), (420, 900))


@pytest.fixture
def checked(dock, until):
    """Wait until the dock knows what will be learnt."""

    def wait():
        until(lambda: dock._found is not None, timeout=CHECKING_MS)

    return wait


@pytest.fixture
def labelled(dock, checked):
    """Two images with labels, checked."""
    for name in ("A", "B"):
        image, labels = spots(len(name))
        dock.viewer.add_image(image, name=name)
        dock.viewer.add_labels(labels, name=f"{name} labels")
    checked()
    return dock


@pytest.fixture
def training(labelled, processes, until):
    """A training under way."""
    labelled.start_button.click()
    until(lambda: processes)
    return processes[0].run


def said(dock):
    return dock.footer.result.text()


def row(epoch, score):
    return {"epoch": epoch, "loss": 3.0 - epoch, "dice_1": score, "val_score": score, "seconds": 65}


def go(folder, epoch, **changes):
    """Let the training say how far it is."""
    folder.write_log([row(number, 0.1 * number) for number in range(1, epoch + 1)])
    values = {"epoch": epoch, "epochs": 4, "step": 8 * epoch, "steps": 32, "seconds_left": 90.0}
    folder.write_status(RunStatus("training", **{**values, **changes}))


def finish(folder, process, make_adapter, state="finished", **details):
    make_adapter(folder.best_file, **details)
    folder.write_status(RunStatus(state, epoch=4, epochs=4))
    process.is_running = False


def test_without_labels_nothing_can_be_started(dock, until):
    until(lambda: "Tick labels" in dock.summary.numbers.text())
    assert not dock.start_button.isEnabled()
    dock.train()
    assert "nothing to learn from" in said(dock)


def test_labels_are_counted_and_memory_is_estimated(labelled, until):
    text = labelled.summary.numbers.text()
    assert "1 image to learn from with 3 objects" in text
    assert "1 image to validate with 3 objects" in text
    assert "no test image" in labelled.summary.warnings.text()
    assert labelled.start_button.isEnabled()
    until(lambda: labelled.memory.text().startswith("Needs about 3 GB of memory"))


def test_bad_data_are_told_and_cannot_be_started(dock, until, tmp_path):
    dock.use_folder(tmp_path)
    until(lambda: "expected a folder images" in dock.summary.warnings.text())
    assert not dock.start_button.isEnabled()


def test_labels_that_no_longer_fit_cannot_be_learnt(labelled, until):
    for name in "AB":
        labelled.viewer.layers[f"{name} labels"].data = np.ones((39, 60), np.int32)
    labelled.train()
    assert "nothing to learn from" in said(labelled)
    until(lambda: "Tick labels" in labelled.summary.numbers.text())
    assert not labelled.start_button.isEnabled()
    assert "'A labels' is 39 × 60" in labelled.data.hint.text()


def test_images_that_have_gone_cannot_be_learnt(labelled, until):
    for name in "AB":
        labelled.viewer.layers.remove(name)
    labelled.train()
    assert "nothing to learn from" in said(labelled)
    until(lambda: not labelled.start_button.isEnabled())


def test_labels_elsewhere_are_told(labelled, checked, until):
    layer = labelled.viewer.add_labels(spots()[1], name="A again", translate=(500, 500))
    until(lambda: labelled.data.pairs.topLevelItemCount() == 3)
    assert "A again" not in [pair.labels.name for pair in labelled.data.pairs.chosen()]
    labelled.data.pairs.tick(layer)
    until(lambda: "do not lie on the image" in labelled.summary.warnings.text())


def test_every_change_is_looked_at_anew(labelled, checked):
    labelled.data.use_task("semantic")
    assert not labelled.start_button.isEnabled()
    checked()
    assert labelled.summary.bars.isVisible()
    assert len(labelled.settings().class_colours) == 3
    assert "to learn from" in labelled.summary.numbers.text()


def test_settings_change_the_memory_but_not_the_data(labelled, until, monkeypatch):
    asked = []
    monkeypatch.setattr(training_estimate, "estimate", lambda s, n, stop: asked.append(s) or 10**15)
    found = labelled._found
    labelled.recipe.rank.setValue(64)
    until(lambda: "may not fit" in labelled.memory.text())
    assert asked[-1]["recipe"]["adapter"]["rank"] == 64
    labelled.state.choose_model("sam_vit_b")
    until(lambda: asked[-1]["base"] == "sam_vit_b")
    assert labelled._found is found


def test_a_dock_behind_another_one_does_not_work(labelled, qtbot, until):
    labelled.hide()
    labels = labelled.viewer.layers["A labels"]
    labels.data_setitem((np.array([0]), np.array([0])), 9)
    until(lambda: labelled._found is None)
    qtbot.wait(600)
    assert labelled._checking is None
    labelled.show()
    until(lambda: labelled._found is not None, timeout=CHECKING_MS)
    assert "with 4 objects" in labelled.summary.numbers.text()


def test_a_training_from_start_to_end(labelled, training, processes, until, make_adapter):
    dock, (process,) = labelled, processes
    assert process.job.task == "promptable"
    assert process.job.settings["base"] == "mobile_sam"
    assert dock.setup.isHidden()
    assert dock.header.dot.status is Status.WORKING
    assert dock.page.pause_button.isVisible()
    go(training, 1)
    until(lambda: dock.footer.bar.value() == 8)
    until(lambda: len(dock.page.panel.score.points) == 1)
    assert dock.footer.running_text.text() == "Training … · about 1 min 30 s left"
    assert dock.page.panel.state.text() == "Epoch 2 of 4 · best score 0.100 in epoch 1"
    truth = np.zeros(SHAPE, np.int32)
    training.write_preview(Preview(np.zeros((*SHAPE, 3), np.uint8), truth, truth))
    until(lambda: dock.page.panel.preview.has_picture)
    training.write_base_figures({"dice_1": 0.25, "val_score": 0.25})
    go(training, 4)
    finish(training, process, make_adapter)
    until(lambda: dock.page.panel.result.isVisible())
    assert said(dock) == "Training finished in 1 min 5 s."
    assert dock.header.dot.status is Status.IDLE
    result = dock.page.panel.result
    assert "<b>0.400</b> in epoch 4" in result.title.text()
    assert result.texts() == ["", "before", "after", "Dice after 1 click", "0.250", "0.400"]
    assert not dock.page.panel.resume.isVisible()
    assert result.name.text() == "B"


def test_use_now_puts_the_adapter_into_the_docks(
    labelled, training, processes, until, make_adapter
):
    go(training, 4)
    finish(training, processes[0], make_adapter)
    result = labelled.page.panel.result
    until(result.isVisible)
    result.name.setText("powder")
    result.use.click()
    until(lambda: "powder" in said(labelled))
    assert get_adapter("powder").card.base == "tiny"
    assert (labelled.state.model_name, labelled.state.adapter) == ("tiny", "powder")
    assert "powder" in labelled.header.model_combo.currentText()
    result.use.click()
    until(lambda: "already" in said(labelled))
    assert len(list_adapters()) == 1, "a name that is taken is not taken away"


def test_export(labelled, training, processes, until, make_adapter, tmp_path, monkeypatch):
    go(training, 4)
    finish(training, processes[0], make_adapter)
    until(labelled.page.panel.result.isVisible)
    target = tmp_path / "out.safetensors"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(target), ""))
    labelled.page.panel.result.export.click()
    until(lambda: said(labelled) == "Saved out.safetensors.")
    assert target.read_bytes() == training.best_file.read_bytes()


def test_pause_and_go_on(labelled, training, until):
    go(training, 1)
    button = labelled.page.pause_button
    button.click()
    assert training.is_paused
    assert button.text() == "Go on"
    training.write_status(RunStatus("paused", epoch=1, epochs=4))
    until(lambda: labelled.footer.running_text.text() == "Training paused")
    button.click()
    assert not training.is_paused
    assert button.text() == "Pause"


def test_cancel_and_resume(labelled, training, processes, until, make_adapter):
    go(training, 2)
    until(lambda: len(labelled.page.panel.loss.points) == 2)
    labelled.footer.cancel.click()
    assert training.is_cancelled
    assert not processes[0].killed
    assert "stopping" in labelled.footer.running_text.text()
    training.checkpoint_file.touch()
    training.write_status(RunStatus("cancelled", epoch=2, epochs=4))
    processes[0].is_running = False
    until(lambda: "stopped after 2 of 4 epochs" in said(labelled))
    panel = labelled.page.panel
    assert panel.resume.isVisible()
    panel.resume.click()
    until(lambda: len(processes) == 2)
    assert len(panel.loss.points) == 2, "the curve goes on"
    assert processes[1].job.resume
    assert processes[1].run.path == training.path
    assert not panel.resume.isVisible()
    go(training, 3)
    until(lambda: len(panel.loss.points) == 3)


def test_cancel_while_the_process_still_starts(labelled, training, processes, until):
    labelled.footer.cancel.click()
    assert processes[0].killed
    until(lambda: "Training stopped" in said(labelled))
    assert not labelled.page.panel.resume.isVisible(), "nothing to go on from"
    labelled.page.panel.new.click()
    assert labelled.setup.isVisible()


def test_a_failure_says_why_and_what_to_do(labelled, training, processes, until):
    training.write_status(RunStatus("failed", "the loss is not a number any more: try less"))
    processes[0].is_running = False
    until(lambda: "not a number" in said(labelled))
    assert "start anew" in said(labelled)
    assert labelled.header.dot.status is Status.ERROR
    assert labelled.page.panel.folder.isVisible()


def test_a_process_that_was_killed_can_go_on(labelled, training, processes, until):
    go(training, 1)
    training.checkpoint_file.touch()
    (training.path / "output.txt").write_text("Out of memory: Killed")
    processes[0].is_running = False
    until(lambda: "Training failed" in said(labelled))
    assert "Resume goes on" in said(labelled)
    assert labelled.footer.result.toolTip() == "Out of memory: Killed"
    assert labelled.page.panel.resume.isVisible()


def test_a_closed_dock_stops_its_training(labelled, training, processes, qtbot):
    go(training, 1)
    labelled.close()
    labelled.deleteLater()
    qtbot.waitUntil(lambda: training.is_cancelled, timeout=5000)


def test_a_closed_dock_starts_nothing(labelled, processes, qtbot, monkeypatch):
    labelled.start_button.click()
    labelled.close()
    labelled.deleteLater()
    qtbot.wait(400)
    assert processes == []


def interrupted(name="steel"):
    """A folder as a closed dock leaves it."""
    run = new_run(name)
    Job("data", "semantic", TrainingSettings().to_dict()).write(run)
    run.write_log([row(1, 0.5)])
    run.write_status(RunStatus("cancelled", "training was stopped", epoch=1, epochs=9))
    run.checkpoint_file.touch()
    return run


def test_an_interrupted_training_is_offered_again(processes, qtbot, viewer_model, until):
    run = interrupted()
    dock = FineTuneDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    until(dock.interrupted.isVisible)
    assert "steel" in dock.interrupted.text.text()
    assert "epoch 2 of 9" in dock.interrupted.text.text()
    dock.interrupted.resume.click()
    until(lambda: processes)
    assert processes[0].job.resume
    assert processes[0].run.path == run.path
    assert "phases" in dock.page.panel.title.text()


def test_a_training_that_still_ends_is_offered_when_it_has(
    labelled, training, processes, qtbot, viewer_model, until
):
    go(training, 1)
    labelled.close()
    labelled.deleteLater()
    qtbot.waitUntil(lambda: training.is_cancelled, timeout=5000)
    again = FineTuneDock(viewer_model)
    qtbot.addWidget(again)
    again.show()
    qtbot.wait(300)
    assert not again.interrupted.isVisible()
    training.checkpoint_file.touch()
    training.write_status(RunStatus("cancelled", epoch=1, epochs=4))
    processes[0].is_running = False
    until(again.interrupted.isVisible)
    assert again.earlier.isEnabled()


def test_a_download_and_an_adapter_left_out_are_told(
    labelled, until, make_adapter, tmp_path, monkeypatch
):
    import_adapter(make_adapter(tmp_path / "p.safetensors", base="mobile_sam"), "powder")
    labelled.state.choose_model("mobile_sam", "powder")
    until(lambda: "go on from powder" in labelled.memory.text())
    assert labelled.settings().start == ""
    labelled.recipe.goes_on.setChecked(True)
    assert labelled.settings().start == str(get_adapter("powder").path)
    until(lambda: "powder" not in labelled.memory.text())
    base = labelled.recipe.base
    base.setCurrentIndex(base.findData("sam_vit_b"))
    base.activated.emit(base.currentIndex())
    until(lambda: "no adapter to go on from" in labelled.memory.text())
    labelled.start_button.click()
    assert "choose one beside the image" in said(labelled)
    labelled.recipe.goes_on.setChecked(False)
    until(lambda: "SAM ViT-B is downloaded first (" in labelled.memory.text())


def test_while_the_threshold_is_looked_for(labelled, training, processes, until):
    go(training, 4)
    until(lambda: len(labelled.page.panel.loss.points) == 4)
    training.write_status(RunStatus("finishing", epoch=4, epochs=4, step=32, steps=32))
    until(lambda: "threshold" in labelled.footer.running_text.text())
    assert labelled.footer.bar.value() == labelled.footer.bar.maximum() == 32
    labelled.footer.cancel.click()
    assert not processes[0].killed


def test_an_error_beside_a_training_does_not_stay_on_the_dot(labelled, training, until):
    go(training, 1)
    until(lambda: labelled.page.panel.loss.points)
    labelled.show_error("something else")
    go(training, 2)
    until(lambda: labelled.header.dot.status is Status.WORKING)


def test_earlier_trainings_can_be_looked_at(processes, qtbot, viewer_model, until, make_adapter):
    run = interrupted()
    make_adapter(run.best_file, classes=("a", "b"))
    dock = FineTuneDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    until(dock.interrupted.isVisible)
    dock.interrupted.dismiss.click()
    assert not dock.interrupted.isVisible()
    (action,) = dock.earlier.menu().actions()
    action.trigger()
    until(dock.page.panel.result.isVisible)
    assert dock.page.panel.score.points == ((1.0, 0.5),)
    assert dock.page.panel.resume.isVisible()
    assert "Best so far" in dock.page.panel.result.title.text()
    dock.page.panel.new.click()
    assert dock.setup.isVisible()
    assert not dock.page.isVisible()


def test_a_folder_that_lost_its_job_is_told(dock, until):
    run = new_run("x")
    run.write_status(RunStatus("cancelled"))
    dock.page.go_on(TrainingRun(run))
    until(lambda: "no training to do" in said(dock))
    assert dock.setup.isVisible()


def test_other_work_waits_for_the_training(labelled, training):
    go(training, 1)
    assert labelled.running
    assert labelled.start(lambda *_: None, title="Other", on_done=lambda _: None) is None


def earlier(name="old-2026-01-01-120000", state="finished"):
    run = RunFolder(training_folder() / name)
    run.create()
    Job("x", "promptable", TrainingSettings().to_dict()).write(run)
    run.write_log([row(1, 0.1)])
    run.write_status(RunStatus(state, epoch=1, epochs=4))
    return run


def test_an_earlier_training_whose_folder_is_gone(dock, until):
    run = earlier()
    dock.show_setup()
    until(lambda: dock.earlier.menu().actions())
    shutil.rmtree(run.path)
    dock.earlier.menu().actions()[0].trigger()
    assert "is gone" in said(dock)
    assert dock.setup.isVisible()
    assert not dock.page.isVisible()
    until(lambda: not dock.earlier.menu().actions())


def test_a_training_of_another_window_can_be_left(dock, until):
    run = earlier(state="training")
    dock.page.open(TrainingRun(run))
    dock._show_page()
    until(lambda: "epoch 2 of 4" in dock.page.panel.state.text().lower())
    assert dock.page.panel.new.isVisible()
    assert not dock.page.panel.resume.isVisible()
    dock.page.panel.new.click()
    assert dock.setup.isVisible()


def test_nothing_else_is_opened_while_data_are_written(labelled, until, monkeypatch):
    run = earlier(state="cancelled")
    run.checkpoint_file.write_bytes(b"1")
    labelled.show_setup()
    until(lambda: labelled.interrupted.isVisible() and labelled._found is not None)
    gate = threading.Event()
    monkeypatch.setattr(finetune, "write_training", lambda *_args: gate.wait(20))
    labelled.train()
    try:
        assert not labelled.earlier.isEnabled()
        assert not labelled.interrupted.isEnabled()
        labelled.resume_earlier(earlier_runs()[0])
        assert labelled.setup.isVisible()
        assert not labelled.page.isVisible()
        labelled.cancel()
    finally:
        gate.set()
    until(lambda: not labelled.running)
    until(lambda: labelled.interrupted.isEnabled())


def test_a_base_that_is_gone_is_told_beside_the_memory(labelled, until, monkeypatch):
    def notes(*_args):
        raise UnknownModelError("there is no model 'gone'")

    monkeypatch.setattr(finetune, "notes", notes)
    labelled._estimate()
    assert "there is no model 'gone'" in labelled.memory.text()


def test_buttons_come_back_when_other_work_has_ended(labelled, until):
    gate = threading.Event()
    labelled.start(
        lambda _progress, _stop: gate.wait(20), title="Exporting", on_done=lambda _: None
    )
    labelled._show_start()
    assert not labelled.start_button.isEnabled()
    gate.set()
    until(labelled.start_button.isEnabled)


def test_objects_that_are_too_small_are_told(dock, checked, until):
    image = np.zeros((600, 600), np.uint8)
    labels = np.zeros((600, 600), np.int32)
    labels[5:8, 5:8], labels[100:400, 100:400] = 1, 2
    dock.viewer.add_image(image, name="A")
    dock.viewer.add_labels(labels, name="A labels")
    checked()
    until(lambda: "Of 2 objects 1 are smaller than" in dock.memory.text())


def test_a_long_path_does_not_widen_the_dock(dock, until, tmp_path, qtbot):
    qtbot.wait(50)
    before = dock.minimumSizeHint().width()
    dock.use_folder(tmp_path / ("x" * 150))
    until(lambda: "found nothing" in dock.summary.warnings.text())
    qtbot.wait(50)
    assert dock.minimumSizeHint().width() == before


def test_what_is_not_resumed_because_it_changed_says_so(labelled, training, processes, until):
    training.checkpoint_file.touch()
    why = f"checkpoint.pt {OTHER}; restore what was changed (data_hash was 1, is 2)"
    training.write_status(RunStatus("failed", why))
    processes[0].is_running = False
    until(lambda: "data_hash was 1" in said(labelled))
    assert "Resume goes on" not in said(labelled)


def test_a_folder_that_cannot_be_written_ends_a_training_all_the_same(
    labelled, training, processes, until, monkeypatch
):
    def full(self, file):
        raise SaveError(f"could not write {file}: no space left")

    go(training, 1)
    until(lambda: len(labelled.page.panel.loss.points) == 1)
    monkeypatch.setattr(RunFolder, "_leave", full)
    labelled.page.pause_button.click()
    assert "no space left" in said(labelled)
    assert labelled.page.pause_button.text() == "Pause"
    labelled.footer.cancel.click()
    assert processes[0].killed
    until(lambda: "Training stopped" in said(labelled))
