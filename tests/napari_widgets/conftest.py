"""A real viewer with real mouse and keyboard events; needs an X server (pytest-xvfb starts one)."""

from __future__ import annotations

import gc
import os
import pathlib
import sys
import tempfile
import threading
import types

# Before napari.settings is imported: viewer tests reset the settings, so keep them off the
# developer's own file.
os.environ["NAPARI_CONFIG"] = str(pathlib.Path(tempfile.mkdtemp()) / "settings.yaml")

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from phasesam.core.errors import CancelledError
from phasesam.core.mask_set import MaskSet

_PATIENCE_MS = 20_000


@pytest.fixture(scope="session", autouse=True)
def _modules_are_no_garbage():
    """Keep the collector away from what tests of other parts left, too."""
    gc.collect()
    gc.freeze()


def _canvas_position(viewer, world):
    """Canvas (x, y) pixels of a world point (in the smallest unit of all layers)."""
    view = viewer.window._qt_viewer.canvas.view
    transform = view.transform * view.scene.transform
    shown = [world[axis - viewer.dims.ndim] for axis in viewer.dims.displayed][::-1]
    mapped = np.asarray(transform.map(shown))
    return mapped[:2] / (mapped[3] if len(mapped) > 3 and mapped[3] else 1)


def _qt_point(position):
    return QPoint(*(round(float(c)) for c in position))


def _move(native, position, buttons):
    # QTest.mouseMove carries no pressed buttons, so send the event ourselves.
    where = QPointF(position)
    QApplication.sendEvent(
        native,
        QMouseEvent(
            QEvent.Type.MouseMove,
            where,
            QPointF(native.mapToGlobal(position)),
            Qt.MouseButton.NoButton,
            buttons,
            Qt.KeyboardModifier.NoModifier,
        ),
    )


@pytest.fixture
def click(qtbot):
    """Click at a world position: ``click(viewer, (y, x))``."""

    def _click(viewer, world, button=Qt.MouseButton.LeftButton):
        native = viewer.window._qt_viewer.canvas.native
        position = _qt_point(_canvas_position(viewer, world))
        qtbot.mouseMove(native, position)
        qtbot.mouseClick(native, button, Qt.KeyboardModifier.NoModifier, position)
        return position

    return _click


@pytest.fixture
def hover(qtbot):
    """Move the mouse without pressing a button: ``hover(viewer, (y, x))``."""

    def _hover(viewer, world):
        native = viewer.window._qt_viewer.canvas.native
        position = _qt_point(_canvas_position(viewer, world))
        for step in (QPoint(3, 3), QPoint(0, 0)):
            qtbot.wait(15)  # vispy drops moves closer than 10 ms apart
            _move(native, position + step, Qt.MouseButton.NoButton)

    return _hover


@pytest.fixture
def drag(qtbot):
    """Press, move and release: ``drag(viewer, start, end)``."""

    def _drag(viewer, start, end, steps=6):
        native = viewer.window._qt_viewer.canvas.native
        a, b = _canvas_position(viewer, start), _canvas_position(viewer, end)
        points = [_qt_point(a + (b - a) * t) for t in np.linspace(0, 1, steps)]
        qtbot.mouseMove(native, points[0])
        qtbot.mousePress(native, Qt.MouseButton.LeftButton, pos=points[0])
        for position in points[1:]:
            qtbot.wait(15)
            _move(native, position, Qt.MouseButton.LeftButton)
        qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=points[-1])

    return _drag


@pytest.fixture
def key(qtbot):
    """Press a key on the canvas: ``key(viewer, Qt.Key.Key_N)``."""

    def _key(viewer, code, modifiers=Qt.KeyboardModifier.NoModifier):
        qtbot.keyClick(viewer.window._qt_viewer.canvas.native, code, modifiers)

    return _key


@pytest.fixture
def until(qtbot):
    """Wait until a condition holds, at most 20 s."""

    def _until(condition, timeout=_PATIENCE_MS):
        qtbot.waitUntil(lambda: bool(condition()), timeout=timeout)

    return _until


