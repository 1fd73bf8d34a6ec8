import gc
import threading
import time
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtWidgets import QLabel, QWidget

from phasesam.napari_widgets.dock import Dock
from phasesam.napari_widgets.header import Status
from phasesam.napari_widgets.layers import like
from phasesam.napari_widgets.viewer_state import ImageSettings, state_of


@pytest.fixture
def dock(qtbot, viewer_model):
    viewer_model.add_image(np.zeros((20, 30)), name="first")
    dock = Dock(viewer_model)
    qtbot.addWidget(dock)
    return dock


def test_work_shows_progress_time_left_and_result(dock, until):
    gate = threading.Event()

    def job(progress, should_stop):
        time.sleep(1.1)
        progress(25, 100)
        gate.wait(10)
        return 7

    dock.start(job, title="Finding masks", on_done=lambda n: dock.show_result(f"{n} masks."))
    assert dock.running
    assert dock.header.dot.status is Status.WORKING
    assert dock.footer.running_text.text() == "Finding masks …"
    until(lambda: dock.footer.bar.value() == 25)
    assert "left" in dock.footer.running_text.text()
    gate.set()
    until(lambda: not dock.running)
    assert dock.footer.result.text() == "7 masks."
    assert dock.footer.currentIndex() == 0
    assert dock.header.dot.status is Status.IDLE


def test_failure_is_said_with_details(dock, until):
    def job(progress, should_stop):
        raise RuntimeError("CUDA out of memory")

    failures = []
    dock.start(job, title="Encoding", on_done=lambda _: None, on_failed=failures.append)
    until(lambda: not dock.running)
    assert failures[0].kind == "RuntimeError"
    assert dock.footer.result.text() == "CUDA out of memory"
    assert "Traceback" in dock.footer.result.toolTip()
    assert dock.header.dot.status is Status.ERROR
    dock.show_result("All is well again.")
    assert dock.header.dot.status is Status.IDLE


def test_only_one_run_at_a_time(dock, until):
    gate = threading.Event()
    done = []
    assert dock.start(lambda *_: gate.wait(10), title="First", on_done=done.append) is not None
    assert dock.start(lambda *_: 2, title="Second", on_done=done.append) is None
    gate.set()
    until(lambda: not dock.running)
    assert done == [True]


def test_cancel_says_that_it_was_understood(dock, until):
    def job(progress, should_stop):
        while not should_stop():
            time.sleep(0.005)

    dock.start(job, title="Finding masks", on_done=lambda _: pytest.fail("cancelled"))
    dock.footer.cancel.click()
    assert "stopping" in dock.footer.running_text.text()
    until(lambda: not dock.running)
    assert dock.footer.result.text() == "Finding masks: cancelled."


def test_run_ends_with_its_layer(dock, until):
    def job(progress, should_stop):
        while not should_stop():
            time.sleep(0.005)

    other = dock.viewer.add_image(np.zeros((5, 5)), name="other")
    image = dock.viewer.layers["first"]
    dock.start(job, title="Finding masks", on_done=lambda _: None, layer=image)
    dock.viewer.layers.remove(other)
    assert dock.running
    dock.viewer.layers.remove(image)
    until(lambda: not dock.running)


def test_body_and_advanced(dock):
    assert dock.advanced.isHidden()
    dock.body.addWidget(QLabel("body"))
    dock.add_advanced("Setting", QLabel("rare"), "Unit: px")
    assert not dock.advanced.isHidden()
    assert not dock.advanced.isExpanded()


def test_dock_is_never_narrower_than_its_content(dock, qtbot):
    wide = QWidget()
    wide.setMinimumWidth(333)
    dock.body.addWidget(wide)
    dock.show()
    qtbot.waitUntil(lambda: dock.minimumSizeHint().width() > 333, timeout=5000)


def test_combos_follow_the_layer_list(dock):
    combo = dock.header.image_combo
    second = dock.viewer.add_image(np.zeros((20, 30)), name="second")
    assert combo.currentText() == "second"
    second.name = "renamed"
    assert combo.currentText() == "renamed"
    combo.setCurrentIndex(0)
    combo.activated.emit(0)
    assert dock.state.image_layer.name == "first"
    dock.viewer.layers.selection.active = second
    assert dock.state.image_layer is second
    dock.viewer.layers.remove(second)
    assert dock.state.image_layer.name == "first"
    dock.viewer.layers.clear()
    assert dock.state.image_layer is None
    assert not combo.isEnabled()


def test_layers_of_phasesam_are_not_offered_as_images(dock):
    image = dock.viewer.layers["first"]
    dock.viewer.add_image(np.zeros((20, 30)), name="uncovered", **like(image))
    assert dock.state.image_layer is image
    assert dock.header.image_combo.count() == 1


def test_one_state_per_viewer_with_and_without_proxy(viewer_model):
    assert state_of(PublicOnlyProxy(viewer_model)) is state_of(viewer_model)
    assert state_of(ViewerModel()) is not state_of(viewer_model)


def test_docks_of_one_viewer_choose_together(dock, qtbot):
    second = Dock(PublicOnlyProxy(dock.viewer))
    qtbot.addWidget(second)
    dock.header.model_combo.setCurrentIndex(1)
    dock.header.model_combo.activated.emit(1)
    assert second.header.model_combo.currentIndex() == 1
    assert second.state.model_name == dock.header.model_combo.itemData(1)


def test_segmenters_are_kept_per_plane_settings_and_model(dock):
    image = dock.viewer.add_image(np.zeros((3, 20, 30)))
    state = dock.state
    first = state.segmenter(image)
    assert state.segmenter(image) is first
    dock.viewer.dims.set_current_step(0, 2)
    other = state.segmenter(image)
    assert other is not first
    assert other.plane.index == (2,)
    state.set_settings(image, ImageSettings(exclude_data_bar=False))
    assert state.segmenter(image) is not other
    state.set_settings(image, ImageSettings())
    assert state.segmenter(image) is other
    state.model_name = "sam_vit_b"
    assert state.segmenter(image).model == "sam_vit_b"
    image.data = np.ones((3, 20, 30))
    state.model_name = "mobile_sam"
    assert state.segmenter(image) is not other


def test_docks_become_tabs_of_one_another(make_napari_viewer, until):
    viewer = make_napari_viewer(show=True)
    holders = [
        viewer.window.add_dock_widget(Dock(viewer), name=name, area="right")
        for name in ("first", "second", "third")
    ]
    window = viewer.window._qt_window
    until(lambda: set(window.tabifiedDockWidgets(holders[0])) == set(holders[1:]))
    until(lambda: not holders[2].visibleRegion().isEmpty())
    assert holders[0].visibleRegion().isEmpty()
    alone = viewer.window.add_dock_widget(QLabel("another plugin's"), area="right")
    until(alone.isVisible)
    assert window.tabifiedDockWidgets(alone) == []


def test_state_goes_with_its_viewer():
    def open_and_leave():  # napari looks at the caller's variables, which keeps them
        viewer = ViewerModel()
        image = viewer.add_image(np.zeros((20, 30)))
        state = state_of(viewer)
        state.labels_layer(image)
        return weakref.ref(viewer), weakref.ref(state.session(image))

    gone = open_and_leave()
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
