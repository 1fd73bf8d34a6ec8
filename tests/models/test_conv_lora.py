"""Experts at several scales, against torch's own interpolation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from phasesam.models.conv_lora import ScaleExpert, ScaleMixture


def plain(expert: ScaleExpert, z: torch.Tensor) -> torch.Tensor:
    size = z.shape[-2:]
    fine = [side * expert.scale for side in size]
    enlarged = functional.interpolate(z.float(), fine, mode="bicubic", align_corners=False)
    found = functional.gelu(expert.conv(enlarged.to(z.dtype)))
    return functional.interpolate(found.float(), size, mode="bicubic", align_corners=False)


@pytest.mark.parametrize("shape", [(1, 8, 64, 64), (25, 3, 14, 14), (2, 4, 7, 5)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_an_expert_interpolates_as_torch_does(shape, scale):
    torch.manual_seed(0)
    expert = ScaleExpert(shape[1], scale)
    with torch.inference_mode():
        expert(torch.zeros(shape))  # What is kept from here is no hindrance to gradients.
    found, expected = (torch.randn(shape, generator=torch.manual_seed(1)) for _ in range(2))
    results = []
    for z, ask in ((found, expert), (expected, lambda z: plain(expert, z))):
        z.requires_grad_()
        answer = ask(z)
        (gradient,) = torch.autograd.grad(answer.square().sum(), z)
        results.append((answer.detach(), gradient))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_half_precision_does_not_reach_the_weights_of_the_interpolation():
    torch.manual_seed(0)
    expert, z = ScaleExpert(4, 4), torch.randn(1, 4, 16, 16).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = expert(z).float(), plain(expert, z)
    assert float((ours - theirs).abs().max()) < 0.01 * float(theirs.abs().max())


@pytest.mark.parametrize("gate", ["dense", "switch", "published"])
def test_every_picture_is_mixed_for_itself(gate):
    torch.manual_seed(0)
    mixture = ScaleMixture(4, gate).eval()
    torch.nn.init.normal_(mixture.gate.weight)
    z = torch.randn(5, 4, 14, 14)
    alone = torch.cat([mixture(part) for part in z.split(1)])
    torch.testing.assert_close(mixture(z), alone, rtol=1e-4, atol=1e-5)
