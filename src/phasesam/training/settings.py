"""What a training is told, beside its data. Loads no torch, for whoever only asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from phasesam.core.errors import InvalidSettingError
from phasesam.models.devices import check_device
from phasesam.training.recipes import Recipe, get_recipe


@dataclass(frozen=True)
class TrainingSettings:
    """What to train, beside the data.

    Attributes
    ----------
    recipe : Recipe
        How.
    base : str
        Model in the registry.
    seed : int
        Of all chance.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    precision : {"auto", "fp32", "bf16"}
        Of products while training.
    trackers : tuple of {"wandb", "tensorboard"}
        Where the curves go beside the log.
    licence : str
        Licence of the adapter, for its card.
    class_colours : tuple of str
        Colours of the classes, "#rrggbb", for its card; empty for none in particular.
    start : str
        File of the adapter to go on from, whose layers, window and classes then hold; empty to
        begin with the base alone.
    """

    recipe: Recipe = field(default_factory=lambda: get_recipe("default"))
    base: str = "mobile_sam"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    trackers: tuple[str, ...] = ()
    licence: str = ""
    class_colours: tuple[str, ...] = ()
    start: str = ""

    def __post_init__(self) -> None:
        check_device(self.device)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InvalidSettingError(f"the seed must be a whole number from 0, got {self.seed!r}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise InvalidSettingError(
                f"the precision is auto, fp32 or bf16, got {self.precision!r}"
            )
        unknown = set(self.trackers) - {"wandb", "tensorboard"}
        if unknown:
            raise InvalidSettingError(f"trackers are wandb and tensorboard, got {sorted(unknown)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            **asdict(self),
            "recipe": self.recipe.to_dict(),
            "trackers": list(self.trackers),
            "class_colours": list(self.class_colours),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Read what `to_dict` wrote."""
        recipe = Recipe.from_dict(values["recipe"])
        lists = {name: tuple(values.get(name, ())) for name in ("trackers", "class_colours")}
        return cls(**{**values, "recipe": recipe, **lists})
