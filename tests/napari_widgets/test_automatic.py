"""The Automatic masks dock without a canvas. Real mouse events: test_automatic_clicks.py."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from phasesam.core.errors import CancelledError, DeviceMemoryError
from phasesam.core.mask_set import MaskCrop
from phasesam.engines.candidates import Candidates
from phasesam.napari_widgets.automatic import AutomaticMasksDock
from phasesam.napari_widgets.header import Status
from phasesam.napari_widgets.segmenters import LazySegmenter

SHAPE = (60, 80)
N_SCORES = 12


def candidates(shape=SHAPE, floor=0.5, shift=0):
    """Twelve discs in a row each of three; scores 0.5, 0.54, ..., stability all different."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    crops, above = [], []
    for index in range(N_SCORES):
        cy, cx = 10 + shift + 20 * (index // 4), 10 + 20 * (index % 4)
        crops.append(MaskCrop.from_array((y - cy) ** 2 + (x - cx) ** 2 <= (3 + index / 2) ** 2))
        above.append(crops[-1].area * (1 - (0.002 + 0.002 * index) * np.linspace(-8, 8, 257)))
    return Candidates(
        shape=shape,
        masks=tuple(crops),
        boxes=np.array([crop.box for crop in crops]),
        areas=np.array([crop.area for crop in crops]),
        scores=np.linspace(0.52, 0.98, N_SCORES).astype(np.float32),
        points=np.zeros((N_SCORES, 2), np.float32),
        above=np.array(above, np.float32),
        searched=np.zeros(N_SCORES, np.int64),
        searched_boxes=np.array([[0, 0, *shape]]),
        floor=floor,
        stability_floor=0.5,
    )


class Network:
    """Stands in for the engine: counts its runs, waits for `gate`, fails on demand."""

    def __init__(self):
        self.runs = []
        self.gate = threading.Event()
        self.gate.set()
        self.error = None
        self.data_bar = None
        self.shift = 0

    def automatic(self, segmenter, config=None, *, progress=None, should_stop=None):
        self.runs.append(config)
        while not self.gate.wait(0.005):
            progress(1, 4)
            if should_stop():
                raise CancelledError("stopped")
        if self.error is not None:
            raise self.error
        return candidates(segmenter.shape, shift=self.shift)


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(
        LazySegmenter, "automatic", lambda self, *a, **k: network.automatic(self, *a, **k)
    )
    monkeypatch.setattr(LazySegmenter, "data_bar", property(lambda self: network.data_bar))
    return network


@pytest.fixture
def dock(qtbot, viewer_model, network):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    dock = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    choose_preset(dock, "default")
    return dock


def choose_preset(dock, name):
    combo = dock.search.presets
    combo.setCurrentIndex(combo.findData(name))
    combo.activated.emit(combo.currentIndex())


@pytest.fixture
def run(dock, until):
    def _run():
        dock.search.find_button.click()
        until(lambda: not dock.running)

    return _run


def preview(dock):
    return dock._found[dock.state.image_layer].preview


def shown(dock):
    """Number of masks that the preview shows."""
    return len(np.unique(preview(dock).layer.data)) - 1


def session(dock):
    return dock.state.session(dock.state.image_layer)


def set_iou(dock, qtbot, value):
    dock.thresholds.iou.spins[0].setValue(value)
    qtbot.wait(5)


def test_find_then_tune_then_keep(dock, run, network, qtbot):
    run()
    assert dock.footer.result.text().startswith("3 masks in ")
    assert "9 dropped: 9 score" in dock.footer.result.text()
    assert dock.counts.text().startswith("kept 3 of 12 · coverage ")
    assert shown(dock) == 3
    set_iou(dock, qtbot, 0.5)
    assert shown(dock) == 12
    set_iou(dock, qtbot, 0.9)
    assert shown(dock) == 2
    assert len(network.runs) == 1, "a slider never runs the network"
    dock.keep.click()
    assert len(session(dock).objects) == 2
    assert session(dock).undo_name == "Add 2 objects"
    assert {record.source for record in session(dock).objects} == {"automatic"}
    assert [layer.name for layer in dock.viewer.layers] == ["SEM", "SEM objects"]
    np.testing.assert_array_equal(dock.viewer.layers["SEM objects"].data, session(dock).labels)


def test_keeping_again_replaces_the_first_choice_and_is_one_step(dock, run, qtbot):
    run()
    dock.keep.click()
    set_iou(dock, qtbot, 0.6)
    dock.keep.click()
    assert len(session(dock).objects) > 3
    assert session(dock).undo() is not None
    assert len(session(dock).objects) == 0
    assert not session(dock).can_undo


def test_keeping_again_after_an_edit_leaves_the_edit(dock, run, qtbot):
    run()
    dock.keep.click()
    first = session(dock).objects[0].id
    session(dock).set_class([first], "pore")
    set_iou(dock, qtbot, 0.6)
    dock.keep.click()
    assert session(dock).record(first).class_name == "pore"
    assert len(session(dock).objects) == 10
    assert "3 lie on objects that were there already" in dock.footer.result.text()


def test_many_steps_of_a_handle_are_one_filtering(dock, run, monkeypatch, qtbot):
    run()
    calls = []
    real = dock._filter
    dock._timer.timeout.disconnect()
    dock._timer.timeout.connect(lambda: (calls.append(1), real()))
    for value in np.linspace(0.5, 0.9, 30):
        dock.thresholds.iou.spins[0].setValue(value)
    qtbot.wait(20)
    assert len(calls) == 1
    assert shown(dock) == 2


def test_without_live_only_letting_go_filters(dock, run, qtbot):
    run()
    dock.live.setChecked(False)
    bar = dock.thresholds.iou.bar
    bar.set_values([0.9])
    bar.moved.emit()
    qtbot.wait(20)
    assert shown(dock) == 3
    bar.released.emit()
    qtbot.wait(20)
    assert shown(dock) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.stability.spins[0].setValue(0.99), "stability"),
        (lambda t: t.area.spins[0].setValue(240), "area"),
        (lambda t: t.area.spins[1].setValue(150), "area"),
        (lambda t: t.offset.spins[0].setValue(3.0), "stability"),
    ],
)
def test_every_slider_drops_for_its_reason(dock, run, qtbot, change, reason):
    run()
    dropped = dock._current().kept.masks.dropped[reason]
    change(dock.thresholds)
    qtbot.wait(5)
    assert dock._current().kept.masks.dropped[reason] > dropped
    assert reason in dock.footer.result.text()


