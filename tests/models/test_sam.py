from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from phasesam.core.errors import CheckpointError, InvalidImageError, ModelError
from phasesam.models import sam
from phasesam.models.model_spec import ModelSpec
from phasesam.models.registry import get_spec, locate
from phasesam.models.sam import SamModel, build_model, check_weights

SHARED = Path(__file__).parents[3] / "shared"
ORIGINAL = SHARED / "weights" / "mobile_sam.pt"


@pytest.fixture(scope="module")
def tiny() -> SamModel:
    return build_model("tiny")


@pytest.fixture(scope="module")
def mobile() -> SamModel:
    return build_model("mobile_sam")


def micrograph(height: int, width: int) -> np.ndarray:
    """Bright discs on a dark ground."""
    y, x = np.mgrid[:height, :width]
    bright = (y % 160 - 80) ** 2 + (x % 200 - 100) ** 2 < 55**2
    noise = np.random.default_rng(0).integers(0, 20, (height, width))
    grey = (50 + 130 * bright + noise).astype(np.uint8)
    return np.stack([grey, grey, np.roll(grey, 3, 1)], axis=-1)


def predict(model: SamModel, x: torch.Tensor, points_xy: torch.Tensor) -> tuple:
    """Low-resolution logits and scores, one prompt per point, computed part by part."""
    features = model.encode(x).features
    labels = torch.ones(len(points_xy), 1)
    sparse, dense = model.prompt_encoder(
        points=(points_xy[:, None], labels), boxes=None, masks=None
    )
    return model.mask_decoder(
        image_embeddings=features,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )


def test_tiny_is_small_frozen_and_in_evaluation_mode(tiny):
    assert not tiny.training
    assert not any(parameter.requires_grad for parameter in tiny.parameters())
    assert {tensor.dtype for tensor in tiny.state_dict().values()} == {torch.float32}
    assert sum(parameter.numel() for parameter in tiny.parameters()) < 10**6
    assert (tiny.image_size, tiny.embed_size, tiny.is_hq) == (1024, 64, False)
    assert tiny.spec == get_spec("tiny")
    assert tiny.pixel_mean.flatten().tolist() == pytest.approx(tiny.spec.pixel_mean)


def test_tiny_is_the_same_every_time_and_leaves_the_random_numbers_alone(tiny):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = build_model(get_spec("tiny"))
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_can_be_trained_even_if_built_in_inference_mode():
    with torch.inference_mode():
        model = build_model("tiny")
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))


@torch.inference_mode()
def test_tiny_works_like_a_trained_model(tiny):
    logits, scores = predict(
        tiny, tiny.preprocess(micrograph(683, 1024)), torch.tensor([[100.0, 80.0], [500.0, 300.0]])
    )
    assert logits.shape == (2, 3, 256, 256)
    assert 0.5 < float(scores.mean()) < 1.1
    assert 1 < float(logits.std()) < 10
    share = (logits > 0).float().mean((2, 3))
    assert ((share > 0.01) & (share < 0.99)).all()
    assert not torch.allclose(logits[0], logits[1])


def test_preprocess_equals_segment_anything(mobile):
    from segment_anything.modeling import Sam

    reference = Sam(None, None, None)
    rgb = micrograph(683, 1024)
    reference.image_encoder = type("Encoder", (torch.nn.Module,), {"img_size": 1024})()
    expected = reference.preprocess(torch.from_numpy(rgb).permute(2, 0, 1)[None])
    found = mobile.preprocess(rgb)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((1025, 10, 3), np.uint8),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_preprocess_refuses_other_images(tiny, image):
    with pytest.raises(InvalidImageError, match=r"expected an"):
        tiny.preprocess(image)


def test_preprocess_is_exact_in_lower_precision(tiny):
    half = build_model("tiny").to(torch.bfloat16)
    rgb = micrograph(100, 80)
    assert torch.equal(half.preprocess(rgb), tiny.preprocess(rgb))
    with torch.inference_mode():
        assert half.encode(half.preprocess(rgb)).features.dtype == torch.bfloat16