class RegionSegmenter:
    """Stands in for `phasesam.Segmenter`: a mask is the bright region under the first point.

    Its three scales are the region eroded, as it is, and dilated; a negative point cuts the
    mask off at its column. There are no windows. ``encode`` waits for `gate`, so that tests can
    look in between.
    """

    gate = threading.Event()
    encoded = 0

    def __init__(self, image, model="mobile_sam", **options):
        self.image = np.asarray(image, dtype=float)
        if self.image.ndim == 3:
            self.image = self.image.mean(axis=2)
        self.shape = self.image.shape
        self.options = options
        self.model = model
        self.is_encoded = False
        self.data_bar = None
        self.windows = None
        self.asked = []

    def prepare(self, progress=None, should_stop=None):
        self.encode(progress, should_stop)

    def encode(self, progress=None, should_stop=None):
        for step in range(1000):
            if progress is not None:
                progress(step, 1000)
            if should_stop is not None and should_stop():
                raise CancelledError("stopped")
            if self.gate.wait(0.01):
                break
        type(self).encoded += 1
        self.is_encoded = True

    def predict(
        self,
        points=None,
        labels=None,
        boxes=None,
        mask=None,
        logits=None,
        multimask_output=True,
        threshold=0.0,
    ):
        self.asked.append(
            {
                "points": points,
                "labels": labels,
                "boxes": boxes,
                "mask": mask,
                "logits": logits,
                "multimask_output": multimask_output,
            }
        )
        if boxes is not None and points is None:
            masks = []
            for box in np.asarray(boxes):
                y0, x0, y1, x1 = np.rint(box).astype(int)
                inside = np.zeros(self.shape, bool)
                inside[y0 : y1 + 1, x0 : x1 + 1] = self.image[y0 : y1 + 1, x0 : x1 + 1] > 0.5
                masks.append(inside)
            return MaskSet.from_masks(
                masks, [0.9] * len(masks), logits=np.zeros((len(masks), 256, 256), np.float32)
            )
        regions, _ = ndimage.label(self.image > 0.5)
        positive = np.rint(np.asarray(points)[np.asarray(labels) == 1]).astype(int)
        region = np.zeros(self.shape, bool)
        for y, x in positive:
            if regions[y, x]:
                region |= regions == regions[y, x]
        for _y, x in np.rint(np.asarray(points)[np.asarray(labels) == 0]).astype(int):
            region[:, x:] = False
        if not multimask_output:
            return MaskSet.from_masks([region], [0.95], logits=np.zeros((1, 256, 256), np.float32))
        scales = [
            ndimage.binary_erosion(region, iterations=2),
            region,
            ndimage.binary_dilation(region, iterations=2),
        ]
        return MaskSet.from_masks(
            scales, [0.8, 0.94, 0.7], logits=np.zeros((3, 256, 256), np.float32)
        )


@pytest.fixture
def region_segmenter(monkeypatch):
    """Let all docks work with `RegionSegmenter` instead of a model."""
    gate = threading.Event()
    gate.set()
    monkeypatch.setattr(RegionSegmenter, "gate", gate)
    monkeypatch.setattr(RegionSegmenter, "encoded", 0)
    module = types.ModuleType("phasesam.engines.segmenter")
    module.Segmenter = RegionSegmenter
    monkeypatch.setitem(sys.modules, "phasesam.engines.segmenter", module)
    return RegionSegmenter


class ProcessStandIn:
    """Stands in for a process that trains; the test writes into its run folder."""

    def __init__(self, run):
        from phasesam.training.process import Job

        run.clear_requests()
        self.run, self.job = run, Job.read(run)
        self.is_running = True
        self.killed = False

    def kill(self):
        self.killed, self.is_running = True, False


@pytest.fixture
def processes(monkeypatch):
    """Let docks start no process that trains; the list holds what would have been started."""
    from phasesam.napari_widgets import training_run

    started = []

    def start(run):
        started.append(ProcessStandIn(run))
        return started[-1]

    monkeypatch.setattr(training_run, "TrainingProcess", start)
    yield started
    for process in started:
        process.is_running = False


def discs(shape=(96, 128)):
    """Two bright discs on a dark ground: around (30, 40) and (60, 90), radius 14."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 0.1, np.float32)
    for cy, cx in ((30, 40), (60, 90)):
        image[(y - cy) ** 2 + (x - cx) ** 2 <= 14**2] = 0.9
    return image


@pytest.fixture
def disc_image():
    """An image with two discs, see `discs`."""
    return discs()


@pytest.fixture
def viewer_model():
    """A viewer without window or canvas."""
    return ViewerModel()


@pytest.fixture
def shown():
    """Show a dock, as ``shown(dock, (420, 700))``; it is closed after the test."""
    docks = []

    def _shown(dock, size):
        docks.append(dock)
        dock.resize(*size)
        dock.show()
        return dock

    yield _shown
    for dock in docks:
        if isalive(dock):
            dock.close()
            dock.deleteLater()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Keep autosaves and weights of tests off the developer's own cache."""
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _no_worker_left():
    """Let no thread outlive its test."""
    yield
    from superqt.utils import WorkerBase

    WorkerBase.await_workers(_PATIENCE_MS)
    app = QApplication.instance()
    if app is not None:
        app.processEvents()
