from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from phasesam.core.errors import CheckpointError, InvalidSettingError
from phasesam.models import tiny_vit
from phasesam.models.adapter_config import AdapterConfig, blocks_from, encoder_layers
from phasesam.models.adapters import (
    AdapterCard,
    adapter_tensors,
    attach,
    load_trainable,
    read_card,
    save_adapter,
    weights_hash,
)
from phasesam.models.conv_lora import ConvLoraLinear, balance_loss
from phasesam.models.merging import FoldedAdapter, merge
from phasesam.models.sam import build_model

KINDS = {
    "late": AdapterConfig(rank=4, decoder_rank=4),
    "all": AdapterConfig(blocks="all", rank=4, encoder=("qkv", "proj", "mlp"), dropout=0.1),
    "samed": AdapterConfig(encoder=("qv",), blocks="all", rank=4, rslora=False),
    "decoder": AdapterConfig(encoder=(), rank=4),
    "full decoder": AdapterConfig(encoder=(), decoder="full"),
    "iou": AdapterConfig(rank=2, iou_head=True),
    "conv": AdapterConfig("conv_lora", encoder=("qkv",), blocks="all", rank=4),
    "switch": AdapterConfig("conv_lora", encoder=("qkv", "proj"), blocks="all", rank=3,
                            gate="switch"),
    "published": AdapterConfig("conv_lora", encoder=("qkv",), blocks="all", rank=2, rslora=False,
                               alpha=32, gate="published", decoder="none"),
}  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return build_model("tiny")


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(1, 3, 1024, 1024)).astype(np.float32))


