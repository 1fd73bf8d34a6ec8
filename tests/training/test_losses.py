"""Losses against monai's own and against figures computed by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceCELoss, DiceLoss

from phasesam.core.errors import InvalidSettingError
from phasesam.training.loss_config import LossConfig
from phasesam.training.losses import class_loss, mask_iou, mask_loss, pooled_mask


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_equals_monai_where_all_is_labelled() -> None:
    logits, target = noise(3, 1, 32, 32), (noise(3, 32, 32, seed=1) > 0).float()
    ours = mask_loss(logits, target, torch.ones(32, 32), LossConfig())[:, 0]
    theirs = DiceCELoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
    for i in range(3):
        expected = theirs(logits[i : i + 1], target[i : i + 1, None]).item()
        assert ours[i].item() == pytest.approx(expected, abs=1e-6)


def test_class_loss_equals_monai_where_all_classes_occur() -> None:
    logits = noise(2, 3, 16, 16)
    target = torch.nn.functional.one_hot(torch.arange(512).view(2, 16, 16) % 3, 3)
    target = target.permute(0, 3, 1, 2).float()
    dice = DiceLoss(softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target)
    cross = torch.nn.functional.cross_entropy(logits, target)
    ours = class_loss(logits, target, torch.ones(2, 16, 16), LossConfig(dice=0.8, pixels=0.2))
    assert ours.item() == pytest.approx((0.8 * dice + 0.2 * cross).item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["dice_ce", "dice_focal"])
def test_unlabelled_pixels_do_not_count(kind: str) -> None:
    config = LossConfig(kind=kind)  # type: ignore[arg-type]
    weight = torch.ones(16, 16)
    weight[:, 8:] = 0
    logits, target = noise(1, 2, 16, 16), (noise(1, 16, 16, seed=3) > 0).float()
    other_logits, other_target = logits.clone(), target.clone()
    other_logits[..., 8:] = 50.0
    other_target[..., 8:] = 1 - other_target[..., 8:]
    first = mask_loss(logits, target, weight, config)
    assert torch.equal(first, mask_loss(other_logits, other_target, weight, config))
    classes = torch.stack([target, 1 - target], 1)
    others = torch.stack([other_target, 1 - other_target], 1)
    first = class_loss(logits, classes, weight[None], config)
    second = class_loss(other_logits, others, weight[None], config)
    assert first.item() == pytest.approx(second.item(), abs=1e-6)


def test_a_class_that_does_not_occur_costs_no_dice() -> None:
    target = torch.zeros(1, 3, 8, 8)
    target[:, 0] = 1
    sure = torch.zeros(1, 3, 8, 8)
    sure[:, 0] = 20
    assert class_loss(sure, target, torch.ones(1, 8, 8), LossConfig()).item() < 1e-5


def test_focal_gradients_are_finite_for_perfect_masks() -> None:
    logits = torch.full((1, 1, 8, 8), 200.0, requires_grad=True)
    config = LossConfig("dice_focal")
    mask_loss(logits, torch.ones(1, 8, 8), torch.ones(8, 8), config).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_mask_iou_on_its_own_grid_is_iou(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, true, known = rng.random((3, 12, 12)) < rng.random((3, 1, 1))
    logits = torch.from_numpy(np.where(predicted, 1.0, -1.0))[None, None]
    found = mask_iou(logits, torch.from_numpy(true)[None], torch.from_numpy(known)).item()
    union = ((predicted | true) & known).sum()
    assert found == pytest.approx((predicted & true & known).sum() / union if union else 1.0)


def test_mask_iou_sees_finer_edges_than_the_decoder_has_pixels() -> None:
    """An edge between two pixels of the decoder is no error."""
    x = torch.arange(64) - 19.5
    fine = (x > 0).expand(1, 64, 64)
    logits = (x.view(16, 4).mean(1)).expand(1, 1, 16, 16)
    assert mask_iou(logits, fine, torch.ones(64, 64, dtype=torch.bool)).item() > 0.99


def test_pooled_mask_is_the_covered_fraction() -> None:
    mask = torch.zeros(8, 8)
    mask[:4, :3] = 1
    assert pooled_mask(mask, 2).tolist() == [[0.75, 0.0], [0.0, 0.0]]


def test_refuses_senseless_weights() -> None:
    with pytest.raises(InvalidSettingError):
        LossConfig(dice=0, pixels=0)
    with pytest.raises(InvalidSettingError, match="dice_ce"):
        LossConfig(kind="hinge")  # type: ignore[arg-type]
