import csv

import numpy as np
import pytest
from pycocotools.coco import COCO

from phasesam.core.errors import SaveError
from phasesam.core.types import PixelSize
from phasesam.formats.readers import read_image
from phasesam.napari_widgets.readers import read
from phasesam.napari_widgets.viewer_state import state_of
from phasesam.napari_widgets.writers import write_coco, write_csv, write_labels_tiff


@pytest.fixture
def labels(viewer_model):
    """A Labels layer of two objects, 20 and 6 pixels, of half a micrometre each."""
    data = np.zeros((20, 30), np.int32)
    data[2:6, 3:8] = 1
    data[10:12, 20:23] = 7
    return viewer_model.add_labels(data, name="grains", scale=(500, 500), units=("nm", "nm"))


@pytest.fixture
def committed(viewer_model):
    """The objects of a stack: one on each of two planes."""
    image = viewer_model.add_image(np.zeros((3, 20, 30)), name="stack", scale=(2, 0.5, 0.5))
    state = state_of(viewer_model)
    session = state.session(image)
    mask = np.zeros((20, 30), bool)
    mask[2:6, 3:8] = True
    session.commit(mask, plane=(0,), score=0.9, class_name="pore")
    session.commit(mask, plane=(2,), score=0.8, class_name="crack")
    return state.labels_layer(image)


def write(writer, path, layer):
    data, attributes, _ = layer.as_layer_data_tuple()
    assert writer(str(path), data, attributes) == [str(path)]


def test_tiff_keeps_labels_and_pixel_size_and_comes_back_as_labels(tmp_path, labels, viewer_model):
    path = tmp_path / "grains_labels.tif"
    write(write_labels_tiff, path, labels)
    back = read_image(path)
    np.testing.assert_array_equal(back.data, labels.data)
    assert back.pixel_size == PixelSize(pytest.approx(0.5), pytest.approx(0.5), "um")
    ((data, options, kind),) = read(str(path))
    assert kind == "labels"
    again = viewer_model.add_labels(data, **options)
    np.testing.assert_allclose(again.scale, (0.5, 0.5))


def test_tiff_of_a_stack(tmp_path, committed):
    write(write_labels_tiff, tmp_path / "stack.tif", committed)
    np.testing.assert_array_equal(
        np.asarray(read_image(tmp_path / "stack.tif").data), committed.data
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_is_read_back_by_pycocotools(tmp_path, labels, capsys):
    write(write_coco, tmp_path / "grains.json", labels)
    coco = COCO(str(tmp_path / "grains.json"))
    masks = [coco.annToMask(annotation) for annotation in coco.loadAnns(coco.getAnnIds())]
    np.testing.assert_array_equal(masks[0], labels.data == 1)
    np.testing.assert_array_equal(masks[1], labels.data == 7)


def test_coco_of_committed_objects_has_planes_classes_and_scores(tmp_path, committed, capsys):
    write(write_coco, tmp_path / "stack.json", committed)
    coco = COCO(str(tmp_path / "stack.json"))
    assert len(coco.imgs) == 2
    names = {category["name"] for category in coco.cats.values()}
    assert names == {"pore", "crack"}
    scores = [annotation["predicted_iou"] for annotation in coco.anns.values()]
    assert scores == pytest.approx([0.9, 0.8])


def test_csv_is_in_pixels_and_micrometres(tmp_path, labels):
    write(write_csv, tmp_path / "grains.csv", labels)
    with (tmp_path / "grains.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["1", "7"]
    assert [float(row["area_px"]) for row in rows] == [20, 6]
    assert [float(row["area_um2"]) for row in rows] == pytest.approx([5, 1.5])


def test_csv_of_committed_objects_has_class_and_plane(tmp_path, committed):
    write(write_csv, tmp_path / "stack.csv", committed)
    with (tmp_path / "stack.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["pore", "crack"]
    assert [row["plane_0"] for row in rows] == ["0", "2"]


def test_no_permission_is_said_and_nothing_is_left(tmp_path, labels):
    data, attributes, _ = labels.as_layer_data_tuple()
    with pytest.raises(SaveError):
        write_labels_tiff(str(tmp_path / "missing" / "grains.tif"), data, attributes)


@pytest.mark.gui
def test_napari_saves_with_these_writers(make_napari_viewer, tmp_path):
    viewer = make_napari_viewer()
    layer = viewer.add_labels(np.ones((8, 9), np.int32))
    assert layer.save(str(tmp_path / "a.json"), plugin="napari-phasesam")
    assert layer.save(str(tmp_path / "a.csv"), plugin="napari-phasesam")
    assert layer.save(str(tmp_path / "a.tif"), plugin="napari-phasesam")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".tif"}
