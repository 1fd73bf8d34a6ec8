from __future__ import annotations

import csv
import subprocess
import sys

import pytest
import tifffile
from typer.testing import CliRunner

from phasesam.cli import demo as demo_module
from phasesam.cli.app import app
from phasesam.cli.demo import SampleName, has_display
from phasesam.simulation.samples import SAMPLES, sample_folder


def invoke(*args):
    return CliRunner().invoke(app, ["demo", *map(str, args)])


@pytest.fixture
def started(monkeypatch):
    """Record processes instead of starting them; napari runs on, as a viewer does."""
    commands = []

    class Process:
        def __init__(self, command, **options):
            commands.append(command)

        def wait(self, timeout):
            raise subprocess.TimeoutExpired("napari", timeout)

    monkeypatch.setattr(demo_module.subprocess, "Popen", Process)
    return commands


def test_samples_are_those_of_the_simulator():
    assert {sample.value for sample in SampleName} == set(SAMPLES)


def test_three_files_and_a_table(tmp_path):
    result = invoke("-o", tmp_path / "demo", "--model", "tiny", "--points-per-side", "2")
    assert result.exit_code == 0, result.stderr
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"labels.tif", "overlay.png", "measurements.csv"}
    image = tifffile.imread(sample_folder() / "particles_sem.tif")
    assert tifffile.imread(tmp_path / "demo" / "labels.tif").shape == image.shape
    assert "True objects found" in result.stdout


@pytest.mark.slow
def test_demo_finds_the_particles(tmp_path):
    """With the bundled model, most particles are found and measured in micrometres."""
    result = invoke("-o", tmp_path)
    assert result.exit_code == 0, result.stderr
    line = next(text for text in result.stdout.splitlines() if "True objects" in text)
    found, true = (int(word) for word in line.split() if word.isdigit())
    assert found >= 0.5 * true
    with (tmp_path / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= found
    assert all(float(row["equivalent_diameter_um"]) > 0 for row in rows)


def test_second_run_replaces_the_first(tmp_path):
    (tmp_path / "labels.tif").write_text("old")
    assert invoke("-o", tmp_path, "-m", "tiny", "--points-per-side", "1").exit_code == 0
    assert tifffile.imread(tmp_path / "labels.tif").ndim == 2


def test_viewer_opens_where_there_is_a_display(tmp_path, monkeypatch, started):
    monkeypatch.setattr(demo_module, "has_display", lambda *_: True)
    result = invoke("-o", tmp_path, "-m", "tiny", "--points-per-side", "1", "--show")
    assert result.exit_code == 0
    (command,) = started
    assert command[:3] == [sys.executable, "-m", "napari"]
    assert str(tmp_path / "labels.tif") in command


def test_no_viewer_without_a_display_or_without_napari(tmp_path, monkeypatch, started):
    monkeypatch.setattr(demo_module, "has_display", lambda *_: False)
    options = ("-o", tmp_path, "-m", "tiny", "--points-per-side", "1", "--show")
    result = invoke(*options)
    assert result.exit_code == 0
    assert "no display" in result.stderr
    monkeypatch.setattr(demo_module, "has_display", lambda *_: True)
    monkeypatch.setattr(demo_module.importlib.util, "find_spec", lambda name: None)
    result = invoke(*options)
    assert result.exit_code == 0
    assert "napari-phasesam[all]" in result.stderr
    assert started == []


@pytest.mark.parametrize(
    ("environment", "platform", "answer"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "win32", True),
        ({}, "darwin", True),
    ],
)
def test_display(environment, platform, answer):
    assert has_display(environment, platform) is answer
