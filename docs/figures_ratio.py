"""Draw where a phase ratio changes pixels: ``python docs/figures_ratio.py STEELS TRIALS``.

STEELS is a folder written by ``python -m benchmarks.steel_set STEELS``; TRIALS what ``phasesam
evaluate ratio STEELS --trials TRIALS`` trained on it. Writes ratio_changes_METHOD.jpg to
docs/pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from phasesam.cli.evaluate_ratio import requests_of
from phasesam.evaluation.ratio_pictures import change_pictures
from phasesam.evaluation.ratio_trials import METHODS, Networks
from phasesam.training.dataset import read_training_data
from phasesam.training.folds import specimen_folds

PICTURES = Path(__file__).parent / "pictures"
SHOWN = {"ratio v0": "v0", "v2 + exact": "exact"}
FOLDS = 3


def main() -> None:
    """Ask the networks of the first fold about its first image."""
    parser = argparse.ArgumentParser(description="Draw where a phase ratio changes pixels.")
    parser.add_argument("steels", type=Path)
    parser.add_argument("trials", type=Path)
    options = parser.parse_args()
    fold = specimen_folds(read_training_data(options.steels, "semantic"), FOLDS)[0]
    methods = [method for method in METHODS if method.name in SHOWN]
    adapters = {
        m.network: options.trials / "fold0" / m.network / "best.safetensors" for m in methods
    }
    networks = Networks("mobile_sam", adapters)
    pictures = change_pictures(fold.of("test")[0], networks, methods, requests_of((), 1))
    for method, picture in zip(methods, pictures, strict=True):
        file = PICTURES / f"ratio_changes_{SHOWN[method.name]}.jpg"
        Image.fromarray(picture.rgb).save(file, quality=88)
        print(picture.title, picture.caption)


if __name__ == "__main__":
    main()
