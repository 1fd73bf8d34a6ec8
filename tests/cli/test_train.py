"""``phasesam train`` with the tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.cli.train import build_recipe
from phasesam.cli.train_options import RecipeChoice
from phasesam.core.errors import SaveError
from phasesam.models.adapter_store import get_adapter
from phasesam.training.dataset import from_arrays
from phasesam.training.recipes import get_recipe
from phasesam.training.run_folder import RunFolder, RunStatus
from phasesam.training.saving import save_training_folder

SETTINGS = {
    "views_per_epoch": 2,
    "pool": 2,
    "detail_steps": 1,
    "prompts.objects": 2,
    "prompts.rounds": 1,
    "prompts.judged": 1,
}
BRIEF = ["--model", "tiny", "--device", "cpu", "--epochs", "1", "--batch", "2"]
for key, value in SETTINGS.items():
    BRIEF += ["--set", f"{key}={value}"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = []
    for i in range(3):
        labels = np.zeros((64, 64), np.int32)
        labels[10 + i : 30, 10:30] = 1
        labels[40:60, 35:55] = 2
        image = (labels * 60 + 30 + i).astype(np.uint8)
        images.append((f"n{i}", image, labels, None))
    return save_training_folder(from_arrays(images, "promptable"), tmp_path / "data")


def invoke(*args):
    return CliRunner().invoke(app, ["train", *map(str, args)])


def test_an_adapter_is_trained_further(folder):
    assert invoke(folder, "-o", "first", *BRIEF, "--set", "adapter.rank=3").exit_code == 0
    # The base is that of the adapter, whatever is the default.
    at = BRIEF.index("detail_steps=1")
    rest = [x for x in (*BRIEF[: at - 1], *BRIEF[at + 1 :]) if x not in ("--model", "tiny")]
    result = invoke(folder, "-o", "second", *rest, "--start", "first")
    assert result.exit_code == 0, result.output
    first, second = get_adapter("first"), get_adapter("second")
    assert (second.card.base, second.card.config.rank) == ("tiny", 3)
    assert second.card.details["start"] == first.content_hash
    for extra, code, message in (
        (["--task", "semantic", "--start", "first"], 2, "got semantic"),
        (["--start", "nothing"], 3, "no adapter 'nothing'"),
    ):
        result = invoke(folder, "-o", "third", *rest, *extra)
        assert (result.exit_code, message in " ".join(result.stderr.split())) == (code, True)


def test_trains_into_a_file_and_says_how_good_it_is(folder, tmp_path):
    result = invoke(folder, "-o", "a.safetensors", *BRIEF, "--json", "--save-recipe", "mine")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["adapter"] == "a.safetensors"
    assert 0 <= summary["metrics"]["val_score"] <= 1
    assert "train: 1 images, 2 objects" in result.stderr
    assert "memory: about" in result.stderr
    assert RunFolder("a_run").status().state == "finished"
    assert get_recipe("mine").views_per_epoch == 2
    again = invoke(folder, "-o", "a.safetensors", *BRIEF)
    assert again.exit_code == 4
    assert "--overwrite" in again.stderr


def test_trains_into_the_store_under_a_name(folder):
    result = invoke(folder, "-o", "powder", *BRIEF, "--task", "instance")
    assert result.exit_code == 0, result.output
    assert get_adapter("powder").card.task == "instance"
    assert "best epoch" in result.stdout
    longer = [*BRIEF, "--epochs", "2"]
    other = invoke(folder, "-o", "powder", *longer, "--task", "instance", "--resume")
    assert other.exit_code == 3
    assert "other data or settings" in other.stderr


def test_check_trains_nothing(folder, tmp_path):
    result = invoke(folder, "-o", "powder", "--check")
    assert result.exit_code == 0, result.output
    assert "val: 1 images" in result.stderr
    assert not (tmp_path / "powder_run").exists()
    run = invoke(folder, "-o", "powder", "--check", "--device", "cuda:7")
    assert run.exit_code == 2
    assert "this machine's devices" in run.stderr


def test_an_interrupted_training_is_not_lost(folder, tmp_path):
    result = invoke(folder, "-o", "deep/er/a.safetensors", *BRIEF, "--resume")
    assert result.exit_code == 2
    assert "nothing to resume" in result.stderr
    assert invoke(folder, "-o", "powder", *BRIEF).exit_code == 0
    run = RunFolder(tmp_path / "powder_run")
    done = run.checkpoint_file.read_bytes()
    again = invoke(folder, "-o", "powder", *BRIEF)
    assert again.exit_code == 4
    assert "--overwrite replaces it" in again.stderr
    (tmp_path / "cache" / "adapters" / "powder.safetensors").unlink(missing_ok=True)
    run.write_status(RunStatus("cancelled", epoch=1, epochs=6))
    again = invoke(folder, "-o", "other", "--run", run.path, *BRIEF)
    assert again.exit_code == 4
    assert "interrupted after 1 of 6 epochs; --resume goes on" in again.stderr
    run.write_status(RunStatus("cancelled"))
    again = invoke(folder, "-o", "other", "--run", run.path, *BRIEF)
    assert again.exit_code == 4
    assert "interrupted; --resume goes on" in again.stderr
    run.write_status(RunStatus("training", epoch=1, epochs=6))
    again = invoke(folder, "-o", "other", "--run", run.path, *BRIEF, "--resume")
    assert again.exit_code == 4
    assert "under way" in again.stderr
    assert run.checkpoint_file.read_bytes() == done
    run.write_status(RunStatus("cancelled", epoch=1, epochs=6))
    assert invoke(folder, "-o", "o", "--run", run.path, *BRIEF, "--overwrite").exit_code == 0


def test_an_adapter_that_cannot_be_delivered_is_not_lost(folder, tmp_path, monkeypatch):
    def full(best, name, replace):
        raise SaveError("the disk is full")

    monkeypatch.setattr("phasesam.models.adapter_store.import_adapter", full)
    result = invoke(folder, "-o", "powder", *BRIEF)
    assert result.exit_code == 4
    assert "powder_run/best.safetensors" in result.stderr.replace("\n", "")


def test_a_window_of_0_shows_whole_images():
    options = RecipeChoice("default", window=0)
    for task in ("semantic", "instance"):
        assert build_recipe(options).fitted(task, False, 2000, 50.0).views.window is None


def test_what_does_not_fit_is_refused(folder, monkeypatch):
    free = psutil.virtual_memory()._replace(available=10**9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    result = invoke(folder, "-o", "powder")
    assert result.exit_code == 3
    assert "prompt fewer objects" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "adapter.rnk=3"], "no setting 'adapter.rnk'"),
        (["--set", "epochs"], "KEY=VALUE"),
        (["--recipe", "none"], "there are default"),
        (["--recipe", "dental-iterative", "--task", "semantic"], "fits promptable"),
        (["--fractions", "1,2"], "three numbers"),
        (["-o", "a/b"], "ending in .safetensors"),
        (["-o", "model.pt"], "ending in .safetensors"),
        (["--task", "semantic", "--classes", "0=a,0=b"], "names the value 0 twice"),
        (["--task", "semantic", "--classes", "0=a,1=b,2=a"], "a name of its own for each"),
        (["--seed", "-1"], "seed"),
        (["--device", "foo"], "cuda:0"),
        (["--labels", "nowhere"], "nowhere"),
        (["--precision", "fp8"], "fp8"),
    ],
)
def test_says_what_was_expected(folder, arguments, message):
    result = invoke(folder, "-o", "powder", *BRIEF, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_recipes_are_listed():
    result = CliRunner().invoke(app, ["recipes"])
    assert result.exit_code == 0
    for name in ("default", "battery-particles", "one-image"):
        assert name in result.stdout


def test_warnings_are_told_once(folder, tmp_path):
    plain = tmp_path / "plain"
    for kind in ("images", "labels"):
        (plain / kind).mkdir(parents=True)
        for path in sorted((folder / kind).iterdir())[: 3 if kind == "images" else 2]:
            shutil.copy(path, plain / kind)
    result = invoke(plain, "-o", "powder", *BRIEF, "--check")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("without labels are left out") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rank", "64"], "--rank cannot be chosen with --start"),
        (["--window", "64"], "--window cannot"),
        (["--set", "adapter.rank=4"], "--set adapter.rank cannot"),
        (["--set", "stretch=false"], "--set stretch cannot"),
        (["--model", "mobile_sam_x"], "--model cannot"),
    ],
)
def test_options_that_an_adapter_has_decided_are_refused(
    folder, tmp_path, make_adapter, arguments, message
):
    start = make_adapter(tmp_path / "first.safetensors")
    result = invoke(folder, "-o", "powder", "--start", start, "--device", "cpu", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_run_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "taken").write_text("")
    result = invoke(folder, "-o", "powder", *BRIEF, "--run", tmp_path / "taken")
    assert result.exit_code == 4, result.output
    assert "could not make the folder" in result.stderr


def test_objects_that_nobody_can_see_are_told(tmp_path):
    labels = np.zeros((1024, 1024), np.int32)
    labels[10:14, 10:14], labels[100:300, 100:300] = 1, 2
    images = [(f"n{i}", (labels * 60 + i).astype(np.uint8), labels, None) for i in range(2)]
    data = save_training_folder(from_arrays(images, "promptable"), tmp_path / "specks")
    result = invoke(data, "-o", "powder", *BRIEF, "--window", 0, "--check")
    assert result.exit_code == 0, result.output
    assert "of 2 objects 1 are smaller than" in " ".join(result.stderr.split())


def test_labels_mean_what_they_meant_to_the_adapter_to_go_on_from(folder, tmp_path, make_adapter):
    start = make_adapter(
        tmp_path / "a.safetensors", classes=("steel", "pore", "crack"), class_values=[0, 1, 2],
        unlabelled=9,
    )  # fmt: skip
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain, ignore=shutil.ignore_patterns("classes.csv"))
    result = invoke(plain, "-o", "b", "--start", start, "--device", "cpu", "--check")
    assert result.exit_code == 0, result.output
    assert "the value 9 means unlabelled" in " ".join(result.stderr.split())
    assert "steel" in result.stderr
    assert "crack" in result.stderr
    # Other names are other classes.
    (plain / "classes.csv").write_text("value,name\n0,matrix\n1,graphite\n2,oxide\n")
    rest = ("--device", "cpu", "--epochs", "1", "--set", "views_per_epoch=1", "--set", "pool=1")
    result = invoke(plain, "-o", "b", "--start", start, *rest)
    assert result.exit_code == 2, result.output
    assert "got semantic (matrix, graphite, oxide)" in " ".join(result.stderr.split())
