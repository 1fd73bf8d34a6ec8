"""Adapters of SAM-HQ: its own parts trained by LoRA or whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from phasesam.core.errors import CheckpointError, InvalidSettingError
from phasesam.models import registry
from phasesam.models.adapter_config import AdapterConfig, hq_layers
from phasesam.models.adapter_loading import AdapterVersion, load_adapter
from phasesam.models.adapter_store import content_hash
from phasesam.models.adapters import (
    AdapterCard,
    adapter_tensors,
    attach,
    load_trainable,
    save_adapter,
    weights_hash,
)
from phasesam.models.mask_decoder import MultiPromptDecoder
from phasesam.models.merging import FoldedAdapter, merge
from phasesam.models.model_spec import ModelSpec
from phasesam.models.sam import EncoderOutput, build_model

HQ = ModelSpec(name="tiny_hq", title="Tiny HQ", architecture="tiny", decoder="hq")
KINDS = {
    "lora": (AdapterConfig(encoder=(), decoder="none", hq="lora", decoder_rank=3), 0),
    "full": (AdapterConfig(encoder=(), decoder="none", hq="full"), 0),
    "decoder and lora": (AdapterConfig(encoder=(), hq="lora", decoder_rank=2), 0),
    "everything whole": (AdapterConfig(encoder=(), decoder="full", hq="full"), 0),
    "whole decoder and lora": (
        AdapterConfig(encoder=(), decoder="full", hq="lora", decoder_rank=3), 0),
    "late and full": (AdapterConfig(rank=2, decoder_rank=2, hq="full", iou_head=True), 0),
    "late and lora": (AdapterConfig(rank=2, decoder_rank=2, hq="lora", rslora=False), 0),
    "conv and full": (AdapterConfig("conv_lora", encoder=("qkv",), rank=2, decoder_rank=2,
                                    hq="full"), 0),
    "classes": (AdapterConfig(rank=2, decoder_rank=2, hq="lora"), 3),
}  # fmt: skip
OWN_PARTS = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder",
             "embedding_maskfeature")  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return build_model(HQ)


@pytest.fixture(scope="module")
def encoded(base):
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.normal(size=(1, 3, 1024, 1024)).astype(np.float32))
    with torch.inference_mode():
        return picture, base.encode(picture)


def made(base, kind):
    """A model whose adapter does something."""
    config, n_classes = KINDS[kind]
    model = attach(base, config, n_classes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in adapter_tensors(model, config).values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return model.eval()


def saved(base, kind, path):
    config, n_classes = KINDS[kind]
    classes = tuple(f"c{i}" for i in range(n_classes))
    model = made(base, kind)
    task = "semantic" if classes else "promptable"
    save_adapter(model, AdapterCard(config, "tiny_hq", weights_hash(base), task, classes), path)
    return model


def answer(model, picture, output=None):
    """HQ logits and scores of one click, by the published decoder."""
    with torch.inference_mode():
        output = output or model.encode(picture)
        sparse, dense = model.prompt_encoder(
            points=(torch.tensor([[[300.0, 400.0]]]), torch.ones(1, 1)), boxes=None, masks=None
        )
        return model.mask_decoder(
            image_embeddings=output.features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            hq_token_only=False,
            interm_embeddings=list(output.intermediate),
        )


def fast_answer(model, output: EncoderOutput):
    """The same by the decoder that prompts and automatic masks use."""
    with torch.inference_mode():
        sparse, _ = model.prompt_encoder(
            points=(torch.tensor([[[300.0, 400.0]]]), torch.ones(1, 1)), boxes=None, masks=None
        )
        decoder = MultiPromptDecoder(model)
        context = decoder.context(output.features, output.intermediate)
        hidden, keys, scores = decoder.tokens(context, sparse)
        return decoder.masks(context, hidden, keys, (0,)).clone(), scores[:, :1]


def assert_close(found, expected, limit=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < limit * other.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(base, encoded, tmp_path, kind):
    model = saved(base, kind, tmp_path / "a.safetensors")
    again, card = load_trainable(base, tmp_path / "a.safetensors")
    assert card.config == KINDS[kind][0]
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    expected = answer(model, encoded[0])
    assert_close(answer(again.eval(), encoded[0]), expected, 1e-9)
    plain = answer(base, encoded[0])
    assert (expected[0] - plain[0]).norm() > 1e-2 * plain[0].norm()


@pytest.mark.parametrize("kind", KINDS)
def test_the_manager_s_model_computes_the_same(base, tmp_path, encoded, kind):
    path = tmp_path / "a.safetensors"
    slow = saved(base, kind, path)
    fast = load_adapter(base, AdapterVersion("a", path, content_hash(path)))
    with torch.inference_mode():
        output = slow.encode(encoded[0])
        folded = fast.encode(encoded[0])
    assert_close([folded.features, folded.intermediate[0]],
                 [output.features, output.intermediate[0]])  # fmt: skip
    assert_close(fast_answer(fast, folded), answer(slow, None, output), 1e-4)
    off = load_adapter(base, AdapterVersion("a", path, content_hash(path), strength=0.0))
    assert_close(fast_answer(off, encoded[1]), fast_answer(base, encoded[1]), 1e-6)


@pytest.mark.parametrize("kind", ["lora", "full", "late and full", "late and lora"])
def test_merged(base, encoded, kind):
    model = made(base, kind)
    expected = answer(model, encoded[0])
    merged = merge(model, base, KINDS[kind][0])
    fresh = build_model(HQ)
    fresh.load_state_dict(merged.state_dict(), strict=True)
    assert_close(answer(fresh, encoded[0]), expected)


def test_what_is_adapted(base):
    names = hq_layers(base)
    assert len(names) == 5
    assert all(name.split(".")[1] in OWN_PARTS for name in names)
    config = KINDS["full"][0]
    tensors = adapter_tensors(attach(base, config), config)
    assert {name.split(".")[1] for name in tensors} == set(OWN_PARTS)
    whole = AdapterConfig(encoder=(), decoder="full", hq="none")
    assert set(adapter_tensors(attach(base, whole), whole)) == {
        name for name, _ in base.named_parameters() if name.startswith("mask_decoder.")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_any_missing_tensor_is_noticed(base, tmp_path, kind):
    path = tmp_path / "a.safetensors"
    saved(base, kind, path)
    state = load_file(path)
    config, n_classes = KINDS[kind]
    classes = tuple(f"c{i}" for i in range(n_classes))
    task = "semantic" if classes else "promptable"
    card = AdapterCard(config, "tiny_hq", weights_hash(base), task, classes).to_json()
    for name in sorted(state)[:: max(1, len(state) // 4)]:
        save_file({k: v for k, v in state.items() if k != name}, path, {"card": card})
        with pytest.raises(CheckpointError, match="1 tensors are missing"):
            load_trainable(base, path)


def test_hq_adapters_do_not_go_on_plain_sam(base, tmp_path):
    path = tmp_path / "a.safetensors"
    saved(base, "late and full", path)
    plain = build_model("tiny")
    with pytest.raises(CheckpointError, match="made for other weights"):
        load_trainable(plain, path)
    # Even if its card says that it does.
    config = KINDS["late and full"][0]
    card = AdapterCard(config, "tiny", weights_hash(plain)).to_json()
    save_file(load_file(path), path, {"card": card})
    with pytest.raises(CheckpointError, match="does not hold what its card says"):
        load_trainable(plain, path)


@pytest.mark.parametrize("part", ["lora", "full"])
def test_plain_sam_has_nothing_of_it(part):
    config = AdapterConfig(encoder=(), decoder="none", hq=part)
    with pytest.raises(InvalidSettingError, match="nothing that the adapter would change"):
        attach(build_model("tiny"), config)


def test_strength_between(base, encoded):
    config = KINDS["late and full"][0]
    folded = FoldedAdapter(made(base, "late and full"), base, config)
    ends = []
    for strength in (0.0, 1.0):
        folded.set_strength(strength)
        ends.append({k: v.clone() for k, v in folded.model.state_dict().items()})
    folded.set_strength(0.25)
    for name, tensor in folded.model.state_dict().items():
        torch.testing.assert_close(tensor, ends[0][name] + 0.25 * (ends[1][name] - ends[0][name]))


def test_segmenter_uses_the_intermediate_features(tmp_path, monkeypatch, make_adapter):
    """Late LoRA moves features and early features do not; both belong to the embedding."""
    from phasesam.engines.segmenter import Segmenter
    from phasesam.models.manager import ModelManager

    monkeypatch.setattr(registry, "_REGISTERED", {**registry._REGISTERED, "tiny_hq": HQ})
    path = make_adapter(tmp_path / "a.safetensors", "tiny_hq", KINDS["late and lora"][0])
    manager = ModelManager(device="cpu", precision="fp32")
    image = np.random.default_rng(0).integers(0, 255, (96, 128), dtype=np.uint8)
    one, other = (Segmenter(image, "tiny_hq", adapter=a, manager=manager) for a in (None, path))
    plain, adapted = one.encode(), other.encode()
    assert len(adapted.intermediate) == 1
    assert not torch.allclose(plain.features, adapted.features, atol=1e-3)
    masks = [seg.predict(points=[(40.0, 50.0)]).logits for seg in (one, other)]
    assert not np.allclose(*masks, atol=0.1)


def test_strength_of_whole_weights_under_a_lora(base, encoded):
    kind = "whole decoder and lora"
    folded = FoldedAdapter(made(base, kind), base, KINDS[kind][0])
    whole = answer(folded.model, encoded[0])
    folded.set_strength(0.0)
    assert_close(answer(folded.model, encoded[0]), answer(base, encoded[0]))
    own = base.state_dict()
    for name, tensor in folded.model.state_dict().items():
        torch.testing.assert_close(tensor, own[name])
    folded.set_strength(1.0)
    assert_close(answer(folded.model, encoded[0]), whole)
