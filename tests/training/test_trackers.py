"""Curves in W&B and TensorBoard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.training.conftest import brief_recipe
from tests.training.test_fine_tuning import settings
from tests.training.wandb_file import read_wandb

from phasesam.core.errors import InvalidSettingError
from phasesam.training.fine_tuning import TrainingSettings
from phasesam.training.run_folder import RunFolder


def test_tracked_curves_are_in_the_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    script = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from tests.training.conftest import disc_data\n"
        "from tests.training.test_fine_tuning import settings\n"
        "from phasesam.training.fine_tuning import train\n"
        "from phasesam.training.recipes import get_recipe\n"
        "brief = replace(get_recipe('default'), epochs=2, views_per_epoch=2, pool=2, batch=1,"
        " detail_steps=1)\n"
        "train(disc_data('semantic'), sys.argv[1], "
        "settings(brief, trackers=('wandb', 'tensorboard')))\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "run")],
        check=True, cwd=root, capture_output=True, timeout=200,
    )  # fmt: skip
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    kept_curves = read_wandb(kept)
    rows = RunFolder(tmp_path / "run").log()
    assert len(kept_curves["loss"]) == 4
    assert kept_curves["epoch/val_score"] == pytest.approx([row["val_score"] for row in rows])
    events = next((tmp_path / "run").rglob("events.out.tfevents.*"))
    curves = event_accumulator.EventAccumulator(str(events.parent))
    curves.Reload()
    assert [point.step for point in curves.Scalars("loss")] == [1, 2, 3, 4]
    assert len(curves.Scalars("epoch/val_score")) == 2


def test_refuses_unknown_trackers_and_precisions() -> None:
    brief = brief_recipe()
    with pytest.raises(InvalidSettingError, match="wandb"):
        settings(brief, trackers=("mlflow",))
    with pytest.raises(InvalidSettingError, match="bf16"):
        TrainingSettings(brief, precision="fp8")
