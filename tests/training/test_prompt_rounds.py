"""Prompts in rounds: targets, gradients, objectness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import adapter_tensors, attach
from phasesam.models.sam import EncoderOutput, SamModel, build_model
from phasesam.training.loss_config import LossConfig
from phasesam.training.prompt_config import PromptTraining
from phasesam.training.prompt_rounds import choose_objects, objectness_loss, prompt_losses

CONFIG = AdapterConfig(encoder=(), rank=2, decoder_rank=2, iou_head=True)


@pytest.fixture
def adapted() -> SamModel:
    return attach(build_model("tiny"), CONFIG)


@pytest.fixture
def encoded() -> EncoderOutput:
    generator = torch.Generator().manual_seed(0)
    return EncoderOutput(torch.randn(1, 64, 64, 64, generator=generator))


def squares(*sides: int, shape: tuple[int, int] = (512, 1024)) -> NDArray[np.int32]:
    labels = np.zeros(shape, np.int32)
    for number, side in enumerate(sides, 1):
        labels[40 : 40 + side, 200 * number - 100 : 200 * number - 100 + side] = number
    return labels


def test_targets_are_fractions_on_the_grid_of_the_decoder() -> None:
    labels = squares(102)
    labels[400:] = -1
    targets = choose_objects(labels, None, np.random.default_rng(0))
    assert targets is not None
    assert targets.masks.shape == (1, 256, 256)
    assert targets.masks.sum().item() * 16 == pytest.approx(102**2)
    assert targets.masks[0, 35, 26].item() == 0.5
    assert targets.valid.sum() == 100 * 256
    assert targets.background.sum() == 100 * 256 - 26**2


def test_specks_and_objects_without_an_outside_are_left_out() -> None:
    rng = np.random.default_rng(0)
    assert choose_objects(squares(6), None, rng) is None
    assert choose_objects(np.ones((512, 512), np.int32), None, rng) is None
    chosen = choose_objects(squares(6, 50, 60, 70), 2, rng)
    assert chosen is not None
    assert len(chosen.masks) == 2


def test_gradients_reach_every_part_from_every_round(
    adapted: SamModel, encoded: EncoderOutput
) -> None:
    targets = choose_objects(squares(50, 60, 70), None, np.random.default_rng(0))
    assert targets is not None
    config = PromptTraining(rounds=5, judged=3)
    leaf = encoded.features.requires_grad_()
    losses = list(
        prompt_losses(adapted, encoded, targets, (config, LossConfig()), np.random.default_rng(0))
    )
    assert len(losses) == 3
    for loss in losses:
        adapted.zero_grad()
        leaf.grad = None
        loss.backward()
        assert leaf.grad is not None
        assert leaf.grad.abs().sum() > 0
        for name, weight in adapter_tensors(adapted, CONFIG).items():
            # The other half of a new LoRA pair is zero and stays without gradient.
            if "lora_A" not in name:
                assert weight.grad is not None, name
                assert torch.isfinite(weight.grad).all()


def test_rounds_without_gradients_do_not_change_those_with(
    adapted: SamModel, encoded: EncoderOutput
) -> None:
    """Weights cast under autocast in a round without gradients must not be used again."""
    from phasesam.training.acceleration import make_accelerator
    from phasesam.training.fine_tuning import TrainingSettings
    from phasesam.training.run_folder import RunFolder

    targets = choose_objects(squares(50, 60), None, np.random.default_rng(0))
    assert targets is not None
    accelerator = make_accelerator(
        TrainingSettings(device="cpu", precision="bf16"), RunFolder("unused")
    )
    settings = (PromptTraining(rounds=4, judged=2), LossConfig())
    with accelerator.autocast():
        for loss in prompt_losses(adapted, encoded, targets, settings, np.random.default_rng(1)):
            adapted.zero_grad()
            loss.backward()
            grads = [w.grad for n, w in adapter_tensors(adapted, CONFIG).items() if "lora_B" in n]
            assert all(g is not None and g.any() for g in grads)


def test_objectness_wants_low_scores_on_background(
    adapted: SamModel, encoded: EncoderOutput
) -> None:
    background = np.ones((256, 256), bool)
    loss = objectness_loss(adapted, encoded, background, 3, np.random.default_rng(0))
    assert loss is not None
    loss.backward()
    head = adapted.mask_decoder.iou_prediction_head.layers[-1].bias.grad
    assert (head[1:] > 0).all()
    assert objectness_loss(adapted, encoded, ~background, 3, np.random.default_rng(0)) is None
    assert objectness_loss(adapted, encoded, background, 0, np.random.default_rng(0)) is None
