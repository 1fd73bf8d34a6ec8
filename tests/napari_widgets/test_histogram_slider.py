from __future__ import annotations

import math

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor, QPalette

from phasesam.napari_widgets.histogram_bar import (
    KEPT_ON_DARK,
    KEPT_ON_LIGHT,
    HistogramBar,
    SliderConfig,
    kept_colour,
)
from phasesam.napari_widgets.histogram_slider import HistogramSlider

IOU = SliderConfig("Predicted IoU", "Higher keeps fewer masks.")
AREA = SliderConfig(
    "Area",
    "Smaller and larger masks go.",
    maximum=1e9,
    decimals=0,
    keep="between",
    logarithmic=True,
    open_top=True,
)


def shown(qtbot, widget, width=320):
    qtbot.addWidget(widget)
    widget.resize(width, widget.sizeHint().height())
    widget.show()
    qtbot.waitExposed(widget)
    return widget


@pytest.fixture
def iou(qtbot):
    slider = shown(qtbot, HistogramSlider(IOU))
    slider.set_samples(np.linspace(0, 1, 101))
    slider.set_values(0.88)
    return slider


@pytest.fixture
def area(qtbot):
    slider = shown(qtbot, HistogramSlider(AREA))
    slider.set_view(0, 10_000)
    slider.set_values(20, math.inf)
    return slider


