"""Training data are read from wherever they are, lazily, and divided by specimen."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from PIL import Image

from phasesam.core.errors import FileFormatError, InvalidSettingError, TrainingDataError
from phasesam.core.images import Normalisation, to_rgb8
from phasesam.core.types import PixelSize
from phasesam.training.dataset import (
    UNLABELLED,
    DataOptions,
    from_arrays,
    read_training_data,
)


def picture(seed: int = 0, shape: tuple[int, ...] = (24, 30), dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def phases(shape: tuple[int, int] = (24, 30), values: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    return np.array(values, np.uint16)[np.arange(shape[0] * shape[1]).reshape(shape) % len(values)]


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def make_folder(
    folder: Path, names: str = "abcdef", labels: str = "labels", suffix: str = ""
) -> Path:
    for index, name in enumerate(names):
        write(folder / "images" / f"{name}.tif", picture(index))
        write(folder / labels / f"{name}{suffix}.png", phases().astype(np.uint8))
    return folder


@pytest.mark.parametrize("suffix", ["", "_mask", "_labels"])
def test_a_folder_of_images_and_labels(tmp_path, suffix):
    data = read_training_data(make_folder(tmp_path, suffix=suffix), "semantic")
    assert [image.name for image in data.images] == list("abcdef")
    assert (data.classes, data.class_values) == (("class 0", "class 1", "class 2"), (0, 1, 2))
    assert [len(data.of(split)) for split in ("train", "val", "test")] == [4, 1, 1]
    first = data.images[0]
    np.testing.assert_array_equal(first.rgb(), to_rgb8(picture(0)))
    np.testing.assert_array_equal(first.label_array(), phases())
    assert first.label_array().dtype == np.int32
    assert first.rgb().flags.c_contiguous
    assert data.warnings == ()
    assert data.origin == str(tmp_path)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((24, 30), np.uint16),
        ((24, 30), np.float32),
        ((24, 30, 3), np.uint8),
        ((24, 30, 4), np.uint8),
        ((24, 30, 3), np.uint16),
    ],
)
def test_images_of_all_kinds(tmp_path, shape, dtype):
    array = picture(1, shape, dtype)
    tifffile.imwrite(
        tmp_path / "x.tif", array, photometric="rgb" if array.ndim == 3 else "minisblack"
    )
    write(tmp_path / "x_labels.png", phases().astype(np.uint8))
    normalisation = Normalisation("percentile", 2, 98)
    data = read_training_data(tmp_path / "x.tif", "instance", normalisation=normalisation)
    np.testing.assert_array_equal(data.images[0].rgb(), to_rgb8(array, normalisation))


def test_16_bit_labels_with_gaps(tmp_path):
    values = (0, 1000, 40_000)
    write(tmp_path / "images" / "a.png", picture())
    write(tmp_path / "labels" / "a.tif", phases(values=values))
    data = read_training_data(tmp_path, "semantic", classes=["matrix", "small", "large"])
    assert data.class_values == values
    assert data.classes == ("matrix", "small", "large")
    np.testing.assert_array_equal(data.images[0].label_array(), phases())
    objects = read_training_data(tmp_path, "instance").images[0].label_array()
    np.testing.assert_array_equal(objects, phases(values=values))


def test_names_of_classes(tmp_path):
    folder = make_folder(tmp_path, "ab")
    with pytest.raises(TrainingDataError, match=r"expected 2 classes \(x, y\).*\[0, 1, 2\]"):
        read_training_data(folder, "semantic", classes=["x", "y"])
    more = read_training_data(folder, "semantic", classes=list("xyzu"))
    assert (more.classes, more.class_values) == (("x", "y", "z", "u"), (0, 1, 2, 3))
    given = read_training_data(folder, "semantic", classes={2: "b", 0: "m", 1: "a"})
    assert (given.classes, given.class_values) == (("m", "a", "b"), (0, 1, 2))
    (folder / "classes.csv").write_text("value;name\n0;matrix\n1;oxide\n2;crack\n")
    assert read_training_data(folder, "semantic").classes == ("matrix", "oxide", "crack")
    (folder / "classes.csv").write_text("value,name\n0,matrix\n1,oxide\n")
    missing = read_training_data(folder, "semantic")
    with pytest.raises(TrainingDataError, match=r"a\.png: .*\[0, 1\], got also \[2\]"):
        missing.images[0].label_array()


def test_unlabelled_pixels_stay_unlabelled(tmp_path):
    stored = phases().astype(np.uint8)
    stored[5:10] = 255
    write(tmp_path / "images" / "a.png", picture())
    write(tmp_path / "labels" / "a.png", stored)
    data = read_training_data(tmp_path, "semantic", unlabelled=255)
    assert data.class_values == (0, 1, 2)
    labels = data.images[0].label_array()
    assert (labels[5:10] == UNLABELLED).all()
    assert (labels[:5] >= 0).all()
    # Without saying so it is a class.
    assert read_training_data(tmp_path, "semantic").class_values == (0, 1, 2, 255)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_palettes_are_numbers(tmp_path, ending):
    write(tmp_path / "images" / "a.png", picture())
    indexed = Image.fromarray(phases().astype(np.uint8), mode="L").convert("P")
    indexed.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    (tmp_path / "labels").mkdir()
    indexed.save(tmp_path / "labels" / f"a.{ending}")
    data = read_training_data(tmp_path, "semantic")
    np.testing.assert_array_equal(data.images[0].label_array(), phases())


def test_labels_that_compression_has_changed_are_refused(tmp_path):
    write(tmp_path / "images" / "a.png", picture())
    write(tmp_path / "labels" / "a.jpg", phases().astype(np.uint8))
    with pytest.raises(TrainingDataError, match=r"a\.jpg: .*PNG or TIFF"):
        read_training_data(tmp_path, "semantic")


def test_too_many_values_are_objects(tmp_path):
    write(tmp_path / "images" / "a.png", picture())
    write(tmp_path / "labels" / "a.tif", np.arange(720, dtype=np.uint16).reshape(24, 30))
    with pytest.raises(TrainingDataError, match=r"a\.tif: expected at most 64 .* 720 .*instance"):
        read_training_data(tmp_path, "semantic")
    assert read_training_data(tmp_path, "instance").images[0].label_array().max() == 719


def test_splits_are_by_specimen_and_come_from_the_seed():
    images = [(f"{s}{i}", picture(), phases(), s) for s in "abcdefgh" for i in range(3)]
    data = from_arrays(images, "instance", seed=4)
    assert all(len({i.split for i in data.images if i.specimen == s}) == 1 for s in "abcdefgh")
    assert data.splits == ("train", "val", "test")
    again = from_arrays(images, "instance", DataOptions(seed=4))
    assert [i.split for i in again.images] == [i.split for i in data.images]
    assert [i.split for i in from_arrays(images, "instance", seed=5).images] != [
        i.split for i in data.images
    ]


def test_the_only_specimen_is_divided_and_the_user_told():
    images = [(f"plane {i}", picture(i), phases(), "cube") for i in range(5)]
    data = from_arrays(images, "instance")
    assert [i.split for i in data.images] == ["train"] * 4 + ["val"]
    assert "one specimen, cube" in data.warnings[0]
    one = from_arrays(images[:1], "instance")
    assert [i.split for i in one.images] == ["train"]


def test_arrays_may_be_lazy_and_hold_unlabelled_pixels():
    labels = phases().astype(np.int32)
    labels[0] = -1
    size = PixelSize(0.1, 0.1, "um")
    lazy = da.from_array(picture(3)), da.from_array(labels)
    data = from_arrays(
        [("a", *lazy, None), ("b", picture(4), labels, None)], "semantic", pixel_size=size
    )
    np.testing.assert_array_equal(data.images[0].label_array(), labels)
    np.testing.assert_array_equal(data.images[0].rgb(), to_rgb8(picture(3)))
    assert data.pixel_size == size
    assert [i.specimen for i in data.images] == ["a", "b"]
    with pytest.raises(TrainingDataError, match="a twice"):
        from_arrays([("a", *lazy, None)] * 2, "instance")
    with pytest.raises(TrainingDataError, match="at least one image"):
        from_arrays([], "instance")


def test_keys_tell_contents_apart_not_places(tmp_path):
    make_folder(tmp_path, "ab")
    data = read_training_data(tmp_path, "semantic")
    arrays = [(n, picture(i), phases(), None) for i, n in enumerate("ab")]
    same = from_arrays(arrays, "semantic")
    assert [i.key for i in same.images] == [i.key for i in data.images]
    assert same.key == data.key
    arrays[1][2][0, 0] = 1
    changed = from_arrays(arrays, "semantic")
    assert changed.images[0].key == data.images[0].key
    assert changed.images[1].key != data.images[1].key
    assert changed.key != data.key
    # What the model sees counts.
    darker = read_training_data(tmp_path, "semantic", normalisation=Normalisation("range", 0, 400))
    assert darker.images[0].key != data.images[0].key


def test_nothing_is_read_before_it_is_needed(tmp_path):
    folder = make_folder(tmp_path, "abc")
    (folder / "images" / "b.tif").write_bytes((folder / "images" / "b.tif").read_bytes()[:-200])
    data = read_training_data(folder, "instance")
    assert data.images[0].rgb().shape == (24, 30, 3)
    with pytest.raises(FileFormatError, match=r"b\.tif"):
        data.images[1].rgb()


def test_options_survive_json(tmp_path):
    options = DataOptions(
        classes={0: "matrix", 1: "oxide", 2: "crack"},
        fractions=(0.5, 0.5, 0.0),
        normalisation=Normalisation("range", 0, 300),
    )
    again = DataOptions(**json.loads(json.dumps(asdict(options))))
    folder = make_folder(tmp_path)
    one, other = (read_training_data(folder, "semantic", o) for o in (options, again))
    assert one.key == other.key
    assert other.classes == ("matrix", "oxide", "crack")
    assert other.normalisation == options.normalisation


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(TrainingDataError, match="found nothing"):
        read_training_data(tmp_path / "none", "semantic")
    with pytest.raises(InvalidSettingError, match="'classes'"):
        read_training_data(make_folder(tmp_path / "f"), "classes")
    (tmp_path / "note.md").write_text("hello")
    with pytest.raises(TrainingDataError, match=r"note\.md: expected a folder"):
        read_training_data(tmp_path / "note.md", "semantic")
    with pytest.raises(TypeError):
        read_training_data(tmp_path / "f", "semantic", lables="x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "task", "options", "counts"),
    [
        ("nasa_superalloy", "semantic", {"experiment": "Super1"}, (10, 4, 4, 0)),
        ("nasa_superalloy", "semantic", {"experiment": "Super3"}, (1, 4, 4, 5)),
        ("nasa_ebc", "semantic", {"experiment": "EBC2"}, (4, 3, 3, 0)),
        ("ampis_powder", "instance", {"labels": "labels_instance_particle"}, (3, 1, 1, 0)),
        ("dental_panoramic_12", "promptable", {}, (9, 2, 1, 0)),
    ],
)
def test_public_sets(shared_data, folder, task, options, counts):
    data = read_training_data(shared_data / "data" / folder, task, **options)
    splits = ("train", "val", "test", "different_test")
    assert tuple(len(data.of(split)) for split in splits) == counts
    for image in data.images:
        assert image.rgb().shape[:2] == image.label_array().shape


def test_inverted_greys_are_numbers(tmp_path):
    write(tmp_path / "images" / "a.png", picture())
    (tmp_path / "labels").mkdir()
    values = phases().astype(np.uint8)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", values, photometric="miniswhite")
    data = read_training_data(tmp_path, "semantic")
    assert data.class_values == (0, 1, 2)
    np.testing.assert_array_equal(data.images[0].label_array(), values)


def test_inverted_masks_are_what_is_shown(tmp_path):
    write(tmp_path / "images" / "a.png", picture())
    (tmp_path / "labels").mkdir()
    shown = np.where(phases() == 1, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", ~shown, photometric="miniswhite")
    data = read_training_data(tmp_path, "semantic")
    np.testing.assert_array_equal(data.images[0].label_array() > 0, shown > 0)


def test_names_pass_over_what_is_unlabelled(tmp_path):
    for index, name in enumerate("ab"):
        write(tmp_path / "images" / f"{name}.png", picture(index))
        write(tmp_path / "labels" / f"{name}.png", phases().astype(np.uint8))
    data = read_training_data(tmp_path, "semantic", unlabelled=0, classes=["a", "b", "c"])
    assert dict(zip(data.class_values, data.classes, strict=True)) == {1: "a", 2: "b", 3: "c"}


def test_blank_names_of_classes(tmp_path):
    folder = make_folder(tmp_path, "ab")
    data = read_training_data(folder, "semantic", classes={0: "a", 1: " ", 2: "c"})
    assert data.classes == ("a", "class 1", "c")
    with pytest.raises(TrainingDataError, match="class 1 more than once"):
        read_training_data(folder, "semantic", classes={0: "class 1", 1: "", 2: "c"})


def test_a_table_has_no_folder_of_labels(tmp_path):
    folder = make_folder(tmp_path, "ab")
    table = folder / "some.csv"
    table.write_text("image,label\nimages/a.tif,labels/a.png\n")
    with pytest.raises(InvalidSettingError, match="'elsewhere' does not apply"):
        read_training_data(table, "semantic", labels="elsewhere")


def test_the_value_that_means_unlabelled_is_no_class_whatever_its_name(tmp_path):
    labels = np.array([[0, 1, 2, 2]] * 4, np.int32)
    given = {0: "unlabelled", 1: "ferrite", 2: "bainite"}
    data = from_arrays([("a", labels * 50, labels, None)], "semantic", classes=given, unlabelled=0)
    assert (data.classes, data.class_values) == (("ferrite", "bainite"), (1, 2))
    np.testing.assert_array_equal(data.images[0].label_array()[0], [-1, 0, 1, 1])
