"""Train the adapters that come with PhaseSAM, on simulated images.

``python tools/train_bundled_adapters.py steel_phases FOLDER`` simulates images that differ from
the bundled sample in seed, amounts, grain size and contrast, trains, and writes
``FOLDER/steel_phases.safetensors``; ``xct_phases`` does the same for X-ray CT. The decoder and the
heads of phases are trained, so that the embeddings of the base serve all docks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from phasesam.models.adapter_config import AdapterConfig
from phasesam.simulation.steel import SteelConfig, simulate_steel
from phasesam.simulation.xct import XctConfig, simulate_xct
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.dataset import TrainingData, from_arrays
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.recipes import get_recipe

LICENCE = "Apache-2.0"
_FIRST_SEED = 100
_STEELS, _STACKS, _SLICES = 12, 6, 4

Item = tuple[str, Any, Any, str | None]


def steels() -> Iterator[Item]:
    """Simulate steels of many kinds."""
    for number in range(_STEELS):
        rng = np.random.default_rng(_FIRST_SEED + number)
        config = SteelConfig(
            shape=(512, 512),
            grain_size=float(rng.uniform(7, 14)),
            bainite=float(rng.uniform(0.08, 0.45)),
            martensite=float(rng.uniform(0.04, 0.3)),
            etching=float(rng.uniform(0.8, 1.2)),
            illumination=float(rng.uniform(0.05, 0.25)),
        )
        steel = simulate_steel(config, _FIRST_SEED + number)
        yield f"steel{number}", steel.image, steel.classes.astype(np.int32), None


def stacks() -> Iterator[Item]:
    """Simulate printed parts, and take slices of each."""
    for number in range(_STACKS):
        rng = np.random.default_rng(_FIRST_SEED + number)
        config = XctConfig(
            shape=(24, 192, 192),
            pore_fraction=float(rng.uniform(0.01, 0.05)),
            inclusion_fraction=float(rng.uniform(0.001, 0.006)),
            outline="cylinder" if number % 3 else "rectangular",
        )
        part = simulate_xct(config, _FIRST_SEED + number)
        for index in np.linspace(2, len(part.image) - 3, _SLICES).astype(int).tolist():
            labels = part.classes[index].astype(np.int32)
            yield f"part{number}-{index}", part.image[index], labels, f"part{number}"


KINDS = {"steel_phases": steels, "xct_phases": stacks}


def read(name: str) -> TrainingData:
    """Simulate the images of an adapter; a sixth of the specimens validates."""
    names = {
        "steel_phases": {1: "ferrite", 2: "bainite", 3: "martensite"},
        "xct_phases": {0: "air", 1: "matrix", 2: "pore", 3: "inclusion"},
    }[name]
    data = from_arrays(list(KINDS[name]()), "semantic", classes=names, fractions=(0.83, 0.17, 0.0))
    return replace(data, origin=f"simulated ({name})")


def main() -> None:
    """Train one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(KINDS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    recipe = get_recipe("default")
    recipe = replace(
        recipe,
        name="bundled",
        adapter=AdapterConfig(encoder=(), rank=8, decoder_rank=8, alpha=8.0, ratio="located"),
        # Their contrast is known: a recording like theirs needs no more.
        views=replace(
            recipe.views,
            augmentation=AugmentationConfig(scale=(0.75, 1.4), gamma=(0.8, 1.25), contrast=0.2),
        ),
        epochs=options.epochs,
    )
    data = read(options.name)
    run = options.folder / f"{options.name}_run"
    done = train(data, run, TrainingSettings(recipe, device="cpu", licence=LICENCE), resume=True)
    for row in done.rows:
        print(json.dumps(row))
    halved(done.path, options.folder / f"{options.name}.safetensors")


def halved(source: Path, target: Path) -> None:
    """Write an adapter with half the digits, which is half the size."""
    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name).to(torch.float16) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, target, file.metadata())


if __name__ == "__main__":
    main()