def test_histograms_show_all_candidates(dock, run):
    run()
    for slider in (dock.thresholds.iou, dock.thresholds.stability, dock.thresholds.area):
        assert len(slider.bar._samples) == N_SCORES
    assert dock.thresholds.iou.bar.view[0] == pytest.approx(0.5), "the floor of the search"
    before = dock.thresholds.stability.bar._samples
    dock.thresholds.offset.spins[0].setValue(2.0)
    dock._filter()
    assert (dock.thresholds.stability.bar._samples < before).all()


def test_presets_set_grid_and_thresholds_and_custom_is_said(dock, run, qtbot, network):
    combo = dock.search.presets
    combo.setCurrentIndex(combo.findData("particles"))
    combo.activated.emit(combo.currentIndex())
    assert dock.search.points.value() == 64
    config = dock.thresholds.config()
    assert config.overlap == 0.6
    assert config.max_area == round(0.3 * SHAPE[0] * SHAPE[1])
    assert dock.thresholds.overlap.value() == 0.6
    run()
    assert network.runs[0].points_per_side == 64
    assert network.runs[0].skip_covered
    set_iou(dock, qtbot, 0.6)
    assert combo.currentText() == "Custom"
    combo.setCurrentIndex(combo.findData("pores"))
    combo.activated.emit(combo.currentIndex())
    assert combo.findText("Custom") < 0
    assert dock.thresholds.iou.value() == 0.8


def test_the_dock_starts_with_particles(qtbot, viewer_model, network):
    from phasesam.engines.presets import PRESETS

    viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    dock = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(dock)
    assert dock.search.presets.currentText() == "Particles"
    assert dock.search.points.value() == 64
    assert dock.thresholds.config() == PRESETS["particles"].filter_for(SHAPE)
    assert dock.thresholds.config().max_area < SHAPE[0] * SHAPE[1]


