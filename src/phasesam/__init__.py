"""PhaseSAM: segment micrographs and X-ray CT stacks with the Segment Anything Model.

Importing this package is cheap: it loads neither torch nor Qt. The public names
below are resolved on first use (PEP 562).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Threads of torch that wait for one another by spinning take the cores from those they wait
# for: the demo takes 27 s on two idle cores, 16 s when they sleep instead, and many times as
# long beside other work. OpenMP reads this when torch is loaded, which only happens later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from phasesam.core.mask_set import MaskSet
    from phasesam.core.types import Prompts
    from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
    from phasesam.engines.candidates import Candidates
    from phasesam.engines.ratio_guidance import guide_phases
    from phasesam.engines.segmenter import Segmenter
    from phasesam.engines.semantic import PhaseMap, segment_classes
    from phasesam.models.manager import ModelManager, get_manager
    from phasesam.session import SegmentationSession

_LAZY = {
    "AutomaticConfig": "phasesam.engines.automatic_config",
    "Candidates": "phasesam.engines.candidates",
    "FilterConfig": "phasesam.engines.automatic_config",
    "MaskSet": "phasesam.core.mask_set",
    "ModelManager": "phasesam.models.manager",
    "PhaseMap": "phasesam.engines.semantic",
    "Prompts": "phasesam.core.types",
    "SegmentationSession": "phasesam.session",
    "Segmenter": "phasesam.engines.segmenter",
    "get_manager": "phasesam.models.manager",
    "guide_phases": "phasesam.engines.ratio_guidance",
    "segment_classes": "phasesam.engines.semantic",
}

__all__ = [
    "AutomaticConfig",
    "Candidates",
    "FilterConfig",
    "MaskSet",
    "ModelManager",
    "PhaseMap",
    "Prompts",
    "SegmentationSession",
    "Segmenter",
    "__version__",
    "get_manager",
    "guide_phases",
    "segment_classes",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'phasesam' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
