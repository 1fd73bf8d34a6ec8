import numpy as np
import pytest

from phasesam.core.errors import InvalidPromptError
from phasesam.core.types import PixelSize, Prompts


def test_points_are_positive_by_default():
    prompts = Prompts.build(points=[(1, 2), (3, 4)])
    assert prompts.labels.tolist() == [1, 1]
    assert prompts.points.dtype == np.float64
    assert not prompts.is_empty


def test_single_point_and_box_may_be_flat():
    prompts = Prompts.build(points=(1, 2), labels=[False], boxes=(0, 0, 5, 6))
    assert prompts.points.shape == (1, 2)
    assert prompts.labels.tolist() == [0]
    assert prompts.boxes.shape == (1, 4)


def test_nothing_said_is_empty():
    assert Prompts.build().is_empty
    assert Prompts.build(points=[], boxes=[]).is_empty
    assert not Prompts.build(mask=np.zeros((2, 3))).is_empty


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"points": [(1, 2)], "labels": [1, 0]}, "one label per point"),
        ({"points": [(1, 2)], "labels": [0.5]}, "1 .inside. or 0"),
        ({"points": [(1, 2)], "labels": [float("nan")]}, "1 .inside. or 0"),
        ({"points": [(1, 2)], "labels": ["yes"]}, "1 .inside. or 0"),
        ({"points": [(1, 2)], "labels": [2]}, "1 .inside. or 0"),
        ({"points": [(1, 2, 3)]}, "shape"),
        ({"points": [(1, 2), (3,)]}, "numbers"),
        ({"points": [(1, float("inf"))]}, "finite"),
        ({"points": [("a", "b")]}, "numbers"),
        ({"boxes": [(0, 0, 0, 5)]}, "y1 > y0"),
        ({"boxes": [(5, 5, 1, 1)]}, "y1 > y0"),
        ({"mask": np.zeros((2, 2, 2))}, "shape"),
    ],
)
def test_senseless_prompts_are_refused(prompts, message):
    with pytest.raises(InvalidPromptError, match=message):
        Prompts.build(**prompts)


def test_pixel_size():
    assert not PixelSize().is_physical
    size = PixelSize(0.5, 0.25, "um")
    assert size.is_physical
    assert size.area == 0.125
