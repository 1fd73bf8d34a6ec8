"""Tables of what ``benchmarks.phases`` found, as Markdown.

``python -m benchmarks.phase_tables RESULTS``
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phasesam.evaluation.statistics import Interval

HEAD = (
    "| method | mIoU | IoU of the classes | Dice of the classes | IoU of all pixels | s "
    "| IoU of the classes, mean over images | Dice of the classes, mean over images |"
)


def rows(results: Path) -> dict[tuple[str, str], list[str]]:
    """One row a method for each pair of experiment and test split."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in sorted(results.glob("*/*/result.json")):
        result = json.loads(file.read_text())
        for split, values in result["test"].items():
            cells = [file.parent.name, *_pooled(values), f"{result['seconds']:.0f}"]
            cells += [_means(values.get(name, [])) for name in ("iou", "dice")]
            found[file.parent.parent.name, split].append(f"| {' | '.join(cells)} |")
    return found


def _pooled(values: dict[str, Any]) -> Iterator[str]:
    yield _interval(values["miou"], *values["interval"])
    for name in ("pooled_iou", "pooled_dice"):
        yield " / ".join(f"{value:.3f}" for value in values[name])
    yield f"{values['micro_iou']:.3f}"


def _means(classes: list[list[float]]) -> str:
    """Tell each class; results of earlier versions have none."""
    return " / ".join(_interval(*values) for values in classes)


def _interval(mean: float, low: float, high: float) -> str:
    return Interval(mean, low, high, 0, 0).text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    for (experiment, split), lines in rows(parser.parse_args().results).items():
        print(f"\n**{experiment}, {split}**\n\n{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
        print("\n".join(lines))


if __name__ == "__main__":
    main()
