"""Targets of class maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import attach
from phasesam.models.sam import EncoderOutput, build_model
from phasesam.training.class_maps import class_targets, window_logits


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
    resized = np.zeros((512, 1024, 3), np.uint8)
    with torch.no_grad():
        assert window_logits(model, encoded, resized, (200, 400)).shape == (3, 200, 400)


@pytest.mark.parametrize("side", [256, 512])
def test_targets_have_the_size_of_the_maps(side: int) -> None:
    target, weight = class_targets(np.zeros((512, 1024), np.int32), 2, side)
    assert target.shape == (2, side, side)
    assert weight.sum() == side * side / 2
