"""Files that ``phasesam features`` writes: contact sheets and arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from phasesam.engines.features import LayerComparison
    from phasesam.engines.segmenter import Segmenter
    from phasesam.evaluation.report import Picture


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image with its name and, if there are labels, the class of each pixel."""

    name: str
    image: NDArray[np.generic]
    labels: NDArray[np.int32] | None = None


def file_name(name: str) -> str:
    """Keep what is a name of files and of Zarr groups everywhere."""
    return re.sub(r"[^\w+-]+", "_", name).strip("_") or "image"


def save_sheets(
    found: LayerComparison,
    seen: Sequence[SeenImage],
    pictures: Sequence[Segmenter],
    names: tuple[Sequence[str], Sequence[str]],
    folder: Path,
) -> list[Picture]:
    """Write the contact sheets; also give them as pictures of the report.

    Names are those of the models and of the classes.
    """
    from phasesam.cli.results import prepare_folder
    from phasesam.evaluation.feature_sheet import FORMATS, SheetTexts, Target, contact_sheet
    from phasesam.evaluation.report import Picture

    prepare_folder(folder)
    models, classes = names
    shown = []
    for index, (each, picture) in enumerate(zip(seen, pictures, strict=True)):
        target = None
        if each.labels is not None:
            target = Target.of(each.labels[: len(picture.rgb)], classes)
        sheet = contact_sheet(
            found.layers, picture.rgb, SheetTexts(tuple(models)), target=target, index=index
        )
        for ending in FORMATS:
            sheet.save(folder / f"{each.name}_layers{ending}")
        caption = "Features of the layers; the same colour means the same in all of them."
        shown.append(Picture(each.name, caption, sheet.to_rgb()))
    return shown


def save_arrays(
    found: LayerComparison, seen: Sequence[SeenImage], names: Sequence[str], path: Path
) -> None:
    """Write features and colours, by image, model and layer."""
    from phasesam.formats.layer_arrays import save_layer_arrays

    models = [
        re.sub(r"[^\w+. ()-]+", "_", name).strip(".") or f"{m}" for m, name in enumerate(names)
    ]
    arrays: dict[str, NDArray[Any]] = {}
    for m, model in enumerate(models):
        for i, each in enumerate(seen):
            for view in found.layers:
                place = f"{each.name}/{model}/{view.name}"
                arrays[f"{place}/features"] = found.tokens[m][i].maps[view.name]
                arrays[f"{place}/colours"] = view.pictures[m][i]
    attributes = {"models": models, "layers": [view.name for view in found.layers]}
    save_layer_arrays(path, arrays, attributes)
