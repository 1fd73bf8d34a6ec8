"""Prompts through windows: the model is shown parts of the image, the answers are of the image."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam import Segmenter
from phasesam.core.errors import InvalidPromptError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.types import Prompts
from phasesam.core.windows import WindowLogits, Windows
from phasesam.engines.window_prompting import predict_in_windows
from phasesam.evaluation.clicks import ClickedObject, segmenter_predictor

SHAPE = (400, 600)


class Perfect:
    """A model that knows the only object; it remembers what it was shown."""

    def __init__(self, box):
        self.truth = np.zeros(SHAPE, bool)
        self.truth[box[0] : box[2], box[1] : box[3]] = True
        self.views, self.logits = [], []

    def __call__(self, view, prompts, logits):
        y0, x0, y1, x1 = view
        seen = self.truth[y0:y1, x0:x1]
        for y, x in prompts.points.astype(int):
            assert seen[y, x]
        self.views.append(view)
        self.logits.append(logits)
        crops = [MaskCrop.from_array(seen), MaskCrop.from_array(np.zeros_like(seen))]
        plane = np.zeros((2, 256, 256), np.float32)
        return MaskSet.from_crops(seen.shape, crops, [0.9, 0.1], logits=plane)


@pytest.mark.parametrize("box", [(150, 220, 190, 260), (10, 10, 300, 500), (120, 90, 123, 94)])
def test_objects_of_any_size_are_found_whole(box):
    model = Perfect(box)
    prompts = Prompts.build(points=[(box[0] + 1, box[1] + 1)])
    answer = predict_in_windows(Windows(SHAPE, 128), prompts, None, model)
    np.testing.assert_array_equal(answer.mask(0), model.truth)
    assert answer.shape == SHAPE
    assert tuple(answer.views[0]) == model.views[-1]


def test_a_refinement_keeps_its_window_and_its_logits():
    model = Perfect((150, 220, 190, 260))
    prompts = Prompts.build(points=[(170, 240)])
    windows = Windows(SHAPE, 128)
    first = predict_in_windows(windows, prompts, None, model)
    earlier = WindowLogits(np.full((256, 256), 3.0, np.float32), tuple(first.views[0].tolist()))
    more = Prompts.build(points=[(170, 240), (180, 250)])
    again = predict_in_windows(windows, more, earlier, model)
    assert tuple(again.views[0]) == tuple(first.views[0])
    assert model.logits[-1] is earlier.logits


def test_a_point_outside_takes_a_larger_window_to_which_logits_move():
    truth = (100, 100, 180, 560)
    model = Perfect(truth)
    view = (64, 64, 192, 192)
    plane = np.full((256, 256), -5.0, np.float32)
    plane[:, 128:] = 5.0
    earlier = WindowLogits(plane, view)
    prompts = Prompts.build(points=[(120, 120), (120, 550)])
    answer = predict_in_windows(Windows(SHAPE, 128), prompts, earlier, model)
    assert tuple(answer.views[0]) == (0, 0, *SHAPE)
    moved = model.logits[-1]
    scale = 600 / 256
    assert moved[int(100 / scale), int(170 / scale)] == pytest.approx(5.0, abs=0.1)
    assert moved[int(100 / scale), int(80 / scale)] == pytest.approx(-5.0, abs=0.1)
    assert moved[int(300 / scale), int(500 / scale)] == -8.0


def test_moved_logits_come_back():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(256, 256)).astype(np.float32)
    near, far = (100, 100, 228, 228), (0, 0, 400, 400)
    assert WindowLogits(plane, near).moved(near) is plane
    smooth = np.add.outer(np.arange(256), np.arange(256)).astype(np.float32)
    there = WindowLogits(smooth, far).moved(near)
    back = WindowLogits(there, near).moved(far)
    inside = slice(int(110 / 400 * 256), int(215 / 400 * 256))
    np.testing.assert_allclose(back[inside, inside], smooth[inside, inside], atol=1e-3)


def test_several_boxes_are_several_objects():
    model = Perfect((150, 220, 190, 260))
    prompts = Prompts.build(boxes=[(150, 220, 190, 260), (145, 215, 195, 265)])
    answer = predict_in_windows(Windows(SHAPE, 128), prompts, None, model)
    assert len(answer) == 2
    np.testing.assert_array_equal(answer.mask(1), model.truth)
    assert answer.views.shape == (2, 4)


@pytest.fixture(scope="module")
def windowed(micrograph, manager):
    segmenter = Segmenter(micrograph.image, model="tiny", manager=manager)
    segmenter.window = 100
    return segmenter


def test_a_segmenter_answers_as_one_of_the_part_alone(windowed, micrograph, manager):
    answer = windowed.predict([(90, 120)], multimask_output=False)
    y0, x0, y1, x1 = answer.views[0]
    part = Segmenter(micrograph.image[y0:y1, x0:x1], model="tiny", manager=manager)
    alone = part.predict([(90 - y0, 120 - x0)], multimask_output=False)
    np.testing.assert_array_equal(answer.mask(0)[y0:y1, x0:x1], alone.mask(0))
    assert answer.mask(0).sum() == alone.mask(0).sum()
    assert answer.shape == windowed.shape


def test_clicks_in_a_row_go_through_windows(windowed):
    answer = segmenter_predictor(windowed)
    one = ClickedObject(np.array([[90.0, 120.0]]), np.array([1]))
    ((mask, state),) = answer([one])
    assert isinstance(state, WindowLogits)
    single = windowed.predict([(90, 120)])
    best = int(single.scores.argmax())
    assert mask.area == single.areas[best]
    assert state.view == tuple(single.views[best].tolist())
    two = ClickedObject(np.array([[90.0, 120.0], [95, 125]]), np.array([1, 0]), state)
    ((mask, _),) = answer([two])
    again = windowed.predict([(90, 120), (95, 125)], [1, 0], logits=state, multimask_output=False)
    assert abs(mask.area - int(again.areas[0])) <= 2


def test_without_windows_earlier_logits_are_brought_to_the_whole_image(
    windowed, micrograph, manager
):
    first = windowed.predict([(90, 120)], multimask_output=False)
    whole = Segmenter(micrograph.image, model="tiny", manager=manager)
    earlier = first.to_refine(0)
    answer = whole.predict([(90, 120)], logits=earlier, multimask_output=False)
    moved = earlier.moved((0, 0, *whole.shape))
    expected = whole.predict([(90, 120)], logits=moved, multimask_output=False)
    np.testing.assert_array_equal(answer.mask(0), expected.mask(0))
    assert answer.views.tolist() == [[0, 0, *whole.shape]]


def test_windows_come_from_the_adapter(micrograph, manager, make_adapter, tmp_path):
    path = make_adapter(tmp_path / "without.safetensors")
    assert Segmenter(micrograph.image, "tiny", manager=manager, adapter=str(path)).windows is None
    path = make_adapter(tmp_path / "with.safetensors", window=96)
    segmenter = Segmenter(micrograph.image, "tiny", manager=manager, adapter=str(path))
    assert segmenter.windows == Windows(segmenter.shape, 96)
    segmenter.window = 0
    assert segmenter.windows is None
    phases = make_adapter(tmp_path / "phases.safetensors", classes=("a", "b"), window=96)
    assert Segmenter(micrograph.image, "tiny", manager=manager, adapter=str(phases)).windows is None
    segmenter.window = -1
    with pytest.raises(InvalidSettingError, match="at least 1 pixel"):
        _ = segmenter.windows


def test_logits_of_another_image_are_refused(windowed):
    foreign = WindowLogits(np.zeros((256, 256), np.float32), (0, 0, 999, 5))
    with pytest.raises(InvalidPromptError, match="192 x 256 pixels"):
        windowed.predict([(90, 120)], logits=foreign)


def test_an_object_is_looked_at_through_its_window(windowed):
    embedding, view = windowed.look_at((80, 110, 90, 120))
    assert embedding.image_shape == (view[2] - view[0], view[3] - view[1])
    assert view[0] <= 80
    assert view[2] >= 90
    assert view[1] <= 110
    assert view[3] >= 120


@pytest.mark.parametrize("window", [0, 100])
def test_answers_above_a_data_bar_can_be_refined(micrograph, manager, window):
    image = np.vstack([micrograph.image, np.zeros((40, 256), np.uint8)])
    segmenter = Segmenter(image, "tiny", manager=manager)
    segmenter.__dict__["data_bar"] = 192
    segmenter.window = window
    first = segmenter.predict([(100, 100)])
    again = segmenter.predict([(100, 100), (105, 100)], logits=first.to_refine(0))
    assert again.shape == (232, 256)
    assert not again.masks[:, 192:].any()


class Whimsical(Perfect):
    """Sees small objects badly where it looks closely."""

    def __init__(self, box, closely):
        super().__init__(box)
        self.closely = closely

    def __call__(self, view, prompts, logits):
        answer = super().__call__(view, prompts, logits)
        if view[3] - view[1] >= 128:
            return answer
        shape = answer.shape
        if self.closely == "nothing":
            crops = [MaskCrop.from_array(np.zeros(shape, bool))] * 2
        else:
            crops = [MaskCrop.from_array(np.ones(shape, bool))] * 2
        return MaskSet.from_crops(shape, crops, [0.9, 0.1], logits=answer.logits)


@pytest.mark.parametrize("closely", ["nothing", "everything"])
def test_a_good_answer_is_not_given_up_for_a_worse_one(closely):
    model = Whimsical((150, 220, 156, 227), closely)
    answer = predict_in_windows(
        Windows(SHAPE, 128), Prompts.build(points=[(153, 223)]), None, model
    )
    assert len(model.views) == 2
    np.testing.assert_array_equal(answer.mask(0), model.truth)
    assert answer.views[0][3] - answer.views[0][1] == 128


def test_what_is_cut_everywhere_is_seen_in_the_whole_image():
    model = Perfect((0, 0, *SHAPE))
    answer = predict_in_windows(Windows(SHAPE, 16), Prompts.build(points=[(155, 225)]), None, model)
    assert model.views[-1] == (0, 0, *SHAPE)
    assert len(model.views) <= 7
    assert answer.mask(0).all()


def test_the_scale_that_is_meant_is_seen_whole():
    class Nested(Perfect):
        def __call__(self, view, prompts, logits):
            answer = super().__call__(view, prompts, logits)
            group = np.zeros(SHAPE, bool)
            group[100:300, 100:500] = True
            seen = group[view[0] : view[2], view[1] : view[3]]
            crops = [answer.crops[0], answer.crops[0], MaskCrop.from_array(seen)]
            plane = np.zeros((3, 256, 256), np.float32)
            return MaskSet.from_crops(seen.shape, crops, [0.5, 0.9, 0.1], logits=plane)

    prompts = Prompts.build(points=[(170, 240)])
    windows = Windows(SHAPE, 128)
    best = predict_in_windows(windows, prompts, None, Nested((150, 220, 190, 260)))
    assert best.areas[1] == 1600
    assert best.areas[2] < 200 * 400
    group = predict_in_windows(windows, prompts, None, Nested((150, 220, 190, 260)), 2)
    assert group.areas[2] == 200 * 400


def test_an_adapter_without_strength_looks_as_its_base(micrograph, manager, make_adapter, tmp_path):
    path = make_adapter(tmp_path / "strong.safetensors", window=96)
    segmenter = Segmenter(micrograph.image, "tiny", manager=manager, adapter=str(path))
    assert segmenter.windows is not None
    manager.set_strength("tiny", str(path), 0.0)
    assert segmenter.windows is None


def test_what_was_looked_at_is_known(micrograph, manager):
    segmenter = Segmenter(micrograph.image, "tiny", manager=manager)
    segmenter.window = 50
    assert not segmenter.is_seen_at(20, 30)
    segmenter.prepare()
    segmenter.look(segmenter.windows.fitting((20, 30, 21, 31), is_object=False))
    assert segmenter.is_seen_at(20, 30)
    assert segmenter.is_seen_at(22, 28)
    assert not segmenter.is_seen_at(180, 30)
