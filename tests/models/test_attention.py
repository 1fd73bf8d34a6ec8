from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import nn

from phasesam.models.attention import FastBlock, _offsets, fast_attention
from phasesam.models.products import apply_linear
from phasesam.models.sam import import_segment_anything_hq


def encoder(kind: type = ImageEncoderViT, size: int = 640, dim: int = 48) -> nn.Module:
    """Two blocks, one with windows that need padding and one without, 40 x 40 tokens."""
    torch.manual_seed(0)
    model = kind(
        img_size=size,
        patch_size=16,
        embed_dim=dim,
        depth=2,
        num_heads=3,
        out_chans=16,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1,),
    )
    for name, parameter in model.named_parameters():
        if "pos" in name:
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def image(size: int = 640) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_equals_segment_anything():
    published = encoder()
    fast = fast_attention(copy.deepcopy(published))
    with torch.inference_mode():
        assert relative_error(fast(image()), published(image())) < 1e-5


@pytest.mark.parametrize("buffer", [1, 1 << 20])
def test_size_of_the_pieces_changes_nothing(buffer, monkeypatch):
    fast = fast_attention(encoder())
    with torch.inference_mode():
        expected = fast(image())
        monkeypatch.setattr("phasesam.models.attention._BUFFER_BYTES", buffer)
        assert relative_error(fast(image()), expected) < 1e-5


def test_half_precision_stays_close():
    published = encoder(size=160)
    fast = fast_attention(copy.deepcopy(published)).to(torch.bfloat16)
    with torch.inference_mode():
        found = fast(image(160).to(torch.bfloat16)).float()
        assert relative_error(found, published(image(160))) < 0.03


@pytest.mark.parametrize("gradients", [False, True])
def test_autocast_stays_close(gradients):
    published = encoder()
    fast = fast_attention(copy.deepcopy(published))
    with torch.inference_mode():
        expected = published(image())
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
        found = fast(image()).float()
    assert relative_error(found.detach(), expected) < 0.03


def test_equals_segment_anything_on_a_small_grid():
    published = encoder(size=160)
    fast = fast_attention(copy.deepcopy(published))
    with torch.inference_mode():
        assert relative_error(fast(image(160)), published(image(160))) < 1e-5


def test_equals_segment_anything_without_relative_positions():
    torch.manual_seed(0)
    published = ImageEncoderViT(
        img_size=160, embed_dim=32, depth=1, num_heads=2, out_chans=8, window_size=4
    ).eval()
    fast = fast_attention(copy.deepcopy(published))
    with torch.inference_mode():
        assert relative_error(fast(image(160)), published(image(160))) < 1e-5


def test_gradients_equal_segment_anythings():
    published = encoder(size=320)
    fast = fast_attention(copy.deepcopy(published))
    results = []
    for model in (published, fast):
        pixels = image(320).requires_grad_()
        output = model(pixels)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
        (output * weights).sum().backward()
        results.append((output.detach(), pixels.grad, dict(model.named_parameters())))
    assert relative_error(results[1][0], results[0][0]) < 1e-5
    assert relative_error(results[1][1], results[0][1]) < 1e-4
    for name, parameter in results[0][2].items():
        assert relative_error(results[1][2][name].grad, parameter.grad) < 1e-3, name


def test_equals_sam_hq_and_leaves_the_intermediate_features_alone():
    published = encoder(import_segment_anything_hq().modeling.ImageEncoderViT)
    fast = fast_attention(copy.deepcopy(published))
    with torch.inference_mode():
        expected, expected_intermediate = published(image())
        found, intermediate = fast(image())
    assert relative_error(found, expected) < 1e-5
    assert len(intermediate) == len(expected_intermediate) == 1
    assert relative_error(intermediate[0], expected_intermediate[0]) < 1e-5


def test_keeps_names_and_values_of_the_state_dict():
    published = encoder()
    before = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    after = fast_attention(published).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(isinstance(block, FastBlock) for block in published.blocks)


def test_input_of_a_block_is_left_alone():
    block = fast_attention(encoder()).blocks[0]
    tokens = torch.randn(1, 40, 40, 48)
    before = tokens.clone()
    with torch.inference_mode():
        block(tokens)
    assert torch.equal(tokens, before)


class Doubled(nn.Module):
    """A wrapped linear layer, as adapters wrap it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return 2 * self.layer(x)


@pytest.mark.parametrize("gradients", [False, True])
def test_wrapped_layers_are_called(gradients):
    fast = fast_attention(encoder(size=160))
    plain = copy.deepcopy(fast)
    for block in fast.blocks:
        block.attn.qkv = Doubled(block.attn.qkv)
        with torch.no_grad():
            block.attn.qkv.layer.weight /= 2
            block.attn.qkv.layer.bias /= 2
    with torch.set_grad_enabled(gradients):
        found, expected = fast(image(160)), plain(image(160))
    assert relative_error(found.detach(), expected.detach()) < 1e-5
    assert all(block.attn.qkv.calls > 0 for block in fast.blocks)


def test_hooks_of_linear_layers_are_called():
    layer = nn.Linear(64, 8)
    seen = []
    layer.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        apply_linear(layer, torch.randn(500, 64))
    assert len(seen) == 1


@pytest.mark.parametrize("size", [7, 14, 20])
def test_offsets_equal_segment_anythings_also_when_stretched(size):
    table = torch.randn(27, 4)
    torch.testing.assert_close(_offsets(table, size), get_rel_pos(size, size, table))
