"""Label images keep every label and the pixel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.formats.label_tiff import save_labels_tiff
from phasesam.formats.readers import read_image

SIZE = PixelSize(0.04, 0.05, "um")


@pytest.mark.parametrize("shape", [(30, 40), (1, 1), (5, 30, 40), (2, 5, 30, 40), (1, 30, 40)])
@pytest.mark.parametrize("largest", [7, 65_535, 65_536, 2**31 - 1])
def test_round_trip(tmp_path: Path, shape: tuple[int, ...], largest: int):
    labels = np.random.default_rng(0).integers(0, largest + 1, shape).astype(np.int32)
    labels.flat[0] = largest
    save_labels_tiff(tmp_path / "a.tif", labels, SIZE, z_size=0.2)
    stored = tifffile.imread(tmp_path / "a.tif")
    assert stored.dtype == (np.uint16 if largest < 65_536 else np.int32)
    np.testing.assert_array_equal(stored.reshape(shape), labels)
    file = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.asarray(file.data).reshape(shape), labels)
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((0.04, 0.05))
    assert file.pixel_size.unit == "um"
    if len(shape) > 2:
        assert file.z_size == pytest.approx(0.2)


@pytest.mark.parametrize("largest", [7, 70_000])
def test_resolution_tags_and_axes(tmp_path: Path, largest: int):
    save_labels_tiff(tmp_path / "a.tif", np.full((3, 8, 9), largest), PixelSize(40, 50, "nm"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        tags = tif.pages[0].tags
        x, y = (tags[name].value for name in ("XResolution", "YResolution"))
        per_um = 1.0 if largest < 65_536 else 1e4  # ImageJ: per unit; else per centimetre
        assert x[0] / x[1] == pytest.approx(20 * per_um)
        assert y[0] / y[1] == pytest.approx(25 * per_um)
        if largest < 65_536:
            assert tif.imagej_metadata["unit"] == "um"


@pytest.mark.parametrize("size", [1e-5, 0.00123, 3.7, 250.0])
def test_any_pixel_size(tmp_path: Path, size: float):
    save_labels_tiff(tmp_path / "a.tif", np.ones((4, 4), int), PixelSize(size, size, "um"))
    assert read_image(tmp_path / "a.tif").pixel_size.x == pytest.approx(size, rel=1e-4)


def test_plain_pixels_stay_plain(tmp_path: Path):
    save_labels_tiff(tmp_path / "a.tif", np.eye(5, dtype=bool))
    file = read_image(tmp_path / "a.tif")
    assert not file.pixel_size.is_physical
    np.testing.assert_array_equal(file.data, np.eye(5))


def test_labels_are_compressed(tmp_path: Path):
    labels = np.zeros((1000, 1000), np.int32)
    labels[200:700, 300:400] = 5
    save_labels_tiff(tmp_path / "a.tif", labels)
    assert (tmp_path / "a.tif").stat().st_size < 20_000


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((3, 3)),
        np.full((3, 3), -1),
        np.zeros(3, int),
        np.zeros((0, 3), int),
        np.full((2, 2), 2**31),
        np.zeros((1, 1, 1, 1, 2, 2), int),
    ],
)
def test_no_labels(tmp_path: Path, labels: np.ndarray):
    with pytest.raises(InvalidMaskError):
        save_labels_tiff(tmp_path / "a.tif", labels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [PixelSize(0, 1, "um"), PixelSize(1, 1, "parsec")])
def test_impossible_pixel_size(tmp_path: Path, size: PixelSize):
    with pytest.raises(InvalidSettingError):
        save_labels_tiff(tmp_path / "a.tif", np.ones((2, 2), int), size)


def test_classes_stay_in_eight_bits(tmp_path):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    save_labels_tiff(tmp_path / "a.tif", labels)
    stored = tifffile.imread(tmp_path / "a.tif")
    assert stored.dtype == np.uint8
    assert np.array_equal(stored, labels)
