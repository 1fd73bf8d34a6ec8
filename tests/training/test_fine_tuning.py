"""Whole trainings of the tiny model."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from tests.training.conftest import disc_data

from phasesam.core.errors import (
    CancelledError,
    CheckpointError,
    DeviceMemoryError,
    InvalidSettingError,
    SaveError,
    TrainingDataError,
    TrainingError,
)
from phasesam.models.adapter_card import read_card
from phasesam.models.adapters import load_trainable
from phasesam.models.sam import build_model
from phasesam.training import run_watch
from phasesam.training.class_objective import ClassObjective
from phasesam.training.data_checks import check
from phasesam.training.dataset import read_training_data
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.process import Job, start
from phasesam.training.recipes import Recipe
from phasesam.training.run_folder import RunFolder, RunStatus
from phasesam.training.saving import save_training_folder
from phasesam.training.trainer import Callback


def settings(recipe: Recipe, **changes: Any) -> TrainingSettings:
    return TrainingSettings(recipe, base="tiny", device="cpu", precision="fp32", **changes)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step, self.seen = step, 0

    def on_step(self, progress: Any, loss: float) -> None:
        self.seen = progress.step

    def should_stop(self) -> bool:
        return self.seen == self.step


@pytest.mark.parametrize("task", ["promptable", "instance", "semantic"])
def test_an_adapter_comes_out_and_fits_its_base(
    tmp_path: Path, brief: Recipe, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model that was hardly trained finds nothing to decide by.
    monkeypatch.setattr("phasesam.training.score_scale.best_threshold", lambda found: 0.5)
    data = disc_data(task)
    result = train(data, tmp_path / "run", settings(brief, licence="CC0"))
    card = result.card
    assert (card.task, card.base, card.details["recipe"]) == (task, "tiny", "default")
    assert card.details["data_hash"] == data.key
    assert card.details["splits"] == {"train": ["disc0", "disc1", "disc2"], "val": ["disc3"]}
    assert card.details["licence"] == "CC0"
    assert card.config.iou_head == (task == "instance")
    assert ("best_threshold" in card.details) == (task == "instance")
    assert card.classes == (("class 0", "class 1") if task == "semantic" else ())
    load_trainable(build_model("tiny"), result.path)
    run = RunFolder(tmp_path / "run")
    assert [row["epoch"] for row in run.log()] == [1, 2]
    assert run.status().state == "finished"
    preview = run.preview()
    assert preview is not None
    assert preview.rgb.shape[:2] == preview.truth.shape == preview.prediction.shape
    assert not list(run.cache_folder.rglob("*.safetensors"))


def test_the_base_is_measured_before_the_first_step(tmp_path: Path, brief: Recipe) -> None:
    still = replace(brief.optimiser, lr_encoder=1e-12, lr_decoder=1e-12, lr_heads=1e-12)
    recipe = replace(brief, epochs=1, optimiser=still)
    result = train(disc_data("promptable"), tmp_path, settings(recipe))
    before = RunFolder(tmp_path).base_figures()
    after = result.rows[-1]
    assert before == pytest.approx({name: after[name] for name in before}, abs=1e-4)
    assert {"dice_1", "dice_3", "dice_5", "val_score"} <= set(before)
    assert result.card.details["base_metrics"] == before


@pytest.mark.slow
def test_phases_are_learnt(tmp_path: Path, brief: Recipe) -> None:
    recipe = replace(
        brief, epochs=6, views_per_epoch=12, pool=12,
        optimiser=replace(brief.optimiser, lr_heads=1e-2, lr_decoder=5e-3, lr_encoder=5e-3),
    )  # fmt: skip
    rows = train(disc_data("semantic"), tmp_path, settings(recipe)).rows
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert max(row["val_score"] for row in rows) > 0.75


def test_a_stopped_training_goes_on_to_the_same_end(tmp_path: Path, brief: Recipe) -> None:
    recipe = replace(brief, adapter=replace(brief.adapter, dropout=0.1))
    data = disc_data("promptable")
    whole = train(data, tmp_path / "a", settings(recipe))
    for stop in (1, 3):
        with pytest.raises(CancelledError, match="can be resumed"):
            train(data, tmp_path / "b", settings(recipe), callbacks=[StopAt(stop)])
        run = RunFolder(tmp_path / "b")
        assert run.status().state == "cancelled"
        assert kept_state(run)["step"] == stop, "within an epoch, too"
        again = train(data, tmp_path / "b", settings(recipe), resume=True)
        assert again.card.details["base_metrics"] == whole.card.details["base_metrics"]
        first, second = load_file(whole.path), load_file(again.path)
        assert all(torch.equal(first[name], second[name]) for name in first)
        scores = [[row["val_score"] for row in result.rows] for result in (whole, again)]
        assert scores[0] == scores[1]
    nothing_left = train(data, tmp_path / "b", settings(recipe), resume=True)
    metrics = nothing_left.card.details["metrics"]
    assert metrics["val_score"] == max(scores[0])
    assert metrics == read_card(nothing_left.path).details["metrics"]


def kept_state(run: RunFolder) -> dict[str, Any]:
    """Where the training in a folder will go on."""
    state: dict[str, Any] = torch.load(run.checkpoint_file, weights_only=True)["state"]
    return state


def test_what_phases_learn_before_the_first_epoch_is_kept(
    tmp_path: Path, brief: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, data = replace(brief, epochs=1), disc_data("semantic")
    whole = train(data, tmp_path / "a", settings(recipe))
    with pytest.raises(CancelledError):
        train(data, tmp_path / "b", settings(recipe), callbacks=[StopAt(1)])
    steps = "phasesam.training.detail_training._steps"
    monkeypatch.setattr(steps, lambda *arguments: pytest.fail("learnt again"))
    again = train(data, tmp_path / "b", settings(recipe), resume=True)
    assert [r["loss"] for r in again.rows] == [r["loss"] for r in whole.rows]
    first, second = load_file(whole.path), load_file(again.path)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_search_for_a_threshold_comes_after_the_last_epoch(
    tmp_path: Path, brief: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = RunFolder(tmp_path), replace(brief, epochs=1)
    seen = []

    def search(path: Path, base: Any, images: Any, device: str, should_stop: Any) -> Any:
        seen.append(run.status())
        run.cancel()
        if should_stop():
            raise CancelledError("stopped")

    monkeypatch.setattr("phasesam.training.fine_tuning.scale_scores", search)
    with pytest.raises(CancelledError):
        train(disc_data("instance"), tmp_path, settings(recipe))
    (status,) = seen
    assert (status.state, status.epoch, status.epochs) == ("finishing", 1, 1)
    assert status.step == status.steps > 0
    assert not status.is_over
    assert (run.status().state, run.status().epoch) == ("cancelled", 1)
    assert run.best_file.exists()


def test_a_killed_process_is_resumed_to_the_same_score(tmp_path: Path, brief: Recipe) -> None:
    data = disc_data("promptable")
    save_training_folder(data, tmp_path / "data")
    # The second epoch takes longer than it takes to notice the first one's end.
    recipe = replace(brief, epochs=3, views_per_epoch=6)
    job = Job(str(tmp_path / "data"), "promptable", settings(recipe).to_dict())
    whole, killed = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    beside, process = start(whole, job), start(killed, job)
    deadline = time.monotonic() + 240
    while killed.status().epoch < 1:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process._process.send_signal(signal.SIGKILL)
    process.kill()
    assert killed.status().state == "failed"
    assert "ended" in killed.status().message
    kept = kept_state(killed)
    assert kept["epoch"] == 1, "in the midst of the second"
    assert start(killed, replace(job, resume=True)).wait(120) == 0
    assert beside.wait(120) == 0
    assert killed.status().state == "finished"
    assert [r["val_score"] for r in killed.log()] == [r["val_score"] for r in whole.log()]
    # With its time: what was done before was not done again.
    assert killed.log()[0] == kept["rows"][0]


def test_only_the_same_training_is_resumed(tmp_path: Path, brief: Recipe) -> None:
    data = disc_data("promptable")
    train(data, tmp_path, settings(replace(brief, epochs=1)))
    known = RunFolder(tmp_path).settings()
    with pytest.raises(
        CheckpointError, match=r"other data or settings.*\(recipe\.batch was \d+, is 3\)"
    ):
        train(data, tmp_path, settings(replace(brief, epochs=1, batch=3)), resume=True)
    run = RunFolder(tmp_path)
    assert run.settings() == known, "the folder says what its checkpoint is of"
    assert (run.status().state, run.status().epoch) == ("finished", 1)
    reworded = replace(brief, epochs=1, name="mine", title="Mine", description="as it was")
    train(data, tmp_path, settings(reworded), resume=True)
    fewer = replace(data, images=data.images[:-1])
    # A process that was started to resume says so before it looks.
    for state in ("finished", "preparing"):
        run.write_status(RunStatus(state))
        with pytest.raises(CheckpointError, match=r"other data or settings.*\(data_hash was"):
            train(fewer, tmp_path, settings(replace(brief, epochs=1)), resume=True)
    assert run.status().state == "failed"
    assert "data_hash was" in run.status().message


def test_nothing_to_learn_from_is_refused(tmp_path: Path, brief: Recipe) -> None:
    data = disc_data("semantic")
    with pytest.raises(
        TrainingDataError, match="at least one image in the split train, got 1 in val"
    ):
        train(replace(data, images=data.of("val")), tmp_path, settings(brief))


def test_an_absent_class_and_values_with_gaps_are_learnt(tmp_path: Path, brief: Recipe) -> None:
    """16-bit labels 0, 300, 60000, of which the last is only in the validation image."""
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for index, image in enumerate(disc_data("semantic").images):
        labels = image.label_array().astype(np.uint16) * 300
        if image.split == "val":
            labels[:8] = 60000
        tifffile.imwrite(tmp_path / "data" / "images" / f"{index}.tif", image.rgb())
        tifffile.imwrite(tmp_path / "data" / "labels" / f"{index}.tif", labels)
    rows = ("image,label,split", *(f"images/{i}.tif,labels/{i}.tif,train" for i in range(3)))
    table = tmp_path / "data" / "data.csv"
    table.write_text("\n".join([*rows, "images/3.tif,labels/3.tif,val"]))
    data = read_training_data(table, "semantic")
    assert data.class_values == (0, 300, 60000)
    warned = [w for w in check(data).warnings if "60000" in w]
    assert any("cannot be learnt" in warning for warning in warned), check(data).warnings
    result = train(data, tmp_path / "run", settings(replace(brief, epochs=1)))
    assert result.card.details["class_values"] == [0, 300, 60000]
    assert result.rows[-1]["iou_2"] == 0
    assert all(torch.isfinite(tensor).all() for tensor in load_file(result.path).values())


def test_pauses_until_told_to_go_on(tmp_path: Path, brief: Recipe) -> None:
    data = disc_data("promptable")
    save_training_folder(data, tmp_path / "data")
    run = RunFolder(tmp_path / "run")
    process = start(run, Job(str(tmp_path / "data"), "promptable", settings(brief).to_dict()))
    run.pause()
    deadline = time.monotonic() + 60
    while run.status().state != "paused" and time.monotonic() < deadline:
        time.sleep(0.02)
    step = run.status().step
    time.sleep(1.0)
    assert run.status().state == "paused"
    assert run.status().step == step
    run.resume()
    assert process.wait(120) == 0
    assert run.status().state == "finished"


@pytest.mark.parametrize("task", ["semantic", "promptable"])
def test_an_only_image_validates_too(tmp_path: Path, brief: Recipe, task: str) -> None:
    data = disc_data(task, count=2)
    data = replace(data, images=data.images[:1])
    result = train(data, tmp_path, settings(replace(brief, epochs=2)))
    scores = [row["val_score"] for row in result.rows]
    assert len(scores) == 2
    assert result.card.details["metrics"]["val_score"] == max(scores)
    assert RunFolder(tmp_path).preview() is not None


@pytest.mark.parametrize("task", ["semantic", "promptable"])
def test_one_epoch_on_an_only_image_needs_no_choice(
    tmp_path: Path, brief: Recipe, task: str
) -> None:
    data = disc_data(task, count=2)
    data = replace(data, images=data.images[:1])
    result = train(data, tmp_path, settings(replace(brief, epochs=1)))
    assert "val_score" not in result.rows[0]
    assert result.card.details["metrics"]["epoch"] == 1


@pytest.mark.parametrize(("task", "nothing"), [("semantic", -1), ("instance", 0)])
def test_validation_without_labels_is_none(
    tmp_path: Path, brief: Recipe, task: str, nothing: int
) -> None:
    """Training images choose the adapter instead, and it is said."""
    from phasesam.training.dataset import from_arrays

    images = [(i.name, i.rgb(), i.label_array(), None) for i in disc_data(task).images]
    known = from_arrays(images, task)
    (empty,) = known.of("val")
    images = [
        (name, rgb, np.full_like(labels, nothing) if name == empty.name else labels, None)
        for name, rgb, labels, _ in images
    ]
    data = from_arrays(images, task)
    assert any("hold nothing to judge by" in text for text in check(data).warnings)
    result = train(data, tmp_path, settings(replace(brief, epochs=2)))
    assert ["val_score" in row for row in result.rows] == [True, True]
    best = max(result.rows, key=lambda row: row["val_score"])
    assert result.card.details["metrics"]["epoch"] == best["epoch"]


@pytest.mark.parametrize("kind", ["preview", "log", "status"])
def test_what_is_only_to_be_looked_at_ends_nothing_where_it_cannot_be_written(
    tmp_path: Path, brief: Recipe, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write, refused = getattr(RunFolder, f"write_{kind}"), []

    def full(self: RunFolder, what: Any) -> None:
        now = what.step in (1, 2) if kind == "status" else len(refused) == 0
        if now:
            refused.append(what)
            raise SaveError("no space left")
        write(self, what)

    monkeypatch.setattr(RunFolder, f"write_{kind}", full)
    monkeypatch.setattr(run_watch, "_STATUS_SECONDS", 0.0)
    result = train(disc_data("semantic"), tmp_path, settings(brief))
    assert refused
    run = RunFolder(tmp_path)
    assert result.path.exists()
    assert run.checkpoint_file.exists()
    # What was not written once comes with the next.
    assert [row["epoch"] for row in run.log()] == [1, 2]
    assert run.status().state == "finished"


def test_where_the_loss_explodes_it_is_said_what_is_left(
    tmp_path: Path, brief: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, steps = ClassObjective.backward, []

    def exploding(self: ClassObjective, *arguments: Any) -> float:
        steps.append(1)
        later = len(steps) > brief.views_per_epoch
        return float("nan") if later else backward(self, *arguments)

    monkeypatch.setattr(ClassObjective, "backward", exploding)
    with pytest.raises(TrainingError, match=r"lower learning rate.*best adapter so far: .*best"):
        train(disc_data("semantic"), tmp_path / "a", settings(brief))
    assert RunFolder(tmp_path / "a").best_file.exists()
    with pytest.raises(TrainingError) as told:
        train(disc_data("semantic"), tmp_path / "b", settings(brief))
    assert "best adapter" not in str(told.value)


@pytest.mark.parametrize(("change", "message"), [({"device": "foo"}, "cuda"), ({"seed": -1}, "0")])
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        TrainingSettings(**change)


def test_a_device_that_is_not_there(tmp_path: Path, brief: Recipe) -> None:
    with pytest.raises(InvalidSettingError, match="this machine's devices"):
        train(disc_data("semantic"), tmp_path, replace(settings(brief), device="cuda:7"))


def test_sparse_labels_are_enough(tmp_path: Path, brief: Recipe) -> None:
    data = disc_data("semantic")
    images = []
    for image in data.images:
        labels = image.label_array()
        labels[np.random.default_rng(0).random(labels.shape) < 0.9] = -1
        images.append((image.name, image.rgb(), labels, None))
    from phasesam.training.dataset import from_arrays

    sparse = from_arrays(images, "semantic")
    result = train(sparse, tmp_path, settings(replace(brief, epochs=1)))
    assert np.isfinite(result.rows[0]["loss"])


def test_memory_that_runs_out_is_told_with_advice_and_nothing_is_lost(
    tmp_path: Path, brief: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch the allocator has nothing left; the first one can be gone on from."""
    backward, steps = ClassObjective.backward, []

    def failing(self: ClassObjective, *arguments: Any) -> float:
        steps.append(1)
        if len(steps) == brief.views_per_epoch + 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 99 GB")
        return backward(self, *arguments)

    monkeypatch.setattr(ClassObjective, "backward", failing)
    data = disc_data("semantic")
    with pytest.raises(DeviceMemoryError, match=r"ran out of memory .*adapt the decoder only"):
        train(data, tmp_path, settings(brief))
    status = RunFolder(tmp_path).status()
    assert status.state == "failed"
    assert "To need less" in status.message
    resumed = train(data, tmp_path, settings(brief), resume=True)
    assert [row["epoch"] for row in resumed.rows] == [1, 2]


@pytest.mark.parametrize(
    ("error", "state"),
    [(RuntimeError("of torch"), "failed"), (KeyboardInterrupt(), "cancelled")],
)
def test_whatever_ends_a_training_its_folder_says_so(
    tmp_path: Path, brief: Recipe, error: BaseException, state: str
) -> None:
    class Raise(Callback):
        def on_step(self, progress: Any, loss: float) -> None:
            raise error

    with pytest.raises(type(error)):
        train(disc_data("promptable"), tmp_path, settings(brief), callbacks=[Raise()])
    assert RunFolder(tmp_path).status().state == state
    RunFolder(tmp_path).refuse_if_taken()
