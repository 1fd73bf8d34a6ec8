"""Draw what layers make of superalloys: ``python docs/figures_features.py DATA ADAPTER``.

DATA is the folder nasa_superalloy of the training data, with splits.csv; ADAPTER was trained on its
experiment Super3 (``python -m benchmarks.phases`` writes it to RESULTS/Super3/default/run). Writes
layers_superalloy.png, layers_superalloy_probe.svg and layers_superalloy_likeness.svg to
docs/pictures, and prints the table of docs/encoder-features.md. The images are not drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from phasesam.engines.features import FeatureConfig, compare_layers
from phasesam.engines.segmenter import Segmenter
from phasesam.evaluation.feature_sheet import SheetTexts, contact_sheet
from phasesam.evaluation.feature_tables import layer_plots, layer_report
from phasesam.training.dataset import read_training_data

PICTURES = Path(__file__).parent / "pictures"
CLASSES = ("matrix", "secondary", "tertiary")
MODELS = ("MobileSAM", "adapted")
SHOWN = 2
PLOTS = {"Linear probe": "probe", "Likeness and change": "likeness"}


def main() -> None:
    """Look at the test images, draw one of them."""
    parser = argparse.ArgumentParser(description="Draw what layers make of superalloys.")
    parser.add_argument("data", type=Path, help="folder nasa_superalloy")
    parser.add_argument("adapter", type=Path, help="adapter of the experiment Super3")
    options = parser.parse_args()
    images = read_training_data(options.data, "semantic", experiment="Super3").of("test")
    pictures = [Segmenter(image.rgb(), exclude_data_bar=False) for image in images]
    adapted = [picture.with_adapter(str(options.adapter)) for picture in pictures]
    labels = [np.asarray(image.label_array(), np.int32) for image in images]
    found = compare_layers(pictures, adapted, labels, FeatureConfig())
    late = [view for view in found.layers if not view.name.startswith(("stage1", "stage2"))]
    sheet = contact_sheet(late, None, SheetTexts(MODELS, columns=5), index=SHOWN)
    sheet.save(PICTURES / "layers_superalloy.png")
    for plot in layer_plots(found.layers, MODELS):
        if plot.title in PLOTS:
            path = PICTURES / f"layers_superalloy_{PLOTS[plot.title]}.svg"
            path.write_text(plot.to_svg(), encoding="utf-8")
    print(layer_report("Layers", found.layers, MODELS, CLASSES).to_markdown())


if __name__ == "__main__":
    main()
