"""Phase maps of published data: adapters of several kinds against a U-Net of the same time.

``python -m benchmarks.phases DATA RESULTS --experiments Super1 EBC2 --methods default unet``

DATA holds the folders ``nasa_superalloy`` and ``nasa_ebc``. Each pair of experiment and method is
trained on its own training images, chosen on its validation images, and measured on its test
images; what is in RESULTS is not done again. A U-Net gets the seconds that the default took.

With ``--share`` the head of fine detail is trained once an experiment, by the first adapter, and
every other adapter goes on from it: they differ in nothing but what they adapt. The seconds of
the first are those of the head, too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.full_tuning import full_recipe, train_fully
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.evaluation.phase_maps import PhaseMapSummary, score_phase_maps
from phasesam.evaluation.statistics import Interval
from phasesam.evaluation.unet import UNLIMITED_STEPS, UNetConfig, train_unet
from phasesam.models.adapter_config import AdapterConfig
from phasesam.training.dataset import TrainingData, read_training_data
from phasesam.training.feature_store import FeatureStore
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.recipes import Recipe, get_recipe

_ATTENTION = ("qkv", "proj")
_CONV_RANKS = {"dense": 11, "switch": 11, "published": 8}
FOLDERS = {"Super": "nasa_superalloy", "EBC": "nasa_ebc"}


class SameStart(FeatureStore):
    """Gives every adapter of an experiment the head that the first one learnt alone.

    Views are to be the same for all of them; the name says steps, classes, optimiser and loss.

    Parameters
    ----------
    folder : Path
        Of the experiment.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "features")
        self._heads = folder

    def learn(self, name: str, module: nn.Module, learn: Callable[[], None]) -> bool:
        file = self._heads / f"head-{xxhash.xxh3_64_hexdigest(name.encode())}.safetensors"
        if file.exists():
            module.load_state_dict(load_file(file))
            return False
        learn()
        save_file({key: value.contiguous() for key, value in module.state_dict().items()}, file)
        return True


