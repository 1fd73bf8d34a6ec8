"""The best threshold of an adapter that tells objects becomes SAM's usual one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.training.conftest import disc_data

from phasesam.core.errors import CancelledError
from phasesam.core.mask_set import MaskSet
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
from phasesam.models.adapter_card import USUAL_THRESHOLD, read_card
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import load_trainable
from phasesam.models.sam import build_model
from phasesam.training import score_scale
from phasesam.training.dataset import from_arrays
from phasesam.training.score_scale import best_threshold, scale_scores


class Found:
    """Candidates of which those above 0.5 are the true objects, the others nonsense."""

    def __init__(self, labels: np.ndarray) -> None:
        self.good = MaskSet.from_labels(labels)
        nonsense = np.zeros_like(labels)
        nonsense[:20, :60] = np.arange(60) // 10 + 1
        self.bad = MaskSet.from_labels(nonsense)

    def filter(self, filters: FilterConfig) -> MaskSet:
        if filters.pred_iou > 0.8:
            return MaskSet.from_labels(np.zeros(self.good.shape, np.int32))
        if filters.pred_iou > 0.5:
            return self.good
        return MaskSet.from_masks([*self.good.masks, *self.bad.masks])


def test_the_threshold_is_in_the_middle_of_the_good_ones() -> None:
    labels = np.zeros((80, 80), np.int32)
    labels[30:50, 30:50], labels[60:75, 10:30] = 1, 2
    assert best_threshold([(Found(labels), labels)]) == pytest.approx(0.68, abs=0.05)


@pytest.fixture
def adapter(tmp_path, make_adapter):
    config = AdapterConfig(rank=2, decoder_rank=2, iou_head=True)
    return make_adapter(tmp_path / "a.safetensors", config=config, task="instance")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(score_scale, "_MOST_POINTS", 4)


def scores(base, path) -> torch.Tensor:
    """Predicted IoU of one click."""
    model = load_trainable(base, path)[0].eval()
    features = torch.randn((1, 64, 64, 64), generator=torch.Generator().manual_seed(0))
    sparse, dense = model.prompt_encoder(
        points=(torch.tensor([[[300.0, 400.0]]]), torch.ones(1, 1)), boxes=None, masks=None
    )
    with torch.inference_mode():
        position = model.prompt_encoder.get_dense_pe()
        return model.mask_decoder.predict_masks(features, position, sparse, dense)[1]


def test_scores_are_scaled_once_and_one_stays_one(adapter, quick, monkeypatch) -> None:
    base = build_model("tiny")
    before = scores(base, adapter)
    monkeypatch.setattr(score_scale, "best_threshold", lambda found: 0.4)
    images = disc_data("instance").of("train")
    for _ in range(2):
        card = scale_scores(adapter, base, images, "cpu")
        assert card.details["best_threshold"] == 0.4
        assert read_card(adapter).details == card.details
        # Four tenths become the usual threshold.
        expected = 1 - (1 - before) * (1 - USUAL_THRESHOLD) / 0.6
        torch.testing.assert_close(scores(base, adapter), expected, rtol=1e-4, atol=1e-4)


def test_real_searches_decide(adapter, quick, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(score_scale, "best_threshold", lambda found: seen.extend(found) or 0.4)
    images = disc_data("instance").of("train")
    scale_scores(adapter, build_model("tiny"), images, "cpu")
    assert len(seen) == min(2, len(images))
    for (candidates, labels), image in zip(seen, images, strict=False):
        np.testing.assert_array_equal(labels, image.label_array())
        assert candidates.filter(FilterConfig(pred_iou=0.0, stability=0.0)).shape == labels.shape


def test_without_objects_or_finds_there_is_no_threshold(adapter, quick) -> None:
    before = adapter.read_bytes()
    images = [(i.name, i.rgb(), 0 * i.label_array(), None) for i in disc_data("instance").images]
    card = scale_scores(adapter, build_model("tiny"), from_arrays(images, "instance").images, "cpu")
    assert "best_threshold" not in card.details
    assert adapter.read_bytes() == before
    labels = np.zeros((80, 80), np.int32)
    labels[:20, :60] = 1

    class Nothing:
        def filter(self, filters: FilterConfig) -> MaskSet:
            return MaskSet.from_labels(np.zeros_like(labels))

    assert best_threshold([(Nothing(), labels)]) is None


def test_adapters_without_objectness_are_left_alone(tmp_path, make_adapter) -> None:
    path = make_adapter(tmp_path / "b.safetensors")
    before = path.read_bytes()
    scale_scores(path, build_model("tiny"), disc_data("instance").of("train"), "cpu")
    assert path.read_bytes() == before


def test_stopping_leaves_the_adapter_as_it_was(adapter, quick) -> None:
    before = adapter.read_bytes()
    with pytest.raises(CancelledError):
        scale_scores(
            adapter, build_model("tiny"), disc_data("instance").images, "cpu", lambda: True
        )
    assert adapter.read_bytes() == before


def test_without_a_picture_to_search_nothing_is_scaled(adapter, quick) -> None:
    """A training that came to its end does not fail for want of a threshold."""
    before = adapter.read_bytes()
    blank = from_arrays(
        [("blank", np.full((64, 64), 9, np.uint8), np.eye(64, dtype=np.int32), None)], "instance"
    )
    card = scale_scores(adapter, build_model("tiny"), blank.images, "cpu")
    assert "best_threshold" not in card.details
    assert adapter.read_bytes() == before


def test_the_search_is_that_for_particles() -> None:
    settings = [score_scale._search_settings(side) for side in (20, 120, 4000)]
    assert all(isinstance(s, AutomaticConfig) and s.skip_covered for s in settings)
    assert [s.points_per_side for s in settings] == [4, 10, 32]


def test_images_without_objects_do_not_take_the_place_of_others(
    adapter, quick, monkeypatch
) -> None:
    seen = []
    monkeypatch.setattr(score_scale, "best_threshold", lambda found: seen.extend(found) or 0.4)
    full = disc_data("instance").images
    images = [(i.name, i.rgb(), (n == 2) * i.label_array(), None) for n, i in enumerate(full)]
    scale_scores(adapter, build_model("tiny"), from_arrays(images, "instance").images, "cpu")
    assert [labels.max() > 0 for _, labels in seen] == [True]
    assert "best_threshold" in read_card(adapter).details
