"""What an adapter says about itself. Reads the header of its file only, and loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from phasesam.core.errors import CheckpointError
from phasesam.models.adapter_config import AdapterConfig

USUAL_THRESHOLD = 0.88
"""Predicted IoU above which SAM keeps automatic masks."""
TASKS = ("promptable", "instance", "semantic")
_FORMAT = "phasesam-adapter-1"
_MOST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class AdapterCard:
    """What is known about an adapter, stored with its weights.

    Attributes
    ----------
    config : AdapterConfig
        Which layers it changes.
    base : str
        Name of the base in the registry.
    base_hash : str
        `weights_hash` of the base.
    task : {"promptable", "instance", "semantic"}
        What it was trained for.
    classes : tuple of str
        Names of the classes of a "semantic" adapter, background included.
    details : mapping
        Recipe, data hash, pixel size, splits, metrics, licence: plain values only.
    """

    config: AdapterConfig
    base: str
    base_hash: str
    task: str = "promptable"
    classes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answers_prompts(self) -> bool:
        """Whether it was trained to; one with classes leaves prompts to its base."""
        return self.task != "semantic"

    @property
    def window(self) -> int | None:
        """Side of the windows that it was trained on, in pixels; None for whole images."""
        window = self.details.get("window")
        return window if isinstance(window, int) and window > 0 else None

    @property
    def score_slope(self) -> float:
        """How much closer to 1 its scores were brought after the training; 1 for not at all.

        A predicted IoU of ``x`` before has become ``1 - slope * (1 - x)``.
        """
        threshold = self.details.get("best_threshold")
        if not isinstance(threshold, float) or not 0 <= threshold < 1:
            return 1.0
        return (1 - USUAL_THRESHOLD) / (1 - threshold)

    def to_json(self) -> str:
        """Write the card as JSON."""
        values = {**asdict(self), "config": self.config.to_dict(), "format": _FORMAT}
        return json.dumps(values, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, origin: str) -> AdapterCard:
        """Read what `to_json` wrote.

        Raises
        ------
        CheckpointError
            If it is no card of this version.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != _FORMAT:
                raise ValueError("another version")
            values["config"] = AdapterConfig.from_dict(values["config"])
            values["classes"] = tuple(values["classes"])
            card = cls(**values)
            card._check()
            return card
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{origin}: the card of the adapter is damaged: {error}"
            ) from error

    def _check(self) -> None:
        texts = (self.base, self.base_hash, *self.classes)
        if self.task not in TASKS or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected names and a task of {', '.join(TASKS)}, got {self.task!r}")
        if bool(self.classes) != (self.task == "semantic") or not isinstance(self.details, dict):
            raise ValueError(f"{len(self.classes)} classes do not fit the task {self.task}")


def read_card(path: Path) -> AdapterCard:
    """Read the card of an adapter without its weights.

    Raises
    ------
    CheckpointError
        If the file is no adapter, or shorter than its header says.
    """
    try:
        metadata = _read_header(path).get("__metadata__") or {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as an adapter: {error}") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("card"), str):
        raise CheckpointError(f"{path} is no adapter of PhaseSAM: it has no card")
    return AdapterCard.from_json(metadata["card"], str(path))


def is_adapter(path: Path) -> bool:
    """Tell whether a file has the card of an adapter; it may be damaged all the same."""
    try:
        metadata = _read_header(path, must_be_whole=False).get("__metadata__")
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False
    return isinstance(metadata, dict) and "card" in metadata


def _read_header(path: Path, must_be_whole: bool = True) -> dict[str, Any]:
    """Read the header of a safetensors file; ValueError if it is none, or not all of it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _MOST_HEADER_BYTES:
            raise ValueError("it is no safetensors file")
        text = file.read(length)
    header = json.loads(text)
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected, found = 8 + length + max(ends, default=0), path.stat().st_size
    if must_be_whole and found != expected:
        raise ValueError(f"expected {expected} bytes, got {found}: the file is incomplete")
    return dict(header)
