"""Several processes make the steps of one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.conftest import disc_data

from phasesam.training.recipes import Recipe, save_recipe
from phasesam.training.run_folder import RunFolder
from phasesam.training.saving import save_training_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path, brief: Recipe) -> None:
    save_training_folder(disc_data("semantic"), tmp_path / "data")
    recipe = save_recipe(
        replace(brief, epochs=3, views_per_epoch=6, batch=3), tmp_path / "recipe.json"
    )
    results = []
    for name, launch in (
        ("one", [sys.executable]),
        ("two", [
            sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
            "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        ]),
    ):  # fmt: skip
        adapter = tmp_path / f"{name}.safetensors"
        done = subprocess.run(
            [
                *launch, "-m", "phasesam", "train", str(tmp_path / "data"), "-o", str(adapter),
                "--task", "semantic", "--recipe", str(recipe), "--model", "tiny",
                "--device", "cpu", "--precision", "fp32",
            ],
            cwd=ROOT, check=False, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("best epoch") == 1
        results.append((RunFolder(tmp_path / f"{name}_run").log(), load_file(adapter)))
    (first_log, first), (second_log, second) = results
    assert [row["step"] for row in second_log] == [row["step"] for row in first_log] == [2, 4, 6]
    for a, b in zip(first_log, second_log, strict=True):
        assert b["val_score"] == pytest.approx(a["val_score"], abs=1e-3)
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-3)
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=1e-3), name
