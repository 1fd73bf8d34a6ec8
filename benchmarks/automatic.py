"""Automatic masks: speed, memory, agreement and instance quality beside segment-anything.

    python -m benchmarks.automatic [--images N] [--threads 2] [--quality]

The reference and ours take turns on every image, each in a process of its own, with the same
weights. Without the development data the bundled particle sample is used, and quality is
measured against its exact ground truth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from rich.console import Console
from rich.table import Table

from benchmarks.reference import ROOT, powder_images, powder_labels
from benchmarks.workers import agreement
from phasesam.core.mask_set import MaskSet
from phasesam.core.metrics import InstanceScores, score_instances

LEAST_SPEED, MOST_MEMORY, LEAST_FOUND, MOST_EXTRA, SLOWEST_MS = 5.0, 0.4, 0.98, 0.02, 50.0
LARGEST_SHARE = 0.3


def run(
    tool: str, image: Path, threads: int, *options: str, python: str | None = None
) -> dict[str, Any]:
    """Run one worker and read what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [python or sys.executable, "-m", "benchmarks.workers", tool, str(image), str(out)]
        subprocess.run(
            [*command, "--threads", str(threads), *options],
            check=True,
            cwd=ROOT,
            timeout=3600,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        return json.loads(out.read_text())


def sample_image(folder: Path) -> tuple[Path, NDArray[np.int64]]:
    """The bundled particle sample as a PNG, and its ground truth."""
    from phasesam.simulation.samples import load_sample

    sample = load_sample("particles_sem")
    path = folder / "particles.png"
    Image.fromarray(np.asarray(sample.image)).save(path)
    return path, np.asarray(sample.labels).astype(np.int64)


def scored(result: dict[str, Any], truth: NDArray[np.int64]) -> InstanceScores:
    """Score all masks but the largest ones, painted small over large."""
    masks = [coco.decode(mask).astype(bool) for mask in result["masks"]]
    kept = [index for index, mask in enumerate(masks) if mask.mean() <= LARGEST_SHARE]
    labels = np.zeros(truth.shape, np.int32)
    if kept:
        labels = MaskSet.from_masks([masks[index] for index in kept]).to_labels()
    # Masks that others cover completely have no label left.
    visible = np.unique(labels[labels > 0]) - 1
    return score_instances(labels, truth, scores=np.array(result["scores"])[kept][visible])


def quality_row(name: str, results: list[tuple[dict[str, Any], NDArray[np.int64]]]) -> list[str]:
    """Mean scores over images."""
    scores = [scored(r, truth) for r, truth in results]
    seconds = float(np.mean([r["seconds"] for r, _ in results]))

    def mean(field: str) -> float:
        return float(np.mean([abs(getattr(score, field)) for score in scores]))

    columns = ("sa50", "ap50", "msa", "count_error", "d50_error")
    return [name, *(f"{mean(column):.3f}" for column in columns), f"{seconds:.1f}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1, help="how many images, at most five")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quality", action="store_true", help="also run the particle preset")
    parser.add_argument("--micro-sam", metavar="PYTHON", help="interpreter that has micro-sam")
    arguments = parser.parse_args()
    console = Console(width=120)  # the names of images stay whole
    speed = Table(title="Automatic masks, 32 x 32 points, MobileSAM: PhaseSAM / segment-anything")
    for column in ("image", "seconds", "speed-up", "peak MB", "memory", "masks", "found", "extra",
                   "threshold change"):  # fmt: skip
        speed.add_column(column)
    micro = Table(title="The same beside micro-sam: PhaseSAM / micro-sam")
    for column in ("image", "seconds", "peak MB", "threshold change, ms"):
        micro.add_column(column)
    quality: dict[str, list[Any]] = {"segment-anything": [], "default": [], "particles": []}
    good = True
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(path, powder_labels(path)) for path in powder_images()[: arguments.images]]
        for image, truth in pairs or [sample_image(Path(folder))]:
            theirs = run("reference", image, arguments.threads)
            mine = run("phasesam", image, arguments.threads)
            row, fine = speed_row(image.name, mine, theirs)
            speed.add_row(*row)
            good &= fine
            if arguments.micro_sam:
                peer = run("micro-sam", image, arguments.threads, python=arguments.micro_sam)
                micro.add_row(
                    image.name,
                    f"{mine['seconds']:.1f} / {peer['seconds']:.1f}",
                    f"{mine['peak_mb']:.0f} / {peer['peak_mb']:.0f}",
                    f"{mine['refilter_ms']:.0f} / {peer['refilter_ms']:.0f}",
                )
            quality["segment-anything"].append((theirs, truth))
            quality["default"].append((mine, truth))
            if arguments.quality:
                preset = run("phasesam", image, arguments.threads, "--preset", "particles")
                quality["particles"].append((preset, truth))
    console.print(speed)
    if arguments.micro_sam:
        console.print(micro)
    table = Table(title="Against ground truth (masks over 30 % of the image left out)")
    for column in ("masks of", "SA50", "AP50", "mSA", "|count error|", "|D50 error|", "seconds"):
        table.add_column(column)
    for name, results in quality.items():
        if results:
            table.add_row(*quality_row(name, results))
    console.print(table)
    return 0 if good else 1


def speed_row(name: str, mine: dict[str, Any], theirs: dict[str, Any]) -> tuple[list[str], bool]:
    """One line of the table, and whether it holds what we promise."""
    found, extra = agreement(mine["masks"], theirs["masks"])
    faster = theirs["seconds"] / mine["seconds"]
    memory = mine["peak_mb"] / theirs["peak_mb"]
    row = [
        name,
        f"{mine['seconds']:.1f} / {theirs['seconds']:.1f}",
        f"{faster:.1f}x",
        f"{mine['peak_mb']:.0f} / {theirs['peak_mb']:.0f}",
        f"{memory:.2f}x",
        f"{len(mine['masks'])} / {len(theirs['masks'])}",
        f"{100 * found:.1f} %",
        f"{100 * extra:.1f} %",
        f"{mine['refilter_ms']:.0f} ms",
    ]
    fine = (
        faster >= LEAST_SPEED
        and memory <= MOST_MEMORY
        and found >= LEAST_FOUND
        and extra <= MOST_EXTRA
        and mine["refilter_ms"] <= SLOWEST_MS
    )
    return row, fine


if __name__ == "__main__":
    sys.exit(main())
