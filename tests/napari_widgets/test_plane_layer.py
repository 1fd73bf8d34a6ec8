from __future__ import annotations

import numpy as np
import pytest

from phasesam.napari_widgets.plane_layer import plane_geometry, show_point

GEOMETRIES = {
    "plain": {},
    "scaled": {"scale": (3, 0.5, 0.25), "translate": (10, -4, 7)},
    "rotated": {"scale": (1, 2, 2), "rotate": (0, 0, 30), "translate": (1, 2, 3)},
    "sheared": {"scale": (1, 2, 3), "shear": (0, 0, 0.4)},
    "affine": {
        "scale": (2, 1, 1),
        "affine": np.array([[1, 0, 0, 5], [0, 0.8, 0.6, 1], [0, -0.6, 0.8, 2], [0, 0, 0, 1.0]]),
    },
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_piece_lies_where_it_was_cut(viewer_model, name):
    image = viewer_model.add_image(np.zeros((5, 40, 50)), **GEOMETRIES[name])
    piece = viewer_model.add_labels(
        np.zeros((1, 6, 7), np.uint8), **plane_geometry(image, (3,), (11, 13))
    )
    for offset in ((0, 0), (5, 6)):
        np.testing.assert_allclose(
            piece.data_to_world((0, *offset)),
            image.data_to_world((3, 11 + offset[0], 13 + offset[1])),
        )


def test_small_objects_are_enlarged_and_large_ones_fitted(viewer_model):
    image = viewer_model.add_image(np.zeros((1000, 1000)))
    camera = viewer_model.scene.camera
    camera.zoom = 1.0
    show_point(viewer_model, image, (400, 600), extent=100)
    assert camera.zoom == 1.0
    np.testing.assert_allclose(camera.center[-2:], (400, 600))
    show_point(viewer_model, image, (400, 600), extent=4)
    assert camera.zoom > 5
    camera.zoom = 10.0
    show_point(viewer_model, image, (400, 600), extent=500)
    assert camera.zoom * 500 < min(viewer_model.canvas.size)


def test_the_plane_comes_up_in_a_viewer_with_more_axes(viewer_model):
    viewer_model.add_image(np.zeros((3, 4, 10, 10)))
    stack = viewer_model.add_image(np.zeros((4, 10, 10)), scale=(5, 1, 1))
    show_point(viewer_model, stack, (2, 4, 6))
    assert viewer_model.dims.point[1] == 10
    np.testing.assert_allclose(viewer_model.scene.camera.center[-2:], (4, 6))
