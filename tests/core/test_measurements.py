import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import perimeter_crofton, regionprops

from phasesam.core import measurements
from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.measurements import ObjectTable, join_tables, measure
from phasesam.core.types import PixelSize

YY, XX = np.mgrid[:200, :300]


def ellipse(y, x, a, b, degrees=0.0):
    """Ellipse with half axes a, b; the first one counter-clockwise from the horizontal."""
    angle = np.deg2rad(degrees)
    right, up = XX - x, y - YY
    along = right * np.cos(angle) + up * np.sin(angle)
    across = -right * np.sin(angle) + up * np.cos(angle)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


def some_labels(seed=0, shape=(90, 120), n=25):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    centres = rng.random((n, 2)) * shape
    distance = np.hypot(yy[..., None] - centres[:, 0], xx[..., None] - centres[:, 1])
    labels = distance.argmin(axis=2) + 1
    labels[distance.min(axis=2) > 9] = 0
    return labels.astype(np.int32)


def test_disc():
    table = measure(ellipse(100, 150, 40, 40).astype(int))
    assert len(table) == 1
    area = np.pi * 40**2
    assert table["area_px"][0] == pytest.approx(area, rel=0.01)
    assert table["equivalent_diameter_px"][0] == pytest.approx(80, rel=0.005)
    assert table["perimeter_px"][0] == pytest.approx(2 * np.pi * 40, rel=0.02)
    assert table["feret_px"][0] == pytest.approx(81, rel=0.02)
    assert table["aspect_ratio"][0] == pytest.approx(1, abs=0.01)
    assert table["circularity"][0] == pytest.approx(1, abs=0.03)
    assert (table["centroid_y"][0], table["centroid_x"][0]) == pytest.approx((100, 150))
    assert [table[k][0] for k in ("y0", "x0", "y1", "x1")] == [60, 110, 141, 191]
    assert not table["touches_edge"][0]
    assert "area_um2" not in table


@pytest.mark.parametrize("degrees", [-80, -45, -20, 0, 30, 60, 89])
def test_orientation_and_axes_of_an_ellipse(degrees):
    table = measure(ellipse(100, 150, 60, 20, degrees).astype(int))
    difference = (table["orientation_deg"][0] - degrees + 90) % 180 - 90
    assert abs(difference) < 0.5
    assert table["aspect_ratio"][0] == pytest.approx(3, rel=0.02)
    assert table["feret_px"][0] == pytest.approx(121, rel=0.015)


def test_pixels_that_are_not_square():
    # A disc of 20 µm, seen with pixels of 0.5 µm × 0.25 µm, is an ellipse in pixels.
    table = measure(ellipse(100, 150, 80, 40).astype(int), PixelSize(0.5, 0.25, "um"))
    assert table["area_um2"][0] == pytest.approx(np.pi * 20**2, rel=0.01)
    assert table["equivalent_diameter_um"][0] == pytest.approx(40, rel=0.005)
    assert table["aspect_ratio"][0] == pytest.approx(1, abs=0.01)
    assert table["circularity"][0] == pytest.approx(1, abs=0.03)
    assert table["feret_um"][0] == pytest.approx(40, rel=0.02)
    assert table["perimeter_um"][0] == pytest.approx(2 * np.pi * 20, rel=0.02)
    assert table["feret_px"][0] == pytest.approx(161, rel=0.01)


def test_nanometres_become_micrometres():
    labels = some_labels()
    nm, um = measure(labels, PixelSize(5, 5, "nm")), measure(labels, PixelSize(0.005, 0.005, "um"))
    for name in ("area_um2", "equivalent_diameter_um", "perimeter_um", "feret_um"):
        assert nm[name] == pytest.approx(um[name])
    assert um["feret_um"] == pytest.approx(um["feret_px"] * 0.005)
    assert um["perimeter_um"] == pytest.approx(um["perimeter_px"] * 0.005)


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint8, (14, 17), elements=st.integers(0, 3)))
def test_same_as_scikit_image(labels):
    table = measure(labels)
    regions = regionprops(labels)
    assert table["id"].tolist() == [r.label for r in regions]
    assert table["area_px"].tolist() == [r.area for r in regions]
    boxes = np.stack([table[k] for k in ("y0", "x0", "y1", "x1")], axis=1)
    assert boxes.tolist() == [list(r.bbox) for r in regions]
    for row, region in enumerate(regions):
        assert table["perimeter_px"][row] == pytest.approx(perimeter_crofton(region.image, 4))
        centre = table["centroid_y"][row], table["centroid_x"][row]
        assert centre == pytest.approx(region.centroid)


def test_feret_is_the_largest_distance():
    labels = some_labels(3)
    table = measure(labels)
    sides = np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    for row, label in enumerate(table["id"]):
        corners = (np.argwhere(labels == label)[:, None] + sides).reshape(-1, 2)
        distance = np.hypot(*(corners[:, None] - corners[None]).transpose(2, 0, 1)).max()
        assert table["feret_px"][row] == pytest.approx(distance, rel=2e-4)


def test_axes_and_direction_follow_scikit_image_on_large_objects():
    labels = np.zeros((200, 300), dtype=int)
    labels[ellipse(60, 80, 50, 20, 35)] = 1
    labels[ellipse(140, 200, 45, 25, -50)] = 4
    table = measure(labels)
    for row, region in enumerate(regionprops(labels)):
        ratio = region.axis_major_length / region.axis_minor_length
        assert table["aspect_ratio"][row] == pytest.approx(ratio, rel=1e-3)
        # scikit-image measures from the row axis.
        difference = table["orientation_deg"][row] - np.rad2deg(region.orientation) - 90
        assert abs((difference + 90) % 180 - 90) < 1e-6


