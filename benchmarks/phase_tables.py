"""Tables of what ``benchmarks.phases`` found, as Markdown.

``python -m benchmarks.phase_tables RESULTS``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from phasesam.evaluation.statistics import Interval

METHODS = {
    "default": "LoRA, rank 16 (default recipe)",
    "rank-4": "LoRA, rank 4",
    "rank-64": "LoRA, rank 64",
    "rank-512": "LoRA, rank 512",
    "conv-dense": "Conv-LoRA, ours (rank 11)",
    "conv-published": "Conv-LoRA, published gate (rank 8)",
    "encoder": "encoder only, rank 16",
    "decoder": "decoder only, rank 16",
    "full-tuning": "all weights",
    "unet": "U-Net",
}
# Not averaged with the answer to the image turned upside down.
ONCE = ", looked at once"
SPLITS = {"test": "", "different_test": ", other samples"}
HEAD = "| what is trained | mIoU | IoU of the classes | Dice of the classes | all pixels |"


def tables(results: Path) -> dict[str, list[str]]:
    """Rows of each pair of experiment and test split; methods that are not listed come last."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(results.glob("*/*/result.json")):
        experiment, method = file.parts[-3:-1]
        result = json.loads(file.read_text())
        for part, more in (("test", ""), ("test_once", ONCE)):
            for split, values in result.get(part, {}).items():
                title = experiment + SPLITS.get(split, f", {split}")
                name = METHODS.get(method, method) + more
                found.setdefault(title, {})[method + more] = row(name, values)
    order = [method + more for method in METHODS for more in ("", ONCE)]
    return {
        title: [rows[m] for m in [*order, *rows.keys() - set(order)] if m in rows]
        for title, rows in found.items()
    }


def row(name: str, values: dict[str, Any]) -> str:
    """One method, each figure but the last as the mean over test images with its interval."""
    cells = [name, _interval(values["miou"], *values["interval"])]
    cells += [" / ".join(_interval(*v) for v in values[part]) for part in ("iou", "dice")]
    return f"| {' | '.join(cells)} | {values['micro_iou']:.3f} |"


def _interval(mean: float, low: float, high: float) -> str:
    return Interval(mean, low, high, 0, 0).text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    for title, rows in tables(parser.parse_args().results).items():
        print(f"\n### {title}\n\n{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
        print("\n".join(rows))


if __name__ == "__main__":
    main()