def recipe_of(method: str) -> Recipe:
    """Recipe of a method: "default", "rank-64", "conv-dense", "encoder", "decoder", "full"…

    "attention" (LoRA), "conv-dense" and "conv-published" adapt the same layers of the encoder with
    as many numbers: 153 600, 158 928 and 153 600 in MobileSAM.
    """
    recipe = get_recipe("default")
    adapter = recipe.adapter
    if method.startswith("rank-"):
        adapter = replace(adapter, rank=int(method.removeprefix("rank-")))
    elif method.startswith("conv-"):
        gate: Any = method.removeprefix("conv-")
        rank = _CONV_RANKS[gate]
        adapter = replace(adapter, method="conv_lora", encoder=_ATTENTION, rank=rank, gate=gate)
    elif method == "attention":
        adapter = replace(adapter, encoder=_ATTENTION)
    elif method == "encoder":
        adapter = replace(adapter, decoder="none")
    elif method == "decoder":
        adapter = AdapterConfig(encoder=(), decoder="lora")
    elif method == "decoder-full":
        adapter = replace(adapter, decoder="full")
    elif method != "default":
        raise SystemExit(f"unknown method {method}")
    return replace(recipe, adapter=adapter)


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Change settings of a recipe, each named as ``part.setting=JSON``."""
    values = recipe.to_dict()
    for change in changes:
        key, _, value = change.partition("=")
        *parents, last = key.split(".")
        part = values
        for parent in parents:
            part = part[parent]
        part[last] = json.loads(value)
    return Recipe.from_dict(values)


def measure(data: TrainingData, predict: Any) -> dict[str, Any]:
    """Figures on every test split."""
    found = {}
    for split in data.splits:
        if split in ("train", "val"):
            continue
        images = data.of(split)
        predicted = [predict(image.rgb()) for image in images]
        truth = [image.label_array() for image in images]
        summary = score_phase_maps(predicted, truth, data.classes, [i.name for i in images])
        found[split] = figures(summary)
    return found


def figures(summary: PhaseMapSummary) -> dict[str, Any]:
    mean = summary.mean(lambda score: score.mean_iou)
    right, pixels = np.trace(summary.pooled), summary.pooled.sum()
    return {
        "miou": mean.mean, "interval": [mean.low, mean.high],
        "by_image": dict(
            zip(summary.names, (score.mean_iou for score in summary.scores), strict=True)
        ),
        "pooled_miou": summary.pooled_mean_iou,
        # What published figures on these sets are: pixels of all classes added up first.
        "micro_iou": float(right / (2 * pixels - right)),
        "pooled_iou": summary.pooled_iou.tolist(), "pooled_dice": summary.pooled_dice.tolist(),
        "iou": _intervals(summary.per_class(lambda score: score.iou)),
        "dice": _intervals(summary.per_class(lambda score: score.dice)),
    }  # fmt: skip


def _intervals(found: Sequence[Interval]) -> list[list[float]]:
    """Mean, low and high of each class."""
    return [[i.mean, i.low, i.high] for i in found]


def run(options: Any, experiment: str, method: str, store: FeatureStore | None) -> None:
    results, changes, device = options.results, options.set, options.device
    folder = results / experiment / "-".join([method, *changes]).replace("=", "_")
    file = folder / "result.json"
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = next(value for key, value in FOLDERS.items() if experiment.startswith(key))
    data = read_training_data(options.data / name, "semantic", experiment=experiment)
    begin = time.monotonic()
    if method == "unet":
        reference = json.loads((results / experiment / "default" / "result.json").read_text())
        views = changed(get_recipe("default"), changes).views
        config = UNetConfig(steps=UNLIMITED_STEPS, seconds=reference["seconds"], views=views)
        net = train_unet(data, config, device=device)
        seconds, predict = time.monotonic() - begin, net.predict
        row: dict[str, Any] = {"val": net.best_score}
    elif method == "full-tuning":
        rows, predict = train_fully(data, changed(full_recipe(), changes), device)
        seconds = time.monotonic() - begin
        row = {"val": max(r.get("val_score", 0.0) for r in rows), "rows": rows}
    else:
        settings = TrainingSettings(changed(recipe_of(method), changes), device=device)
        done = train(data, folder / "run", settings, features=store)
        seconds = time.monotonic() - begin
        row = {"val": max(r.get("val_score", 0.0) for r in done.rows), "rows": done.rows}

        def predict(rgb: Any, orientations: int = 2) -> Any:
            segmenter = Segmenter(rgb, adapter=str(done.path), exclude_data_bar=False)
            settings = {"keep_probabilities": False, "orientations": orientations}
            return segment_classes(segmenter, **settings).labels

    result = {"seconds": seconds, **row, "test": measure(data, predict)}
    if method in ("default", "unet"):
        # The first look alone, without the second at the image turned upside down.
        result["test_once"] = measure(data, lambda rgb: predict(rgb, 1))
    file.write_text(json.dumps(result, indent=1))
    show(experiment, folder.name, result)


def show(experiment: str, method: str, result: dict[str, Any]) -> None:
    for split, values in result["test"].items():
        classes = " ".join(f"{v:.3f}" for v in values["pooled_iou"])
        low, high = values["interval"]
        print(
            f"{experiment:8}{method:28}{split:16}val {result['val']:.3f}  mIoU "
            f"{values['miou']:.3f} [{low:.3f}, {high:.3f}]  pooled {values['pooled_miou']:.3f} "
            f"({classes}) micro {values['micro_iou']:.3f}  {result['seconds']:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--experiments", nargs="+", default=["Super1", "Super2", "Super3", "EBC1", "EBC2", "EBC3"]
    )
    parser.add_argument("--methods", nargs="+", default=["default", "unet"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--share", action="store_true", help="the same head for all methods")
    options = parser.parse_args()
    np.seterr(all="ignore")
    for experiment in options.experiments:
        store = SameStart(options.results / experiment) if options.share else None
        for method in options.methods:
            run(options, experiment, method, store)
        if store is not None:
            store.clear()


if __name__ == "__main__":
    main()
