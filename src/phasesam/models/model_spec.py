"""What the registry knows about one model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Architecture = Literal["vit_b", "vit_l", "vit_h", "vit_tiny", "tiny"]
Decoder = Literal["sam", "hq"]


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the registry.

    Attributes
    ----------
    name : str
        Key by which the model is asked for.
    title : str
        Name for people.
    architecture : str
        Image encoder: ``"vit_b"``, ``"vit_l"``, ``"vit_h"`` of SAM, ``"vit_tiny"`` (TinyViT of
        MobileSAM), or ``"tiny"``, a two-block ViT with seeded weights for tests.
    decoder : str
        Mask decoder: ``"sam"`` or ``"hq"`` (SAM-HQ).
    url : str or None
        Where the weights are published; None if they are bundled, generated or the user's.
    sha256 : str or None
        Hexadecimal checksum of the weights file. Where the publisher gives none, the checksum of
        the first download is kept and later ones must match it.
    size_bytes : int or None
        Size of the weights file, if known; rounded unless `sha256` is given. A file that
        differs from a rounded size by more than 5 % is refused.
    licence : str
        SPDX identifier of the weights' licence, or ``"unknown"`` for imported ones.
    pixel_mean, pixel_std : tuple of float
        Per channel (RGB), on the scale 0..255: ``(pixel - mean) / std`` is what the encoder sees.
    source : str
        Project or publication page.
    description : str
        One sentence on what the model is good for.
    filename : str
        Name of the weights file on disk; empty when weights are generated.
    other_hash : str or None
        A checksum of another kind as ``"algorithm:hexadecimal"``, ``md5`` or ``xxh128``.
    path : Path or None
        Fixed place of the weights (bundled and imported ones).
    """

    name: str
    title: str
    architecture: Architecture
    decoder: Decoder = "sam"
    url: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    licence: str = "unknown"
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    source: str = ""
    description: str = ""
    filename: str = ""
    other_hash: str | None = None
    path: Path | None = None
