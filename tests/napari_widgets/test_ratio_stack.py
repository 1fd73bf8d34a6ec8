"""One ratio for a whole stack, from the Phase ratio dock."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.models.adapter_store import import_adapter
from phasesam.napari_widgets.ratio import RatioDock

SHAPE = (40, 50)
NAMES = ("ferrite", "bainite", "martensite")
RESULT = "stack phase ratio of the stack"


@pytest.fixture
def dock(tmp_path, make_adapter, viewer_model, shown):
    import_adapter(make_adapter(tmp_path / "steel.safetensors", classes=NAMES), "steel")
    planes = np.random.default_rng(0).integers(0, 255, (4, *SHAPE), dtype=np.uint8)
    planes[1] = 9
    viewer_model.add_image(planes, name="stack", scale=(3, 0.5, 0.5))
    viewer_model.dims.set_current_step(0, 2)
    return shown(RatioDock(viewer_model), (460, 800))


def settled(dock, until):
    until(lambda: not dock.running and not dock._lane.busy, timeout=60_000)


@pytest.fixture
def asked(dock, until):
    dock.map_button.click()
    settled(dock, until)
    dock.rows.rows[1].spin.setValue(35)
    settled(dock, until)
    return dock


def counts(layer):
    return np.bincount(layer.data.ravel(), minlength=4)


def test_a_stack_has_the_shares_as_a_whole(asked, until):
    asked.stack_button.click()
    settled(asked, until)
    layer = asked.viewer.layers[RESULT]
    assert not layer.data[1].any(), "a plane without contrast"
    found = counts(layer)
    assert found[0] == SHAPE[0] * SHAPE[1]
    assert found[2] == round(0.35 * 3 * SHAPE[0] * SHAPE[1])
    by_plane = [(layer.data[z] == 2).mean() for z in (0, 2, 3)]
    assert np.ptp(by_plane) > 0, "planes differ"
    np.testing.assert_allclose(layer.scale, (3, 0.5, 0.5))
    words = asked.footer.result.text()
    assert "3 planes: ferrite" in words
    assert "bainite 35.00" in words
    assert "Left out: 1 plane without contrast" in words
    entry = asked.results.log[-1]
    assert (entry.image, entry.wanted[1]) == ("stack (stack)", 0.35)
    assert entry.achieved[1] == pytest.approx(0.35, abs=1e-3)
    assert (entry.plane, entry.region) == (None, None)
    assert asked.rows.rows[1].now.text() == "35.00"
    first, whole = asked.rows.rows[0].now.text(), found[1] / found[1:].sum()
    assert first == f"{100 * whole:.2f}", "of all planes, which are on the screen"
    # The plane of the sliders waits, hidden, until they are touched again.
    plane = asked.viewer.layers["stack phase ratio"]
    assert (layer.visible, plane.visible) == (True, False)
    before = layer.data.copy()
    asked.rows.rows[1].spin.setValue(50)
    settled(asked, until)
    assert (layer.visible, plane.visible) == (False, True)
    np.testing.assert_array_equal(layer.data, before)


def test_a_stack_is_offered_where_there_is_one_and_shares(dock, until):
    assert dock.stack_button.isVisible()
    assert not dock.stack_button.isEnabled()
    dock.solve_stack()
    assert "ask for shares first" in dock.footer.result.text()
    dock.map_button.click()
    settled(dock, until)
    assert not dock.stack_button.isEnabled()
    dock.rows.rows[1].spin.setValue(35)
    settled(dock, until)
    assert dock.stack_button.isEnabled()
    regions = np.zeros((4, *SHAPE), np.uint8)
    regions[:, :9] = 1
    dock.regions.choose_source(dock.viewer.add_labels(regions, name="bands"))
    settled(dock, until)
    assert not dock.stack_button.isEnabled(), "regions have shares of their own"
    dock.viewer.layers.clear()
    dock.viewer.add_image(np.zeros(SHAPE), name="plane")
    assert not dock.stack_button.isVisible()


def test_cancelled_and_refused_stacks_leave_nothing_behind(asked, until):
    asked.stack_button.click()
    asked.cancel()
    settled(asked, until)
    assert RESULT not in asked.viewer.layers
    assert asked.stack_button.isEnabled()
    asked.settings.smallest.setValue(20)
    asked.settings.smallest.editingFinished.emit()
    settled(asked, until)
    asked.stack_button.click()
    settled(asked, until)
    assert "plane by plane" in asked.footer.result.text()
    assert RESULT not in asked.viewer.layers


def test_what_is_asked_meanwhile_does_not_count(asked, until):
    asked.stack_button.click()
    asked.rows.rows[1].spin.setValue(60)
    settled(asked, until)
    entry = next(e for e in asked.results.log if e.image == "stack (stack)")
    assert entry.wanted[1] == 0.35
    assert entry.achieved[1] == pytest.approx(0.35, abs=1e-3)
    layer, plane = asked.viewer.layers[RESULT], asked.viewer.layers["stack phase ratio"]
    assert (layer.visible, plane.visible) == (False, True)
    assert "hidden layer" in asked.footer.result.text()


@pytest.mark.parametrize("what", ["before", "undo", "map", "smoothing"])
def test_the_plane_comes_back_when_it_is_worked_on(asked, until, what):
    asked.stack_button.click()
    settled(asked, until)
    layer, plane = asked.viewer.layers[RESULT], asked.viewer.layers["stack phase ratio"]
    assert (layer.visible, plane.visible) == (True, False)
    if what == "before":
        asked.before_button.click()
    elif what == "undo":
        asked.undo()
    elif what == "map":
        asked.map_button.click()
    else:
        asked.settings.smoothing.setValue(2)
        asked.settings.smoothing.editingFinished.emit()
    settled(asked, until)
    assert (layer.visible, plane.visible) == (False, True)


def test_what_is_shown_is_kept(asked, until):
    asked.stack_button.click()
    settled(asked, until)
    asked.results.keep_button.click()
    kept = asked.viewer.layers[-1]
    assert kept.name.startswith("stack whole stack ")
    np.testing.assert_array_equal(kept.data, asked.viewer.layers[RESULT].data)
    asked.before_button.click()
    asked.results.keep_button.click()
    kept = asked.viewer.layers[-1]
    assert kept.name == "stack as the model sees it"
    assert not kept.data[0].any()


def test_a_corrected_stack_is_left_alone(asked, until):
    asked.stack_button.click()
    settled(asked, until)
    layer = asked.viewer.layers[RESULT]
    layer.paint((0, 5, 5), 3)
    painted = layer.data.copy()
    asked.stack_button.click()
    settled(asked, until)
    np.testing.assert_array_equal(layer.data, painted)
    assert "left as they are" in asked.footer.result.text()
    assert len([other for other in asked.viewer.layers if other.name.startswith(RESULT)]) == 2
