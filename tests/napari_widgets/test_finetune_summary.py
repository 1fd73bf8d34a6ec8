"""What will be learnt, in words and bars."""

from __future__ import annotations

import pytest
from qtpy.QtGui import QColor

from phasesam.napari_widgets.finetune_summary import SummaryView, summary_text
from phasesam.training.data_checks import DataSummary
from phasesam.training.dataset import TrainingData


def summary(**changes):
    values = {
        "n_images": {"train": 2, "val": 1, "Super3": 1200},
        "n_objects": {"train": 1500, "val": 1, "Super3": 12},
        "class_fractions": {},
        "labelled_fractions": {"train": 1.0, "val": 1.0, "Super3": 0.125},
        "object_pixels": 971.6,
        "largest_image": (10, 10),
        "warnings": (),
    }
    return DataSummary(**{**values, **changes})


@pytest.fixture
def view(qtbot):
    view = SummaryView()
    qtbot.addWidget(view)
    view.resize(400, 300)
    view.show()
    return view


def test_numbers_of_objects():
    assert summary_text(summary()).replace("\u202f", " ").split("\n") == [
        "2 images to learn from with 1 500 objects",
        "1 image to validate with 1 object",
        "1 200 images to test (Super3) with 12 objects, 12.5 % labelled",
        "median area of the objects: 972 px",
    ]


def test_shares_of_classes_are_bars(view):
    data = TrainingData((), "semantic", ("pore", "grain"), (1, 2))
    shares = {"train": (0.25, 0.75), "val": (0.5, 0.5)}
    found = summary(n_objects={}, object_pixels=None, class_fractions=shares)
    view.show_summary(data, found, [QColor("#ff0000"), QColor("#0000ff")])
    assert view.bars.toolTip().split("\n")[0] == "train: pore 25.0 %, grain 75.0 %"
    picture = view.bars.grab().toImage()
    line = picture.height() // 4
    colours = [picture.pixelColor(x, line).name() for x in range(picture.width())]
    first = colours.index("#ff0000")
    red, blue = colours.count("#ff0000"), colours.count("#0000ff")
    assert colours[first + red] == "#0000ff", "side by side"
    assert colours[first - 1] not in ("#ff0000", "#0000ff")
    assert red / (red + blue) == pytest.approx(0.25, abs=0.03)


def test_warnings_are_listed_and_long_lists_cut(view):
    data = TrainingData((), "promptable")
    view.show_summary(data, summary(warnings=("a < b", "c")), [])
    assert "A &lt; b" in view.warnings.text()
    assert view.warnings.toolTip() == ""
    view.show_summary(data, summary(warnings=tuple("abcdefg")), [])
    assert "and 3 more" in view.warnings.text()
    assert view.warnings.toolTip().endswith("G")
    view.show_nothing("no data")
    assert view.numbers.text() == "no data"
    assert view.warnings.isHidden()
    assert view.bars.isHidden()


def test_errors_and_progress(view):
    view.show_error("expected labels")
    assert "Expected labels" in view.warnings.text()
    assert view.numbers.isHidden()
    view.show_error("splits.csv holds nothing")
    assert "splits.csv" in view.warnings.text(), "names of files stay as they are"
    view.show_progress(3, 12)
    assert view.numbers.text() == "Looking at the data … 3 of 12"
