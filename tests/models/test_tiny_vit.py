from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from phasesam.models.conv_bn import ConvBN
from phasesam.models.sam import import_segment_anything_hq
from phasesam.models.tiny_vit import TinyViT, TinyViTConfig

ORIGINAL = Path(__file__).parents[3] / "shared" / "weights" / "mobile_sam.pt"
# The published code recognises a transition without stride by its 320 channels.
SMALL = TinyViTConfig(dims=(8, 8, 16, 320), heads=(1, 2, 2, 10), depths=(1, 1, 1, 1))
SMALLEST = TinyViTConfig(
    dims=(8, 8, 16, 16), heads=(1, 1, 2, 2), depths=(1, 1, 1, 1), out_channels=8
)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Weights and running statistics that do something, unlike fresh ones."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(1 + 0.3 * noise.abs())
        elif tensor.ndim > 1 and "bias" not in name:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(0.3 * noise)


def reference(config: TinyViTConfig) -> nn.Module:
    import_segment_anything_hq()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from segment_anything_hq.modeling.tiny_vit_sam import TinyViT as Published

    return Published(
        img_size=1024,
        embed_dims=list(config.dims),
        depths=list(config.depths),
        num_heads=list(config.heads),
        window_sizes=list(config.windows),
        drop_path_rate=0.0,
        num_classes=3,
    )


def load_published(published: nn.Module, config: TinyViTConfig) -> TinyViT:
    state = published.state_dict()
    used = {k: v for k, v in state.items() if not k.startswith(("head.", "norm_head."))}
    ours = TinyViT(config)
    ours.load_state_dict(used, strict=True)
    return ours.eval().fuse()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def padded_image(height: int = 683) -> torch.Tensor:
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    image[:, :, height:] = 0
    return image


@torch.inference_mode()
def test_equals_the_published_encoder():
    published = reference(SMALL)
    randomise(published)
    # Its cache of attention biases is filled by eval(), so only now.
    published.eval()
    image = padded_image()
    expected, expected_intermediate = published(image)
    features, intermediate = load_published(published, SMALL)(image)
    assert features.shape == (1, 256, 64, 64)
    assert relative_error(features, expected) < 1e-5
    assert len(intermediate) == 1
    assert relative_error(intermediate[0], expected_intermediate[0]) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not ORIGINAL.exists(), reason="needs the original checkpoint in ../shared")
@torch.inference_mode()
def test_equals_the_published_encoder_with_its_weights():
    config = TinyViTConfig()
    published = reference(config)
    prefix = "image_encoder."
    state = torch.load(ORIGINAL, weights_only=True)
    encoder = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    missing, _ = published.load_state_dict(
        {k: v for k, v in encoder.items() if not k.startswith("head.")}, strict=False
    )
    assert set(missing) == {"head.weight", "head.bias"}
    published.eval()
    image = padded_image()
    expected, _ = published(image)
    features, _ = load_published(published, config)(image)
    assert relative_error(features, expected) < 1e-5


@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (200, 72), (33, 61)])
def test_strips_change_nothing(shape, monkeypatch):
    model = TinyViT(SMALLEST)
    randomise(model)
    model.eval().fuse()
    image = torch.randn(2, 3, *shape)
    whole = model(image)[0]
    assert whole.requires_grad
    monkeypatch.setattr("phasesam.models.tiny_vit._STRIP_PIXELS", 1)
    monkeypatch.setattr("phasesam.models.tiny_vit._STRIP_ELEMENTS", 1)
    with torch.inference_mode():
        in_strips = model(image)[0]
    torch.testing.assert_close(in_strips, whole.detach(), rtol=1e-4, atol=1e-4)
    assert whole.shape[2:] == tuple(-(-edge // 16) for edge in shape)


@torch.inference_mode()
def test_autocast_stays_close():
    model = TinyViT(SMALLEST)
    randomise(model)
    model.eval().fuse()
    image = torch.randn(1, 3, 256, 256)
    expected = model(image)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = model(image)[0].float()
    assert relative_error(found, expected) < 0.05


def test_folding_changes_neither_numbers_nor_names():
    model = TinyViT(SMALLEST)
    randomise(model)
    model.eval()
    names = list(model.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model(image)[0]
        found = model.fuse()(image)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert list(model.state_dict()) == names


def test_training_and_loading_undo_the_folding():
    layer = ConvBN(3, 5, 3, 2)
    randomise(layer)
    layer.eval().fuse()
    assert layer.fused_weight is not None
    other = ConvBN(3, 5, 3, 2)
    randomise(other, seed=1)
    image = torch.randn(1, 3, 9, 9)
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(layer(image), other.eval()(image))
    layer.fuse()
    layer.train()
    assert layer.fused_weight is None
    layer(image).sum().backward()
    assert layer.c.weight.grad is not None


def test_a_copy_is_independent():
    model = TinyViT(SMALLEST)
    randomise(model)
    model.eval().fuse()
    image = torch.randn(1, 3, 64, 64)
    twin = copy.deepcopy(model)
    with torch.inference_mode():
        expected = model(image)[0]
        for parameter in model.parameters():
            parameter.zero_()
        model.fuse()
        torch.testing.assert_close(twin(image)[0], expected)
        assert not torch.allclose(model(image)[0], expected)
