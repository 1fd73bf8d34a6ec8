"""Simulated prompts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.evaluation.clicker import next_click
from phasesam.training.clicks import click_in, correction, noisy_box
from phasesam.training.prompt_config import PromptTraining


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_corrections_are_errors_with_the_right_sign(seed: int, centre: bool) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.random((2, 9, 11)) < rng.random((2, 1, 1))
    valid = rng.random((9, 11)) < 0.8
    if not (truth & valid).any():
        return
    place, label = correction(predicted, truth, valid, rng, centre)
    assert label == int(truth[place])
    if ((predicted != truth) & valid).any():
        assert valid[place]
        assert predicted[place] != truth[place]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_central_corrections_reach_as_deep_as_the_benchmark(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = np.zeros((2, 20, 24), bool)
    for mask in (predicted, truth):
        y, x = rng.integers(0, 14, 2)
        mask[y : y + rng.integers(3, 8), x : x + rng.integers(3, 8)] = True
    everywhere = np.ones_like(truth)
    click = next_click(MaskCrop.from_array(truth), MaskCrop.from_array(predicted))
    if click is None:
        return
    place, label = correction(predicted, truth, everywhere, rng, centre=True)
    assert (place, bool(label)) == ((click.y, click.x), click.positive)


def test_without_an_error_the_object_is_clicked() -> None:
    truth = np.zeros((8, 8), bool)
    truth[2:4, 2:4] = True
    place, label = correction(truth, truth, np.ones_like(truth), np.random.default_rng(0), True)
    assert truth[place]
    assert label == 1


def test_the_centre_is_farthest_from_the_edge() -> None:
    region = np.zeros((20, 20), bool)
    region[3:12, 5:14] = True
    assert click_in(region, np.random.default_rng(0), centre=True) == (7, 9)


def test_boxes_are_a_tenth_off_at_most_a_few_times() -> None:
    mask = np.zeros((256, 256), bool)
    mask[50:150, 60:100] = True
    rng = np.random.default_rng(0)
    boxes = np.array([noisy_box(mask, rng) for _ in range(500)])
    exact = np.array([60, 50, 100, 150])
    assert np.abs(boxes.mean(0) - exact).max() < 1.5
    assert np.abs(boxes - exact).max() <= 20
    assert np.allclose((boxes - exact).std(0), [4, 10, 4, 10], rtol=0.25)


@pytest.mark.parametrize("changes", [{"rounds": 12}, {"objects": 0}, {"box_share": 1.5}])
def test_refuses_senseless_settings(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidSettingError):
        PromptTraining(**changes)  # type: ignore[arg-type]
