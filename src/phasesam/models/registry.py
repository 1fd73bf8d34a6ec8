"""Which models there are, and where their weights come from.

The table itself is in `phasesam.models.catalog`; checkpoints that a user imports are added to
it and remembered in the model folder. This module knows no torch, so listing models is cheap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from phasesam.core.errors import UnknownModelError
from phasesam.core.types import ProgressCallback, StopCallback

Architecture = Literal["vit_b", "vit_l", "vit_h", "vit_tiny", "tiny"]
Decoder = Literal["sam", "hq"]
Whereabouts = Literal["bundled", "on disk", "to download", "generated"]

DEFAULT_MODEL = "mobile_sam"
BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights"


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
        Hexadecimal checksum of the weights file; None where the publisher gives none, see
        `phasesam.models.download` for how such files are pinned on first use.
    size_bytes : int or None
        Size of the weights file, if known.
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
    path: Path | None = field(default=None, compare=False)


MODELS: dict[str, ModelSpec] = {
    "mobile_sam": ModelSpec(
        "mobile_sam",
        "MobileSAM",
        "vit_tiny",
        licence="Apache-2.0",
        path=BUNDLED_WEIGHTS / "mobile_sam.safetensors",
    ),
    "tiny": ModelSpec("tiny", "Tiny", "tiny", licence="BSD-3-Clause"),
}


def list_models() -> tuple[ModelSpec, ...]:
    """Every model that can be asked for."""
    return tuple(MODELS.values())


def get_spec(name: str) -> ModelSpec:
    """Look a model up.

    Raises
    ------
    UnknownModelError
        If there is no such model; the message lists those there are.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise UnknownModelError(f"no model {name!r}; there are {', '.join(MODELS)}") from None


def where(spec: ModelSpec) -> Whereabouts:
    """Say where the weights of a model are now."""
    return "generated" if spec.architecture == "tiny" else "bundled"


def locate(
    spec: ModelSpec,
    download: bool = True,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Path | None:
    """Path of the weights; None when they are generated."""
    return spec.path
