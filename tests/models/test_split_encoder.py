"""The encoder in two parts gives what the whole gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import adapter_tensors, attach
from phasesam.models.registry import get_spec
from phasesam.models.sam import SamModel, _assemble, _generate_weights, build_model
from phasesam.models.split_encoder import SplitEncoder

LATE = AdapterConfig(rank=2)
CONFIGS = {
    "late": LATE,
    "all": replace(LATE, blocks="all"),
    "second block": replace(LATE, blocks="block2"),
    "one stage": replace(LATE, blocks="stage4.block2"),
    "decoder only": replace(LATE, encoder=()),
    "late conv": replace(LATE, method="conv_lora"),
}


def model(kind: str) -> SamModel:
    if kind == "mobile_sam":
        return build_model("mobile_sam")
    spec = get_spec("tiny")
    if kind == "tiny":
        return build_model(spec)
    with torch.device("meta"):
        made = _assemble(replace(spec, decoder="hq"))
    _generate_weights(made)
    return made.requires_grad_(False).eval()


def shaken(base: SamModel, config: AdapterConfig) -> SamModel:
    adapted = attach(base, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapter_tensors(adapted, config).values():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return adapted


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in ("tiny", "tiny hq") for name in CONFIGS if name != "one stage"),
        ("mobile_sam", "late"),
        ("mobile_sam", "one stage"),
    ],
)
def test_two_parts_make_the_whole(kind: str, name: str) -> None:
    config = CONFIGS[name]
    adapted = shaken(model(kind), config)
    split = SplitEncoder(adapted, config)
    picture = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = adapted.encode(picture.clone())
        frozen = split.frozen(picture.clone())
        kept = frozen.activation.clone()
        parts = split.trained(frozen)
    assert torch.equal(frozen.activation, kept)
    scale = whole.features.abs().max()
    assert (parts.features - whole.features).abs().max() < 1e-4 * scale
    assert len(parts.intermediate) == len(whole.intermediate) == int(kind == "tiny hq")
    for ours, theirs in zip(parts.intermediate, whole.intermediate, strict=True):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert (split.cut is None) == (name == "decoder only")


def test_nothing_before_the_cut_gets_a_gradient() -> None:
    adapted = shaken(model("tiny"), LATE)
    split = SplitEncoder(adapted, LATE)
    frozen = split.frozen(torch.zeros(1, 3, 1024, 1024))
    assert not frozen.activation.requires_grad
    split.trained(frozen).features.sum().backward()
    touched = [n for n, p in adapted.named_parameters() if p.grad is not None and p.grad.any()]
    assert touched
    assert all(".lora_" in name and "blocks.1." in name for name in touched)
