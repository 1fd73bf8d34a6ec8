"""Check that the installed packages work together, and say what to do when they do not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable


def torch_and_torchvision() -> str | None:
    """Return what is wrong with the pair of torch and torchvision, if anything."""
    try:
        import torch
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return (
            f"torch and torchvision do not work together: {error}\n"
            "This happens when they come from two sources, for instance a CPU-only torch\n"
            "beside PyPI's torchvision. Install both from one index:\n"
            f"    {sys.executable} -m pip install --force-reinstall --index-url INDEX "
            "torch torchvision\n"
            "with INDEX https://pypi.org/simple, or https://download.pytorch.org/whl/cpu"
        )
    return None if kept.tolist() == [0] else f"torchvision.ops.nms returned {kept.tolist()}"


def qt_binding() -> str | None:
    """Return what is wrong with the Qt binding, if anything."""
    try:
        import PySide6
    except ImportError as error:
        return f"no Qt binding: {error}\nInstall it with:  pip install 'napari-phasesam[all]'"
    if PySide6.__version__ == "6.12.0" and sys.version_info < (3, 12):
        return (
            "PySide6 6.12.0 corrupts memory on Python 3.11. Install another version:\n"
            f"    {sys.executable} -m pip install 'PySide6!=6.12.0'"
        )
    return None


def phasesam_itself() -> str | None:
    """Return what is wrong with the installed package, if anything."""
    try:
        importlib.import_module("phasesam")
    except ImportError as error:
        return f"phasesam cannot be imported: {error}"
    return None


def main(profile: str) -> int:
    """Run the checks of a profile and return the exit status."""
    checks: list[Callable[[], str | None]] = [phasesam_itself, torch_and_torchvision]
    if profile != "base":
        checks.append(qt_binding)
    problems = [message for check in checks if (message := check())]
    for message in problems:
        sys.stderr.write(f"\n{message}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1] if len(sys.argv) > 1 else "test"))
