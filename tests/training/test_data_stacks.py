"""Stacks are read plane by plane, and only those planes that hold labels."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from phasesam.core.errors import TrainingDataError
from phasesam.core.images import to_rgb8
from phasesam.training import data_sources
from phasesam.training.data_sources import open_image, stack_shape
from phasesam.training.dataset import read_training_data

N, SHAPE = 6, (20, 26)


@pytest.fixture
def stack(tmp_path):
    """Sixteen-bit stack with labels on the planes 1, 3 and 4."""
    volume = np.random.default_rng(0).integers(0, 60_000, (N, *SHAPE), dtype=np.uint16)
    labels = np.zeros((N, *SHAPE), np.uint16)
    labels[1, 2:5, 2:5] = 1
    labels[3, 5:9, 5:9] = 700
    labels[4, 1, 1] = 2
    tifffile.imwrite(tmp_path / "cube.tif", volume, compression="zlib")
    tifffile.imwrite(tmp_path / "cube_labels.tif", labels)
    return tmp_path / "cube.tif", volume, labels


def test_planes_with_labels_are_images_of_one_specimen(stack):
    path, volume, labels = stack
    data = read_training_data(path, "instance")
    assert [i.name for i in data.images] == ["cube[1]", "cube[3]", "cube[4]"]
    assert {i.specimen for i in data.images} == {"cube"}
    assert [i.split for i in data.images] == ["train", "train", "val"]
    assert "cube_labels.tif: 3 of 6 planes are labelled and are used" in data.warnings[0]
    for image, plane in zip(data.images, (1, 3, 4), strict=True):
        np.testing.assert_array_equal(image.rgb(), to_rgb8(volume[plane]))
        np.testing.assert_array_equal(image.label_array(), labels[plane])


def test_planes_are_read_one_by_one(stack, monkeypatch):
    path, _, _ = stack
    opened = []
    real = data_sources.read_image
    monkeypatch.setattr(data_sources, "read_image", lambda p: opened.append(p) or real(p))
    data = read_training_data(path, "instance")
    for image in data.images:
        image.rgb()
        image.label_array()
    # Found once each, then kept open.
    assert len(opened) <= 2
    assert open_image(path).is_stack


def test_explicit_background_counts_as_labelled(tmp_path):
    labels = np.full((3, *SHAPE), 255, np.uint8)
    labels[0] = 0
    labels[1, :5] = 0
    for name, array in (("a", labels * 0 + 7), ("a_labels", labels)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="minisblack")
    data = read_training_data(tmp_path / "a.tif", "promptable", unlabelled=255)
    # All 0 may be a plane that nobody looked at, all 255 surely is.
    assert [i.name for i in data.images] == ["a[1]"]


def test_stacks_lie_in_folders_and_tables_too(stack, tmp_path):
    path, _, _ = stack
    folder = tmp_path / "set"
    for name, file in (("images", path), ("labels", path.with_name("cube_labels.tif"))):
        (folder / name).mkdir(parents=True)
        (folder / name / "cube.tif").write_bytes(file.read_bytes())
    assert len(read_training_data(folder, "instance").images) == 3
    (folder / "data.csv").write_text(
        "image,label,split,specimen\nimages/cube.tif,labels/cube.tif,train,rod 7\n"
    )
    data = read_training_data(folder, "instance")
    assert {(i.split, i.specimen) for i in data.images} == {("train", "rod 7")}


def test_folders_of_slices_are_stacks(tmp_path):
    for index in range(3):
        for name in ("slices", "marks"):
            (tmp_path / name).mkdir(exist_ok=True)
            array = np.full(SHAPE, 10 * index, np.uint8)
            tifffile.imwrite(tmp_path / name / f"z{index}.tif", array)
    (tmp_path / "t.csv").write_text("image,label\nslices,marks\n")
    data = read_training_data(tmp_path / "t.csv", "instance")
    assert [i.name for i in data.images] == ["slices[1]", "slices[2]"]
    assert (data.images[1].label_array() == 20).all()


def test_stacks_of_different_length_do_not_fit(stack, tmp_path):
    path, _, labels = stack
    tifffile.imwrite(tmp_path / "cube_labels.tif", labels[:5])
    with pytest.raises(TrainingDataError, match=r"cube\.tif with \(6,\) and cube_labels\.tif with"):
        read_training_data(path, "instance")


def test_labels_of_no_plane(stack, tmp_path):
    path, _, labels = stack
    tifffile.imwrite(tmp_path / "cube_labels.tif", labels * 0)
    with pytest.raises(TrainingDataError, match="at least one image with labels, got none"):
        read_training_data(path, "instance")


def test_shapes_are_found_from_headers(stack, tmp_path, monkeypatch):
    path, _, _ = stack
    tifffile.imwrite(tmp_path / "plane.tif", np.zeros(SHAPE, np.uint8))
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((*SHAPE, 3), np.uint8), photometric="rgb")
    np.save(tmp_path / "a.npy", np.zeros((2, 3, *SHAPE)))
    assert stack_shape(path) == (N,)
    assert stack_shape(tmp_path / "a.npy") == (2, 3)
    assert stack_shape(tmp_path / "rgb.tif") == ()
    monkeypatch.setattr(data_sources, "read_image", None)
    assert stack_shape(tmp_path / "plane.tif") == ()
