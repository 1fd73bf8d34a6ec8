"""COCO files: pycocotools reads the same masks back, and so do we."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from phasesam.core.errors import FileFormatError, InvalidMaskError
from phasesam.core.mask_set import MaskSet
from phasesam.core.types import PixelSize
from phasesam.formats.coco import CocoImage, load_coco, save_coco


def some_masks(seed: int = 0, n: int = 6, shape: tuple[int, int] = (50, 70)) -> MaskSet:
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, *shape), bool)
    for mask in masks[:-1]:
        y, x = rng.integers(0, shape[0] - 5), rng.integers(0, shape[1] - 5)
        mask[y : y + 20, x : x + 30] = rng.random(mask[y : y + 20, x : x + 30].shape) > 0.3
    return MaskSet.from_masks(
        masks,
        rng.random(n),
        stability=rng.random(n).astype(np.float32),
        points=rng.uniform(0, 50, (n, 2)).astype(np.float32),
    )


def with_pycocotools(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_the_same_masks(tmp_path: Path):
    masks = some_masks()
    save_coco(tmp_path / "a.json", CocoImage(masks, "powder.tif", pixel_size=PixelSize(1, 1, "um")))
    coco = with_pycocotools(tmp_path / "a.json")
    assert coco.loadImgs(1)[0]["file_name"] == "powder.tif"
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert len(annotations) == len(masks)
    for index, annotation in enumerate(annotations):
        np.testing.assert_array_equal(coco.annToMask(annotation), masks.mask(index))
        y0, x0, y1, x1 = masks.boxes[index].tolist()
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert annotation["area"] == masks.areas[index]
        assert annotation["predicted_iou"] == pytest.approx(masks.scores[index], abs=1e-6)
        assert annotation["stability_score"] == pytest.approx(masks.stability[index], abs=1e-6)
        assert annotation["point"] == pytest.approx(masks.points[index, ::-1], abs=1e-3)


def test_round_trip_of_several_images_and_categories(tmp_path: Path):
    first = CocoImage(some_masks(1), "a.tif", ("pore", "γ'", "pore", "", "pore", "γ'"))
    second = CocoImage(some_masks(2, 3, (40, 30)), "b.tif", pixel_size=PixelSize(0.1, 0.2, "um"))
    empty = CocoImage(MaskSet((8, 9)), "c.tif")
    save_coco(tmp_path / "a.json", [first, second, empty])
    loaded = load_coco(tmp_path / "a.json")
    assert [image.file_name for image in loaded] == ["a.tif", "b.tif", "c.tif"]
    assert loaded[0].categories == ("pore", "γ'", "pore", "object", "pore", "γ'")
    assert loaded[1].categories == ("object",) * 3
    assert loaded[1].pixel_size == PixelSize(0.1, 0.2, "um")
    assert loaded[2].masks.shape == (8, 9)
    for before, after in zip((first, second), loaded, strict=False):
        np.testing.assert_array_equal(after.masks.masks, before.masks.masks)
        np.testing.assert_allclose(after.masks.scores, before.masks.scores, atol=1e-6)
        np.testing.assert_allclose(after.masks.stability, before.masks.stability, atol=1e-6)
        np.testing.assert_allclose(after.masks.points, before.masks.points, atol=1e-3)
    coco = with_pycocotools(tmp_path / "a.json")
    assert len(coco.getAnnIds(catIds=coco.getCatIds(catNms=["pore"]))) == 3


def test_unknown_scores_are_left_out_and_come_back_as_nan(tmp_path: Path):
    save_coco(tmp_path / "a.json", MaskSet.from_masks(np.ones((1, 4, 5))))
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text
    assert "predicted_iou" not in text
    masks = load_coco(tmp_path / "a.json")[0].masks
    assert np.isnan(masks.scores).all()
    assert np.isnan(masks.points).all()


def test_polygons_and_plain_run_lengths_of_other_tools(tmp_path: Path):
    document = {
        "images": [{"id": 7, "height": 10, "width": 12, "file_name": "x"}],
        "categories": [{"id": 3, "name": "grain"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "segmentation": [[2, 2, 8, 2, 8, 6, 2, 6]]},
            {
                "image_id": 7,
                "category_id": 3,
                "score": 0.5,
                "segmentation": {"size": [10, 12], "counts": [5, 5, 110]},
            },
            {"image_id": 7, "category_id": 3, "segmentation": []},
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    (image,) = load_coco(tmp_path / "a.json")
    assert image.categories == ("grain",) * 3
    expected = np.zeros((10, 12), bool)
    expected[2:6, 2:8] = True
    np.testing.assert_array_equal(image.masks.mask(0), expected)
    assert image.masks.areas.tolist() == [24, 5, 0]
    assert image.masks.scores[1] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a COCO file that can be read"),
        ("[]", "not a COCO file"),
        ("{}", "'annotations' is missing"),
        ('{"annotations": [{}], "images": []}', "'image_id' is missing"),
        (
            '{"images": [{"id": 1, "height": 4, "width": 4}], "annotations": [{"image_id": 1,'
            ' "segmentation": {"size": [4, 4], "counts": [3, 3]}}]}',
            "16 pixels together, got 6",
        ),
        (
            '{"images": [{"id": 1, "height": 4, "width": 4}], "annotations": [{"image_id": 1,'
            ' "segmentation": {"size": [4, 5], "counts": [20]}}]}',
            "in an image of",
        ),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileFormatError, match=message) as caught:
        load_coco(tmp_path / "a.json")
    assert str(caught.value).startswith("a.json: ")


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileFormatError, match="No such file"):
        load_coco(tmp_path / "a.json")


def test_one_category_per_mask():
    with pytest.raises(InvalidMaskError, match="got 1 categories for 6 masks"):
        CocoImage(some_masks(), categories=("pore",))
