"""Objects of published data: clicks and automatic masks, model as published and adapted.

``python -m benchmarks.objects DATA RESULTS --sets teeth powder``

DATA holds the folders ``dental_panoramic_12`` and ``ampis_powder``. "teeth" trains on the first
eight patients (the last of them validates) and clicks on all teeth of the other four. "powder"
trains on the two labelled images of the first specimen and tests on the other three: clicks, and
automatic masks with SAM's own settings and with those for particles. What is in RESULTS is not done
again; ``--set KEY=VALUE`` changes the recipe.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.phases import changed
from phasesam.evaluation.adapter_scores import compare_objects, model_finder
from phasesam.evaluation.cells import ClickConfig, FourCells, evaluate_cells, opener
from phasesam.training.dataset import LabelledImage, TrainingData, read_training_data
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.recipes import get_recipe

MODEL = "mobile_sam"
CLICKS = (1, 3, 5, 11)


@dataclass(frozen=True)
class Experiment:
    """What is trained on which images."""

    folder: str
    labels: str
    task: str
    recipe: str
    split_of: Callable[[str, int], str]
    presets: Sequence[str] = ()


EXPERIMENTS = {
    "teeth": Experiment(
        "dental_panoramic_12",
        "labels_instance",
        "promptable",
        "dental-iterative",
        lambda name, index: "train" if index < 7 else "val" if index == 7 else "test",
    ),
    "powder": Experiment(
        "ampis_powder",
        "labels_instance_particle",
        "instance",
        "particles",
        lambda name, index: "train" if name.startswith("Sc1") else "test",
        ("default", "particles"),
    ),
}


def read(root: Path, experiment: Experiment) -> TrainingData:
    """The images with the splits of the experiment."""
    folder = root / experiment.folder
    data = read_training_data(folder, experiment.task, labels=experiment.labels)
    images = sorted(data.images, key=lambda image: image.name)
    return replace(
        data,
        images=tuple(
            replace(image, split=experiment.split_of(image.name, index))
            for index, image in enumerate(images)
        ),
    )


def click_figures(cells: FourCells) -> dict[str, Any]:
    """Both models after some clicks, and the clicks they need."""
    found: dict[str, Any] = {}
    for model in ("base", "adapted"):
        curves = cells.curves(model)
        row: dict[str, Any] = {f"dice_{n}": curves.after(n, "dice").text() for n in CLICKS}
        row |= {f"iou_{n}": curves.after(n, "iou").text() for n in CLICKS}
        for t in (0.85, 0.9):
            row[f"noc_{t:.2f}"] = curves.noc(t).text(2)
            # Some publications stop after the 11 clicks of their curves, others after 20.
            row[f"noc_{t:.2f}_of_{CLICKS[-1]}"] = curves.noc(t, CLICKS[-1]).text(2)
        found[model] = row
    return found


def mask_figures(images: Sequence[LabelledImage], adapter: str, preset: str) -> dict[str, Any]:
    """Automatic masks of both models."""
    finders = {"base": model_finder(MODEL, None, preset)}
    finders["adapted"] = model_finder(MODEL, adapter, preset)
    summaries = compare_objects(images, finders).summaries
    found = {}
    for name, summary in summaries.items():
        scores = [image.scores for image in summary.images]
        found[name] = {
            "msa": float(np.mean([s.msa for s in scores])),
            "sa50": float(np.mean([s.sa50 for s in scores])),
            "ap50": float(np.mean([s.ap50 for s in scores])),
            "count_error": float(np.mean([abs(s.count_error) for s in scores])),
            "d50_error": float(np.mean([abs(s.d50_error) for s in scores])),
            "by_image": {n: s.msa for n, s in zip(summary.names, scores, strict=True)},
        }
    return found


def run(root: Path, results: Path, name: str, changes: list[str], options: Any) -> None:
    experiment = EXPERIMENTS[name]
    folder = results / name / "-".join([options.recipe or "default", *changes]).replace("=", "_")
    file = folder / "result.json"
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = read(root, experiment)
    recipe = changed(get_recipe(options.recipe or experiment.recipe), changes)
    begin = time.monotonic()
    done = train(data, folder / "run", TrainingSettings(recipe, base=MODEL, device=options.device))
    result: dict[str, Any] = {"seconds": time.monotonic() - begin, "rows": done.rows}
    print(f"{name} {folder.name}: trained in {result['seconds']:.0f} s", flush=True)
    images, adapter = data.of("test"), str(done.path)
    for preset in experiment.presets:
        result[preset] = mask_figures(images, adapter, preset)
        print(preset, json.dumps(result[preset], indent=1), flush=True)
    config = ClickConfig(clicks=CLICKS[-1], min_area=options.min_area, most_objects=options.objects)
    cells = evaluate_cells(images, opener(MODEL), opener(MODEL, adapter), config)
    result["clicks"] = click_figures(cells)
    print(json.dumps(result["clicks"], indent=1), flush=True)
    file.write_text(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(EXPERIMENTS), choices=list(EXPERIMENTS))
    parser.add_argument("--recipe")
    parser.add_argument("--objects", type=int, help="most objects clicked in an image")
    parser.add_argument("--min-area", type=int, default=0, help="of objects clicked, in pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    for name in options.sets:
        run(options.data, options.results, name, options.set, options)


if __name__ == "__main__":
    main()
