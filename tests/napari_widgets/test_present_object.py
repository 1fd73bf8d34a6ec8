"""What is asked about an object in the making, and what its answer shows."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.napari_widgets.present_object import Answer, MaskSettings, PresentObject, Question
from phasesam.napari_widgets.prompt_layers import PlanePrompts


def answer(box, view):
    crop = MaskCrop.from_array(np.ones((box[2] - box[0], box[3] - box[1]), bool), box[0], box[1])
    views = None if view is None else np.array([view])
    planes = np.full((1, 256, 256), 2.0, np.float32)
    return Answer(MaskSet.from_crops((100, 200), [crop], [0.9], logits=planes, views=views), 0.1)


@pytest.mark.parametrize(
    ("box", "view", "cut"),
    [
        ((10, 10, 20, 20), None, False),
        ((10, 10, 50, 20), (0, 0, 50, 50), True),
        ((10, 10, 49, 20), (0, 0, 50, 50), False),
        ((0, 0, 20, 20), (0, 0, 50, 50), False),
        ((60, 160, 100, 200), (50, 150, 100, 200), False),
        ((60, 150, 100, 200), (50, 150, 100, 200), True),
    ],
)
def test_a_mask_is_cut_where_only_a_part_was_looked_at(box, view, cut):
    assert answer(box, view).is_cut(0) is cut


def test_the_scale_is_named_where_it_was_chosen():
    one, two = (PlanePrompts(np.zeros((n, 2)), np.ones(n, np.int64)) for n in (1, 2))
    assert Question(one, None, None, MaskSettings()).scales is True
    assert Question(two, None, None, MaskSettings()).scales is False
    assert Question(two, None, None, MaskSettings(scale="group")).scales == "group"


def test_a_refinement_knows_what_its_logits_show():
    present = PresentObject()
    one = PlanePrompts(np.array([[12.0, 12.0]]), np.ones(1, np.int64))
    two = PlanePrompts(np.array([[12.0, 12.0], [14.0, 14.0]]), np.ones(2, np.int64))
    present.say(one)
    present.answer = answer((10, 10, 20, 20), (0, 0, 50, 50))
    present.say(two)
    asked = present.question(MaskSettings())
    assert asked.logits.view == (0, 0, 50, 50)
    np.testing.assert_array_equal(asked.logits.logits, np.full((256, 256), 2.0))
