from __future__ import annotations

import pytest
import torch

from phasesam.models import training_decoder
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import adapter_tensors, attach
from phasesam.models.sam import build_model

CONFIG = AdapterConfig(rank=4, decoder_rank=4)
CHANNELS = build_model("tiny").prompt_encoder.embed_dim


@pytest.fixture(scope="module")
def model():
    """A tiny model whose decoder has an adapter that does something."""
    model = attach(build_model("tiny"), CONFIG)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in adapter_tensors(model, CONFIG).values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def prompts(model):
    generator = torch.Generator().manual_seed(2)
    places = torch.rand((3, 2, 2), generator=generator) * 1000
    masks = 5 * torch.randn((3, 1, 256, 256), generator=generator)
    return places, torch.tensor([[1.0, 0.0]] * 3), masks


def both(model, prompts, with_masks, scales):
    """Masks, scores, and gradients, by the published decoder and by ours."""
    places, labels, given = prompts
    encoder, decoder = model.prompt_encoder, model.mask_decoder
    features = torch.randn((1, CHANNELS, 64, 64), generator=torch.Generator().manual_seed(3))
    weights = [p for p in model.mask_decoder.parameters() if p.requires_grad]
    found = []
    for ours in (False, True):
        leaf = features.clone().requires_grad_()
        sparse, dense = encoder(
            points=(places, labels), boxes=None, masks=given if with_masks else None
        )
        position = encoder.get_dense_pe()
        if ours:
            none = encoder.no_mask_embed.weight
            masks, scores = training_decoder.predict_masks(
                decoder, leaf, position, (sparse, dense if with_masks else None, none), scales
            )
        else:
            masks, scores = decoder.predict_masks(leaf, position, sparse, dense)
            masks = masks[:, scales]
        loss = masks.square().mean() + scores.sum()
        gradients = torch.autograd.grad(loss, [leaf, *weights], allow_unused=True)
        found.append((masks.detach(), scores.detach(), *gradients))
    return found


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("scales", [slice(0, 4), slice(0, 1), slice(1, 4)])
def test_same_masks_and_gradients_as_the_published_decoder(model, prompts, with_masks, scales):
    published, ours = both(model, prompts, with_masks, scales)
    assert published[0].shape == ours[0].shape
    for expected, found in zip(published, ours, strict=True):
        assert (expected is None) == (found is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


def test_pixels_are_sorted_as_the_published_upscaling_leaves_them(model):
    keys = torch.randn((2, 64 * 64, CHANNELS), generator=torch.Generator().manual_seed(4))
    picture = keys.transpose(1, 2).reshape(2, CHANNELS, 64, 64)
    with torch.no_grad():
        expected = model.mask_decoder.output_upscaling(picture)
        found = training_decoder.sorted_pixels(
            training_decoder.upscale(model.mask_decoder, keys), 64
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_half_precision_stays_close(model, prompts):
    places, labels, _ = prompts
    encoder = model.prompt_encoder
    features = torch.randn((1, CHANNELS, 64, 64), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        sparse, _ = encoder(points=(places, labels), boxes=None, masks=None)
        embedded = (sparse, None, encoder.no_mask_embed.weight)
        arguments = (model.mask_decoder, features, encoder.get_dense_pe(), embedded, slice(0, 4))
        exact, _ = training_decoder.predict_masks(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            rounded, _ = training_decoder.predict_masks(*arguments)
    assert (rounded.float() - exact).abs().mean() < 0.03 * exact.abs().mean()
