"""Memory of a training, found out by another process."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from phasesam.core.errors import CancelledError
from phasesam.napari_widgets import training_estimate
from phasesam.napari_widgets.training_estimate import estimate, estimate_text
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


def test_words_need_no_torch():
    code = (
        "import sys; from phasesam.napari_widgets.training_estimate import estimate_text; "
        "estimate_text(10**9, 'cpu'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
