"""The tools we compare with, built from their own packages and the bundled weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from phasesam.models.sam import import_segment_anything, import_segment_anything_hq

ROOT = Path(__file__).resolve().parents[1]
POWDER = ROOT.parent / "shared" / "data" / "ampis_powder"
WEIGHTS = ROOT / "src" / "phasesam" / "weights" / "mobile_sam.safetensors"


class FirstOutput(torch.nn.Module):
    """The published TinyViT also returns early features; SAM wants the embedding alone."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size = 1024

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)[0]


def published_tiny_vit() -> Any:
    """MobileSAM's encoder as segment_anything_hq builds it, with random weights."""
    import_segment_anything_hq()
    from segment_anything_hq.modeling.tiny_vit_sam import TinyViT

    return TinyViT(
        img_size=1024,
        embed_dims=[64, 128, 160, 320],
        depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )


def mobile_sam() -> Any:
    """MobileSAM of segment_anything's modules and segment_anything_hq's TinyViT."""
    package = import_segment_anything()
    modeling = package.modeling
    encoder = published_tiny_vit()
    decoder = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=modeling.TwoWayTransformer(
            depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
        ),
        transformer_dim=256,
    )
    prompts = modeling.PromptEncoder(
        embed_dim=256,
        image_embedding_size=(64, 64),
        input_image_size=(1024, 1024),
        mask_in_chans=16,
    )
    sam = modeling.Sam(encoder, prompts, decoder)
    state = {key: value.float() for key, value in load_file(WEIGHTS).items()}
    # The classifier head of the encoder is not shipped: nothing uses it.
    rest = sam.load_state_dict(state, strict=False)
    left = [key for key in rest.missing_keys if "norm_head" not in key and ".head." not in key]
    if left or rest.unexpected_keys:
        raise ValueError(f"weights do not fit: {left[:3]} {rest.unexpected_keys[:3]}")
    sam.image_encoder = FirstOutput(encoder)
    return sam.requires_grad_(False).eval()


def powder_images() -> list[Path]:
    """The labelled powder images; an empty list where the development data are not there."""
    labelled = sorted((POWDER / "labels_instance_particle").glob("*"))
    return [POWDER / "images" / f"{path.stem}.png" for path in labelled]


def powder_labels(image: Path) -> NDArray[np.int64]:
    """Ground truth of one of `powder_images`, (h, w)."""
    path = next((POWDER / "labels_instance_particle").glob(f"{image.stem}.*"))
    return np.asarray(Image.open(path)).astype(np.int64)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a picture as (h, w, 3) uint8."""
    return np.asarray(Image.open(path).convert("RGB"))
