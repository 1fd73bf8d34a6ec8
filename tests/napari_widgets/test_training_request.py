"""From ticked layers to training data, and to a folder that another process reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from phasesam.core.errors import CancelledError, TrainingDataError
from phasesam.core.images import Normalisation, to_rgb8
from phasesam.core.types import PixelSize
from phasesam.engines.segmenter import Segmenter
from phasesam.napari_widgets.training_request import DataRequest, PairToRead
from phasesam.training.data_checks import check
from phasesam.training.dataset import DataOptions, read_training_data


def pair(name="SEM", **changes):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (20, 30), dtype=np.uint8)
    labels = np.zeros((20, 30), np.int32)
    labels[4:9, 5:12], labels[12:16, 3:9] = 1, 5
    return replace(PairToRead(name, image, labels, ((),), PixelSize(0.5, 0.5, "um")), **changes)


def test_objects_of_two_layers():
    request = DataRequest("promptable", "SEM", DataOptions(), (pair("a"), pair("b")))
    data = request.read()
    assert [image.name for image in data.images] == ["a", "b"]
    assert {image.split for image in data.images} == {"train", "val"}
    assert data.pixel_size == PixelSize(0.5, 0.5, "um")
    np.testing.assert_array_equal(data.images[0].label_array(), pair().labels)


def test_ticked_planes_of_a_stack_stay_lazy_and_are_one_specimen():
    read = []

    def plane(block, block_info=None):
        read.append(block_info[0]["chunk-location"][0])
        return block

    stack = da.from_array(np.full((5, 20, 30), 9, np.uint8), chunks=(1, 20, 30)).map_blocks(
        plane, dtype=np.uint8, meta=np.zeros((0, 0, 0), np.uint8)
    )
    labels = np.zeros((5, 20, 30), np.int32)
    labels[:, 3:8, 3:8] = 1
    stacked = pair(image=stack, labels=labels, planes=((1,), (4,)))
    data = DataRequest("promptable", "SEM", DataOptions(), (stacked,)).read()
    assert read == [1], "the first one tells the pixel size"
    assert [image.name for image in data.images] == ["SEM[1]", "SEM[4]"]
    assert {image.specimen for image in data.images} == {"SEM"}
    data.images[1].rgb()
    assert read == [1, 4]


def test_a_check_copies_no_labels():
    stack = np.zeros((3, 20, 30), np.uint8)
    stack[:, 3:8, 3:8] = 1
    planes = tuple((index,) for index in range(3))
    image = np.zeros(stack.shape, np.uint8)
    stacked = pair(image=image, labels=stack, planes=planes)
    data = DataRequest("promptable", "SEM", DataOptions(), (stacked,)).read()
    assert all(np.shares_memory(image.labels.read(), stack) for image in data.images)


def test_labels_that_are_written_are_those_of_the_moment(tmp_path):
    pairs = pair("a"), pair("b")

    def paint(done, total):
        for each in pairs:
            each.labels[:] = 3

    request = DataRequest("promptable", "SEM", DataOptions(), pairs)
    path, _ = request.leave_in(tmp_path / "run", progress=paint)
    for image in read_training_data(path, "promptable").images:
        assert set(np.unique(image.label_array())) == {0, 1, 5}


def test_classes_of_objects_are_what_is_learnt():
    classes = {1: 1, 5: 2}
    options = DataOptions(classes={1: "pore", 2: "grain"}, unlabelled=0)
    request = DataRequest("semantic", "SEM", options, (pair(class_of_value=classes),))
    data = request.read()
    labels = data.images[0].label_array()
    assert data.classes == ("pore", "grain")
    assert (labels[6, 8], labels[14, 5], labels[0, 0]) == (0, 1, -1)


def test_values_that_another_layer_calls_otherwise():
    swapped = pair(class_of_value={1: 5, 5: 1})
    swapped.labels[0, 0] = -1
    (_, _, labels, *_), *_ = swapped.read()
    assert (labels[6, 8], labels[14, 5], labels[0, 0], labels[0, 1]) == (5, 1, -1, 0)
    assert pair().labels[6, 8] == 1, "the layer stays as it is"


def test_a_value_without_a_class_is_no_background():
    request = DataRequest("semantic", "SEM", DataOptions(), (pair(class_of_value={1: 1}),))
    with pytest.raises(TrainingDataError, match=r"got also \[5\]"):
        request.read()


def test_classes_of_high_ids_need_no_large_table():
    high = 2**31 - 1
    labels = pair().labels.astype(np.uint32)
    labels[labels == 5] = high
    (_, _, found, *_), *_ = pair(labels=labels, class_of_value={1: 1, high: 2}).read()
    assert (found[6, 8], found[14, 5]) == (1, 2)


@pytest.mark.parametrize("classes", [None, {1: 1, 5: 2}])
@pytest.mark.parametrize("has_bar", [False, True])
def test_ids_that_are_too_high_are_refused(classes, has_bar):
    image, labels = with_bar()
    labels = labels.astype(np.int64)
    labels[0, 0] = 2**32 + 1
    changed = pair(image=image if has_bar else labels, labels=labels, class_of_value=classes)
    with pytest.raises(TrainingDataError, match="expected labels from 0 to 2147483647"):
        check(DataRequest("promptable", "SEM", DataOptions(), (changed,)).read())


def test_what_is_odd_about_layers_is_told():
    warnings = ("they lie elsewhere",)
    request = DataRequest("promptable", "SEM", DataOptions(), (pair(),), warnings=warnings)
    assert request.read().warnings[:1] == warnings


def with_bar():
    """An SEM image with a black bar and white text below."""
    image = np.random.default_rng(0).integers(60, 200, (200, 256)).astype(np.uint8)
    image[176:] = 0
    image[184:192, 20:200:6] = 255
    labels = np.zeros((200, 256), np.int32)
    labels[20:60, 20:60] = 1
    return image, labels


def test_a_data_bar_is_not_learnt_as_background(tmp_path):
    image, labels = with_bar()
    request = DataRequest("promptable", "SEM", DataOptions(), (pair(image=image, labels=labels),))
    here = request.read()
    assert here.images[0].data_bar == 176
    assert here.images[0].rgb().shape == (176, 256, 3)
    np.testing.assert_array_equal(here.images[0].label_array(), labels[:176])
    path, plain = request.leave_in(tmp_path / "run")
    there = read_training_data(path, "promptable", DataOptions(**plain))
    assert there.key == here.key
    # An adapter knows the picture again, with its bar or without.
    assert there.images[0].picture_key == here.images[0].picture_key
    assert not [w for w in check(here).warnings if "data bar" in w]
    labels[-1, :5] = 1
    painted = request.read()
    assert painted.images[0].data_bar is None, "whoever paints on the bar wants it"
    assert painted.images[0].rgb().shape == (200, 256, 3)
    assert [w for w in check(painted).warnings if "data bar" in w]


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("promptable", DataOptions()),
        ("instance", DataOptions(unlabelled=0)),
        ("instance", DataOptions(components=True)),
        ("semantic", DataOptions(classes={1: "pore", 5: "grain"}, unlabelled=0)),
        ("semantic", DataOptions(classes={0: "rest", 1: "pore", 5: "grain"})),
    ],
)
def test_another_process_reads_the_same(tmp_path, task, options):
    request = DataRequest(task, "SEM", options, (pair("a"), pair("b"), pair("c (1)")))
    here = request.read()
    path, plain = request.leave_in(tmp_path / "run")
    there = read_training_data(path, task, DataOptions(**json.loads(json.dumps(plain))))
    assert here.key == there.key
    assert there.classes == here.classes
    assert there.pixel_size.x == pytest.approx(0.5)


def test_images_are_learnt_as_the_model_is_shown_them(tmp_path):
    shown = Normalisation("range", 50.0, 100.0)
    request = DataRequest(
        "promptable", "SEM", DataOptions(), (pair("a"), pair("b", normalisation=shown))
    )
    here = request.read()
    np.testing.assert_array_equal(here.images[1].rgb(), to_rgb8(pair().image, shown))
    np.testing.assert_array_equal(here.images[0].rgb(), to_rgb8(pair().image))
    path, plain = request.leave_in(tmp_path / "run")
    there = read_training_data(path, "promptable", DataOptions(**plain))
    assert there.key == here.key
    assert {i.picture_key for i in here.images} == {here.images[0].picture_key}, "the same picture"
    assert here.images[0].key != here.images[1].key


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("mode", ["auto", "percentile"])
def test_a_data_bar_changes_no_contrast(dtype, mode):
    rng = np.random.default_rng(0)
    image = rng.integers(60, 140, (480, 640)).astype(np.uint8)
    image[440:] = 0
    image[450:470, 40:300:7] = 255
    image = image.astype(dtype)
    labels = np.zeros(image.shape, np.int32)
    labels[40:90, 50:120] = 1
    shown = Normalisation(mode)
    seen = Segmenter(image, "tiny", normalisation=shown)
    assert seen.data_bar is not None
    request = DataRequest(
        "promptable", "SEM", DataOptions(),
        (pair("a", image=image, labels=labels, normalisation=shown),),
    )  # fmt: skip
    rgb = request.read().images[0].rgb()
    np.testing.assert_array_equal(rgb, seen.rgb)


def test_a_folder_stays_where_it_is(tmp_path):
    DataRequest("promptable", "SEM", DataOptions(), (pair("a"), pair("b"))).leave_in(tmp_path)
    options = DataOptions(unlabelled=0, classes={1: "x", 5: "y"}, fractions=(0.5, 0.5, 0.0))
    request = DataRequest("semantic", "data", options, path=tmp_path / "data")
    path, plain = request.leave_in(tmp_path / "run")
    assert Path(path) == tmp_path / "data"
    assert not (tmp_path / "run").exists()
    there = read_training_data(path, "semantic", DataOptions(**json.loads(json.dumps(plain))))
    assert there.key == request.read().key
    assert there.classes == ("x", "y")


def test_parts_of_masks_in_a_folder(tmp_path):
    masks = pair(labels=(pair().labels > 0).astype(np.int32))
    DataRequest("instance", "SEM", DataOptions(), (masks, replace(masks, name="b"))).leave_in(
        tmp_path
    )
    request = DataRequest("instance", "d", DataOptions(components=True), path=tmp_path / "data")
    path, plain = request.leave_in(tmp_path / "run")
    there = read_training_data(path, "instance", DataOptions(**json.loads(json.dumps(plain))))
    assert there.images[0].label_array().max() == 2


def test_reading_can_be_stopped(tmp_path):
    request = DataRequest("promptable", "SEM", DataOptions(), (pair(),))
    with pytest.raises(CancelledError):
        request.leave_in(tmp_path / "run", should_stop=lambda: True)
    assert not (tmp_path / "run" / "data").exists()


def test_fractions_of_the_recipe():
    pairs = tuple(pair(name) for name in "abcdef")
    request = DataRequest("promptable", "SEM", DataOptions(), pairs)
    data = request.with_fractions((0.5, 0.5, 0.0)).read()
    assert [len(data.of(split)) for split in ("train", "val", "test")] == [3, 3, 0]


def test_nothing_is_an_error():
    with pytest.raises(TrainingDataError):
        DataRequest("promptable", "SEM", DataOptions()).read()


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_layers_of_one_picture_are_learnt_as_one(task):
    """One layer a phase, or objects in two layers: no copy of the picture validates the other."""
    upper, lower = (np.full((20, 30), -1, np.int32) for _ in range(2))
    upper[:, :10], lower[:, 5:20] = 1, 2
    upper[0], lower[:2] = 0, -1
    pairs = tuple(pair("SEM", labels=labels) for labels in (upper, lower))
    data = DataRequest(task, "SEM", DataOptions(), (*pairs, pair("other"))).read()
    assert [image.name for image in data.images] == ["SEM", "other"]
    labels = data.images[0].label_array()
    one, two, no = (1, 2, 0) if task == "semantic" else (1, 3, 0)
    assert (labels[0] == no).all()
    assert (labels[1, 10:] == -1).all()
    np.testing.assert_array_equal(labels[2], [one] * 10 + [two] * 10 + [-1] * 10)


def test_layers_of_one_stack_are_united_plane_by_plane():
    stack, upper = np.full((3, 20, 30), 9, np.uint8), np.zeros((3, 20, 30), np.int32)
    lower = upper.copy()
    upper[1, 3:9, 3:9] = lower[1, 12:18, 12:18] = lower[2, :5, :5] = 4
    pairs = (
        pair(image=stack, labels=upper, planes=((1,),)),
        pair(image=stack, labels=da.from_array(lower), planes=((1,), (2,))),
    )
    data = DataRequest("promptable", "SEM", DataOptions(), pairs).read()
    assert [image.name for image in data.images] == ["SEM[1]", "SEM[2]"]
    assert [np.unique(image.label_array()).tolist() for image in data.images] == [
        [0, 4, 8], [0, 4],
    ]  # fmt: skip
    upper[1, 15, 15] = 9
    assert data.images[0].label_array()[15, 15] == 9, "read when it is asked for"
    odd = pair(image=stack, labels=np.zeros((3, 9, 9), np.int32), planes=((1,),))
    with pytest.raises(TrainingDataError, match=r"labels of one size, got \(20, 30\) and \(9, 9\)"):
        DataRequest("promptable", "SEM", DataOptions(), (pairs[0], odd)).read(frozen=True)
