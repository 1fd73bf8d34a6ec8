"""Prompts: agreement with ``SamPredictor`` and time from click to full-size mask.

    python -m benchmarks.prompts [--count 100] [--threads 2]

Same weights, same image, the two take turns on every prompt.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from segment_anything import SamPredictor

from benchmarks.automatic import sample_image
from benchmarks.reference import mobile_sam, powder_images, read_rgb
from phasesam import Segmenter


def random_prompt(
    random: np.random.Generator, shape: tuple[int, int]
) -> tuple[NDArray[np.float64] | None, NDArray[np.int64] | None, NDArray[np.float64] | None]:
    """Points, labels and box in (y, x), any of them None."""
    height, width = shape
    kind = random.integers(3)
    points = labels = box = None
    if kind != 1:
        count = int(random.integers(1, 5))
        points = random.uniform((0, 0), (height - 1, width - 1), (count, 2))
        labels = random.integers(0, 2, count)
        labels[0] = 1
    if kind != 0:
        start = random.uniform((0, 0), (0.8 * height, 0.8 * width))
        box = np.concatenate([start, start + random.uniform(20, 0.2 * height, 2)])
    return points, labels, box


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        images = powder_images()
        rgb = read_rgb(images[0] if images else sample_image(Path(folder))[0])
    predictor = SamPredictor(mobile_sam())
    predictor.set_image(rgb)
    segmenter = Segmenter(rgb)
    segmenter.encode()
    random = np.random.default_rng(0)
    worst, times = 1.0, []
    for number in range(arguments.count):
        points, labels, box = random_prompt(random, rgb.shape[:2])
        multimask = bool(number % 2)
        start = time.perf_counter()
        mine = segmenter.predict(points, labels, box, multimask_output=multimask).masks
        middle = time.perf_counter()
        theirs, _, _ = predictor.predict(
            None if points is None else points[:, ::-1],
            labels,
            None if box is None else box[[1, 0, 3, 2]],
            multimask_output=multimask,
        )
        times.append((middle - start, time.perf_counter() - middle))
        worst = min(worst, *(iou(a, b) for a, b in zip(mine, theirs, strict=True)))
    ours, reference = np.median(np.array(times), axis=0) * 1e3
    table = Table(title=f"{arguments.count} random prompts, PhaseSAM / SamPredictor")
    for column in ("median ms", "ratio", "lowest IoU"):
        table.add_column(column)
    table.add_row(f"{ours:.0f} / {reference:.0f}", f"{ours / reference:.2f}x", f"{worst:.4f}")
    Console().print(table)
    return 0 if worst >= 0.99 and ours <= reference else 1


if __name__ == "__main__":
    sys.exit(main())
