"""Automatic masks through windows: each as of its window alone, none cut, none twice."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam import Segmenter
from phasesam.core.errors import InvalidSettingError
from phasesam.engines.automatic_config import AutomaticConfig
from phasesam.engines.candidates import Candidates


@pytest.fixture(scope="module")
def tiny(micrograph, manager):
    return Segmenter(micrograph.image, "tiny", manager=manager)


@pytest.fixture(scope="module")
def found(micrograph, manager):
    trained = Segmenter(micrograph.image, "mobile_sam", manager=manager)
    return trained.automatic(points_per_side=6, window=128, speckle_area=0)


def test_masks_are_those_of_their_window_alone(found, micrograph, manager):
    assert np.count_nonzero(found.searched > 0) > 20
    index = int(np.flatnonzero(found.searched > 0)[np.argmax(found.scores[found.searched > 0])])
    y0, x0, y1, x1 = (int(v) for v in found.searched_boxes[found.searched[index]])
    part = Segmenter(micrograph.image[y0:y1, x0:x1], "mobile_sam", manager=manager)
    point = (found.points[index] - (y0, x0)) / np.array(part.shape)
    alone = part.automatic(point_grid=point[None], speckle_area=0)
    score = found.scores[index]
    same = np.flatnonzero(np.isclose(alone.scores, score, atol=1e-3))
    areas = [alone.areas[i] for i in same]
    assert any(abs(int(area) - int(found.areas[index])) <= 2 for area in areas)


def test_windows_give_whole_masks_and_the_image_the_large_ones(found):
    for index in range(len(found)):
        y0, x0, y1, x1 = found.boxes[index]
        if found.searched[index] == 0:
            # Half a window, but for what a window may refuse at both of its edges.
            assert max(y1 - y0, x1 - x0) > 64 - 2 * (128 // 50 + 1)
            continue
        window = found.searched_boxes[found.searched[index]]
        for low, first, high, last, length in (
            (y0, window[0], y1, window[2], found.shape[0]),
            (x0, window[1], x1, window[3], found.shape[1]),
        ):
            assert low > first or first == 0
            assert high < last or last == length


def test_progress_counts_every_prompt(tiny):
    seen = []
    tiny.automatic(
        points_per_side=4, window=128, progress=lambda done, total: seen.append((done, total))
    )
    done, total = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == total[-1] == 16 + 4 * 6


def test_windows_come_with_the_adapter_unless_crops_are_wanted(
    micrograph, manager, make_adapter, tmp_path
):
    path = make_adapter(tmp_path / "a.safetensors", window=128)
    segmenter = Segmenter(micrograph.image, "tiny", manager=manager, adapter=str(path))

    def places(**settings):
        return len(segmenter.automatic(points_per_side=2, **settings).searched_boxes)

    assert places() == 1 + 2 * 3
    assert places(window=0) == 1
    assert places(crop_n_layers=1) == 5
    segmenter.window = 0
    assert places() == 1


def test_the_best_mask_of_a_prompt_is_that_of_all(micrograph, manager):
    trained = Segmenter(micrograph.image, "mobile_sam", manager=manager)
    settings = {"points_per_side": 5, "window": 0, "speckle_area": 0}
    everything = trained.automatic(**settings)
    best = trained.automatic(best_only=True, **settings)
    assert len(np.unique(best.points, axis=0)) == len(best) < len(everything) / 2
    for point, score, area in zip(best.points, best.scores, best.areas, strict=True):
        own = np.flatnonzero((everything.points == point).all(1))
        highest = own[np.argmax(everything.scores[own])]
        assert score == everything.scores[highest]
        assert area == everything.areas[highest]


@pytest.mark.parametrize(("task", "most"), [("promptable", 3), ("instance", 1)])
def test_adapters_that_tell_objects_keep_one_mask_a_prompt(
    micrograph, manager, make_adapter, tmp_path, task, most
):
    path = make_adapter(tmp_path / "a.safetensors", task=task)
    segmenter = Segmenter(micrograph.image, "tiny", manager=manager, adapter=str(path))

    def masks_of_a_prompt(**settings):
        found = segmenter.automatic(points_per_side=3, **settings)
        return np.unique(found.points, axis=0, return_counts=True)[1].max()

    assert masks_of_a_prompt() == most
    assert masks_of_a_prompt(best_only=False) == 3
    assert masks_of_a_prompt(best_only=True) == 1


def test_scaled_scores_cover_as_they_did_before(
    micrograph, manager, make_adapter, tmp_path, monkeypatch
):
    from phasesam.engines import automatic

    seen = []

    def search(rgb, embedding, model, manager, config, **others):
        seen.append(config.cover_iou)
        return Candidates.__new__(Candidates)

    monkeypatch.setattr(automatic, "search", search)
    monkeypatch.setattr("phasesam.engines.segmenter.replace", lambda found, **fields: found)
    for threshold, expected in ((0.4, 1 - 0.1 * 0.12 / 0.6), (0.88, 0.9), (0.92, 0.9), (None, 0.9)):
        path = make_adapter(tmp_path / f"{threshold}.safetensors", best_threshold=threshold)
        Segmenter(micrograph.image, "tiny", manager=manager, adapter=str(path)).automatic()
        assert seen[-1] == pytest.approx(expected)


def test_objects_found_in_two_windows_stay_one(found):
    masks = found.filter(pred_iou=0.0, stability=0.0, nms=0.5, crop_nms=0.5)
    assert len(masks) > 10
    boxes = masks.boxes.astype(float)
    for i in range(len(boxes)):
        for j in range(i):
            low = np.maximum(boxes[i, :2], boxes[j, :2])
            high = np.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = np.prod(np.maximum(high - low - 1, 0))
            sizes = [np.prod(boxes[k, 2:] - boxes[k, :2] - 1) for k in (i, j)]
            assert shared <= 0.5 * (sum(sizes) - shared) + 1e-6


def test_a_window_is_a_whole_number():
    with pytest.raises(InvalidSettingError, match="window"):
        AutomaticConfig(window=-1)