@pytest.mark.parametrize("name", ["default", "particles", "grains", "pores"])
def test_the_sliders_give_a_preset_back_unchanged(dock, name):
    from phasesam.engines.presets import PRESETS

    combo = dock.search.presets
    combo.setCurrentIndex(combo.findData(name))
    combo.activated.emit(combo.currentIndex())
    wanted = PRESETS[name].filter_for(SHAPE)
    assert dock.thresholds.config() == wanted
    assert dock.search.config() == PRESETS[name].automatic


def test_what_the_overlap_slider_compares(dock):
    combo = dock.search._nms
    for kind, expected in (
        ("mask", {"nms_kind": "mask", "nms": 0.4, "overlap": 1.0}),
        ("box", {"nms_kind": "box", "nms": 0.4, "overlap": 1.0}),
        ("smaller", {"overlap": 0.4}),
    ):
        combo.setCurrentIndex(combo.findData(kind))
        combo.activated.emit(combo.currentIndex())
        dock.thresholds.overlap.spins[0].setValue(0.4)
        config = dock.thresholds.config()
        assert {name: getattr(config, name) for name in expected} == expected


def test_masks_at_the_edge_can_be_left_out(dock):
    assert dock.thresholds.config().touching_edge
    dock.search._edge.setChecked(False)
    assert not dock.thresholds.config().touching_edge
    assert dock.search.presets.currentText() == "Custom"
    dock.search._edge.setChecked(True)
    assert dock.thresholds.config().touching_edge


def test_advanced_settings_reach_the_engine(dock, run, network):
    dock.search._crops.setValue(1)
    dock.search._batch.setValue(16)
    dock.search._floor.setValue(0.6)
    run()
    config = network.runs[0]
    assert (config.crop_n_layers, config.points_per_batch, config.iou_floor) == (1, 16, 0.6)


def test_areas_in_square_micrometres(qtbot, viewer_model, network):
    viewer_model.add_image(np.zeros(SHAPE), scale=(0.5, 0.5), units=("um", "um"), name="SEM")
    dock = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(dock)
    assert dock.thresholds.area_unit.currentText() == "µm²"
    dock.thresholds.area.spins[0].setValue(25.0)
    assert dock.thresholds.config().min_area == 100
    dock.thresholds.area_unit.setCurrentIndex(0)
    assert dock.thresholds.area.spins[0].value() == 100


def test_uncovered_shows_what_no_mask_holds(dock, run, qtbot):
    run()
    dock.uncovered.setChecked(True)
    layer = preview(dock).uncovered_layer
    painted = preview(dock).layer.data
    np.testing.assert_array_equal(layer.data == 1, painted == 0)
    set_iou(dock, qtbot, 0.6)
    np.testing.assert_array_equal(layer.data == 1, preview(dock).layer.data == 0)
    dock.uncovered.setChecked(False)
    assert not layer.visible
    set_iou(dock, qtbot, 0.7)
    assert not layer.visible
    dock.uncovered.setChecked(True)
    assert layer.visible
    np.testing.assert_array_equal(layer.data == 1, preview(dock).layer.data == 0)


def test_data_bar_does_not_count(dock, run, network):
    network.data_bar = 50
    run()
    assert dock._current().found.valid_pixels == 50 * SHAPE[1]
    assert session(dock).field_of_view == (0, 0, 50, SHAPE[1])


def test_outlines(dock, run):
    dock.outlines.setChecked(True)
    run()
    assert preview(dock).layer.contour > 0
    dock.outlines.setChecked(False)
    assert preview(dock).layer.contour == 0


def test_drawn_region(dock, run, network):
    assert dock.search.region.current == "whole"
    dock.search.region.buttons["drawn"].click()
    shapes = dock.viewer.layers["SEM region"]
    assert shapes.mode == "add_polygon"
    assert dock.viewer.layers.selection.active is shapes
    run()
    assert "Draw a polygon" in dock.footer.result.text()
    assert network.runs == []
    shapes.add_rectangles([[10, 20], [10, 40], [30, 40], [30, 20]])
    shapes.add_ellipses([[40, 50], [40, 70], [56, 70], [56, 50]])
    shapes.add_paths([[0, 0], [59, 79], [0, 79]])
    run()
    region = network.runs[0].region
    assert region[20, 30]
    assert region[48, 60]
    assert not region[41, 51], "the corner of the ellipse's box"
    assert not region[5, 70], "an open path is no region"
    assert abs(region.sum() - (21 * 21 + np.pi * 10 * 8)) < 60
    assert dock._current().found.valid_pixels == region.sum()


