"""Clicking on the objects of an image, with predictors whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from phasesam import Segmenter
from phasesam.core.errors import CancelledError, InvalidMaskError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.engines import object_prompting
from phasesam.engines.object_prompting import ObjectAnswer
from phasesam.evaluation.clicks import evaluate_clicks
from phasesam.models.manager import ModelManager
from phasesam.simulation import ParticleConfig, simulate_particles


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((40, 60), np.int32)
    labels[5:16, 5:16] = 3
    labels[20:35, 30:51] = 7
    return labels


class Discs:
    """A disc of radius 4 around each positive click, less one around each negative."""

    def __init__(self, shape):
        self.shape = shape
        self.asked: list[int] = []
        self.states: list[list] = []

    def __call__(self, objects):
        self.asked.append(len(objects))
        self.states.append([o.state for o in objects])
        y, x = np.indices(self.shape)
        answers = []
        for one in objects:
            mask = np.zeros(self.shape, bool)
            for point, label in zip(one.points, one.labels, strict=True):
                mask[np.hypot(y - point[0], x - point[1]) <= 4] = label == 1
            answers.append((mask, len(one.points)))
        return answers


def test_first_clicks_by_hand(labels):
    predictor = Discs(labels.shape)
    curves = evaluate_clicks(predictor, labels, max_clicks=1)
    disc = np.count_nonzero(np.hypot(*np.mgrid[-4:5, -4:5]) <= 4)
    np.testing.assert_allclose(curves.iou[:, 0], [disc / 121, disc / 315])
    np.testing.assert_allclose(
        curves.dice[:, 0], [2 * disc / (121 + disc), 2 * disc / (315 + disc)]
    )
    np.testing.assert_array_equal(curves.object_ids, [3, 7])
    assert predictor.asked == [2]
    assert predictor.states == [[None, None]]


def test_the_state_of_each_object_comes_back(labels):
    predictor = Discs(labels.shape)
    evaluate_clicks(predictor, labels, max_clicks=4)
    assert predictor.states == [[None, None], [1, 1], [2, 2], [3, 3]]


def test_more_clicks_help_and_objects_are_independent(labels):
    both = evaluate_clicks(Discs(labels.shape), labels, max_clicks=15)
    assert (both.iou[:, -1] > both.iou[:, 0]).all()
    alone = evaluate_clicks(Discs(labels.shape), labels, max_clicks=15, object_ids=[7])
    np.testing.assert_array_equal(alone.iou[0], both.iou[1])
    np.testing.assert_array_equal(alone.object_ids, [7])


def test_a_perfect_object_is_left_alone(labels):
    calls = []

    def oracle(objects):
        calls.append(len(objects))
        y, x = objects[0].points[0].astype(int)
        return [(labels == labels[y, x], None)]

    curves = evaluate_clicks(oracle, labels, max_clicks=5, object_ids=[3])
    np.testing.assert_array_equal(curves.iou, np.ones((1, 5)))
    assert calls == [1]


def test_curves_are_complete_up_to_eleven_clicks(labels):
    """Every threshold is reached at once, but the mask stays wrong by a few pixels."""
    calls = []

    def nearly(objects):
        calls.append(len(objects))
        mask = labels == 7
        mask[20, 30:33] = False
        mask[20, 30 + len(calls)] = len(calls) > 11
        return [(mask, None)]

    curves = evaluate_clicks(nearly, labels, max_clicks=20, object_ids=[7])
    assert len(calls) == 11
    assert curves.complete == 11
    np.testing.assert_array_equal(curves.iou[0, 11:], curves.iou[0, 10])


def test_masks_after_one_and_after_eleven_clicks_are_kept(labels):
    def growing(objects):
        masks = []
        for one in objects:
            mask = np.zeros(labels.shape, bool)
            mask[0, : len(one.points)] = True
            masks.append((mask, None))
        return masks

    curves = evaluate_clicks(growing, labels, max_clicks=14)
    assert [m.area for m in curves.first_masks] == [1, 1]
    assert [m.area for m in curves.last_masks] == [11, 11]
    short = evaluate_clicks(growing, labels, max_clicks=3)
    assert [m.area for m in short.last_masks] == [3, 3]


def test_hard_objects_get_all_clicks(labels):
    predictor = Discs(labels.shape)
    curves = evaluate_clicks(predictor, labels, max_clicks=14, thresholds=(0.99,))
    assert curves.max_clicks == 14
    assert sum(predictor.asked) == 28


def test_unknown_pixels_do_not_count(labels):
    labels[5:16, 5:8] = -1
    answer = np.zeros(labels.shape, bool)
    answer[5:16, 5:12] = True

    curves = evaluate_clicks(lambda objects: [(answer, None)], labels, 1, object_ids=[3])
    assert curves.iou[0, 0] == pytest.approx(4 / 8)


def test_no_objects_give_no_rows():
    curves = evaluate_clicks(Discs((9, 9)), np.zeros((9, 9), np.uint8), max_clicks=3)
    assert curves.iou.shape == (0, 3)


def test_what_does_not_fit_is_refused(labels):
    with pytest.raises(InvalidMaskError, match="no object"):
        evaluate_clicks(Discs(labels.shape), labels, object_ids=[4])
    with pytest.raises(InvalidMaskError, match="integers"):
        evaluate_clicks(Discs(labels.shape), labels.astype(float))
    with pytest.raises(InvalidSettingError, match="at least one click"):
        evaluate_clicks(Discs(labels.shape), labels, max_clicks=0)
    with pytest.raises(InvalidSettingError, match="each of 2 objects, got 1"):
        evaluate_clicks(lambda objects: [(labels == 3, None)], labels)
    with pytest.raises(InvalidMaskError, match=r"image's shape \(30, 30\)"):
        evaluate_clicks(Segmenter(np.eye(30), model="tiny"), labels)


def test_progress_and_stopping(labels):
    done = []
    evaluate_clicks(
        Discs(labels.shape), labels, 2, progress=lambda part, total: done.append((part, total))
    )
    assert done == [(0, 2), (2, 2)]
    with pytest.raises(CancelledError):
        evaluate_clicks(Discs(labels.shape), labels, should_stop=lambda: True)


def by_the_book(segmenter: Segmenter, truth: np.ndarray, clicks: int) -> list[float]:
    """The whole procedure for one object, written plainly with the public predictor."""
    points, marks, logits = [], [], None
    found, scores = np.zeros_like(truth), []
    for _ in range(clicks):
        errors = [np.pad(e, 1) for e in (truth & ~found, found & ~truth)]
        depths = [ndimage.distance_transform_edt(e)[1:-1, 1:-1] for e in errors]
        for y, x in points:
            depths[0][y, x] = depths[1][y, x] = 0
        positive = depths[0].max() > depths[1].max()
        chosen = depths[0 if positive else 1]
        points.append(tuple(np.argwhere(chosen == chosen.max())[0]))
        marks.append(int(positive))
        answer: MaskSet = segmenter.predict(
            points, marks, logits=logits, multimask_output=len(points) == 1
        )
        best = int(np.argmax(answer.scores))
        found, logits = answer.mask(best), answer.logits[best]
        scores.append(np.count_nonzero(found & truth) / np.count_nonzero(found | truth))
    return scores


def test_sam_is_asked_as_in_interactive_use():
    torch.set_num_threads(1)
    config = ParticleConfig(shape=(96, 128), median_diameter=14, largest_diameter=25)
    micrograph = simulate_particles(config, seed=3)
    manager = ModelManager(device="cpu", precision="fp32")
    segmenter = Segmenter(micrograph.image, model="tiny", manager=manager)
    labels = micrograph.labels
    ids = np.unique(labels[labels > 0])[:3]
    curves = evaluate_clicks(segmenter, labels, max_clicks=4, object_ids=ids)
    for row, label in zip(curves.iou, ids, strict=True):
        np.testing.assert_allclose(row, by_the_book(segmenter, labels == label, 4), atol=5e-3)
    manager.unload_all()


def test_a_model_without_windows_is_shown_the_whole_image(labels, monkeypatch):
    """However small an object is: as the published predictor, whose figures are compared."""
    answer = ObjectAnswer(MaskCrop.from_array(labels == 3), 0.9, np.zeros((256, 256), np.float32))
    image = np.random.default_rng(0).integers(0, 255, (400, 600), dtype=np.uint8)
    small = np.zeros(image.shape, np.int32)
    small[: labels.shape[0], : labels.shape[1]] = labels
    views = []

    def look(self, view, **_):
        views.append(view)

    monkeypatch.setattr(Segmenter, "look", look)
    monkeypatch.setattr(
        object_prompting, "predict_objects",
        lambda _model, _manager, _embedding, prompts, **_: [answer] * len(prompts),
    )  # fmt: skip
    manager = ModelManager(device="cpu", precision="fp32")
    segmenter = Segmenter(image, model="tiny", manager=manager)
    evaluate_clicks(segmenter, small, max_clicks=3, object_ids=[3])
    assert set(views) == {(0, 0, 400, 600)}
    manager.unload_all()
