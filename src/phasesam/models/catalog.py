"""The models that come with PhaseSAM: where their weights are published and how they are checked.

Checksums and sizes are those of the publishers or, where a publisher gives none, of independent
mirrors; addresses are pinned to a revision wherever the host has revisions. Sizes without a
``sha256`` beside them are rounded.
"""

from __future__ import annotations

from pathlib import Path

from phasesam.models.model_spec import Architecture, ModelSpec

BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights"

_META = "https://dl.fbaipublicfiles.com/segment_anything/"
_HQ = "https://huggingface.co/lkeab/hq-sam/resolve/"
_HQ_REVISION = "67ab82412bc794d5ce2e9799b8b6a3c0a8cfe1d2/"
_HQ_TINY_REVISION = "a3a77cd0a2e5e50eaa76faccf61b964732d9b35f/"
_ZOO = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/"
_APACHE = "Apache-2.0"

MOBILE_SAM = ModelSpec(
    name="mobile_sam",
    title="MobileSAM",
    architecture="vit_tiny",
    sha256="913d320198a11a6b5d5a49f2753f8c845b8ae3139d65818d435f2180d804883d",
    size_bytes=19_813_584,
    licence=_APACHE,
    source="https://github.com/ChaoningZhang/MobileSAM",
    description="Small and quick, comes with PhaseSAM; the best start without a GPU.",
    filename="mobile_sam.safetensors",
    path=BUNDLED_WEIGHTS / "mobile_sam.safetensors",
)

TINY = ModelSpec(
    name="tiny",
    title="Tiny (random weights, for tests)",
    architecture="tiny",
    licence="BSD-3-Clause",
    description="Two-block SAM with seeded random weights: segments nothing, tests everything.",
)


def _sam(
    architecture: Architecture, title: str, filename: str, sha256: str, size_bytes: int
) -> ModelSpec:
    return ModelSpec(
        name=f"sam_{architecture}",
        title=title,
        architecture=architecture,
        url=_META + filename,
        sha256=sha256,
        size_bytes=size_bytes,
        licence=_APACHE,
        source="https://github.com/facebookresearch/segment-anything",
        description="Segment Anything as published; larger encoders outline more precisely.",
        filename=filename,
    )


def _sam_hq(
    architecture: Architecture,
    title: str,
    size_bytes: int,
    md5: str,
    sha256: str | None = None,
) -> ModelSpec:
    filename = f"sam_hq_{architecture}.pth"
    revision = _HQ_TINY_REVISION if architecture == "vit_tiny" else _HQ_REVISION
    return ModelSpec(
        name=f"sam_hq_{architecture}",
        title=title,
        architecture=architecture,
        decoder="hq",
        url=_HQ + revision + filename,
        sha256=sha256,
        other_hash=f"md5:{md5}",
        size_bytes=size_bytes,
        licence=_APACHE,
        source="https://github.com/SysCV/sam-hq",
        description="SAM with a decoder for fine borders; one mask per prompt.",
        filename=filename,
    )


def _micro_sam(
    name: str, architecture: Architecture, place: str, size_bytes: int, xxh128: str
) -> ModelSpec:
    domain = "light microscopy" if name.endswith("_lm") else "organelles in electron microscopy"
    letter = {"vit_tiny": "T", "vit_b": "B", "vit_l": "L"}[architecture]
    return ModelSpec(
        name=name,
        title=f"micro-sam ViT-{letter} ({domain})",
        architecture=architecture,
        url=f"{_ZOO}{place}/files/vit_{letter.lower()}.pt",
        other_hash=f"xxh128:{xxh128}",
        size_bytes=size_bytes,
        licence="CC-BY-4.0",
        source="https://github.com/computational-cell-analytics/micro-sam",
        description=f"SAM fine-tuned by the micro-sam project on {domain}.",
        filename=f"micro_sam_{name}.pt",
    )


BUILT_IN: tuple[ModelSpec, ...] = (
    MOBILE_SAM,
    _sam(
        "vit_b",
        "SAM ViT-B",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    _sam(
        "vit_l",
        "SAM ViT-L",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
    ),
    _sam(
        "vit_h",
        "SAM ViT-H",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
    _sam_hq("vit_tiny", "SAM-HQ Light", 42_500_000, "3a661ab92d4088ccd6232fa542998a65"),
    _sam_hq("vit_b", "SAM-HQ ViT-B", 379_000_000, "c6b8953247bcfdc8bb8ef91e36a6cacc"),
    _sam_hq("vit_l", "SAM-HQ ViT-L", 1_250_000_000, "08947267966e4264fb39523eccc33f86"),
    _sam_hq(
        "vit_h",
        "SAM-HQ ViT-H",
        2_570_940_653,
        "3560f6b6a5a6edacd814a1325c39640a",
        "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35",
    ),
    _micro_sam(
        "vit_t_lm",
        "vit_tiny",
        "faithful-chicken/1.1",
        40_700_000,
        "72ec5074774761a6e5c05a08942f981e",
    ),
    _micro_sam(
        "vit_b_lm",
        "vit_b",
        "diplomatic-bug/1.2",
        375_000_000,
        "fe9252a29f3f4ea53c15a06de471e186",
    ),
    _micro_sam(
        "vit_l_lm",
        "vit_l",
        "idealistic-rat/1.2",
        1_250_000_000,
        "017f20677997d628426dec80a8018f9d",
    ),
    _micro_sam(
        "vit_t_em_organelles",
        "vit_tiny",
        "greedy-whale/1",
        40_700_000,
        "253474720c497cce605e57c9b1d18fd9",
    ),
    _micro_sam(
        "vit_b_em_organelles",
        "vit_b",
        "noisy-ox/1.2",
        375_000_000,
        "f3bf2ed83d691456bae2c3f9a05fb438",
    ),
    _micro_sam(
        "vit_l_em_organelles",
        "vit_l",
        "humorous-crab/1.2",
        1_250_000_000,
        "810b084b6e51acdbf760a993d8619f2d",
    ),
    TINY,
)