def test_a_region_outside_of_the_image_is_refused(dock, run, network):
    dock.search.region.buttons["drawn"].click()
    dock.viewer.layers["SEM region"].add_rectangles(
        [[100, 100], [100, 120], [130, 120], [130, 100]]
    )
    run()
    assert "outside of the image" in dock.footer.result.text()
    assert network.runs == []


def test_stacks_are_segmented_plane_by_plane(qtbot, viewer_model, network, until):
    viewer_model.add_image(
        np.zeros((5, *SHAPE)), name="XCT", scale=(2, 0.5, 0.5), units=("um",) * 3
    )
    dock = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(dock)
    viewer_model.dims.set_current_step(0, 3)
    dock.find_masks()
    until(lambda: not dock.running)
    layer = preview(dock).layer
    assert layer.data.shape == (1, *SHAPE)
    np.testing.assert_allclose(layer.translate, (6, 0, 0))
    assert layer.units == viewer_model.layers["XCT"].units
    viewer_model.dims.set_current_step(0, 1)
    dock.keep.click()
    assert {record.plane for record in session(dock).objects} == {(3,)}


def test_the_layers_stay_for_the_next_search(qtbot, viewer_model, network, until):
    """To remove and to add layers holds up napari for half a second."""
    image = viewer_model.add_image(
        np.zeros((5, *SHAPE)), name="XCT", scale=(2, 0.5, 0.5), units=("um",) * 3
    )
    dock = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(dock)
    dock.uncovered.setChecked(True)
    dock.find_masks()
    until(lambda: not dock.running)
    layers, painted = list(viewer_model.layers), preview(dock).layer.data.copy()
    assert len(layers) == 3
    preview(dock).layer.visible = False
    image.scale = (4, 1, 1)
    viewer_model.dims.set_point(0, 12)
    network.shift = 3
    dock.find_masks()
    until(lambda: not dock.running)
    assert list(viewer_model.layers) == layers
    assert preview(dock).visible
    for layer in (preview(dock).layer, preview(dock).uncovered_layer):
        np.testing.assert_allclose(layer.translate, (12, 0, 0))
        np.testing.assert_allclose(layer.scale, (4, 1, 1))
    shown = preview(dock).layer.data
    np.testing.assert_array_equal(shown[:, 3:] > 0, painted[:, :-3] > 0)
    np.testing.assert_array_equal(preview(dock).uncovered_layer.data == 1, shown == 0)
    dock.keep.click()
    assert {record.plane for record in session(dock).objects} == {(3,)}


def test_a_search_in_an_image_no_longer_shown_repaints_its_layers(dock, run, network, until):
    dock.uncovered.setChecked(True)
    run()
    before, layers = preview(dock), len(dock.viewer.layers)
    network.gate.clear()
    network.shift = 3
    dock.find_masks()
    second = dock.viewer.add_image(np.zeros(SHAPE), name="second")
    dock.state.image_layer = second
    network.gate.set()
    until(lambda: not dock.running)
    assert len(dock.viewer.layers) == layers + 1
    assert not before.layer.data[:3].any()
    np.testing.assert_array_equal(before.uncovered_layer.data == 1, before.layer.data == 0)


def test_no_image(qtbot, viewer_model, network):
    dock = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(dock)
    assert not dock.search.find_button.isEnabled()
    dock.find_masks()
    assert "Open an image first" in dock.footer.result.text()
    viewer_model.add_image(np.zeros(SHAPE))
    assert dock.search.find_button.isEnabled()


def test_a_volume_view_is_explained(dock, run, network):
    dock.viewer.add_image(np.zeros((4, *SHAPE)), name="XCT")
    dock.viewer.dims.ndisplay = 3
    dock.find_masks()
    assert "2-D view" in dock.footer.result.text()
    assert network.runs == []


def test_nothing_passes(dock, run, qtbot):
    run()
    set_iou(dock, qtbot, 1.0)
    dock.keep.click()
    assert "No mask passes" in dock.footer.result.text()
    assert not session(dock).can_undo


def test_out_of_memory_is_said_and_the_old_masks_stay(dock, run, network):
    run()
    network.error = DeviceMemoryError("not enough memory: choose a smaller model")
    run()
    assert "not enough memory" in dock.footer.result.text()
    assert shown(dock) == 3
    assert dock.search.find_button.isEnabled()


