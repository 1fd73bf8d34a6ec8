from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from phasesam.core.errors import InvalidSettingError
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import AdapterCard, attach, load_trainable, save_adapter, weights_hash
from phasesam.models.class_decoder import ClassDecoder, class_logits
from phasesam.models.sam import build_model

CONFIG = AdapterConfig(encoder=(), rank=4, decoder_rank=4, detail=False)


@pytest.fixture(scope="module")
def base():
    return build_model("tiny")


@pytest.fixture(scope="module")
def features():
    return torch.randn((2, 64, 64, 64), generator=torch.Generator().manual_seed(0))


def test_logits_of_a_batch_are_those_of_its_images(base, features):
    model = attach(base, CONFIG, n_classes=3).eval()
    with torch.inference_mode():
        both = class_logits(model, features)
        single = [class_logits(model, one[None])[0] for one in features]
    assert both.shape == (2, 3, 256, 256)
    torch.testing.assert_close(both, torch.stack(single), atol=1e-4, rtol=1e-4)


def test_a_new_class_starts_near_sams_own_mask(base, features):
    """Without noise a class token is SAM's token, which then stands in the row twice."""
    model = attach(base, CONFIG, n_classes=2).eval()
    with torch.inference_mode():
        model.class_decoder.tokens.copy_(base.mask_decoder.mask_tokens.weight[:1])
        first, second = class_logits(model, features[:1])[0]
    torch.testing.assert_close(first, second)
    assert first.std() > 0


def test_prompts_work_as_before(base, features):
    model = attach(base, CONFIG, n_classes=3).eval()
    sparse, dense = base.prompt_encoder(
        points=(torch.tensor([[[300.0, 400.0]]]), torch.ones(1, 1)), boxes=None, masks=None
    )
    options = {
        "image_embeddings": features[:1],
        "image_pe": base.prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": sparse,
        "dense_prompt_embeddings": dense,
        "multimask_output": True,
    }
    with torch.inference_mode():
        for found, wanted in zip(
            model.mask_decoder(**options), base.mask_decoder(**options), strict=True
        ):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_classes_learn_what_they_are_shown(base, features):
    model = attach(base, CONFIG, n_classes=2).train()
    target = (torch.arange(256)[None, :, None] >= 128).expand(1, 256, 256).long()
    shown = features[:1].clone()
    shown[:, :32, 32:] += 2
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=3e-3)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(class_logits(model, shown), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    assert all(p.grad is not None for p in model.class_decoder.parameters())
    assert losses[-1] < 0.3 * losses[0]


def test_class_tokens_travel_with_the_adapter(base, features, tmp_path):
    model = attach(base, CONFIG, n_classes=3, seed=5).eval()
    card = AdapterCard(CONFIG, "tiny", weights_hash(base), "semantic", ("a", "b", "c"))
    save_adapter(model, card, tmp_path / "a.safetensors")
    again, read = load_trainable(base, tmp_path / "a.safetensors")
    assert read.classes == ("a", "b", "c")
    with torch.inference_mode():
        found, wanted = (class_logits(m.eval(), features) for m in (again, model))
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)


@pytest.mark.parametrize("count", [1, 65])
def test_number_of_classes(base, count):
    with pytest.raises(InvalidSettingError, match=f"expected 2 to 64 classes, got {count}"):
        ClassDecoder(base.mask_decoder, count)


def test_detail_begins_as_no_correction_and_is_learnt_from_the_picture(base, features):
    """A line of two pixels, invisible in the features, is found by its picture."""
    plain = attach(base, CONFIG, n_classes=2)
    model = attach(base, replace(CONFIG, detail=True), n_classes=2)
    picture = torch.zeros(1, 3, 1024, 1024)
    picture[..., 100:102] = 3.0
    with torch.no_grad():
        small = class_logits(plain, features[:1])
        large = class_logits(model, features[:1], picture)
    expected = torch.nn.functional.interpolate(small, 512, mode="bilinear")
    torch.testing.assert_close(large, expected, atol=1e-4, rtol=1e-4)
    head = model.class_decoder.detail
    optimiser = torch.optim.Adam(head.parameters(), 0.02)
    weight = torch.tensor([1.0, 20.0])
    # A corner is enough, and a decoder that says nothing.
    part, flat = torch.zeros(1, 2, 64, 64), torch.zeros(1, head.known.in_channels - 2, 64, 64)
    target = torch.zeros(1, 128, 128, dtype=torch.long)
    target[..., 50] = 1
    for _ in range(40):
        optimiser.zero_grad()
        found = head(part, flat, picture[..., :256, :256])
        torch.nn.functional.cross_entropy(found, target, weight).backward()
        optimiser.step()
    predicted = found.argmax(1)[0]
    assert predicted[:, 50].float().mean() > 0.9
    assert predicted.float().mean() < 0.05


def test_detail_needs_the_picture(base, features):
    model = attach(base, replace(CONFIG, detail=True), n_classes=2)
    with pytest.raises(InvalidSettingError, match="the picture"):
        class_logits(model, features)
