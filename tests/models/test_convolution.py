from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from phasesam.models import convolution
from phasesam.models.convolution import Convolution, weight_gradient


@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 40), st.integers(1, 40)
)
@settings(max_examples=60, deadline=None)
def test_weight_gradient_is_that_of_torch(count, before, after, height, width):
    draw = torch.Generator().manual_seed(count + height * width)
    x = torch.randn((count, before, height, width), generator=draw, dtype=torch.float64)
    gradient = torch.randn((count, after, height, width), generator=draw, dtype=torch.float64)
    wanted = torch.nn.grad.conv2d_weight(x, (after, before, 3, 3), gradient, padding=1)
    torch.testing.assert_close(weight_gradient(x, gradient), wanted)


def test_maps_of_more_rows_than_fit_one_product():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn((2, 3, 70, 500), generator=draw, dtype=torch.float64)
    gradient = torch.randn((2, 4, 70, 500), generator=draw, dtype=torch.float64)
    wanted = torch.nn.grad.conv2d_weight(x, (4, 3, 3, 3), gradient, padding=1)
    torch.testing.assert_close(weight_gradient(x, gradient), wanted)


@pytest.fixture
def layer(monkeypatch):
    """As on a processor without AVX-512, whatever this one is."""
    monkeypatch.setattr(convolution, "_products_are_faster", lambda: True)
    torch.manual_seed(0)
    return Convolution(6, 8)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("frozen", ["nothing", "input", "weight"])
def test_layer_learns_what_torch_learns(layer, layout, frozen):
    x = torch.randn(2, 6, 20, 30).contiguous(memory_format=layout)
    x.requires_grad_(frozen != "input")
    layer.weight.requires_grad_(frozen != "weight")
    aim = torch.randn(2, 8, 20, 30)

    def gradients(answer):
        learnt = [t for t in (x, layer.weight, layer.bias) if t.requires_grad]
        return torch.autograd.grad((answer - aim).square().sum(), learnt)

    answer, wanted = layer(x), functional.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(answer, wanted)
    torch.testing.assert_close(gradients(answer), gradients(wanted), rtol=1e-4, atol=1e-4)


def test_layer_by_products_is_the_one_that_is_tested(layer):
    x = torch.randn(1, 6, 20, 30).contiguous(memory_format=torch.channels_last)
    assert "ByProducts" in type(layer(x).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        assert "ByProducts" not in type(layer(x).grad_fn).__name__
    with torch.no_grad():
        assert layer(x).grad_fn is None
