from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from phasesam.core.levels import intensity_levels
from phasesam.models.detail_head import DetailHead, detail_picture


@pytest.fixture(scope="module")
def inputs():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 64, 64), generator=draw)
    fine = torch.randn((2, 8, 64, 64), generator=draw)
    pictures = torch.randn((2, 3, 256, 256), generator=draw)
    return logits, fine, pictures


def make_head():
    torch.manual_seed(0)
    return DetailHead(3, channels=8)


def test_it_begins_as_no_correction(inputs):
    with torch.no_grad():
        found = make_head()(*inputs)
    wanted = functional.interpolate(inputs[0], (128, 128), mode="bilinear", align_corners=False)
    assert torch.equal(found, wanted)


def test_images_of_a_batch_do_not_touch_each_other(inputs):
    head = trained_a_little(inputs)
    with torch.no_grad():
        both = head(*inputs)
        alone = head(*(tensor[1:] for tensor in inputs))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_gradients_reach_what_the_decoder_says(inputs):
    logits, fine = (tensor.clone().requires_grad_() for tensor in inputs[:2])
    head = trained_a_little(inputs)
    head(logits, fine, inputs[2]).square().mean().backward()
    assert logits.grad.abs().max() > 0
    assert fine.grad.abs().max() > 0
    assert all(weight.grad.abs().max() > 0 for weight in head.parameters())


def test_recordings_of_any_brightness_and_contrast_look_alike():
    rgb = np.random.default_rng(0).integers(60, 120, (40, 64, 3)).astype(np.uint8)
    brighter = (2 * rgb.astype(int) + 10).astype(np.uint8)
    pictures = [detail_picture(image, intensity_levels(image), 64) for image in (rgb, brighter)]
    torch.testing.assert_close(pictures[0], pictures[1], atol=1e-4, rtol=1e-4)
    shown = pictures[0][..., :40, :]
    assert shown.mean().abs() < 1e-4
    assert abs(shown.std() - 1) < 1e-3
    assert not pictures[0][..., 40:, :].any()


def test_a_part_keeps_the_brightness_that_tells_its_phase():
    """Pieces of one phase each: alike in themselves, not in the image that they are of."""
    rgb = np.zeros((64, 128, 3), np.uint8)
    rgb[:, :64], rgb[:, 64:] = 50, 200
    levels = intensity_levels(rgb)
    dark, bright = (detail_picture(part, levels, 64) for part in (rgb[:, :64], rgb[:, 64:]))
    torch.testing.assert_close(dark, torch.full((1, 3, 64, 64), -1.0))
    torch.testing.assert_close(bright, torch.full((1, 3, 64, 64), 1.0))


def test_an_image_of_one_grey_has_no_scatter_to_divide_by():
    levels = intensity_levels(np.full((300, 20, 3), 77, np.uint8))
    assert (levels.mean, levels.deviation) == (77, 5)


def test_what_it_learnt_alone_stays_when_the_decoder_comes(inputs):
    head = make_head()
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(3):
        loss = functional.cross_entropy(
            head.alone(inputs[2]), torch.zeros((2, 128, 128), dtype=torch.long)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        alone = head.alone(inputs[2])
        found = head(*inputs)
    decoder = functional.interpolate(inputs[0], (128, 128), mode="bilinear", align_corners=False)
    assert alone.abs().max() > 0
    torch.testing.assert_close(found, decoder + alone)


def trained_a_little(inputs):
    head = make_head()
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    target = torch.zeros((2, 128, 128), dtype=torch.long)
    for _ in range(3):
        loss = functional.cross_entropy(head(*inputs), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    optimiser.zero_grad()
    return head
