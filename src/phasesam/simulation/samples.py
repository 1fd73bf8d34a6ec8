"""The bundled sample images: where they are, how they are read, how they were made.

``python -m phasesam.simulation.samples [FOLDER]`` makes them again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from phasesam.core.errors import FileFormatError, InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.formats.atomic import atomic_file
from phasesam.formats.label_tiff import save_labels_tiff
from phasesam.simulation.micrograph import Micrograph
from phasesam.simulation.particles import simulate_particles
from phasesam.simulation.steel import simulate_steel
from phasesam.simulation.xct import XctConfig, simulate_xct

_INDEX = "samples.json"
_FEI_TAG = 34682
_LICENCE = "CC0-1.0"

_README = """Sample images of PhaseSAM
=========================

All files were made by the simulator in phasesam.simulation; nothing was measured. They are
in the public domain (CC0 1.0). Make them again with

    python -m phasesam.simulation.samples FOLDER

For each NAME there are
    NAME.tif          the image or stack, with its pixel size
    NAME_labels.tif   exact ground truth: one number per object, 0 for none
    NAME_classes.tif  exact ground truth: class of every pixel
samples.json lists settings, seeds, class names, pixel sizes and true figures.

"""


@dataclass(frozen=True)
class SampleRecipe:
    """How one sample is made.

    Attributes
    ----------
    name : str
        Stem of its files.
    title : str
        What the menu shows.
    description : str
        One sentence about it.
    preset : str
        Name of the automatic-mask preset that suits it.
    make : callable
        Simulates it.
    """

    name: str
    title: str
    description: str
    preset: str
    make: Callable[[], Micrograph]


SAMPLES: dict[str, SampleRecipe] = {
    recipe.name: recipe
    for recipe in (
        SampleRecipe(
            "particles_sem",
            "Metal powder (SEM)",
            "Gas-atomised powder on carbon tape, secondary electrons.",
            "particles",
            lambda: simulate_particles(seed=5),
        ),
        SampleRecipe(
            "three_phase_steel",
            "Three-phase steel (light microscopy)",
            "Ferrite with 25 % bainite and 15 % martensite, etched, bright field.",
            "grains",
            lambda: simulate_steel(seed=0),
        ),
        SampleRecipe(
            "xct_pores",
            "Pores and inclusions (X-ray CT stack)",
            "Printed titanium rod with pores and steel inclusions, 64 slices.",
            "pores",
            lambda: simulate_xct(XctConfig(shape=(64, 192, 192)), seed=0),
        ),
    )
}


def sample_folder() -> Path:
    """Find the bundled samples, in an installed package or in a checkout.

    Raises
    ------
    FileFormatError
        If neither place has them.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "sample_data", package.parents[1] / "sample_data")
    for place in places:
        if (place / _INDEX).is_file():
            return place
    raise FileFormatError(
        f"no sample images found, expected {_INDEX} in " + " or ".join(map(str, places))
    )


def load_sample(name: str, folder: Path | None = None) -> Micrograph:
    """Read a sample with its ground truth.

    Parameters
    ----------
    name : str
        A key of `SAMPLES`.
    folder : Path, optional
        Where the files are; `sample_folder` when left out.

    Raises
    ------
    InvalidSettingError
        If there is no such sample.
    FileFormatError
        If its files are missing or damaged.
    """
    if name not in SAMPLES:
        raise InvalidSettingError(f"expected one of {', '.join(SAMPLES)}, got {name!r}")
    folder = sample_folder() if folder is None else folder
    try:
        entry = json.loads((folder / _INDEX).read_text(encoding="utf-8"))[name]
        image, labels, classes = (
            tifffile.imread(folder / f"{name}{ending}.tif")
            for ending in ("", "_labels", "_classes")
        )
    except (OSError, ValueError, KeyError) as error:
        raise FileFormatError(f"could not read the sample {name} in {folder}: {error}") from error
    height, width = entry["pixel_size_um"]
    return Micrograph(
        image=image,
        labels=labels.astype(np.int32),
        classes=classes.astype(np.uint8),
        pixel_size=PixelSize(height, width, "um"),
        class_names=tuple(entry["class_names"]),
        z_size=entry["z_size_um"],
        name=name,
        metadata=entry["metadata"],
    )


