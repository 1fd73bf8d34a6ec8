"""Check what the built archives contain: ``python tools/check_distribution.py dist``."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

LARGEST_ARCHIVE = 60_000_000
"""Bytes; the package index accepts 100 MB."""

IN_WHEEL = (
    "phasesam/__init__.py",
    "phasesam/napari.yaml",
    "phasesam/py.typed",
    "phasesam/weights/*.safetensors",
    "phasesam/weights/*.md",
    "phasesam/bundled_adapters/*.safetensors",
    "phasesam/bundled_adapters/*.md",
    "phasesam/sample_data/*.tif",
    "*.dist-info/licenses/LICENSE",
    "*.dist-info/licenses/NOTICE",
    "*.dist-info/entry_points.txt",
)
IN_SDIST = (
    "*/pyproject.toml",
    "*/README.md",
    "*/LICENSE",
    "*/NOTICE",
    "*/Makefile",
    "*/src/phasesam/__init__.py",
    "*/src/phasesam/napari.yaml",
    "*/src/phasesam/weights/*.safetensors",
    "*/src/phasesam/bundled_adapters/*.safetensors",
    "*/sample_data/*.tif",
    "*/tests/test_package.py",
)
NEVER = ("*__pycache__*", "*.pyc", "*/.venv/*", "*.ipynb_checkpoints*")
ENTRY_POINTS = ("phasesam = phasesam.cli:main", "napari-phasesam = phasesam:napari.yaml")


def problems_in(archive: Path) -> list[str]:
    """Return what is wrong with one archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            names = wheel.namelist()
            entry_points = "".join(
                wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")
            )
        found = [f"no entry point {e!r}" for e in ENTRY_POINTS if e not in entry_points]
        found += [f"tests are inside: {n}" for n in names if n.startswith("tests/")][:1]
        required = IN_WHEEL
    else:
        with tarfile.open(archive) as source:
            names = source.getnames()
        found, required = [], IN_SDIST
    paths = [Path(name) for name in names]
    found += [f"{p} is missing" for p in required if not any(x.match(p) for x in paths)]
    found += [f"{x} does not belong in it" for p in NEVER for x in paths if x.match(p)][:3]
    size = archive.stat().st_size
    if size > LARGEST_ARCHIVE:
        found.append(f"it has {size / 1e6:.0f} MB, more than {LARGEST_ARCHIVE / 1e6:.0f} MB")
    return [f"{archive.name}: {problem}" for problem in found]


def main(folder: Path) -> int:
    """Check all archives of a folder and return the exit status."""
    archives = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    problems = [problem for archive in archives for problem in problems_in(archive)]
    if len(archives) != 2:
        problems.append(f"expected one wheel and one source archive in {folder}, got {archives}")
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        for archive in archives:
            print(f"{archive.name}: complete, {archive.stat().st_size / 1e6:.1f} MB")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