def disturbed(model, config, seed=1):
    """A model whose adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in adapter_tensors(model, config).values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return model


def outputs(model, picture):
    """Embedding, logits and scores of one click."""
    with torch.inference_mode():
        features = model.encode(picture).features
        sparse, dense = model.prompt_encoder(
            points=(torch.tensor([[[300.0, 400.0]]]), torch.ones(1, 1)), boxes=None, masks=None
        )
        logits, scores = model.mask_decoder(
            image_embeddings=features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    return features, logits, scores


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_nothing(base, picture, kind):
    model = attach(base, KINDS[kind]).eval()
    for found, expected in zip(outputs(model, picture), outputs(base, picture), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_goes_where_its_base_is(kind):
    """Viewers put adapters on models that are on a GPU already."""
    elsewhere = build_model("tiny").to("meta")
    model = attach(elsewhere, KINDS[kind], n_classes=3)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {b.device.type for b in model.buffers()} == {"meta"}


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(base, picture, tmp_path, kind):
    config = KINDS[kind]
    model = disturbed(attach(base, config), config).eval()
    card = AdapterCard(config, "tiny", weights_hash(base), details={"recipe": kind})
    save_adapter(model, card, tmp_path / "a.safetensors")
    assert read_card(tmp_path / "a.safetensors") == card
    again, _ = load_trainable(base, tmp_path / "a.safetensors")
    expected = outputs(model, picture)
    for found, wanted in zip(outputs(again.eval(), picture), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    plain = outputs(base, picture)
    assert any(not torch.allclose(a, b, atol=1e-3) for a, b in zip(expected, plain, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_folded_is_the_same_and_strength_zero_is_the_base(base, picture, kind):
    config = KINDS[kind]
    model = disturbed(attach(base, config), config).eval()
    expected = outputs(model, picture)
    folded = FoldedAdapter(model, base, config)
    for found, wanted in zip(outputs(model, picture), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    folded.set_strength(0)
    for found, wanted in zip(outputs(model, picture), outputs(base, picture), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    folded.set_strength(1)
    for found, wanted in zip(outputs(model, picture), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_the_base_stays_as_it_is(base, picture):
    before = weights_hash(base)
    for config in KINDS.values():
        model = disturbed(attach(base, config), config)
        FoldedAdapter(model, base, config)
    assert weights_hash(base) == before
    assert not any(p.requires_grad for p in base.parameters())
    assert not any("lora" in name for name, _ in base.named_modules())


@pytest.mark.parametrize("kind", ["late", "all", "samed", "decoder", "iou", "full decoder"])
def test_merged_has_the_names_of_the_base(base, picture, kind):
    config = KINDS[kind]
    model = disturbed(attach(base, config), config).eval()
    expected = outputs(model, picture)
    merged = merge(model, base, config)
    assert list(merged.state_dict()) == list(base.state_dict())
    fresh = build_model("tiny")
    fresh.load_state_dict(merged.state_dict(), strict=True)
    for found, wanted in zip(outputs(fresh, picture), expected, strict=True):
        assert (found - wanted).norm() < 1e-5 * wanted.norm()


def test_conv_lora_and_class_tokens_cannot_be_merged(base):
    config = KINDS["conv"]
    with pytest.raises(InvalidSettingError, match="Conv-LoRA cannot be merged"):
        merge(attach(base, config), base, config)
    with pytest.raises(InvalidSettingError, match="class tokens cannot be merged"):
        merge(attach(base, KINDS["late"], 3), base, KINDS["late"])


@pytest.mark.parametrize("missing", [True, False])
def test_files_that_do_not_hold_what_the_card_says(base, tmp_path, missing):
    config = KINDS["conv"]
    path = tmp_path / "a.safetensors"
    card = AdapterCard(config, "tiny", weights_hash(base))
    save_adapter(attach(base, config), card, path)
    state = load_file(path)
    name = sorted(state)[3]
    if missing:
        del state[name]
    else:
        state["image_encoder.something"] = torch.ones(2)
    save_file(state, path, {"card": card.to_json()})
    count = "1 tensors are missing" if missing else "1 unexpected"
    with pytest.raises(CheckpointError, match=count):
        load_trainable(base, path)


@pytest.mark.parametrize(("stored", "claimed"), [("late", "conv"), ("conv", "late")])
def test_one_kind_does_not_pass_for_the_other(base, tmp_path, stored, claimed):
    path = tmp_path / "a.safetensors"
    save_adapter(
        attach(base, KINDS[stored]), AdapterCard(KINDS[stored], "tiny", weights_hash(base)), path
    )
    card = AdapterCard(KINDS[claimed], "tiny", weights_hash(base))
    save_file(load_file(path), path, {"card": card.to_json()})
    with pytest.raises(CheckpointError, match="does not hold what its card says"):
        load_trainable(base, path)


def test_another_base_is_refused(base, tmp_path):
    path = tmp_path / "a.safetensors"
    config = KINDS["late"]
    save_adapter(attach(base, config), AdapterCard(config, "tiny", "0" * 64), path)
    with pytest.raises(CheckpointError, match="made for other weights"):
        load_trainable(base, path)


def test_damaged_files(base, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nonsense" * 10)
    with pytest.raises(CheckpointError, match="cannot be read as an adapter"):
        read_card(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="it has no card"):
        read_card(path)
    save_file({"a": torch.ones(1)}, path, {"card": json.dumps({"format": "other"})})
    with pytest.raises(CheckpointError, match="card of the adapter is damaged"):
        read_card(path)


@pytest.mark.parametrize("gate", ["dense", "switch"])
def test_the_task_trains_the_gate(base, picture, gate):
    config = AdapterConfig("conv_lora", encoder=("qkv",), blocks="all", rank=4, gate=gate)
    model = disturbed(attach(base, config), config).train()
    model.encode(picture[..., :]).features.square().mean().backward()
    for module in model.modules():
        if isinstance(module, ConvLoraLinear):
            gradient = module.lora_mixture["default"].gate.weight.grad
            assert gradient is not None
            assert gradient.abs().max() > 0


def test_the_published_gate_learns_from_balance_only(base, picture):
    config = AdapterConfig("conv_lora", encoder=("qkv",), blocks="all", rank=2, gate="published")
    model = disturbed(attach(base, config), config).train()
    model.encode(picture).features.square().mean().backward()
    gates = [
        m.lora_mixture["default"].gate for m in model.modules() if isinstance(m, ConvLoraLinear)
    ]
    assert all(gate.weight.grad is None for gate in gates)
    model.encode(picture)
    loss = balance_loss(model)
    assert loss is not None
    loss.backward()
    assert any(gate.weight.grad is not None for gate in gates)


@pytest.mark.parametrize("blocks", ["block3", "stage2", "stage9.block1"])
def test_blocks_that_are_not_there(base, blocks):
    with pytest.raises(InvalidSettingError, match=r"has no .* 2 blocks|blocks must"):
        encoder_layers(base, AdapterConfig(blocks=blocks))


def test_stages_that_are_not_there():
    tiny_vit = build_model("mobile_sam")
    for blocks in ("block3", "stage4.block3"):
        with pytest.raises(InvalidSettingError, match="4 stages"):
            encoder_layers(tiny_vit, AdapterConfig(blocks=blocks))


@pytest.mark.parametrize(
    ("layer", "blocks"),
    [
        ("block1", "all"), ("block7", "block7"), ("stage1.block2", "all"), ("stage1.out", "stage2"),
        ("stage3.block4", "stage3.block4"), ("stage3.out", "stage4"), ("neck", None),
    ],
)  # fmt: skip
def test_a_layer_says_where_to_begin(layer, blocks):
    assert blocks_from(layer) == blocks
    if blocks is not None:
        AdapterConfig(blocks=blocks)


def test_late_blocks_and_patch_embedding(base):
    second = encoder_layers(base, AdapterConfig(blocks="block2"))
    assert second == encoder_layers(base, AdapterConfig())
    assert encoder_layers(base, AdapterConfig()) == [
        "image_encoder.blocks.1.attn.qkv", "image_encoder.blocks.1.attn.proj",
    ]  # fmt: skip
    everything = encoder_layers(base, AdapterConfig(blocks="all", encoder=("qkv", "proj", "mlp")))
    assert len(everything) == 8
    assert not any("patch_embed" in name or "decoder" in name for name in everything)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (AdapterConfig(rank=4, encoder=("qkv", "proj", "mlp")), 32),
        (AdapterConfig(rank=4, encoder=("qkv",), blocks="stage2"), 10),
        (AdapterConfig(rank=4, encoder=("qkv",), blocks="stage3"), 8),
        (AdapterConfig(rank=4, encoder=("qkv",), blocks="stage3.block3"), 6),
        (AdapterConfig(rank=4, encoder=("qkv",), blocks="stage4.block2"), 1),
        (AdapterConfig("conv_lora", encoder=("qkv", "proj"), rank=4), 16),
        (AdapterConfig(encoder=("qv",), blocks="all", rank=4), 10),
    ],
)
def test_tiny_vit(picture, config, count, monkeypatch):
    """Strips, chunks and folded normalisation of the encoder leave adapters alone."""
    picture = picture[..., :512, :512]
    # As many chunks as in a picture of 1024 pixels.
    monkeypatch.setattr(tiny_vit, "_STRIP_ELEMENTS", tiny_vit._STRIP_ELEMENTS // 4)
    monkeypatch.setattr(tiny_vit, "_STRIP_PIXELS", tiny_vit._STRIP_PIXELS // 4)
    base = build_model("mobile_sam")
    assert len(encoder_layers(base, config)) == count
    model = disturbed(attach(base, config), config).eval()
    trained = model.encode(picture).features.detach()
    with torch.inference_mode():
        inferred = model.encode(picture).features
        plain = base.encode(picture).features
        FoldedAdapter(model, base, config)
        folded = model.encode(picture).features
    assert (trained - plain).norm() > 1e-2 * plain.norm()
    for found in (inferred, folded):
        assert (found - trained).norm() < 1e-5 * trained.norm()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dora"}, "method must be one of lora, conv_lora, got 'dora'"),
        ({"encoder": ("qkv", "qv")}, "qkv or qv, not both"),
        ({"encoder": ("k",)}, "encoder takes some of"),
        ({"method": "conv_lora", "encoder": ("qv",)}, r"adapts qkv and proj .* got \['qv'\]"),
        ({"method": "conv_lora", "encoder": ("mlp",)}, "adapts qkv and proj"),
        ({"rank": 0}, "rank must be a whole number from 1, got 0"),
        ({"alpha": float("nan")}, "alpha must be a positive number"),
        ({"dropout": 1.0}, "dropout must be within 0"),
        ({"encoder": (), "decoder": "none"}, "the adapter changes nothing"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(InvalidSettingError, match=message):
        AdapterConfig(**settings)


def test_who_listens_to_the_base_does_not_listen_to_an_adapted_model() -> None:
    """The layers of a base are looked at for a while, in which an adapter may be loaded."""
    base = build_model("tiny")
    heard: list[object] = []
    block = next(iter(base.image_encoder.children()))
    handles = [
        block.register_forward_hook(lambda *given: heard.append(given)),
        block.register_forward_pre_hook(lambda *given: heard.append(given)),
    ]
    adapted = attach(base, AdapterConfig(rank=2))
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        adapted.image_encoder(torch.zeros(1, 3, base.image_size, base.image_size))
    assert heard == []
