from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtGui import QColor

from phasesam.napari_widgets.size_histogram import (
    SizeHistogram,
    nice_ticks,
    short_number,
    side_by_side,
)


@pytest.fixture
def histogram(qtbot):
    widget = SizeHistogram()
    qtbot.addWidget(widget)
    widget.resize(320, 130)
    widget.show()
    return widget


def test_percentiles_and_counts(histogram):
    diameters = np.arange(1.0, 102.0)
    histogram.set_diameters(diameters, "µm")
    np.testing.assert_allclose(histogram.marks, np.percentile(diameters, (10, 50, 90)))
    assert histogram.counts.sum() == 101
    assert "D50 51 µm" in histogram.accessibleDescription()


def test_given_marks_are_drawn(histogram):
    histogram.set_diameters([1, 2, 3], "px", marks=(1.5, 2.5, 2.75))
    assert histogram.marks == (1.5, 2.5, 2.75)


@pytest.mark.parametrize("diameters", [[], [np.nan], [5.0], [0.0, 0.0], [1e-3] * 400, [1e6, 1.0]])
def test_any_sizes_can_be_painted(histogram, diameters):
    histogram.set_diameters(diameters, "px")
    histogram.set_selected(diameters)
    assert not histogram.grab().isNull()


def test_selected_objects_are_painted_in_the_text_colour(histogram):
    histogram.set_diameters(np.full(20, 10.0), "px")

    def text_coloured():
        image = histogram.grab().toImage()
        text = QColor(histogram.palette().windowText().color())
        row = image.height() // 2
        return sum(QColor(image.pixel(x, row)) == text for x in range(image.width()))

    before = text_coloured()
    histogram.set_selected(np.full(20, 10.0))
    assert text_coloured() > before + 3


@pytest.mark.parametrize("width", [180, 240, 296, 420])
@pytest.mark.parametrize("marks", [(24.9, 29.9, 35.0), (29.8, 29.9, 29.9), (0.1, 17.3, 35.0)])
def test_texts_at_the_lines_do_not_overlap(histogram, width, marks):
    histogram.resize(width, 130)
    histogram.set_diameters([*marks, 35.0], "µm", marks)
    texts = histogram.mark_texts()
    assert len(texts) == 3 or (width == 180 and [text[:3] for text, _, _ in texts] == ["D50"])
    right = 0.0
    for _, left, text_width in texts:
        assert left > right
        right = left + text_width
    assert right <= width
    assert "D90" in histogram.toolTip()


def test_texts_stay_at_their_places_where_there_is_room():
    assert side_by_side([50, 200], [20, 20], 0, 300, 6) == [40, 190]
    assert side_by_side([50, 52], [20, 20], 0, 300, 6) == [40, 66]
    assert side_by_side([290, 295], [20, 20], 0, 300, 6) == [254, 280]
    assert side_by_side([1, 2], [20, 20], 0, 45, 6) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 0.4, [0, 0.1, 0.2, 0.3, 0.4]), (3, 3, [3])],
)
def test_ticks_are_round_numbers(low, high, expected):
    np.testing.assert_allclose(nice_ticks(low, high), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (4.5, "4.5"), (1234.5, "1234"), (100, "100"), (np.nan, "–")],
)
def test_numbers_have_three_digits(value, text):
    assert short_number(value) == text
