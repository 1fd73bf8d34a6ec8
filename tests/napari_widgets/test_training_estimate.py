"""Memory of a training, found out by another process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from phasesam.core.errors import CancelledError
from phasesam.napari_widgets import training_estimate
from phasesam.napari_widgets.training_estimate import (
    earlier_seconds,
    estimate,
    estimate_text,
    in_words,
)
from phasesam.napari_widgets.training_run import training_folder
from phasesam.training.process import Job
from phasesam.training.recipes import get_recipe
from phasesam.training.run_folder import RunFolder, RunStatus
from phasesam.training.settings import TrainingSettings

GB = 10**9


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(training_estimate, "_known", {})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_answer_comes_from_another_process_once(monkeypatch):
    settings = TrainingSettings(base="tiny").to_dict()
    needed = estimate(settings, 3, lambda: False)
    assert 0.5 * GB < needed < 20 * GB
    monkeypatch.setattr(subprocess, "Popen", None)
    assert estimate(settings, 3, lambda: False) == needed


def test_what_cannot_be_estimated_is_not_said(monkeypatch):
    monkeypatch.setattr(training_estimate, "_CODE", "raise ValueError")
    assert estimate({}, 0, lambda: False) is None
    monkeypatch.setattr(training_estimate, "_CODE", "print('about a lot')")
    assert estimate({}, 0, lambda: False) is None


def test_nobody_waits_for_an_answer_that_is_not_wanted(monkeypatch):
    started = []
    popen = subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(training_estimate, "_CODE", "import time; time.sleep(100)")
    with pytest.raises(CancelledError):
        estimate({}, 0, lambda: True)
    assert started[0].returncode is not None


def test_words_for_it(monkeypatch):
    free = type("Memory", (), {"available": 8 * GB})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert estimate_text(3 * GB, "cpu") == (
        "Needs about 3 GB of memory; 8 GB are free. The time shows after the first steps.",
        False,
    )
    text, tight = estimate_text(9 * GB, "cpu")
    assert tight
    assert text.endswith("so that it may not fit.")
    assert "free" not in estimate_text(9 * GB, "auto")[0]


def left(folder, settings, task="semantic", seconds=(100.0, 160.0, 220.0)):
    """Leave the folder of an earlier training."""
    run = RunFolder(folder)
    Job("data", task, settings.to_dict()).write(run)
    run.write_status(RunStatus("finished"))
    rows = [{"epoch": float(n), "seconds": s} for n, s in enumerate(seconds, start=1)]
    run.write_log(rows)


def test_the_time_of_an_earlier_training_is_scaled(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "models"))
    now = TrainingSettings(get_recipe("default"), base="tiny", device="cpu")
    values = now.to_dict()
    assert earlier_seconds(values, "semantic") is None
    longer = replace(now, recipe=replace(now.recipe, epochs=20, name="mine"))
    left(training_folder() / "a", longer)
    # 12 epochs: what comes before the first takes its time once.
    assert now.recipe.epochs == 12
    assert earlier_seconds(values, "semantic") == 100 + 11 * 60
    twice = replace(now, recipe=replace(now.recipe, views_per_epoch=2 * now.recipe.views_per_epoch))
    assert earlier_seconds(twice.to_dict(), "semantic") == 100 + 23 * 60
    assert earlier_seconds(values, "promptable") is None
    assert earlier_seconds(replace(now, device="auto").to_dict(), "semantic") == 100 + 11 * 60
    for other in (
        replace(now, base="mobile_sam"),
        replace(now, device="cuda"),
        replace(now, recipe=replace(now.recipe, adapter=replace(now.recipe.adapter, rank=64))),
    ):
        assert earlier_seconds(other.to_dict(), "semantic") is None
    # One without a whole epoch, or that cannot be read, says nothing; the others still do.
    left(training_folder() / "b", now, seconds=(400.0,))
    left(training_folder() / "c", now)
    (training_folder() / "c" / "job.json").write_text("{}")
    assert earlier_seconds(values, "semantic") == 100 + 11 * 60


def test_the_time_is_said(monkeypatch):
    monkeypatch.setattr(training_estimate, "estimate", lambda *_: 3 * GB)
    monkeypatch.setattr(training_estimate, "earlier_seconds", lambda *_: 1700.0)
    settings = TrainingSettings(base="tiny", device="auto")
    text, tight = in_words(settings, "semantic", 3, lambda: False)
    assert text.endswith("of memory. It takes about 28 min, going by an earlier training.")
    assert not tight
    assert "about 1 min" in estimate_text(GB, "auto", 4)[0]
    assert "about 2.5 hours" in estimate_text(GB, "auto", 9000)[0]
    monkeypatch.setattr(training_estimate, "estimate", lambda *_: None)
    assert in_words(settings, "semantic", 3, lambda: False) == ("", False)


def test_words_need_no_torch():
    code = (
        "import sys; from phasesam.napari_widgets.training_estimate import estimate_text; "
        "estimate_text(10**9, 'cpu'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
