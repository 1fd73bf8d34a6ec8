from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from phasesam.models.detail_head import DetailHead


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