def test_single_pixel_and_line():
    labels = np.zeros((5, 20), dtype=int)
    labels[1, 1] = 1
    labels[3, 2:12] = 2
    table = measure(labels)
    assert table["aspect_ratio"].tolist() == pytest.approx([1, 10])
    assert table["circularity"][0] == 1
    assert table["feret_px"] == pytest.approx([1, 10], rel=2e-4)
    assert table["orientation_deg"].tolist() == [0, 0]


def test_rows_follow_the_ids_that_were_asked_for():
    labels = some_labels()
    everything = measure(labels)
    some = measure(labels, ids=[9, 4], scores=[0.9, 0.4], classes=["a", "b"])
    assert some["id"].tolist() == [9, 4]
    assert some["score"].tolist() == [0.9, 0.4]
    assert some["class"].tolist() == ["a", "b"]
    for name in ("area_px", "perimeter_px", "feret_px", "centroid_x", "y1", "touches_edge"):
        rows = [everything["id"].tolist().index(i) for i in (9, 4)]
        assert some[name].tolist() == pytest.approx(everything[name][rows].tolist())


def test_scores_and_classes_by_id():
    table = measure(np.array([[1, 0, 5]]), scores={5: 0.5}, classes={1: "pore"})
    assert np.isnan(table["score"][0])
    assert table["score"][1] == 0.5
    assert table["class"].tolist() == ["pore", ""]


@pytest.mark.parametrize("scale", [10**7, 2**40])
def test_huge_labels(scale):
    labels = some_labels().astype(np.int64)
    table, huge = measure(labels), measure(labels * scale, ids=table_ids(labels) * scale)
    assert huge["id"].tolist() == (table["id"] * scale).tolist()
    assert huge["perimeter_px"].tolist() == table["perimeter_px"].tolist()


def table_ids(labels):
    return np.unique(labels[labels > 0])


def test_edges_of_the_field_of_view():
    labels = np.zeros((20, 20), dtype=int)
    labels[5:8, 5:8] = 1
    labels[12:15, 5:8] = 2
    labels[0:3, 15:18] = 3
    assert measure(labels)["touches_edge"].tolist() == [False, False, True]
    view = measure(labels, field_of_view=(0, 0, 15, 20))
    assert view["touches_edge"].tolist() == [False, True, True]


def test_nothing_to_measure():
    for labels in (np.zeros((5, 5), int), np.zeros((0, 5), int)):
        table = measure(labels, PixelSize(1, 1, "um"))
        assert len(table) == 0
        assert table.rows() == []
        assert "feret_um" in table


def test_two_thousand_objects_in_under_a_second():
    rng = np.random.default_rng(0)
    labels = np.zeros((1024, 1536), dtype=np.int32)
    tiles = np.arange(1, 2001).reshape(40, 50)
    labels[:1000, :1500] = np.kron(tiles, np.ones((25, 30), np.int32))
    labels[rng.random(labels.shape) < 0.02] = 0
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert len(measure(labels)) == 2000
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


@pytest.mark.parametrize("labels", [np.zeros((3, 3)), np.zeros((3, 3, 3), int), np.zeros(3, int)])
def test_labels_must_be_a_plane_of_integers(labels):
    with pytest.raises(InvalidMaskError, match="integer labels"):
        measure(labels)


def test_wrong_settings_are_refused():
    labels = np.array([[1, 2]])
    with pytest.raises(InvalidMaskError, match="every id"):
        measure(labels, ids=[3])
    with pytest.raises(InvalidMaskError, match="every id"):
        measure(labels, ids=[1, 1])
    with pytest.raises(InvalidMaskError, match="2 scores"):
        measure(labels, scores=[1.0])
    with pytest.raises(InvalidSettingError, match="furlong"):
        measure(labels, PixelSize(1, 1, "furlong"))
    with pytest.raises(InvalidSettingError, match="positive"):
        measure(labels, PixelSize(0, 1, "um"))


def test_tables():
    table = ObjectTable({"id": np.array([1, 2, 3]), "area": np.array([5.0, 6.0, 7.0])})
    assert table.rows()[1] == {"id": 2, "area": 6.0}
    assert table.select([2, 0])["id"].tolist() == [3, 1]
    assert table.select(table["area"] > 5.5)["id"].tolist() == [2, 3]
    assert len(table.select([])) == 0
    assert table.with_columns({"plane": np.zeros(3)}).rows()[0]["plane"] == 0
    assert join_tables([table, table.select([0])])["id"].tolist() == [1, 2, 3, 1]
    with pytest.raises(InvalidMaskError, match="same length"):
        ObjectTable({"id": np.zeros(2), "area": np.zeros(3)})
    with pytest.raises(InvalidMaskError, match="same columns"):
        join_tables([table, ObjectTable({"id": np.zeros(1)})])
    with pytest.raises(InvalidMaskError, match="at least one"):
        join_tables([])
    with pytest.raises(TypeError):
        table.columns["id"] = np.zeros(3)  # type: ignore[index]


@pytest.mark.parametrize("pixels", [1, 500, 5000])
def test_strips_give_the_same_as_the_whole(monkeypatch, pixels):
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 6, (9, 11)), np.ones((8, 7), int))
    whole = measure(labels, PixelSize(0.5, 0.25, "um"))
    monkeypatch.setattr(measurements, "_STRIP_PIXELS", pixels)
    strips = measure(labels, PixelSize(0.5, 0.25, "um"))
    for name, column in whole.columns.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(strips[name], column, rtol=1e-12, atol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(strips[name], column)
