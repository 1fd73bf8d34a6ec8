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


def test_recordings_of_any_brightness_and_contrast_look_alike(inputs):
    head = trained_a_little(inputs)
    with torch.no_grad():
        found = head.alone(inputs[2])
        other = head.alone(40 * inputs[2] + 70)
    # What remains is the least variance.
    assert (found - other).abs().max() < 0.02 * found.std()
    assert found.std() > 0


def test_padding_is_not_looked_at(inputs):
    head, padded = trained_a_little(inputs), inputs[2].clone()
    padded[:, :, 128:] = 0
    with torch.no_grad():
        whole = head.alone(padded + 3 * (padded != 0))
        cut = head.alone((inputs[2] + 3)[:, :, :128])
    # Far from the border of the padding.
    torch.testing.assert_close(whole[:, :, :4], cut[:, :, :4], atol=0.02, rtol=0.05)


def test_a_picture_of_one_grey_gives_numbers(inputs):
    head = trained_a_little(inputs)
    for grey in (0.0, 1.5):
        assert torch.isfinite(head.alone(torch.full((1, 3, 64, 64), grey))).all()


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
