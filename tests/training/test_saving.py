"""A written folder reads back as what it was; nothing half-written stays."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.errors import CancelledError, SaveError
from phasesam.core.types import PixelSize
from phasesam.training import saving
from phasesam.training.dataset import TrainingData, from_arrays, read_training_data
from phasesam.training.saving import save_training_folder

SHAPE = (20, 26)


def labels(seed: int, values: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array(values, np.int32), SHAPE)


def image(seed: int, dtype: str, channels: int = 0) -> np.ndarray:
    shape = (*SHAPE, channels) if channels else SHAPE
    return (np.random.default_rng(seed).random(shape) * 200).astype(dtype)


def make(task: str, values: tuple[int, ...]) -> TrainingData:
    kinds = [("uint8", 0), ("uint16", 0), ("float32", 0), ("uint8", 3), ("uint8", 4), ("int64", 0)]
    kinds += [("float64", 0), ("float16", 0), ("bool", 0), ("uint16", 3)]
    images = [
        (f"Layer [{i}] µ/{kind}", image(i, kind, n), labels(i, values), f"rod {i // 2}")
        for i, (kind, n) in enumerate(kinds)
    ]
    return from_arrays(images, task, pixel_size=PixelSize(0.2, 0.25, "um"))


def assert_equal(one: TrainingData, other: TrainingData) -> None:
    assert other.classes == one.classes
    assert other.class_values == one.class_values
    assert len(other.images) == len(one.images)
    for before, after in zip(one.images, other.images, strict=True):
        assert (after.name, after.split, after.specimen) == (
            before.name,
            before.split,
            before.specimen,
        )
        np.testing.assert_array_equal(after.rgb(), before.rgb())
        np.testing.assert_array_equal(after.label_array(), before.label_array())
    assert other.key == one.key


@pytest.mark.parametrize(
    ("task", "values"),
    [("semantic", (-1, 0, 3, 40_000)), ("instance", (-1, 0, 1, 80_000)), ("promptable", (0, 5))],
)
def test_reading_gives_what_was_written(tmp_path, task, values):
    data = make(task, values)
    folder = save_training_folder(data, tmp_path / "new" / "set")
    read = read_training_data(folder, task)
    assert_equal(data, read)
    assert read.warnings == ()
    assert read.pixel_size.unit == "um"
    assert (read.pixel_size.y, read.pixel_size.x) == pytest.approx((0.2, 0.25))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["set"]


def test_names_of_classes_are_kept(tmp_path):
    arrays = [("a", image(0, "uint8"), labels(0, (0, 7)), None)]
    data = from_arrays(arrays, "semantic", classes={0: "matrix, dark", 7: "γ'"})
    assert_equal(data, read_training_data(save_training_folder(data, tmp_path / "x"), "semantic"))


def test_an_empty_folder_may_be_there_a_full_one_not(tmp_path):
    data = make("instance", (0, 1))
    (tmp_path / "set").mkdir()
    save_training_folder(data, tmp_path / "set")
    with pytest.raises(SaveError, match="new or empty folder"):
        save_training_folder(data, tmp_path / "set")
    assert len(read_training_data(tmp_path / "set", "instance").images) == len(data.images)


def test_nothing_is_left_of_what_could_not_be_finished(tmp_path, monkeypatch):
    data = make("instance", (0, 1))
    with pytest.raises(CancelledError):
        save_training_folder(data, tmp_path / "set", should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_write_labels", full)
    with pytest.raises(SaveError, match="set: No space left on device"):
        save_training_folder(data, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_progress(tmp_path):
    seen = []
    data = make("instance", (0, 1))
    save_training_folder(data, tmp_path / "s", progress=lambda done, total: seen.append(done))
    assert seen == list(range(1, len(data.images) + 1))