def test_cancel(dock, network, until):
    network.gate.clear()
    dock.search.find_button.click()
    until(lambda: dock.footer.bar.maximum() == 4)
    assert not dock.search.find_button.isEnabled()
    dock.footer.cancel.click()
    until(lambda: not dock.running)
    assert "cancelled" in dock.footer.result.text()
    assert dock.search.find_button.isEnabled()
    assert len(dock._found) == 0
    assert [layer.name for layer in dock.viewer.layers] == ["SEM"]


def test_image_removed_during_a_run(dock, network, until):
    network.gate.clear()
    dock.search.find_button.click()
    until(lambda: network.runs)
    dock.viewer.layers.remove("SEM")
    until(lambda: not dock.running)
    assert list(dock.viewer.layers) == []
    assert len(dock._found) == 0


def test_data_replaced_during_a_run_get_no_masks(dock, network, until):
    network.gate.clear()
    dock.search.find_button.click()
    until(lambda: network.runs)
    image = dock.viewer.layers["SEM"]
    image.data = np.asarray(image.data)[:-8, :-8].copy()
    until(lambda: not dock.running)  # it is stopped, the gate stays closed
    assert dock.footer.result.text() == "Finding masks: cancelled."
    assert len(dock._found) == 0
    assert list(dock.viewer.layers) == [image]
    assert dock.search.find_button.isEnabled()


def test_data_of_another_size_drop_the_masks(dock, run):
    run()
    image = dock.viewer.layers["SEM"]
    image.data = np.asarray(image.data)[:-8, :-8].copy()
    assert list(dock.viewer.layers) == [image]
    assert not dock.keep.isEnabled()
    run()
    dock.keep.click()
    assert dock.state.session(image).shape == image.data.shape


def test_image_removed_afterwards_takes_its_preview_along(dock, run, qtbot):
    run()
    dock.uncovered.setChecked(True)
    dock.viewer.layers.remove("SEM")
    qtbot.wait(20)
    assert list(dock.viewer.layers) == []
    assert not dock.keep.isEnabled()


def test_a_preview_that_the_user_removed_comes_back(dock, run, qtbot):
    run()
    dock.viewer.layers.remove(preview(dock).layer)
    set_iou(dock, qtbot, 0.6)
    assert preview(dock).layer in dock.viewer.layers
    assert shown(dock) > 3


def test_two_images_have_masks_of_their_own(dock, run, qtbot):
    run()
    second = dock.viewer.add_image(np.zeros((60, 80)), name="second")
    dock.viewer.layers.selection.active = second
    assert dock.counts.text() == "Press Find masks to start."
    assert not dock.keep.isEnabled()
    run()
    set_iou(dock, qtbot, 0.6)
    assert shown(dock) == 10
    dock.state.image_layer = dock.viewer.layers["SEM"]
    assert shown(dock) == 3
    assert len(dock.viewer.layers) == 4


def test_images_keep_their_own_thresholds(dock, run, qtbot):
    run()
    set_iou(dock, qtbot, 0.6)
    second = dock.viewer.add_image(np.zeros(SHAPE), name="second")
    dock.viewer.layers.selection.active = second
    run()
    set_iou(dock, qtbot, 0.9)
    dock.state.image_layer = dock.viewer.layers["SEM"]
    assert dock.thresholds.iou.value() == 0.6
    assert dock.counts.text().startswith("kept 10 of 12")


def test_closing_the_dock_does_not_lose_the_search(dock, run, qtbot, network):
    run()
    set_iou(dock, qtbot, 0.6)
    viewer = dock.viewer
    dock.hide()
    again = AutomaticMasksDock(viewer)
    qtbot.addWidget(again)
    assert again.counts.text().startswith("kept 10 of 12")
    assert again.thresholds.iou.value() == 0.6
    assert again.search.presets.currentText() == "Custom"
    again.keep.click()
    assert len(session(again).objects) == 10
    assert len(network.runs) == 1


def test_runs_do_not_keep_a_viewer_alive(qtbot, network, until):
    import gc
    import weakref

    from napari.components import ViewerModel

    def work_and_close():
        viewer = ViewerModel()
        viewer.add_image(np.zeros(SHAPE), name="SEM")
        dock = AutomaticMasksDock(viewer)
        dock.find_masks()
        until(lambda: not dock.running)
        assert len(dock._found) == 1
        dock.deleteLater()
        return weakref.ref(viewer)

    gone = work_and_close()
    qtbot.wait(50)
    gc.collect()
    assert gone() is None


