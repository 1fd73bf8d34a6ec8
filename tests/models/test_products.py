"""Both libraries give the same numbers, whichever is the faster one on this processor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from phasesam.models import products
from phasesam.models.products import apply_linear, multiply, product

# Results are large enough for oneDNN, too, which is what gradients are products of.
ROWS = (3, 400, 64)


@pytest.fixture(params=[True, False], ids=["oneDNN", "BLAS"])
def library(request, monkeypatch):
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: request.param)
    return request.param


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1000, 64), (3, 5, 200, 64), (10, 64), (0, 64)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_product_equals_linear(shape, with_bias, library):
    x, weight = random(*shape), random(24, 128)[:, ::2]
    bias = random(48, seed=1)[::2] if with_bias else None
    expected = nn.functional.linear(
        x.double(), weight.double(), bias if bias is None else bias.double()
    )
    with torch.inference_mode():
        found = product(x, weight, bias)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous()


def gradients(compute, learning: str, dtype=torch.float32):
    """Result and gradients of what learns: x, the weight (w) or the bias (b)."""
    leaves = {"x": random(*ROWS), "w": random(24, 64, seed=1), "b": random(24, seed=2)}
    leaves = {n: t.to(dtype).requires_grad_(n in learning) for n, t in leaves.items()}
    y = compute(*leaves.values())
    (y.sin() * random(*y.shape, seed=3)).sum().backward()
    return [y, *(leaves[name].grad for name in learning)]


@pytest.mark.parametrize("learning", ["x", "w", "b", "xwb"])
def test_gradients_equal_those_of_linear(learning, library):
    expected = gradients(nn.functional.linear, learning, torch.float64)
    for one, other in zip(gradients(product, learning), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-3)


def test_a_product_without_bias_has_gradients(library):
    x = random(*ROWS).requires_grad_()
    weight = random(24, 64)
    product(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(x.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("library", [True], indirect=True)
def test_tokens_are_kept_only_for_weights_that_learn(library):
    x = random(*ROWS).requires_grad_()
    frozen, learning = random(24, 64), random(24, 64).requires_grad_()
    assert product(x, frozen).grad_fn.saved_tensors[0] is None
    assert product(x, learning).grad_fn.saved_tensors[0] is not None


@pytest.mark.parametrize("library", [True], indirect=True)
def test_onednn_is_what_is_tested(library):
    x, weight = random(*ROWS).requires_grad_(), random(24, 64)
    assert "Product" in product(x, weight).grad_fn.name()
    assert "Product" not in product(x[:1, :10], weight).grad_fn.name()
    with torch.autocast("cpu", torch.bfloat16):
        lower = product(x, weight)
    assert lower.dtype == torch.bfloat16
    assert product(x.double(), weight.double()).dtype == torch.float64


@pytest.mark.parametrize("turned", [False, True])
def test_multiply_equals_matmul(turned, library):
    first, second = random(700, 64), random(700, 24, seed=1)
    if turned:
        found, expected = multiply(first.T, second), first.double().T @ second.double()
    else:
        found, expected = multiply(first, second[:64]), first.double() @ second[:64].double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_apply_linear_is_the_layer(library):
    layer = nn.Linear(64, 24)
    torch.testing.assert_close(
        apply_linear(layer, random(*ROWS)), layer(random(*ROWS)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("name", "is_intel"), [("Intel(R) Xeon(R)", True), ("AMD EPYC", False)])
def test_library_is_chosen_by_processor(name, is_intel, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name}, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    has = torch.backends.mkldnn.is_available()
    assert products._onednn_is_faster.__wrapped__() == (has and not is_intel)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not products._onednn_is_faster.__wrapped__()
