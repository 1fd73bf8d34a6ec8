"""The session draws into its Labels layer without drawing all of a large image again."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.napari_widgets import committed_labels
from phasesam.napari_widgets.committed_labels import CommittedLabels
from phasesam.session import SegmentationSession


def square(shape, y, x):
    mask = np.zeros(shape[-2:], bool)
    mask[y : y + 10, x : x + 12] = True
    return mask


def make(viewer, shape):
    image = viewer.add_image(np.zeros(shape, np.uint8), name="SEM")
    session = SegmentationSession(shape)
    return session, CommittedLabels(viewer, image, session)


def picture(layer):
    """What napari draws, made anew."""
    shown = np.array(layer._slice.image.view)
    layer.refresh()
    return shown, np.array(layer._slice.image.view)


@pytest.mark.parametrize("few", [0, 50_000], ids=["whole", "part"])
@pytest.mark.parametrize("contour", [0, 2])
@pytest.mark.parametrize("shape", [(60, 80), (3, 60, 80)], ids=["plane", "stack"])
def test_the_picture_follows_every_edit(viewer_model, monkeypatch, shape, contour, few):
    monkeypatch.setattr(committed_labels, "_FEW_PIXELS", few)
    session, committed = make(viewer_model, shape)
    layer = committed.layer
    layer.contour = contour
    planes = [(0,), (2,)] if len(shape) > 2 else [()]
    for plane in planes:
        viewer_model.dims.set_point(0, 0)
        session.commit(square(shape, 5, 7), plane=plane)
        session.commit(square(shape, 12, 15), plane=plane)
        session.delete([session.objects[-2].id])
        session.undo()
        np.testing.assert_array_equal(layer.data, session.labels)
        np.testing.assert_array_equal(*picture(layer))
    assert session.undo_name.startswith("Add object")
    session.undo()
    assert len(session.objects) == 2 * len(planes) - 1


def test_a_small_edit_draws_a_part_and_a_large_one_all(viewer_model, monkeypatch):
    monkeypatch.setattr(committed_labels, "_FEW_PIXELS", 500)
    session, committed = make(viewer_model, (60, 80))
    whole = []
    monkeypatch.setattr(committed.layer, "refresh", lambda **_: whole.append(1), raising=False)
    session.commit(square((60, 80), 5, 7))
    assert not whole
    session.commit(np.ones((60, 80), bool))
    assert whole == [1]
    np.testing.assert_array_equal(committed.layer.data, session.labels)


def test_drawing_the_layer_again_is_no_edit(viewer_model):
    session, committed = make(viewer_model, (60, 80))
    session.commit(square((60, 80), 5, 7))
    before = session.writes
    committed.layer.events.labels_update(data=np.zeros((1, 1)), offset=[0, 0])
    committed.layer.refresh()
    assert session.writes == before
