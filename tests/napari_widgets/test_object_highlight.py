from __future__ import annotations

import numpy as np
import pytest

from phasesam.napari_widgets import object_highlight
from phasesam.napari_widgets.object_highlight import ObjectHighlight
from phasesam.session import SegmentationSession

SHAPE = (60, 90)


@pytest.fixture
def scene(viewer_model):
    """Viewer, image, session with two squares, and highlight."""
    image = viewer_model.add_image(
        np.zeros(SHAPE), name="SEM", scale=(0.5, 0.25), translate=(3, 4), units=("um", "um")
    )
    session = SegmentationSession(SHAPE)
    labels = np.zeros(SHAPE, np.int32)
    labels[10:20, 10:30], labels[36:56, 60:84] = 1, 2
    session.apply_labels(labels)
    return viewer_model, image, session, ObjectHighlight(viewer_model)


def rim(mask):
    """Pixels of a mask at most two steps from its outside."""
    inside = mask
    for _ in range(2):
        padded = np.pad(inside, 1, mode="edge")
        inside = (
            inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return mask & ~inside


def outlined(layer, image):
    """Which pixels of the image have an outlined object, by their world positions."""
    found = np.zeros(image.data.shape, bool)
    corners = np.argwhere(np.asarray(layer.data) > 0)
    if len(corners):
        places = np.array([image.world_to_data(layer.data_to_world(c)) for c in corners])
        found[tuple(np.rint(places).astype(int).T)] = True
    return found


def test_outlines_lie_on_the_objects(scene):
    _, image, session, highlight = scene
    for ids in ([1], [2], [1, 2], [2]):
        highlight.show(image, session, ids)
        expected = rim(np.isin(session.labels, ids))
        np.testing.assert_array_equal(outlined(highlight.layer, image), expected)
        assert highlight.layer.visible


def test_nothing_selected_hides_the_layer_and_keeps_it(scene):
    viewer, image, session, highlight = scene
    highlight.show(image, session, [1])
    layer = highlight.layer
    highlight.show(image, session, [])
    assert layer in viewer.layers
    assert not layer.visible
    highlight.show(image, session, [2])
    assert highlight.layer is layer
    assert layer.visible
    highlight.clear()
    assert layer not in viewer.layers


def test_another_image_gets_a_layer_of_its_own(scene):
    viewer, image, session, highlight = scene
    highlight.show(image, session, [1])
    stack = viewer.add_image(np.zeros((4, *SHAPE)), name="stack", units=("um", "um", "um"))
    volume = SegmentationSession((4, *SHAPE))
    volume.commit(session.object_mask(2), plane=(3,))
    highlight.show(stack, volume, [1])
    assert [layer.name for layer in viewer.layers if "selected" in layer.name] == ["stack selected"]
    expected = np.zeros((4, *SHAPE), bool)
    expected[3] = rim(volume.labels[3] == 1)
    np.testing.assert_array_equal(outlined(highlight.layer, stack), expected)


def test_leaving_an_image_hides_and_removing_it_removes(scene):
    viewer, image, session, highlight = scene
    highlight.show(image, session, [1])
    layer = highlight.layer
    highlight.leave()
    assert layer in viewer.layers
    assert not layer.visible
    viewer.layers.remove(image)
    highlight.leave()
    assert layer not in viewer.layers


@pytest.mark.parametrize("step", [2, 3])
def test_a_large_selection_is_outlined_in_steps(scene, monkeypatch, step):
    _, image, session, highlight = scene
    monkeypatch.setattr(object_highlight, "_MOST_PIXELS", 60 * 90 // step**2)
    highlight.show(image, session, [1, 2])
    layer = highlight.layer
    assert layer.data.size <= 60 * 90 // step**2
    np.testing.assert_allclose(layer.scale, np.array([0.5, 0.25]) * step)
    # Every step × step block of the layer lies on the pixels that it stands for.
    for label in (1, 2):
        y0, x0, y1, x1 = session.record(label).box
        low, high = np.argwhere(layer.data == label)[[0, -1]]
        np.testing.assert_allclose(
            image.world_to_data(layer.data_to_world(low - 0.5)), (y0 - 0.5, x0 - 0.5), atol=step
        )
        np.testing.assert_allclose(
            image.world_to_data(layer.data_to_world(high + 0.5)), (y1 - 0.5, x1 - 0.5), atol=step
        )
    highlight.show(image, session, [1])
    np.testing.assert_allclose(highlight.layer.scale, (0.5, 0.25))
    np.testing.assert_array_equal(outlined(highlight.layer, image), rim(session.labels == 1))


def test_far_labels_are_found_without_a_table(scene, monkeypatch):
    _, image, session, highlight = scene
    expected = {}
    for limit in (1 << 22, 1):
        monkeypatch.setattr(object_highlight, "_LARGEST_TABLE", limit)
        highlight.show(image, session, [2, 1])
        expected[limit] = np.array(highlight.layer.data)
    np.testing.assert_array_equal(*expected.values())
    assert expected[1].max() == 2


def test_touching_objects_have_a_line_between_them(scene):
    _, image, session, highlight = scene
    session.split_by_line(2, [(46, 50), (46, 90)])
    parts = [record.id for record in session.objects if record.id != 1]
    highlight.show(image, session, parts)
    expected = np.zeros(SHAPE, bool)
    for part in parts:
        expected |= rim(session.labels == part)
    np.testing.assert_array_equal(outlined(highlight.layer, image), expected)


def test_the_same_selection_is_not_drawn_again(scene):
    _, image, session, highlight = scene
    highlight.show(image, session, [1])
    drawn = []
    highlight.layer.events.data.connect(drawn.append)
    highlight.show(image, session, [1])
    assert not drawn
    highlight.show(image, session, [])
    highlight.show(image, session, [1])
    assert not drawn
    assert highlight.layer.visible
    highlight.show(image, session, [2])
    assert drawn
