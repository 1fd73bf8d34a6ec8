"""Merged checkpoints in the tools that they are for."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam
from segment_anything.modeling import TwoWayTransformer as Transformer

from phasesam.core.errors import (
    CheckpointError,
    InvalidSettingError,
    SaveError,
    UnknownModelError,
)
from phasesam.models import registry
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import (
    AdapterCard,
    adapter_tensors,
    attach,
    load_trainable,
    save_adapter,
    weights_hash,
)
from phasesam.models.manager import ModelManager
from phasesam.models.merging import save_merged
from phasesam.models.model_spec import ModelSpec
from phasesam.models.registry import get_spec, import_checkpoint, register
from phasesam.models.sam import VIT_SIZES, build_model, import_segment_anything_hq

HQ = ModelSpec(name="tiny_hq", title="Tiny HQ", architecture="tiny", decoder="hq")
EVERYTHING = AdapterConfig(
    encoder=("qkv", "proj", "mlp"), blocks="all", rank=2, decoder_rank=2, iou_head=True
)


@pytest.fixture(autouse=True)
def _registry(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    register(HQ)


def discs():
    y, x = np.mgrid[:180, :256]
    inside = (y % 60 - 30) ** 2 + (x % 64 - 32) ** 2 < 400
    noise = np.random.default_rng(0).normal(0, 6, y.shape)
    grey = np.clip(70 + 110 * inside + noise, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@cache
def published(decoder):
    """The published modules in the sizes of "tiny", with weights of their own."""
    sizes = VIT_SIZES["tiny"]
    package = import_segment_anything_hq().modeling if decoder == "hq" else None
    vit = ImageEncoderViT if package is None else package.ImageEncoderViT
    heads = {"transformer_dim": sizes.prompt_dim,
             "transformer": Transformer(2, sizes.prompt_dim, 8, sizes.mlp_dim)}  # fmt: skip
    return Sam(
        vit(
            embed_dim=sizes.dim, depth=sizes.depth, num_heads=sizes.heads,
            out_chans=sizes.prompt_dim, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True, window_size=14, global_attn_indexes=sizes.global_blocks,
        ),
        PromptEncoder(sizes.prompt_dim, (64, 64), (1024, 1024), 16),
        MaskDecoder(**heads) if package is None
        else package.MaskDecoderHQ(num_multimask_outputs=3, vit_dim=sizes.dim, **heads),
    ).eval()  # fmt: skip


def ours(adapter, base, **prompt):
    """Masks of the adapter in our own engines."""
    from phasesam.engines.segmenter import Segmenter

    manager = ModelManager(device="cpu", precision="fp32")
    seg = Segmenter(discs(), base, adapter=adapter, manager=manager)
    return seg.predict(points=[(90.0, 96.0)], labels=[1], multimask_output=True)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_vit_loads_strictly_into_segment_anything(tmp_path, make_adapter, suffix):
    adapter = make_adapter(tmp_path / "a.safetensors", config=EVERYTHING)
    path = tmp_path / f"merged{suffix}"
    assert save_merged(adapter, path) == get_spec("tiny")
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    theirs = published("sam")
    theirs.load_state_dict(state, strict=True)
    predictor = SamPredictor(theirs)
    predictor.set_image(discs())
    masks, scores, logits = predictor.predict(np.array([[96, 90]]), np.array([1]))
    answer = ours(adapter, "tiny")
    assert np.linalg.norm(answer.logits - logits) < 1e-5 * np.linalg.norm(logits)
    np.testing.assert_allclose(answer.scores, scores, atol=1e-5)
    assert np.mean(answer.masks != masks) < 1e-4
    assert 0.01 < masks.mean() < 0.99
    base = ours(None, "tiny")
    assert np.linalg.norm(base.logits - logits) > 0.05 * np.linalg.norm(logits)


def test_sam_hq_loads_strictly_into_segment_anything_hq(tmp_path, make_adapter):
    config = AdapterConfig(rank=2, decoder_rank=2, hq="full")
    adapter = make_adapter(tmp_path / "a.safetensors", base="tiny_hq", config=config)
    path = tmp_path / "merged.pth"
    save_merged(adapter, path)
    theirs = published("hq")
    theirs.load_state_dict(torch.load(path, weights_only=True), strict=True)
    own = load_trainable(build_model(HQ), adapter)[0].eval()
    picture = own.preprocess(np.pad(discs(), ((0, 588), (0, 768), (0, 0))))
    with torch.inference_mode():
        features, interm = theirs.image_encoder(picture)
        output = own.encode(picture)
        torch.testing.assert_close(output.features, features, atol=1e-4, rtol=1e-4)
        sparse, dense = theirs.prompt_encoder(
            points=(torch.tensor([[[96.0, 90.0]]]), torch.ones(1, 1)), boxes=None, masks=None
        )
        arguments = {
            "image_pe": theirs.prompt_encoder.get_dense_pe(),
            "sparse_prompt_embeddings": sparse,
            "dense_prompt_embeddings": dense,
            "multimask_output": True,
            "hq_token_only": False,
        }
        expected, _ = theirs.mask_decoder(
            image_embeddings=features, interm_embeddings=interm, **arguments
        )
        found, _ = own.mask_decoder(
            image_embeddings=output.features,
            interm_embeddings=list(output.intermediate),
            **arguments,
        )
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("base", ["tiny", "tiny_hq", "mobile_sam"])
def test_our_own_registry_takes_it_in(tmp_path, make_adapter, base, suffix):
    adapter = make_adapter(tmp_path / "a.safetensors", base=base)
    path = tmp_path / f"merged{suffix}"
    save_merged(adapter, path)
    spec = import_checkpoint(path, "merged")
    assert (spec.architecture, spec.decoder) == (
        get_spec(base).architecture,
        get_spec(base).decoder,
    )
    if suffix == ".pth":
        found, expected = ours(None, "merged"), ours(adapter, base)
        error = np.linalg.norm(found.logits - expected.logits)
        assert error < 1e-5 * np.linalg.norm(expected.logits)


def test_half_of_an_adapter(tmp_path, make_adapter):
    adapter = make_adapter(tmp_path / "a.safetensors", config=EVERYTHING)
    states = []
    for strength in (0.0, 0.5, 1.0):
        save_merged(adapter, tmp_path / "m.safetensors", strength=strength)
        states.append(load_file(tmp_path / "m.safetensors"))
    base = build_model("tiny").state_dict()
    assert all(torch.equal(base[name], states[0][name]) for name in base)
    for name, tensor in states[1].items():
        torch.testing.assert_close(tensor, (states[0][name] + states[2][name]) / 2)


@pytest.mark.parametrize(
    ("config", "classes", "message"),
    [
        (AdapterConfig("conv_lora", encoder=("qkv",), rank=2), (), "what a token gets depends on"),
        (AdapterConfig(rank=2), ("matrix", "pore"), "class tokens cannot be merged"),
    ],
)
def test_what_cannot_be_merged(tmp_path, make_adapter, config, classes, message):
    adapter = make_adapter(tmp_path / "a.safetensors", config=config, classes=classes)
    with pytest.raises(InvalidSettingError, match=message):
        save_merged(adapter, tmp_path / "m.pth")
    assert not (tmp_path / "m.pth").exists()


def test_mistakes(tmp_path, make_adapter):
    adapter = make_adapter(tmp_path / "a.safetensors")
    with pytest.raises(InvalidSettingError, match=r"a checkpoint is called \*.safetensors"):
        save_merged(adapter, tmp_path / "m.onnx")
    with pytest.raises(InvalidSettingError, match="within 0–1"):
        save_merged(adapter, tmp_path / "m.pth", strength=2)
    with pytest.raises(SaveError, match="could not write"):
        save_merged(adapter, tmp_path / "gone" / "m.pth")
    with pytest.raises(CheckpointError, match="made for other weights"):
        save_merged(adapter, tmp_path / "m.pth", base="mobile_sam")
    with pytest.raises(UnknownModelError, match="no adapter"):
        save_merged("gone", tmp_path / "m.pth")
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["a.safetensors"]


@pytest.mark.slow
def test_vit_b(tmp_path):
    """A ViT-B of random weights, in full size."""
    torch.manual_seed(0)
    theirs = sam_model_registry["vit_b"]().eval()
    torch.save(theirs.state_dict(), tmp_path / "vit_b.pth")
    import_checkpoint(tmp_path / "vit_b.pth", "random_vit_b")
    base = build_model("random_vit_b")
    config = AdapterConfig(rank=4)
    model = attach(base, config)
    with torch.no_grad():
        for tensor in adapter_tensors(model, config).values():
            tensor += 0.02 * torch.randn(tensor.shape)
    adapter = tmp_path / "a.safetensors"
    save_adapter(model, AdapterCard(config, "random_vit_b", weights_hash(base)), adapter)
    del model, base
    save_merged(adapter, tmp_path / "merged.pth")
    predictor = SamPredictor(sam_model_registry["vit_b"](checkpoint=tmp_path / "merged.pth"))
    predictor.set_image(discs())
    masks, _, logits = predictor.predict(np.array([[96, 90]]), np.array([1]))
    answer = ours(adapter, "random_vit_b")
    assert np.linalg.norm(answer.logits - logits) < 1e-4 * np.linalg.norm(logits)
    assert np.mean(answer.masks != masks) < 1e-3


def test_a_mobile_sam_loads_strictly_into_other_tools(tmp_path, make_adapter):
    """They want TinyViT's own classifier, which nobody uses."""
    adapter = make_adapter(tmp_path / "a.safetensors", "mobile_sam", config=EVERYTHING)
    save_merged(adapter, tmp_path / "merged.pth")
    package = import_segment_anything_hq()
    registry = package.build_sam_baseline.sam_model_registry_baseline
    theirs = registry["vit_tiny"](checkpoint=str(tmp_path / "merged.pth")).eval()
    own = load_trainable(build_model("mobile_sam"), adapter)[0].eval()
    picture = own.preprocess(np.pad(discs(), ((0, 588), (0, 768), (0, 0))))
    with torch.inference_mode():
        features = theirs.image_encoder(picture)
        found = features[0] if isinstance(features, tuple) else features
        torch.testing.assert_close(own.encode(picture).features, found, atol=1e-4, rtol=1e-4)
