"""Targets of class maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.levels import Levels
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import attach
from phasesam.models.class_decoder import class_answers
from phasesam.models.sam import EncoderOutput, build_model
from phasesam.training.class_maps import class_targets, map_loss, window_logits
from phasesam.training.loss_config import LossConfig
from phasesam.training.losses import class_loss


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_targets_are_fractions_of_what_is_labelled(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.integers(8, 1024, 2)
    labels = rng.integers(-1, n, shape).astype(np.int32)
    target, weight = class_targets(labels, n)
    assert target.shape == (n, 256, 256)
    assert np.isclose(weight.sum().item() * 16, (labels >= 0).sum())
    total = target.sum(0)
    assert torch.allclose(total, (weight > 0).float(), atol=1e-6)
    for k in range(n):
        assert np.isclose((target[k] * weight).sum().item() * 16, (labels == k).sum(), rtol=1e-4)


def test_logits_have_the_size_of_the_picture() -> None:
    model = attach(build_model("tiny"), AdapterConfig(rank=2), n_classes=3)
    encoded = EncoderOutput(torch.zeros(1, 64, 64, 64))
    resized, levels = np.zeros((512, 1024, 3), np.uint8), Levels(100, 50)
    with torch.no_grad():
        assert window_logits(model, encoded, resized, levels, (200, 400)).shape == (3, 200, 400)


@pytest.mark.parametrize("side", [256, 512])
def test_targets_have_the_size_of_the_maps(side: int) -> None:
    target, weight = class_targets(np.zeros((512, 1024), np.int32), 2, side)
    assert target.shape == (2, side, side)
    assert weight.sum() == side * side / 2


def test_the_loss_can_judge_the_decoder_before_its_correction() -> None:
    """The coarse part is the same loss of the decoder's own logits, on targets of their size."""
    model = attach(build_model("tiny"), AdapterConfig(rank=2), n_classes=3)
    with torch.no_grad():
        model.class_decoder.detail.correct.weight.normal_(0, 0.1)
    rng = np.random.default_rng(0)
    encoded = EncoderOutput(torch.randn(1, 64, 64, 64))
    pictures = torch.randn(1, 3, 1024, 1024)
    labels = rng.integers(-1, 3, (16, 16)).repeat(64, 0).repeat(64, 1).astype(np.int32)
    fine, coarse = class_targets(labels, 3, 512), class_targets(labels, 3, 256)

    def loss(weight: float) -> float:
        config = LossConfig(coarse=weight)
        return map_loss(model, encoded, pictures, [fine], config).item()

    with torch.no_grad():
        own = class_answers(model, encoded.features, pictures)[1]
        wanted = class_loss(own, coarse[0][None], coarse[1][None], LossConfig()).item()
        assert loss(0.5) - loss(0) == pytest.approx(0.5 * wanted, rel=1e-4)
        plain = attach(build_model("tiny"), AdapterConfig(rank=2, detail=False), n_classes=3)
        both = class_answers(plain, encoded.features)
        assert both[0] is both[1]


def test_pieces_may_be_smaller_than_the_frame() -> None:
    labels = np.zeros((200, 256), np.int32)
    labels[:, 100:] = 1
    target, weight = class_targets(labels, 2, 128, 256)
    assert target.shape == (2, 128, 128)
    assert weight.sum() == 100 * 128
    assert (target[1] * weight).sum() == 100 * 78