def write_samples(folder: Path, names: Sequence[str] | None = None) -> None:
    """Simulate the samples and write them with their ground truth.

    Parameters
    ----------
    folder : Path
        Where to write; made if missing.
    names : sequence of str, optional
        Which ones; all when left out.

    Raises
    ------
    SaveError
        If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = {}
    text = _README
    for recipe in (SAMPLES[name] for name in (SAMPLES if names is None else names)):
        micrograph = recipe.make()
        size, z_size = micrograph.pixel_size, micrograph.z_size
        with atomic_file(folder / f"{recipe.name}.tif") as file:
            _write_image(file, micrograph)
        save_labels_tiff(folder / f"{recipe.name}_labels.tif", micrograph.labels, size, z_size)
        save_labels_tiff(folder / f"{recipe.name}_classes.tif", micrograph.classes, size, z_size)
        index[recipe.name] = {
            "title": recipe.title,
            "description": recipe.description,
            "licence": _LICENCE,
            "pixel_size_um": [size.y, size.x],
            "z_size_um": z_size,
            "class_names": list(micrograph.class_names),
            "metadata": dict(micrograph.metadata),
        }
        classes = ", ".join(f"{i} {word}" for i, word in enumerate(micrograph.class_names))
        text += f"{recipe.name}: {recipe.description}\n    Classes: {classes}.\n"
    with atomic_file(folder / _INDEX) as file:
        file.write((json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    with atomic_file(folder / "README.txt") as file:
        file.write(text.encode())


def _write_image(file: BinaryIO, micrograph: Micrograph) -> None:
    """Write the image: with an FEI header if it is from an SEM, else for ImageJ."""
    size = micrograph.pixel_size
    options: dict[str, Any] = {"compression": "zlib", "predictor": 2}
    if micrograph.name == "particles_sem":
        tag = (_FEI_TAG, "s", 0, _fei_header(micrograph.image, size), True)
        centimetre = (1e4 / size.x, 1e4 / size.y)
        tifffile.imwrite(
            file,
            micrograph.image,
            resolution=centimetre,
            resolutionunit="CENTIMETER",
            extratags=[tag],
            metadata=None,
            **options,
        )
        return
    metadata: dict[str, Any] = {"axes": "YX" if micrograph.image.ndim == 2 else "ZYX", "unit": "um"}
    if micrograph.z_size is not None:
        metadata["spacing"] = micrograph.z_size
    tifffile.imwrite(
        file,
        micrograph.image,
        imagej=True,
        metadata=metadata,
        resolution=(1 / size.x, 1 / size.y),
        **options,
    )


def _fei_header(image: NDArray[Any], size: PixelSize) -> str:
    """Metadata as a Thermo Fisher (FEI) microscope writes them, lengths in metres."""
    height, width = image.shape
    sections = {
        "System": {"SystemType": "PhaseSAM simulation", "Type": "SEM"},
        "Beam": {"HV": "15000", "Spot": "3"},
        "Scan": {
            "PixelWidth": f"{size.x * 1e-6:.6e}",
            "PixelHeight": f"{size.y * 1e-6:.6e}",
            "HorFieldsize": f"{width * size.x * 1e-6:.6e}",
            "VerFieldsize": f"{height * size.y * 1e-6:.6e}",
        },
        "Image": {"ResolutionX": str(width), "ResolutionY": str(height)},
        "PrivateFei": {"DatabarHeight": "0"},
    }
    lines = []
    for section, entries in sections.items():
        lines += [f"[{section}]", *(f"{key}={value}" for key, value in entries.items()), ""]
    return "\r\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the samples into the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Make PhaseSAM's sample images again.")
    parser.add_argument("folder", nargs="?", type=Path, help="default: the bundled samples")
    chosen = parser.parse_args(arguments).folder
    write_samples(sample_folder() if chosen is None else chosen)


if __name__ == "__main__":
    main()
