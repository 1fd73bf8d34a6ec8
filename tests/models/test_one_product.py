from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from phasesam.models import products
from phasesam.models.one_product import OneProductLinear


def layers(rank=4, **options):
    """The layer of peft and ours, with equal weights."""
    found = []
    for kind in (LoraLinear, OneProductLinear):
        torch.manual_seed(0)
        config = LoraConfig(r=rank, lora_alpha=8, **options)
        base = nn.Linear(12, 20).requires_grad_(False)
        layer = kind(base, "default", config=config, r=rank, lora_alpha=8)
        nn.init.normal_(layer.lora_B["default"].weight)
        found.append(layer)
    return found


def assert_same_as_peft(found, x, atol=1e-4):
    """Compare result and gradients of input and adapter."""
    results = []
    for layer in found:
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        weights = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        results.append((y, *torch.autograd.grad(y.square().sum(), [leaf, *weights])))
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("rslora", [False, True])
def test_the_same_results_and_gradients_as_peft(rslora, rank):
    """With narrow products backwards for the rank where these are cheaper, and without."""
    x = torch.randn(5, 7, 12, generator=torch.Generator().manual_seed(1))
    assert_same_as_peft(layers(rank, use_rslora=rslora), x)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("rank", [2, 4])
def test_many_tokens_by_the_other_library(rank, monkeypatch):
    """Few tokens are never given to oneDNN."""
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: True)
    x = torch.randn(3, 700, 12, generator=torch.Generator().manual_seed(1))
    assert_same_as_peft(layers(rank), x, atol=1e-3)


def test_narrow_products_are_used_where_they_save_something():
    x = torch.randn(3, 12)
    narrow, wide = (layers(rank)[1] for rank in (2, 4))
    assert "NarrowGradient" in narrow(x).grad_fn.name()
    assert "NarrowGradient" not in wide(x).grad_fn.name()
    with torch.autocast("cpu", torch.bfloat16):
        assert "NarrowGradient" not in narrow(x).grad_fn.name()
    with torch.no_grad():
        assert narrow(x).grad_fn is None
    narrow.base_layer.requires_grad_(True)
    assert "NarrowGradient" not in narrow(x).grad_fn.name()


def test_no_gradient_is_formed_for_inputs_that_need_none():
    layer = layers(2)[1]
    layer(torch.randn(3, 12)).sum().backward()
    assert layer.lora_B["default"].weight.grad.abs().max() > 0
    assert layer.base_layer.weight.grad is None


def test_second_derivatives_are_refused_rather_than_zero():
    layer = layers(2)[1]
    up = layer.lora_B["default"].weight
    y = layer(torch.randn(3, 12)).square().sum()
    (first,) = torch.autograd.grad(y, up, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_dropout_is_that_of_peft():
    x = torch.ones(3, 12)
    found = []
    for layer in layers(lora_dropout=0.5):
        torch.manual_seed(2)
        found.append(layer.train()(x))
    torch.testing.assert_close(found[0], found[1])


def test_without_its_adapter_it_is_the_base():
    layer = layers()[1]
    x = torch.randn(2, 12)
    layer.enable_adapters(False)
    torch.testing.assert_close(layer(x), layer.base_layer(x))


def test_small_changes_survive_half_precision():
    """In bf16, B A alone would be rounded before it is added."""
    layer = layers()[1]
    nn.init.constant_(layer.lora_B["default"].weight, 1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer._sum("default").dtype == torch.float32
