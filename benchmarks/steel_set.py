"""A labelled set of simulated three-phase steels: ``python -m benchmarks.steel_set FOLDER``.

Each image is a specimen of its own, with other amounts, grain size and etching, so that
``phasesam evaluate ratio FOLDER`` has something to tell apart. Exact labels: 1 ferrite, 2 bainite,
3 martensite.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile

from phasesam.simulation.steel import SteelConfig, simulate_steel

FIRST_SEED = 1000


def write_steels(folder: Path, count: int, side: int = 512) -> None:
    """Simulate `count` steels and write ``images/`` and ``labels/``."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(FIRST_SEED + number)
        config = SteelConfig(
            shape=(side, side),
            grain_size=float(rng.uniform(6, 16)),
            bainite=float(rng.uniform(0.05, 0.5)),
            martensite=float(rng.uniform(0.03, 0.35)),
            # Fainter and noisier than the bundled sample: phases are then mistaken for each other.
            etching=float(rng.uniform(0.4, 0.9)),
            dose=float(rng.uniform(300, 1500)),
            defocus=float(rng.uniform(0.12, 0.3)),
        )
        steel = simulate_steel(config, FIRST_SEED + number)
        tifffile.imwrite(folder / "images" / f"steel{number:02}.tif", steel.image)
        tifffile.imwrite(folder / "labels" / f"steel{number:02}.tif", steel.classes)
    (folder / "classes.csv").write_text(
        "value,name\n1,ferrite\n2,bainite\n3,martensite\n", encoding="utf-8"
    )


def main() -> None:
    """Write a set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12)
    options = parser.parse_args()
    write_steels(options.folder, options.count)


if __name__ == "__main__":
    main()
