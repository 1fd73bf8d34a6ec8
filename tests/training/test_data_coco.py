"""COCO files become label images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from phasesam.core.errors import FileFormatError, InvalidSettingError, TrainingDataError
from phasesam.training.dataset import UNLABELLED, read_training_data

SHAPE = (30, 40)


def box(y0: int, x0: int, y1: int, x1: int) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def annotation(number: int, image: int, category: int, polygon: list, crowd: int = 0) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": polygon,
        "iscrowd": crowd,
    }


@pytest.fixture
def coco(tmp_path):
    """Two labelled images of two categories, and one without annotations."""
    document = {
        "images": [
            {"id": i, "file_name": f"{n}.png", "height": SHAPE[0], "width": SHAPE[1]}
            for i, n in ((1, "a"), (2, "b"), (5, "c"))
        ],
        "categories": [{"id": 9, "name": "pore"}, {"id": 4, "name": "grain"}],
        "annotations": [
            annotation(1, 1, 4, box(5, 5, 8, 8)),
            annotation(2, 1, 9, box(2, 2, 20, 20)),
            annotation(3, 2, 4, box(0, 0, 10, 10)),
            annotation(4, 2, 4, box(15, 15, 25, 25), crowd=1),
        ],
    }
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.fromarray(np.zeros(SHAPE, np.uint8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    return tmp_path / "annotations.json"


@pytest.mark.parametrize("whole_folder", [False, True])
def test_annotations_are_objects_the_small_ones_on_top(coco, whole_folder):
    data = read_training_data(coco.parent if whole_folder else coco, "instance")
    assert [i.name for i in data.images] == ["a", "b"]
    assert "1 images without annotations are left out: c.png" in data.warnings[0]
    labels = data.images[0].label_array()
    assert labels.shape == SHAPE
    assert (labels[5:8, 5:8] == 1).all()
    assert labels[10, 10] == 2
    assert labels[25, 25] == 0


def test_crowds_are_unlabelled(coco):
    labels = read_training_data(coco, "promptable").images[1].label_array()
    assert (labels[15:25, 15:25] == UNLABELLED).all()
    assert labels[5, 5] == 1


def test_categories_are_classes(coco):
    data = read_training_data(coco, "semantic")
    assert data.classes == ("background", "grain", "pore")
    labels = data.images[0].label_array()
    assert labels[6, 6] == 1
    assert labels[10, 10] == 2
    assert labels[29, 39] == 0


def test_missing_images_are_named(coco):
    (coco.parent / "images" / "b.png").unlink()
    with pytest.raises(TrainingDataError, match=r"did not find b\.png"):
        read_training_data(coco, "instance")


def test_names_that_lead_elsewhere_are_looked_for_here(coco):
    document = json.loads(coco.read_text())
    document["images"][0]["file_name"] = "/somewhere/else/a.png"
    document["images"][1]["file_name"] = "../../b.png"
    coco.write_text(json.dumps(document))
    data = read_training_data(coco, "instance")
    assert [i.image.path.parent for i in data.images] == [coco.parent / "images"] * 2


def test_other_json_files(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"x\.json"):
        read_training_data(tmp_path / "x.json", "instance")


def changed(coco, change):
    document = json.loads(coco.read_text())
    change(document)
    coco.write_text(json.dumps(document))
    return coco


def test_equal_names_in_several_folders_and_paths_of_windows(coco):
    for folder in ("one", "two"):
        (coco.parent / "images" / folder).mkdir()
        Image.fromarray(np.zeros(SHAPE, np.uint8)).save(coco.parent / f"images/{folder}/a.png")

    def rename(document):
        document["images"][0]["file_name"] = "one/a.png"
        document["images"][1]["file_name"] = "two\\a.png"

    data = read_training_data(changed(coco, rename), "instance")
    assert [i.name for i in data.images] == ["a", "a (2)"]
    assert data.images[1].image.path == coco.parent / "images" / "two" / "a.png"


def test_a_category_that_is_not_declared_is_no_background(coco):
    changed(coco, lambda document: document["categories"].pop(0))
    with pytest.raises(TrainingDataError, match=r"a\.png: expected .* of background, grain"):
        read_training_data(coco, "semantic")


def test_options_for_other_places_are_refused(coco):
    with pytest.raises(InvalidSettingError, match="'labels' does not apply"):
        read_training_data(coco, "instance", labels="labels")
    with pytest.raises(InvalidSettingError, match="'E1' does not apply"):
        read_training_data(coco, "instance", experiment="E1")
