import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel

from phasesam.core.errors import UnsupportedViewError
from phasesam.core.types import PixelSize
from phasesam.napari_widgets.layers import is_own, like, pixel_size, world_to_data
from phasesam.napari_widgets.planes import full_resolution, read_plane, shown_plane, spatial_shape

RANDOM = np.random.default_rng(0)


def test_new_layer_lies_exactly_on_its_image(viewer_model):
    cosine, sine = np.cos(0.2), np.sin(0.2)
    turned = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    image = viewer_model.add_image(
        RANDOM.random((3, 20, 30)),
        scale=(40, 4, 4),
        translate=(7, 3, 1),
        rotate=turned,
        units=("nm", "nm", "nm"),
        axis_labels=("z", "y", "x"),
    )
    labels = viewer_model.add_labels(np.zeros((3, 20, 30), np.int32), **like(image))
    corner = (2.0, 19.0, 29.0)
    np.testing.assert_allclose(labels.data_to_world(corner), image.data_to_world(corner))
    assert labels.units == image.units
    assert labels.axis_labels == ("z", "y", "x")
    assert is_own(labels)
    assert not is_own(image)


def test_rgb_image_gives_two_dimensional_layers(viewer_model):
    image = viewer_model.add_image(RANDOM.random((20, 30, 3)), rgb=True, scale=(2, 2))
    labels = viewer_model.add_labels(np.zeros((20, 30), np.int32), **like(image))
    assert tuple(labels.scale) == (2, 2)


def test_world_to_data_minds_units(viewer_model):
    in_nm = viewer_model.add_image(RANDOM.random((8, 8)), scale=(100, 100), units=("nm", "nm"))
    in_um = viewer_model.add_image(RANDOM.random((8, 8)), scale=(0.1, 0.1), units=("um", "um"))
    for layer in (in_nm, in_um):
        np.testing.assert_allclose(world_to_data(viewer_model, layer, (300, 700)), (3, 7))


@pytest.mark.parametrize(
    ("scale", "unit", "expected"),
    [
        ((2.0, 4.0), "nm", PixelSize(0.002, 0.004, "um")),
        ((0.5, 0.5), "um", PixelSize(0.5, 0.5, "um")),
        ((2.0, 2.0), "pixel", PixelSize()),
    ],
)
def test_pixel_size_comes_in_micrometres(viewer_model, scale, unit, expected):
    image = viewer_model.add_image(RANDOM.random((8, 8)), scale=scale, units=(unit, unit))
    found = pixel_size(image)
    assert found.unit == expected.unit
    assert (found.y, found.x) == pytest.approx((expected.y, expected.x))


CASES = {
    "2-D": (RANDOM.random((20, 30)), {}),
    "stack": (
        RANDOM.random((5, 20, 30)),
        {"scale": (40, 4, 4), "units": ("nm",) * 3, "translate": (7, 0, 0)},
    ),
    "4-D": (RANDOM.random((3, 5, 20, 30)), {"scale": (1, 2, 0.5, 0.5)}),
    "RGB": (RANDOM.random((20, 30, 3)), {"rgb": True}),
    "RGB stack": (RANDOM.random((5, 20, 30, 3)), {"rgb": True}),
    "dask": (da.from_array(RANDOM.random((5, 20, 30)), chunks=(1, 20, 30)), {}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("transposed", [False, True])
def test_plane_is_the_one_napari_shows(name, transposed):
    data, options = CASES[name]
    viewer = ViewerModel()
    layer = viewer.add_image(data, **options)
    ndim = viewer.dims.ndim
    if transposed:
        viewer.dims.order = (*range(ndim - 2), ndim - 1, ndim - 2)
    for step in (0, 2):
        for axis in viewer.dims.not_displayed:
            viewer.dims.set_current_step(axis, step)
        plane = shown_plane(viewer, layer)
        shown = np.asarray(layer._slice.image.raw)
        expected = np.swapaxes(shown, 0, 1) if transposed else shown
        np.testing.assert_array_equal(read_plane(full_resolution(layer), plane), expected)
        assert plane.shape == spatial_shape(layer)[-2:]


def test_multiscale_uses_full_resolution(viewer_model):
    levels = [RANDOM.random((5, 64, 64)), RANDOM.random((5, 32, 32))]
    layer = viewer_model.add_image(levels, multiscale=True)
    viewer_model.dims.set_current_step(0, 3)
    plane = shown_plane(viewer_model, layer)
    assert plane.shape == (64, 64)
    np.testing.assert_array_equal(read_plane(full_resolution(layer), plane), levels[0][3])


def test_lazy_stack_reads_one_plane_only(viewer_model):
    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.zeros((1, 20, 30), np.float32)

    data = da.map_blocks(
        block, chunks=((1,) * 6, (20,), (30,)), dtype=np.float32, meta=np.zeros((0, 0, 0), "f4")
    )
    layer = viewer_model.add_image(data, contrast_limits=(0, 1))
    viewer_model.dims.set_current_step(0, 4)
    read.clear()
    plane = shown_plane(viewer_model, layer)
    assert read == []
    read_plane(full_resolution(layer), plane)
    assert read == [4]


def test_two_units_in_one_scene_show_the_same_plane(viewer_model):
    data = RANDOM.random((5, 8, 8))
    first = viewer_model.add_image(data, scale=(500, 100, 100), units=("nm",) * 3)
    second = viewer_model.add_image(data, scale=(0.5, 0.1, 0.1), units=("um",) * 3)
    viewer_model.dims.set_point(0, 1000)
    assert shown_plane(viewer_model, first).index == shown_plane(viewer_model, second).index == (2,)


def test_flat_image_beside_a_stack(viewer_model):
    viewer_model.add_image(RANDOM.random((5, 8, 8)))
    flat = viewer_model.add_image(RANDOM.random((8, 8)))
    assert shown_plane(viewer_model, flat).index == ()


def test_unsupported_views_say_what_to_do(viewer_model):
    layer = viewer_model.add_image(RANDOM.random((5, 8, 8)))
    viewer_model.dims.order = (1, 2, 0)
    with pytest.raises(UnsupportedViewError, match="roll dimensions"):
        shown_plane(viewer_model, layer)
    viewer_model.dims.order = (0, 1, 2)
    viewer_model.dims.ndisplay = 3
    with pytest.raises(UnsupportedViewError, match="2-D view"):
        shown_plane(viewer_model, layer)


def test_plane_puts_points_onto_itself(viewer_model):
    layer = viewer_model.add_image(RANDOM.random((3, 5, 20, 30)))
    viewer_model.dims.set_current_step((0, 1), (2, 4))
    plane = shown_plane(viewer_model, layer)
    points = plane.at(np.array([[3.0, 4.0], [5.0, 6.0]]))
    np.testing.assert_array_equal(points, [[2, 4, 3, 4], [2, 4, 5, 6]])
    assert plane.holds(np.array([[2.0, 4.0, 0, 0], [2.0, 3.0, 0, 0]])).tolist() == [True, False]
