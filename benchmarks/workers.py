"""One automatic run in a process of its own, so that time and peak memory are its own.

python -m benchmarks.workers reference|phasesam IMAGE OUT.json [--points N] [--preset NAME]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco

from benchmarks.reference import mobile_sam, read_rgb


def peak_megabytes() -> float:
    """Largest resident set of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell the peak memory")


def reference(image: Path, points: int) -> dict[str, Any]:
    from segment_anything import SamAutomaticMaskGenerator

    generator = SamAutomaticMaskGenerator(
        mobile_sam(), points_per_side=points, output_mode="coco_rle"
    )
    rgb = read_rgb(image)
    start = time.perf_counter()
    records = generator.generate(rgb)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "masks": [record["segmentation"] for record in records],
        "scores": [record["predicted_iou"] for record in records],
    }


def micro_sam(image: Path, points: int) -> dict[str, Any]:
    """The same weights in micro-sam's generator; needs an environment that has micro-sam."""
    from micro_sam.instance_segmentation import AutomaticMaskGenerator
    from micro_sam.util import precompute_image_embeddings
    from segment_anything import SamPredictor

    rgb = read_rgb(image)
    predictor = SamPredictor(mobile_sam())
    generator = AutomaticMaskGenerator(predictor, points_per_side=points)
    start = time.perf_counter()
    # Without the dimensions an RGB image is taken for a stack.
    embeddings = precompute_image_embeddings(predictor, rgb, ndim=2, verbose=False)
    generator.initialize(rgb, image_embeddings=embeddings)
    generator.generate()
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    records = generator.generate(pred_iou_thresh=0.9, output_mode="binary_mask")
    refilter = time.perf_counter() - start
    masks = [coco.encode(np.asfortranarray(r["segmentation"].astype(np.uint8))) for r in records]
    return {
        "seconds": seconds,
        "masks": masks,
        "scores": [float(record["predicted_iou"]) for record in records],
        "refilter_ms": 1e3 * refilter,
    }


def ours(image: Path, points: int | None, preset_name: str) -> dict[str, Any]:
    from phasesam import Segmenter, get_manager
    from phasesam.core.rle import encode_rle
    from phasesam.engines.presets import get_preset

    preset = get_preset(preset_name)
    config = preset.automatic if points is None else preset.automatic.changed(
        points_per_side=points
    )  # fmt: skip
    get_manager().load("mobile_sam")
    segmenter = Segmenter(read_rgb(image))
    start = time.perf_counter()
    candidates = segmenter.automatic(config)
    masks = candidates.filter(preset.filter_for(segmenter.shape))
    masks.to_labels()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "masks": [encode_rle(crop, masks.shape) for crop in masks.crops],
        "scores": masks.scores.tolist(),
        "refilter_ms": 1e3 * slowest_refilter(candidates, preset.filter_for(segmenter.shape)),
        "candidates": len(candidates),
        "prompts": candidates.n_prompts,
    }


def slowest_refilter(candidates: Any, config: Any) -> float:
    """Seconds of the slowest of 40 threshold changes, label image included."""
    slowest = 0.0
    for step in range(40):
        name = ("pred_iou", "stability", "stability_offset", "min_area")[step % 4]
        value = {
            "pred_iou": 0.75 + 0.005 * step,
            "stability": 0.7 + 0.006 * step,
            "stability_offset": 0.25 + 0.05 * step,
            "min_area": 10.0 * step,
        }[name]
        start = time.perf_counter()
        candidates.filter(config, **{name: value}).to_labels()
        slowest = max(slowest, time.perf_counter() - start)
    return slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=("reference", "phasesam", "micro-sam"))
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--points", type=int)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.tool == "reference":
        result = reference(arguments.image, arguments.points or 32)
    elif arguments.tool == "micro-sam":
        result = micro_sam(arguments.image, arguments.points or 32)
    else:
        result = ours(arguments.image, arguments.points, arguments.preset)
    result["peak_mb"] = peak_megabytes()
    for mask in result["masks"]:
        if isinstance(mask["counts"], bytes):
            mask["counts"] = mask["counts"].decode()
    arguments.out.write_text(json.dumps(result))


def agreement(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> tuple[float, float]:
    """Share of `wanted` found at IoU >= 0.9, and share of `found` that matches nothing wanted."""
    if not found or not wanted:
        return 0.0, 0.0
    overlap = np.asarray(coco.iou(found, wanted, [0] * len(wanted)))
    return float((overlap.max(axis=0) >= 0.9).mean()), float((overlap.max(axis=1) < 0.9).mean())


if __name__ == "__main__":
    main()
