"""``phasesam evaluate ablation`` with the seeded tiny model."""

from __future__ import annotations

import json

import numpy as np
import psutil
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.evaluation import ablation
from phasesam.models.manager import get_manager

TINY = ("--model", "tiny", "--device", "cpu", "--precision", "fp32")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    yield
    get_manager().unload_all()


@pytest.fixture
def trained(monkeypatch, make_adapter):
    """Take the place of trainings: adapters whose validation score is their rank / 10."""
    rates = []

    def train(data, folder, settings, resume, callbacks, features):
        rank = settings.recipe.adapter.rank
        rates.append(settings.recipe.optimiser.lr_encoder)
        path = folder / "best.safetensors"
        make_adapter(path, classes=data.classes, metrics={"val_score": rank / 10})

    monkeypatch.setattr(ablation, "train", train)
    return rates


@pytest.fixture
def folder(tmp_path):
    rows = ["image,label,split"]
    for number, split in enumerate(("train", "val", "test")):
        labels = np.zeros((48, 64), np.uint8)
        labels[8:30, 10 + number : 40] = 1
        noise = np.random.default_rng(number).normal(0, 5, labels.shape)
        image = (60 + 100 * labels + noise).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"i{number}.tif", image)
        tifffile.imwrite(tmp_path / f"l{number}.tif", labels)
        rows.append(f"i{number}.tif,l{number}.tif,{split}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    return tmp_path


def run(folder, *arguments):
    return CliRunner().invoke(
        app, ["evaluate", "ablation", str(folder / "data.csv"), *map(str, arguments)]
    )


def test_ranks_on_phases(folder, trained):
    out = folder / "out"
    result = run(
        folder, "-t", "semantic", "--classes", "matrix,pore", "--ranks", "2,4", "--rates", "1,2",
        "--unet", 1, "-o", out, *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "| variant | rates x 1 | rates x 2 |" in text
    assert "| figure | U-Net | rank 2 | rank 4 | rank 4 - U-Net |" in text
    assert "| rank 4 | 0.400 * | 0.400 |" in text
    assert len(list((out / "trials").glob("*/best.safetensors"))) == 4
    assert trained[1] == 2 * trained[0]


def test_rates_on_clicks(folder, trained):
    result = run(
        folder, "-t", "promptable", "--rates", "1", "--trials", folder / "runs", "--json",
        "--set", "adapter.rank=3", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert set(figures["methods"]) == {"base", "default"}
    assert figures["trials"][0]["rate_factor"] == 1
    assert figures["trials"][0]["val_score"] == 0.3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "--output"),
        (["--trials", "x", "--ranks", "4.5"], "positive"),
        (["--trials", "x", "--rates", "a"], "numbers"),
        (["--trials", "x", "--recipes", "nothing"], "nothing"),
        (["--trials", "x", "-t", "promptable", "--unet", "3"], "semantic"),
    ],
)
def test_what_makes_no_sense(folder, options, text):
    result = run(folder, *options, *TINY)
    assert result.exit_code == 2
    assert text in result.stderr


def test_variants_that_do_not_fit_are_refused_before_anything_is_trained(folder, monkeypatch):
    free = psutil.virtual_memory()._replace(available=10**9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    result = run(
        folder, "-o", folder / "out", "--task", "semantic", "--model", "mobile_sam", "--ranks", 4
    )
    assert (result.exit_code, "1.0 GB are free" in result.stderr) == (3, True), result.output
    assert not (folder / "out").exists()


def test_test_images_without_labels_are_left_out_before_anything_is_trained(folder, trained):
    for name in ("i3", "l3"):
        tifffile.imwrite(folder / f"{name}.tif", np.full((48, 64), 255, np.uint8))
    with (folder / "data.csv").open("a") as file:
        file.write("\ni3.tif,l3.tif,test")
    options = ("-t", "semantic", "--unlabelled", 255, "--ranks", "2", "--rates", "1", *TINY)
    result = run(folder, *options, "-o", folder / "out")
    assert result.exit_code == 0, result.output
    assert "no pixel is labelled in i3: 1 left out" in " ".join(result.stderr.split())
    assert len(trained) == 1
    (folder / "l2.tif").write_bytes((folder / "l3.tif").read_bytes())
    result = run(folder, *options, "-o", folder / "other")
    assert result.exit_code == 2
    assert len(trained) == 1
