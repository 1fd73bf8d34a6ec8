from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from phasesam.cli import batch as batch_module
from phasesam.cli.batch import Batch, Outcome, exit_code, run_batch
from phasesam.cli.inputs import Job
from phasesam.cli.plane import Watch
from phasesam.cli.segmentation import ImageResult
from phasesam.core.errors import (
    CancelledError,
    DeviceMemoryError,
    FileFormatError,
    InvalidImageError,
    SaveError,
)
from phasesam.core.measurements import measure

LABELS = np.kron(np.array([[1, 0], [0, 2]]), np.ones((4, 4))).astype(np.int32)
RESULT = ImageResult(
    LABELS,
    np.zeros((8, 8, 3), np.uint8),
    LABELS,
    measure(LABELS),
    dropped=Counter(area=3),
    coverage=0.5,
    warnings=("look here",),
)


@pytest.fixture
def work(monkeypatch):
    """Replace reading, segmenting and writing; the plan says which inputs fail how."""
    plan: dict[str, Exception] = {}
    done: list[str] = []

    def segment_file(job, recipe, watch, *, keep_masks=False):
        done.append(job.source.name)
        if job.source.name in plan:
            raise plan[job.source.name]
        return RESULT

    def write_results(result, files):
        if files.labels.name in plan:
            raise plan[files.labels.name]
        files.labels.touch()
        files.overlay.touch()
        files.objects.touch()

    monkeypatch.setattr(batch_module, "segment_file", segment_file)
    monkeypatch.setattr(batch_module, "write_results", write_results)
    return plan, done


def run(tmp_path, names, watch=None, **settings):
    jobs = [Job(Path(name), Path(name).stem) for name in names]
    return run_batch(Batch(jobs, None, tmp_path, **settings), watch or Watch())


def test_all_go_well(work, tmp_path):
    outcomes = run(tmp_path, ["a.tif", "b.tif"])
    assert [o.status for o in outcomes] == ["ok", "ok"]
    assert exit_code(outcomes) == 0
    assert outcomes[0].as_dict() == {
        "input": "a.tif",
        "status": "ok",
        "objects": 2,
        "planes": 1,
        "coverage": 0.5,
        "dropped": {"area": 3},
        "warnings": ["look here"],
        "seconds": outcomes[0].as_dict()["seconds"],
        "outputs": {
            "labels": str(tmp_path / "a_labels.tif"),
            "overlay": str(tmp_path / "a_overlay.png"),
            "objects": str(tmp_path / "a_objects.csv"),
        },
        "error": None,
    }


@pytest.mark.parametrize(
    "error",
    [
        FileFormatError("not a TIFF"),
        InvalidImageError("empty"),
        DeviceMemoryError("too large"),
        SaveError("disk full"),
        ZeroDivisionError("a mistake of ours"),
    ],
)
def test_one_failure_takes_no_other_with_it(work, tmp_path, error):
    plan, done = work
    plan["b.tif"] = error
    outcomes = run(tmp_path, ["a.tif", "b.tif", "c.tif"])
    assert [o.status for o in outcomes] == ["ok", "failed", "ok"]
    assert done == ["a.tif", "b.tif", "c.tif"]
    assert exit_code(outcomes) == 1
    assert outcomes[1].as_dict()["error"] == {"type": type(error).__name__, "message": str(error)}


@pytest.mark.parametrize(
    ("error", "code"),
    [(SaveError("x"), 4), (DeviceMemoryError("x"), 3), (InvalidImageError("x"), 1)],
)
def test_the_cause_shows_when_all_fail_for_it(work, tmp_path, error, code):
    plan, _ = work
    plan.update({"a.tif": error, "b.tif": error})
    assert exit_code(run(tmp_path, ["a.tif", "b.tif"])) == code


def test_failed_writing_counts_as_failed(work, tmp_path):
    plan, _ = work
    plan["a_labels.tif"] = SaveError("disk full")
    assert [o.status for o in run(tmp_path, ["a.tif", "b.tif"])] == ["failed", "ok"]


def test_missing_input_is_a_failure(work, tmp_path):
    jobs = [Job(Path("gone.tif"), "gone", "no such file or folder"), Job(Path("a.tif"), "a")]
    outcomes = run_batch(Batch(jobs, None, tmp_path), Watch())
    assert [o.status for o in outcomes] == ["failed", "ok"]
    assert exit_code(outcomes) == 1


@pytest.mark.parametrize("error", [CancelledError("stop"), KeyboardInterrupt()])
def test_interruption_ends_the_batch_and_keeps_what_is_done(work, tmp_path, error):
    plan, done = work
    plan["b.tif"] = error
    outcomes = run(tmp_path, ["a.tif", "b.tif", "c.tif"])
    assert [o.status for o in outcomes] == ["ok", "cancelled", "cancelled"]
    assert done == ["a.tif", "b.tif"]
    assert exit_code(outcomes) == 130
    assert (tmp_path / "a_labels.tif").exists()


def test_request_to_stop_between_images(work, tmp_path):
    _, done = work
    watch = Watch(should_stop=lambda: len(done) == 1)
    assert [o.status for o in run(tmp_path, ["a.tif", "b.tif"], watch)] == ["ok", "cancelled"]


def test_existing_results_are_skipped_when_all_are_there(work, tmp_path):
    _, done = work
    for ending in ("labels.tif", "overlay.png", "objects.csv"):
        (tmp_path / f"a_{ending}").touch()
    (tmp_path / "b_labels.tif").touch()
    outcomes = run(tmp_path, ["a.tif", "b.tif"], skip_existing=True)
    assert [o.status for o in outcomes] == ["skipped", "ok"]
    assert done == ["b.tif"]
    assert exit_code(outcomes) == 0


def test_callbacks_surround_each_input(work, tmp_path):
    plan, _ = work
    plan["b.tif"] = InvalidImageError("x")
    seen: list[object] = []
    jobs = [Job(Path("a.tif"), "a"), Job(Path("b.tif"), "b")]
    run_batch(
        Batch(jobs, None, tmp_path),
        Watch(),
        on_start=lambda job: seen.append(job.name),
        on_end=lambda outcome: seen.append(outcome.status),
    )
    assert seen == ["a", "ok", "b", "failed"]


def test_no_outcome_is_no_failure():
    assert exit_code([Outcome(Path("a"), "skipped")]) == 0