def test_image_switched_during_a_run(dock, network, until):
    network.gate.clear()
    dock.search.find_button.click()
    until(lambda: network.runs)
    first = dock.state.image_layer
    second = dock.viewer.add_image(np.zeros((30, 30)), name="second")
    dock.viewer.layers.selection.active = second
    network.gate.set()
    until(lambda: not dock.running)
    assert first in dock._found
    assert second not in dock._found
    assert dock._found[first].preview.visible


def test_the_result_belongs_to_the_image_shown(dock, run):
    run()
    first = dock.footer.result.text()
    assert " masks in " in first
    second = dock.viewer.add_image(np.zeros((60, 80)), name="second")
    dock.state.image_layer = second
    assert dock.footer.result.text() == ""
    dock.state.image_layer = dock.viewer.layers["SEM"]
    assert dock.footer.result.text() == first


def test_an_error_does_not_follow_to_another_image(dock, run, network):
    network.error = DeviceMemoryError("not enough memory")
    run()
    assert dock.header.dot.status is Status.ERROR
    dock.state.image_layer = dock.viewer.add_image(np.zeros((60, 80)), name="second")
    assert dock.footer.result.text() == ""
    assert dock.header.dot.status is Status.IDLE


@pytest.mark.parametrize("fails", [False, True])
def test_what_comes_in_for_another_image_names_it(dock, network, until, fails):
    network.gate.clear()
    dock.search.find_button.click()
    until(lambda: network.runs)
    dock.state.image_layer = dock.viewer.add_image(np.zeros((60, 80)), name="second")
    if fails:
        network.error = DeviceMemoryError("not enough memory")
    network.gate.set()
    until(lambda: not dock.running)
    assert dock.footer.result.text().startswith("SEM: ")


def test_the_prompted_image_stays_the_active_layer(dock, run):
    active = dock.viewer.layers["SEM"]
    dock.viewer.layers.selection.active = active
    run()
    assert dock.viewer.layers.selection.active is active
    dock.keep.click()
    assert dock.viewer.layers.selection.active is active


def test_filtering_a_large_image_stays_below_50_ms(qtbot, viewer_model, monkeypatch, until):
    """1536 × 1024 pixels and 1000 candidates, painted into the layer."""
    rng = np.random.default_rng(0)
    crops, shape = [], (1024, 1536)
    for _ in range(1000):
        side = rng.integers(6, 60)
        y0, x0 = rng.integers(0, shape[0] - side), rng.integers(0, shape[1] - side)
        y, x = np.mgrid[:side, :side] - side / 2
        crops.append(MaskCrop.from_array(y**2 + x**2 <= side**2 / 4, int(y0), int(x0)))
    area = np.array([crop.area for crop in crops], np.float32)
    large = Candidates(
        shape=shape,
        masks=tuple(crops),
        boxes=np.array([crop.box for crop in crops]),
        areas=np.array([crop.area for crop in crops]),
        scores=rng.uniform(0.5, 1, 1000).astype(np.float32),
        points=np.zeros((1000, 2), np.float32),
        above=area[:, None] * np.linspace(1.05, 0.95, 257, dtype=np.float32),
        searched=np.zeros(1000, np.int64),
        searched_boxes=np.array([[0, 0, *shape]]),
        floor=0.5,
    )
    monkeypatch.setattr(LazySegmenter, "automatic", lambda self, *a, **k: large)
    viewer_model.add_image(np.zeros(shape, np.uint8))
    dock = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(dock)
    dock.find_masks()
    until(lambda: not dock.running)
    seconds = []
    for value in np.linspace(0.5, 0.95, 15):
        dock.thresholds.iou.spins[0].setValue(value)
        start = time.perf_counter()
        dock._filter()
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.05, seconds


def test_the_dock_does_not_load_torch():
    code = (
        "import sys, os, tempfile\n"
        "os.environ['NAPARI_CONFIG'] = os.path.join(tempfile.mkdtemp(), 's.yaml')\n"
        "import phasesam.napari_widgets.automatic, phasesam.napari_widgets.objects\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