@torch.inference_mode()
def test_parts_and_names_are_segment_anythings(tiny):
    """A state dict of ours loads into ``segment_anything.Sam`` and computes the same."""
    from functools import partial

    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    sizes = sam.VIT_SIZES["tiny"]
    reference = Sam(
        ImageEncoderViT(
            embed_dim=sizes.dim,
            depth=sizes.depth,
            num_heads=sizes.heads,
            out_chans=sizes.prompt_dim,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=sizes.global_blocks,
        ),
        PromptEncoder(sizes.prompt_dim, (64, 64), (1024, 1024), 16),
        MaskDecoder(
            transformer_dim=sizes.prompt_dim,
            transformer=TwoWayTransformer(2, sizes.prompt_dim, 8, sizes.mlp_dim),
        ),
    ).eval()
    reference.load_state_dict(tiny.state_dict(), strict=True)
    x = tiny.preprocess(micrograph(300, 1024))
    expected = reference.image_encoder(x)
    assert torch.allclose(tiny.encode(x).features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sam_hq_vit_b", "sam_hq_vit_tiny"])
def test_sam_hq_has_the_published_names(name):
    package = sam.import_segment_anything_hq()
    kind = "vit_b" if name.endswith("vit_b") else "vit_tiny"
    # The published TinyViT cannot be built without memory, and the other takes long with it.
    with torch.device("meta" if kind == "vit_b" else "cpu"), redirect_stdout(io.StringIO()):
        published = package.sam_model_registry[kind](checkpoint=None).state_dict()
    used = {
        name: tensor
        for name, tensor in published.items()
        if not name.startswith(("image_encoder.norm_head.", "image_encoder.head."))
    }
    check_weights(get_spec(name), used, "published")


@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_l", "sam_vit_h"])
def test_sam_has_the_published_names(name):
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        published = sam_model_registry[name.removeprefix("sam_")]().state_dict()
    check_weights(get_spec(name), published, "published")


@torch.inference_mode()
def test_light_sam_hq_computes_with_intermediate_features(tmp_path):
    """From random weights saved as a file, since the published ones are not here."""
    spec = ModelSpec("hq", "HQ", "vit_tiny", "hq", path=tmp_path / "hq.safetensors")
    with torch.device("meta"):
        names = sam._assemble(spec).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = load_file(locate(get_spec("mobile_sam")))
    for name, tensor in names.items():
        if name not in state:
            state[name] = 0.05 * torch.randn(tensor.shape, generator=generator)
    save_file(state, spec.path)
    model = build_model(spec)
    assert model.is_hq
    output = model.encode(model.preprocess(micrograph(64, 1024)))
    assert output.features.shape == (1, 256, 64, 64)
    assert [tuple(t.shape) for t in output.intermediate] == [(1, 64, 64, 160)]
    sparse, dense = model.prompt_encoder(
        points=(torch.tensor([[[100.0, 30.0]]]), torch.ones(1, 1)), boxes=None, masks=None
    )
    logits, scores = model.mask_decoder(
        image_embeddings=output.features,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        hq_token_only=False,
        interm_embeddings=output.intermediate,
    )
    assert logits.shape == (1, 1, 256, 256)
    assert scores.shape == (1, 1)


def test_plain_sam_is_no_sam_hq():
    spec = ModelSpec("claim", "Claim", "vit_tiny", "hq", path=get_spec("mobile_sam").path)
    with pytest.raises(CheckpointError, match=r"no SAM-HQ checkpoint.*hf_token"):
        build_model(spec)


def test_other_architecture_is_refused():
    spec = ModelSpec("claim", "Claim", "vit_b", path=get_spec("mobile_sam").path)
    with pytest.raises(CheckpointError, match=r"does not fit Claim: it lacks image_encoder"):
        build_model(spec)


def test_model_does_not_need_its_file_any_longer(tmp_path, tiny):
    torch.save(tiny.state_dict(), tmp_path / "tiny.pt")
    model = build_model(ModelSpec("mine", "Mine", "tiny", path=tmp_path / "tiny.pt"))
    (tmp_path / "tiny.pt").write_bytes(b"")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in tiny.state_dict().items())


def test_half_precision_weights_become_fp32(mobile):
    stored = load_file(locate(get_spec("mobile_sam")))
    assert {tensor.dtype for tensor in stored.values()} == {
        torch.float16,
        torch.float32,
        torch.int64,
    }
    kinds = {tensor.dtype for tensor in mobile.state_dict().values()}
    assert kinds == {torch.float32, torch.int64}


@pytest.mark.skipif(not ORIGINAL.exists(), reason="needs the original checkpoint in ../shared")
@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_masks_of_the_bundled_weights_agree_with_the_original_file(mobile, count):
    original = build_model(ModelSpec("original", "Original", "vit_tiny", path=ORIGINAL))
    photograph = next((SHARED / "data" / "ampis_powder" / "images").glob("*.png"))
    rgb = np.asarray(Image.open(photograph).convert("RGB").resize((1024, 683)))
    x = mobile.preprocess(rgb)
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(count, 2, generator=generator) * torch.tensor([1024.0, 683.0])
    overlaps = []
    for part in points.split(20):
        (logits, score), (other, other_score) = (predict(m, x, part) for m in (original, mobile))
        index = torch.arange(len(part)), score.argmax(1)
        one, two = logits[index][:, :171] > 0, other[index][:, :171] > 0
        overlaps.append((one & two).sum((1, 2)) / (one | two).sum((1, 2)))
        assert float((score - other_score).abs().max()) < 0.02
    assert float(torch.cat(overlaps).min()) >= 0.99


@pytest.mark.slow
@pytest.mark.skipif(not ORIGINAL.exists(), reason="needs the original checkpoint in ../shared")
@torch.inference_mode()
def test_masks_equal_those_of_the_published_packages(mobile):
    """Original file, TinyViT of segment-anything-hq, decoder of segment-anything."""
    package = sam.import_segment_anything_hq()
    original = build_model(ModelSpec("original", "Original", "vit_tiny", path=ORIGINAL))
    published = package.sam_model_registry_baseline["vit_tiny"]()
    published.load_state_dict(torch.load(ORIGINAL, weights_only=True), strict=True)
    x = mobile.preprocess(micrograph(683, 1024))
    points = torch.tensor([[100.0, 80.0], [300.0, 240.0], [512.0, 400.0], [990.0, 650.0]])
    expected = SamModel(
        mobile.spec, published.eval().image_encoder, original.prompt_encoder, original.mask_decoder
    )
    reference, _ = predict(expected, x, points)
    for model in (original, mobile):
        found, _ = predict(model, x, points)
        overlap = ((found > 0) & (reference > 0)).sum() / ((found > 0) | (reference > 0)).sum()
        assert float(overlap) >= 0.99


def test_mismatch_of_torch_and_torchvision_is_explained(monkeypatch):
    class Mismatch:
        def find_spec(self, name, path=None, target=None):
            if name == "segment_anything":
                raise RuntimeError("operator torchvision::nms does not exist")

    for name in [n for n in sys.modules if n.startswith("segment_anything")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Mismatch(), *sys.meta_path])
    with pytest.raises(ModelError, match=r"torchvision does not fit.*pip install"):
        build_model("tiny")


def test_building_prints_nothing_and_warns_of_nothing():
    code = "from phasesam.models.sam import build_model, import_segment_anything_hq as hq;"
    code += "build_model('mobile_sam'); hq()"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
