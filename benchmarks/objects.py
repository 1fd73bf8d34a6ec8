"""Objects of published data: clicks and automatic masks, model as published and adapted.

``python -m benchmarks.objects DATA RESULTS --sets teeth powder``

DATA holds the folders ``dental_panoramic_12`` and ``ampis_powder``. "teeth" trains on the first
eight patients (the last of them validates) and clicks on all teeth of the other four. "powder"
trains on the two labelled images of the first specimen and tests on the other three: clicks, and
automatic masks with SAM's own settings and with those for particles. The model as published sees
whole images, and is asked again through windows as large as those of the adapter. What is in
RESULTS is not done again, and a training that was interrupted goes on; ``--set KEY=VALUE`` changes
the recipe.
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
from phasesam.evaluation.cells import ClickConfig, click_image, opener
from phasesam.evaluation.click_curves import ClickCurves
from phasesam.evaluation.instances import InstanceSummary
from phasesam.models.adapter_card import read_card
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


def click_figures(curves: ClickCurves) -> dict[str, Any]:
    """One model after some clicks, and the clicks it needs."""
    row: dict[str, Any] = {f"dice_{n}": curves.after(n, "dice").text() for n in CLICKS}
    row |= {f"iou_{n}": curves.after(n, "iou").text() for n in CLICKS}
    for t in (0.85, 0.9):
        row[f"noc_{t:.2f}"] = curves.noc(t).text(2)
        # Some publications stop after the 11 clicks of their curves, others after 20.
        row[f"noc_{t:.2f}_of_{CLICKS[-1]}"] = curves.noc(t, CLICKS[-1]).text(2)
    return row


def mask_figures(summary: InstanceSummary) -> dict[str, Any]:
    """Automatic masks of one model: means over images with intervals."""
    return {
        "msa": summary.mean(lambda s: s.msa).text(),
        "sa50": summary.mean(lambda s: s.sa50).text(),
        "ap50": summary.mean(lambda s: s.ap50).text(),
        "count_error": summary.mean(lambda s: abs(s.count_error), (0, np.inf)).text(),
        "d50_error": summary.mean(lambda s: abs(s.d50_error), (0, np.inf)).text(),
        "by_image": {n: i.scores.msa for n, i in zip(summary.names, summary.images, strict=True)},
    }


def test(
    images: Sequence[LabelledImage], adapter: str, experiment: Experiment, config: ClickConfig
) -> dict[str, Any]:
    """Figures of the model as published, of it in the adapter's windows, and of the adapted."""
    window = read_card(Path(adapter)).window
    models: dict[str, tuple[str | None, int | None]] = {"base": (None, None)}
    if window is not None:
        models[f"base in windows of {window}"] = (None, window)
    models["adapted"] = (adapter, None)
    result: dict[str, Any] = {}
    for preset in experiment.presets:
        finders = {n: model_finder(MODEL, a, preset, side) for n, (a, side) in models.items()}
        summaries = compare_objects(images, finders).summaries
        result[preset] = {name: mask_figures(summary) for name, summary in summaries.items()}
        print(preset, json.dumps(result[preset], indent=1), flush=True)
    names = [image.specimen for image in images]
    result["clicks"] = {}
    for name, (a, side) in models.items():
        curves = [click_image(image, opener(MODEL, a, side), config) for image in images]
        result["clicks"][name] = click_figures(ClickCurves.joined(curves, names))
    return result


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
    settings = TrainingSettings(recipe, base=MODEL, device=options.device)
    # An hour of training that was interrupted is not lost.
    done = train(data, folder / "run", settings, resume=True)
    spent = time.monotonic() - begin
    result: dict[str, Any] = {"seconds": done.rows[-1]["seconds"], "rows": done.rows}
    print(f"{name} {folder.name}: trained, {spent:.0f} s of it now", flush=True)
    config = ClickConfig(clicks=CLICKS[-1], min_area=options.min_area, most_objects=options.objects)
    result |= test(data.of("test"), str(done.path), experiment, config)
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
