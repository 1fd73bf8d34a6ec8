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

HEAD = "| method | mIoU | IoU of the classes | Dice of the classes | IoU of all pixels | s |"


def rows(results: Path) -> dict[tuple[str, str], list[str]]:
    """One row a method for each pair of experiment and test split."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in sorted(results.glob("*/*/result.json")):
        result = json.loads(file.read_text())
        for split, values in result["test"].items():
            cells = [file.parent.name, *_cells(values), f"{result['seconds']:.0f}"]
            found[file.parent.parent.name, split].append(f"| {' | '.join(cells)} |")
    return found


def _cells(values: dict[str, Any]) -> Iterator[str]:
    low, high = values["interval"]
    yield f"{values['miou']:.3f} [{low:.3f}, {high:.3f}]"
    for name in ("iou", "dice"):
        yield " / ".join(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in values[name])
    yield f"{values['micro_iou']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    for (experiment, split), lines in rows(parser.parse_args().results).items():
        print(f"\n**{experiment}, {split}**\n\n{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
        print("\n".join(lines))


if __name__ == "__main__":
    main()
