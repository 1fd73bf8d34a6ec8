"""What tests of the engines share: a micrograph, a manager, the published SAMs, few threads."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from phasesam.engines import embedding_cache
from phasesam.engines.embedding_cache import EmbeddingCache
from phasesam.models.manager import ModelManager
from phasesam.models.registry import get_spec, locate
from phasesam.models.sam import VIT_SIZES, build_model, import_segment_anything_hq
from phasesam.simulation import Micrograph, ParticleConfig, simulate_particles


@pytest.fixture(scope="module", autouse=True)
def _few_threads() -> Iterator[None]:
    """Leave the other cores to others; small tensors gain nothing by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def micrograph() -> Micrograph:
    """Some forty powder particles on 192 x 256 pixels, grey, with ground truth."""
    config = ParticleConfig(shape=(192, 256), median_diameter=9, largest_diameter=25)
    return simulate_particles(config, seed=3)


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch) -> EmbeddingCache:
    """Replace the cache of embeddings, so that something is encoded."""
    cache = EmbeddingCache()
    monkeypatch.setattr(embedding_cache, "_cache", cache)
    return cache


@pytest.fixture(scope="module")
def manager() -> Iterator[ModelManager]:
    """A manager of its own, to look into; nothing may be on lease in the end."""
    manager = ModelManager(device="cpu", precision="fp32")
    yield manager
    assert [model.leases for model in manager.resident() if model.leases] == []
    manager.unload_all()


@pytest.fixture(scope="session")
def published() -> Callable[[str], Any]:
    """Return ``segment_anything.Sam`` with the weights of "tiny" or "mobile_sam"."""
    return cache(_published)


def _published(name: str) -> Any:
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    if name == "tiny":
        sizes = VIT_SIZES["tiny"]
        dim, mlp_dim = sizes.prompt_dim, sizes.mlp_dim
        encoder, state = _plain_vit(), build_model("tiny").state_dict()
    else:
        dim, mlp_dim = 256, 2048
        encoder = _published_tiny_vit()
        state = {k: v.float() for k, v in load_file(locate(get_spec(name))).items()}
    reference = Sam(
        encoder,
        PromptEncoder(dim, (64, 64), (1024, 1024), 16),
        MaskDecoder(transformer_dim=dim, transformer=TwoWayTransformer(2, dim, 8, mlp_dim)),
    )
    missing, unexpected = reference.load_state_dict(state, strict=False)
    # The head of the classifier that TinyViT once was is not shipped.
    assert [name for name in missing if "head" not in name] == []
    assert unexpected == []
    reference.requires_grad_(False).eval()
    if name != "tiny":
        reference.image_encoder = FirstOutput(encoder)
    return reference


class FirstOutput(torch.nn.Module):
    """The published TinyViT also returns early features, which SAM does not expect."""

    img_size = 1024

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)[0]


def _plain_vit() -> torch.nn.Module:
    from segment_anything.modeling import ImageEncoderViT

    sizes = VIT_SIZES["tiny"]
    return ImageEncoderViT(
        embed_dim=sizes.dim,
        depth=sizes.depth,
        num_heads=sizes.heads,
        out_chans=sizes.prompt_dim,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=sizes.global_blocks,
    )


def _published_tiny_vit() -> torch.nn.Module:
    import_segment_anything_hq()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from segment_anything_hq.modeling.tiny_vit_sam import TinyViT

        return TinyViT(
            img_size=1024,
            embed_dims=[64, 128, 160, 320],
            depths=[2, 2, 6, 2],
            num_heads=[2, 4, 5, 10],
            window_sizes=[7, 7, 14, 7],
            drop_path_rate=0.0,
            num_classes=1,
        )


@pytest.fixture(scope="session")
def smooth_logits() -> Callable[..., np.ndarray]:
    """Return a maker of seeded (256, 256) float32 logits with blobs, as a decoder makes them."""

    def make(seed: int = 0, scale: float = 6.0, waves: float = 4.0, shift: float = 0.0):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:256, :256] / 256
        plane = np.zeros((256, 256))
        for _ in range(6):
            ky, kx, phase = rng.uniform(-waves, waves, 3)
            plane += np.cos(2 * math.pi * (ky * y + kx * x) + phase)
        return (scale * plane / plane.std() + shift).astype(np.float32)

    return make
