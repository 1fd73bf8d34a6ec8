"""The Automatic masks dock in a real viewer, with the real network and real mouse events."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from phasesam.core.errors import CancelledError
from phasesam.napari_widgets.automatic import AutomaticMasksDock
from phasesam.napari_widgets.segmenters import LazySegmenter

pytestmark = pytest.mark.gui

SIDE = 96
_SLOW_MS = 120_000


def nine_discs():
    """Nine discs of growing radius, one under every point of a 3 × 3 grid."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.full((SIDE, SIDE), 60.0)
    for index in range(9):
        cy, cx = 16 + 32 * (index // 3), 16 + 32 * (index % 3)
        image[(y - cy) ** 2 + (x - cx) ** 2 <= (6 + 0.8 * index) ** 2] = 190
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def open_dock(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 900)
    viewer.add_image(nine_discs(), name="SEM", scale=(0.2, 0.2), units=("um", "um"))
    dock = AutomaticMasksDock(viewer)
    viewer.window.add_dock_widget(dock, name="Automatic masks")
    dock.search.points.setValue(3)
    qtbot.wait(100)
    return viewer, dock


@pytest.fixture
def one_thread():
    """Threads of torch that spin while other programs hold the cores take minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mouse(qtbot, widget):
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def grab_and_drag(qtbot, bar, start, *stops):
    """Drag a handle with the mouse; yield after every move, the button still held."""

    def at(value):
        return QPoint(round(bar.position_of(value)), bar.height() // 2)

    qtbot.mousePress(bar, Qt.MouseButton.LeftButton, pos=at(start))
    for stop in stops:
        qtbot.mouseMove(bar, at(stop))
        QApplication.processEvents()
        yield stop
    qtbot.mouseRelease(bar, Qt.MouseButton.LeftButton, pos=at(stops[-1]))
    QApplication.processEvents()


def shown(dock):
    preview = dock._current().preview
    return len(np.unique(preview.layer.data)) - 1


@pytest.mark.usefixtures("one_thread")
def test_find_tune_keep_save_and_reopen(make_napari_viewer, qtbot, until, tmp_path, monkeypatch):
    viewer, dock = open_dock(make_napari_viewer, qtbot)
    runs = []
    automatic = LazySegmenter.automatic
    monkeypatch.setattr(
        LazySegmenter,
        "automatic",
        lambda self, *a, **k: (runs.append(1), automatic(self, *a, **k))[1],
    )
    mouse(qtbot, dock.search.find_button)
    assert dock.footer.cancel.isVisible()
    until(lambda: not dock.running, timeout=_SLOW_MS)
    assert " masks in " in dock.footer.result.text(), dock.footer.result.text()
    found = len(dock._current().kept.masks)
    assert found >= 7, "SAM finds the discs"
    assert "SEM found masks" in viewer.layers

    # The handle goes to the right: fewer masks with every step, in the layer at once.
    bar = dock.thresholds.area.bar
    counts, milliseconds = [], []
    for _ in grab_and_drag(qtbot, bar, bar.view[0], 100, 200, 300, 400):
        counts.append(shown(dock))
        milliseconds.append(1000 * dock.last_filter_seconds)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < found
    assert dock.counts.text().startswith(f"kept {counts[-1]} of ")
    assert "area" in dock.footer.result.text()
    assert np.median(milliseconds) < 50, milliseconds
    assert runs == [1], "moving a slider never runs the network"

    mouse(qtbot, dock.uncovered)
    assert "SEM uncovered" in viewer.layers
    mouse(qtbot, dock.keep)
    labels = viewer.layers["SEM objects"]
    assert len(np.unique(labels.data)) - 1 == counts[-1]
    assert "SEM found masks" not in viewer.layers
    np.testing.assert_allclose(labels.scale, (0.2, 0.2))
    assert labels.units == viewer.layers["SEM"].units

    path = tmp_path / "labels.tif"
    assert labels.save(str(path))
    (again,) = viewer.open(str(path), layer_type="labels", plugin="napari")
    np.testing.assert_array_equal(again.data, labels.data)

    session = dock.state.session(viewer.layers["SEM"])
    session.undo()
    assert not labels.data.any()
    session.redo()
    np.testing.assert_array_equal(again.data, labels.data)


class SlowNetwork:
    """Runs until it is stopped or `gate` opens."""

    def __init__(self, monkeypatch):
        self.gate = threading.Event()
        self.started = threading.Event()
        self.stopped = threading.Event()
        monkeypatch.setattr(LazySegmenter, "automatic", self.automatic)

    def automatic(self, config=None, *, progress=None, should_stop=None):
        self.started.set()
        step = 0
        while not self.gate.wait(0.01):
            step += 1
            progress(min(step, 99), 100)
            if should_stop():
                self.stopped.set()
                raise CancelledError("stopped")
        raise CancelledError("the test is over")


def test_cancel_button(make_napari_viewer, qtbot, until, monkeypatch):
    network = SlowNetwork(monkeypatch)
    viewer, dock = open_dock(make_napari_viewer, qtbot)
    mouse(qtbot, dock.search.find_button)
    until(network.started.is_set)
    qtbot.wait(150)
    assert dock.footer.bar.maximum() == 100
    assert not dock.search.find_button.isEnabled()
    mouse(qtbot, dock.footer.cancel)
    until(lambda: not dock.running)
    assert network.stopped.is_set()
    assert "cancelled" in dock.footer.result.text()
    assert [layer.name for layer in viewer.layers] == ["SEM"]
    assert dock.search.find_button.isEnabled()


def test_image_deleted_during_a_run(make_napari_viewer, qtbot, until, monkeypatch):
    network = SlowNetwork(monkeypatch)
    viewer, dock = open_dock(make_napari_viewer, qtbot)
    mouse(qtbot, dock.search.find_button)
    until(network.started.is_set)
    viewer.layers.selection.active = viewer.layers["SEM"]
    viewer.layers.remove_selected()
    until(lambda: not dock.running)
    assert network.stopped.is_set()
    assert len(viewer.layers) == 0


def test_viewer_closed_during_a_run(make_napari_viewer, qtbot, until, monkeypatch):
    network = SlowNetwork(monkeypatch)
    viewer, dock = open_dock(make_napari_viewer, qtbot)
    mouse(qtbot, dock.search.find_button)
    until(network.started.is_set)
    del dock
    viewer.close()
    until(network.stopped.is_set)


@pytest.mark.usefixtures("one_thread")
def test_region_drawn_with_the_mouse(make_napari_viewer, qtbot, until, drag):
    viewer, dock = open_dock(make_napari_viewer, qtbot)
    mouse(qtbot, dock.search.region.buttons["drawn"])
    shapes = viewer.layers["SEM region"]
    shapes.mode = "add_rectangle"
    drag(viewer, (0.4, 0.4), (6.0, 12.6))
    assert len(shapes.data) == 1
    mouse(qtbot, dock.search.find_button)
    until(lambda: not dock.running, timeout=_SLOW_MS)
    current = dock._current()
    assert len(current.kept.masks) >= 2, dock.footer.result.text()
    assert (current.found.candidates.points[:, 0] < 32).all(), "points only in the region"