def at(bar: HistogramBar, value: float) -> QPoint:
    return QPoint(round(bar.position_of(value)), bar.height() // 2)


def drag(qtbot, bar, start, *stops):
    qtbot.mousePress(bar, Qt.MouseButton.LeftButton, pos=at(bar, start))
    for stop in stops:
        qtbot.mouseMove(bar, at(bar, stop))
    qtbot.mouseRelease(bar, Qt.MouseButton.LeftButton, pos=at(bar, stops[-1]))


def test_drag_emits_while_the_handle_moves_and_once_at_the_end(iou, qtbot):
    seen, released = [], []
    iou.value_changed.connect(lambda: seen.append(iou.value()))
    iou.released.connect(lambda: released.append(iou.value()))
    drag(qtbot, iou.bar, 0.88, 0.7, 0.5, 0.3)
    assert len(seen) >= 3
    assert seen == sorted(seen, reverse=True)
    assert released == [seen[-1]]
    assert iou.value() == pytest.approx(0.3, abs=0.01)
    assert iou.spins[0].value() == iou.value()


def test_spin_box_moves_the_handle(iou, qtbot):
    with qtbot.waitSignals([iou.value_changed, iou.released]):
        iou.spins[0].setValue(0.42)
    assert iou.bar.values == (0.42,)


def test_setting_a_value_by_program_is_silent(iou, qtbot):
    with qtbot.assertNotEmitted(iou.value_changed), qtbot.assertNotEmitted(iou.released):
        iou.set_values(0.5)
    assert iou.value() == 0.5


def test_keyboard(iou, qtbot):
    iou.bar.setFocus()
    qtbot.keyClick(iou.bar, Qt.Key.Key_Right)
    assert iou.value() == pytest.approx(0.89)
    qtbot.keyClick(iou.bar, Qt.Key.Key_PageDown)
    assert iou.value() == pytest.approx(0.79)
    qtbot.keyClick(iou.bar, Qt.Key.Key_Home)
    assert iou.value() == 0.0
    qtbot.keyClick(iou.bar, Qt.Key.Key_End)
    assert iou.value() == 1.0


def test_wheel_scrolls_the_panel_and_not_the_threshold(iou):
    class Wheel:
        ignored = False

        def ignore(self):
            self.ignored = True

    event = Wheel()
    iou.bar.wheelEvent(event)
    assert event.ignored
    assert iou.value() == 0.88


def test_a_press_takes_the_nearest_handle(area, qtbot):
    drag(qtbot, area.bar, 10_000, 3000)
    low, high = area.values()
    assert low == 20
    assert high == pytest.approx(3000, rel=0.1)
    drag(qtbot, area.bar, 30, 200)
    assert area.values()[0] == pytest.approx(200, rel=0.1)
    assert area.values()[1] == high


def test_handles_never_cross(area, qtbot):
    area.set_values(100, 500)
    drag(qtbot, area.bar, 100, 9000)
    assert area.values() == (500, 500)


def test_top_of_the_area_means_no_limit(area):
    assert area.values() == (20, math.inf)
    assert area.spins[1].text() == "no limit"
    area.set_values(20, 400)
    assert area.values() == (20, 400)
    area.set_view(0, 50_000)
    assert area.values() == (20, 400)
    area.set_values(20, math.inf)
    area.set_view(0, 200_000)
    assert area.values() == (20, math.inf)


def test_typing_numbers_units_and_no_limit(area, qtbot):
    area.set_unit(0.01, "µm²", 2)
    low, high = area.spins
    low.setFocus()
    low.selectAll()
    qtbot.keyClicks(low, "3.5")
    qtbot.keyClick(low, Qt.Key.Key_Return)
    assert area.values()[0] == 350
    assert low.text() == "3.50 µm²"
    high.selectAll()
    qtbot.keyClicks(high, "8")
    qtbot.keyClick(high, Qt.Key.Key_Return)
    assert area.values() == (350, 800)
    high.selectAll()
    qtbot.keyClicks(high, "no limit")
    qtbot.keyClick(high, Qt.Key.Key_Return)
    assert area.values() == (350, math.inf)


def test_typed_lower_end_above_the_upper_one_takes_it_along(area):
    area.set_values(100, 500)
    area.spins[0].setValue(800)
    assert area.values() == (800, 800)


def test_keys_choose_and_move_either_handle(area, qtbot):
    area.set_values(100, 5000)
    qtbot.keyClick(area.bar, Qt.Key.Key_Up)
    qtbot.keyClick(area.bar, Qt.Key.Key_Left)
    low, high = area.values()
    assert low == 100
    assert 4000 < high < 5000
    qtbot.keyClick(area.bar, Qt.Key.Key_Down)
    qtbot.keyClick(area.bar, Qt.Key.Key_Right)
    assert area.values()[0] > 100


@pytest.mark.parametrize(
    ("keep", "values", "kept"),
    [
        ("above", (0.25,), (0.25, math.inf)),
        ("below", (0.25,), (-math.inf, 0.25)),
        ("between", (0.25, 0.5), (0.25, 0.5)),
        ("all", (0.25,), (-math.inf, math.inf)),
    ],
)
def test_kept_part(qtbot, keep, values, kept):
    bar = HistogramBar(SliderConfig("x", keep=keep))
    qtbot.addWidget(bar)
    bar.set_values(values)
    assert bar.kept_range() == kept


def test_kept_part_is_painted_blue_and_the_rest_grey(iou):
    iou.set_values(0.5)
    image = iou.bar.grab().toImage()
    ratio = image.devicePixelRatio()
    row = int((iou.bar.height() - 12) * ratio)

    def blueness(value):
        columns = [int((iou.bar.position_of(value) + d) * ratio) for d in (-2, -1, 0, 1, 2)]
        colours = [QColor(image.pixel(column, row)) for column in columns]
        return max(colour.blue() - colour.red() for colour in colours)

    assert blueness(0.8) > 60
    assert blueness(0.2) < 20


def test_colours_follow_the_theme():
    palette = QPalette()
    palette.setColor(QPalette.ColorRole.Window, QColor("#262930"))
    palette.setColor(QPalette.ColorRole.WindowText, QColor("white"))
    assert kept_colour(palette) == KEPT_ON_DARK
    palette.setColor(QPalette.ColorRole.Window, QColor("white"))
    palette.setColor(QPalette.ColorRole.WindowText, QColor("black"))
    assert kept_colour(palette) == KEPT_ON_LIGHT


@pytest.mark.parametrize("samples", [[], [np.nan, np.inf], [0.5], np.full(5000, 0.9)])
def test_any_samples_can_be_painted(iou, samples):
    iou.set_samples(samples)
    assert not iou.bar.grab().isNull()


def test_screen_readers_get_name_and_meaning(iou):
    assert iou.bar.accessibleName() == "Predicted IoU"
    assert iou.bar.accessibleDescription() == IOU.tooltip
    assert iou.bar.height() >= 32
