"""Recipes: all settings of a training as data, in JSON files. Bundled ones and the user's own."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from phasesam.core.errors import FileFormatError, InvalidSettingError
from phasesam.formats.atomic import atomic_file
from phasesam.models.adapter_config import AdapterConfig
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.hint_config import HintTraining
from phasesam.training.label_values import Task, check_task
from phasesam.training.loss_config import LossConfig
from phasesam.training.plain_values import check_value
from phasesam.training.prompt_config import PromptTraining
from phasesam.training.views import ViewConfig
from phasesam.training.window_choice import object_window, phase_window

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OPTIMISERS = ("adamw", "adam", "sgd")
_SCHEDULES = ("cosine", "constant", "polynomial", "one_cycle")


@dataclass(frozen=True)
class OptimiserConfig:
    """How weights are moved.

    Attributes
    ----------
    kind : {"adamw", "adam", "sgd"}
        Optimiser.
    lr_encoder, lr_decoder, lr_heads : float
        Learning rates of adapters in the encoder, of the decoder, and of class tokens with
        what belongs to them.
    weight_decay : float
        Decay of weights.
    schedule : {"cosine", "constant", "polynomial", "one_cycle"}
        Course of the learning rates after the warm-up.
    warm_up : float
        Share of all steps in which the rates rise from zero, 0–1.
    clip : float
        Longest gradient; longer ones are shortened to it.
    """

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    lr_encoder: float = 5e-4
    lr_decoder: float = 5e-4
    lr_heads: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["cosine", "constant", "polynomial", "one_cycle"] = "cosine"
    warm_up: float = 0.05
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _OPTIMISERS or self.schedule not in _SCHEDULES:
            raise InvalidSettingError(
                f"expected an optimiser of {', '.join(_OPTIMISERS)} and a schedule of "
                f"{', '.join(_SCHEDULES)}, got {self.kind!r} and {self.schedule!r}"
            )
        for name in ("lr_encoder", "lr_decoder", "lr_heads", "clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidSettingError(f"{name} must be a positive number, got {value}")
        if not (0 <= self.warm_up < 1 and 0 <= self.weight_decay < math.inf):
            raise InvalidSettingError("warm_up must be within 0–1, weight_decay not negative")

    def factor(self, done: float) -> float:
        """Learning rate as a share of its full value.

        Parameters
        ----------
        done : float
            Share of all steps that have been taken, 0–1.
        """
        if done < self.warm_up:
            return max(done / self.warm_up, 0.01)
        rest = min(1.0, (done - self.warm_up) / (1 - self.warm_up))
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "polynomial":
            return float((1 - rest) ** 0.9)
        return max(0.01, (1 + math.cos(math.pi * rest)) / 2)


@dataclass(frozen=True)
class Recipe:
    """All settings of a training but the data.

    Attributes
    ----------
    name, title, description : str
        What it is called, in one word, in a few, and what it is for.
    tasks : tuple of {"promptable", "instance", "semantic"}
        What it fits; the first is meant when none is asked for.
    adapter : AdapterConfig
        What is trained.
    optimiser : OptimiserConfig
        How.
    loss : LossConfig
        Against what.
    prompts : PromptTraining
        Simulated prompts; not used by "semantic".
    hints : HintTraining
        What is told to adapters that take phase fractions or boxes of classes.
    views : ViewConfig
        What a view of an image shows.
    batch : int
        Views to one step.
    epochs, views_per_epoch : int
        Length: a validation follows each epoch.
    detail_steps : int
        Steps for each epoch to come in which the head of fine detail of phases learns alone
        before anything else, on small pieces of the images; 2000 at most, 0 for none.
    pool : int or None
        Number of different views; the frozen part of the encoder runs once for each. None
        draws a new view every time, and nothing is kept.
    auto_window : bool
        Whether images are looked at in windows where `views` says nothing: for phases three
        quarters of their longer side, 256 to 1024 pixels; for objects three and a half times
        as wide as the large ones.
    stretch : bool
        Whether phases are looked for in images whose intensities are spread over the whole
        range first, so that the contrast of a recording does not matter.
    patience : int or None
        Epochs without a better validation score after which training ends; None for all.
    fractions : tuple of three floats
        Shares of images for training, validation and test where the data say nothing.
    """

    name: str
    title: str
    description: str
    tasks: tuple[Task, ...] = ("promptable", "instance", "semantic")
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    prompts: PromptTraining = field(default_factory=PromptTraining)
    hints: HintTraining = field(default_factory=HintTraining)
    views: ViewConfig = field(default_factory=ViewConfig)
    batch: int = 4
    epochs: int = 20
    views_per_epoch: int = 32
    detail_steps: int = 0
    pool: int | None = 128
    auto_window: bool = False
    stretch: bool = False
    patience: int | None = 8
    fractions: tuple[float, float, float] = (0.7, 0.2, 0.1)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidSettingError(
                f"a recipe is named in letters, digits, '.', '_', '-', got {self.name!r}"
            )
        object.__setattr__(self, "tasks", tuple(check_task(task) for task in self.tasks))
        object.__setattr__(self, "fractions", tuple(float(f) for f in self.fractions))
        for name in ("batch", "epochs", "views_per_epoch", "pool", "patience"):
            value = getattr(self, name)
            optional = name in ("pool", "patience") and value is None
            if not optional and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise InvalidSettingError(f"{name} must be a whole number from 1, got {value!r}")
        steps = self.detail_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise InvalidSettingError(f"detail_steps must be a whole number from 0, got {steps!r}")
        if not self.tasks or len(self.fractions) != 3:
            raise InvalidSettingError("a recipe fits at least one task and has three fractions")

    def fitted(self, task: Task, is_hq: bool, longest_side: int = 0, extent: float = 0.0) -> Recipe:
        """Complete the recipe with what task, model and images ask for.

        Parameters
        ----------
        task : {"promptable", "instance", "semantic"}
            "instance" trains the IoU head, on background too.
        is_hq : bool
            SAM-HQ's own part is trained whenever anything is, because it sees the features
            that change; and the IoU head, which otherwise knows nothing of it.
        longest_side : int
            Of the images, in pixels, for `auto_window`.
        extent : float
            Of large objects, in pixels, for `auto_window`.
        """
        adapter, prompts, views = self.adapter, self.prompts, self.views
        if self.auto_window and views.window is None:
            phases = task == "semantic"
            side = phase_window(longest_side) if phases else object_window(longest_side, extent)
            views = replace(views, window=side)
        if task == "instance":
            adapter = replace(adapter, iou_head=True)
            prompts = replace(prompts, background=prompts.background or prompts.objects)
        if is_hq and task != "semantic":
            hq = "full" if adapter.hq == "none" else adapter.hq
            adapter = replace(adapter, hq=hq, iou_head=True)
        stretch = self.stretch and task == "semantic"
        return replace(self, adapter=adapter, prompts=prompts, views=views, stretch=stretch)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in a file."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read what `to_dict` wrote; what is left out has its default.

        Raises
        ------
        InvalidSettingError
            If a setting is unknown or out of range; the message names it.
        """
        return _build(cls, values, "recipe")


_PARTS: dict[str, type] = {
    "adapter": AdapterConfig,
    "optimiser": OptimiserConfig,
    "loss": LossConfig,
    "prompts": PromptTraining,
    "hints": HintTraining,
    "views": ViewConfig,
    "augmentation": AugmentationConfig,
}


def _build(kind: type, values: Any, name: str) -> Any:
    """Make a dataclass of plain values."""
    if not isinstance(values, Mapping):
        raise InvalidSettingError(f"{name}: expected settings by name, got {values!r}")
    known = {f.name for f in fields(kind)} if is_dataclass(kind) else set()
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidSettingError(f"{name}: unknown settings {', '.join(unknown)}")
    for key, value in values.items():
        if key not in _PARTS:
            check_value(kind, key, value, name)
    arguments = {
        key: _build(_PARTS[key], value, f"{name}.{key}")
        if key in _PARTS
        else tuple(value)
        if isinstance(value, list)
        else value
        for key, value in values.items()
    }
    try:
        return kind(**arguments)
    except InvalidSettingError:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidSettingError(f"{name}: {error}") from error


def user_folder() -> Path:
    """Where the user's own recipes are."""
    from phasesam.models.download import cache_folder

    return cache_folder().parent / "recipes"


def list_recipes() -> dict[str, Recipe]:
    """All recipes by name: the bundled ones, then the user's own; see `find_recipes`."""
    return find_recipes()[0]


def find_recipes() -> tuple[dict[str, Recipe], list[str]]:
    """Read all recipes.

    Returns
    -------
    dict of str to Recipe
        The bundled ones by name, then the user's own. A file that was put into `user_folder` by
        hand may take the place of a bundled one.
    list of str
        What is wrong with files of the user that are no recipes; the others are not held up.
    """
    found = _bundled()
    problems = []
    for path in sorted(user_folder().glob("*.json")) if user_folder().is_dir() else ():
        try:
            recipe = read_recipe(path)
        except FileFormatError as error:
            problems.append(str(error))
        else:
            found[recipe.name] = recipe
    return found, problems


def _bundled() -> dict[str, Recipe]:
    """Read the recipes that come with the product, the default one first."""
    folder = resources.files("phasesam.training") / "recipes_bundled"
    files = sorted(folder.iterdir(), key=lambda entry: (entry.name != "default.json", entry.name))
    recipes = [parse_recipe(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {recipe.name: recipe for recipe in recipes}


def get_recipe(name_or_path: str | Path) -> Recipe:
    """Find a recipe by name, or read it from a file ``.json``.

    Raises
    ------
    InvalidSettingError
        If there is none of this name; the message lists those there are.
    """
    if str(name_or_path).endswith(".json"):
        return read_recipe(Path(name_or_path))
    recipes, problems = find_recipes()
    if str(name_or_path) not in recipes:
        message = f"there is no recipe {str(name_or_path)!r}; there are {', '.join(recipes)}"
        raise InvalidSettingError("; ".join([message, *problems]))
    return recipes[str(name_or_path)]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a file.

    Raises
    ------
    FileFormatError
        If it cannot be read as one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} cannot be read as a recipe: {error}") from error
    return parse_recipe(text, str(path))


def parse_recipe(text: str, origin: str) -> Recipe:
    """Read a recipe from JSON.

    Raises
    ------
    FileFormatError
        If it is not one; the message names `origin`.
    """
    try:
        return Recipe.from_dict(json.loads(text))
    except (ValueError, InvalidSettingError) as error:
        raise FileFormatError(f"{origin} is no recipe: {error}") from error


def save_recipe(recipe: Recipe, path: Path | None = None) -> Path:
    """Write a recipe, among the user's own unless a path is given.

    Raises
    ------
    InvalidSettingError
        If it would hide one that comes with PhaseSAM.
    SaveError
        If it cannot be written.
    """
    if path is None:
        taken = {name.casefold() for r in _bundled().values() for name in (r.name, r.title)}
        if taken & {recipe.name.casefold(), recipe.title.casefold()}:
            raise InvalidSettingError(
                f"the recipe {recipe.title} comes with PhaseSAM; choose another name"
            )
        user_folder().mkdir(parents=True, exist_ok=True)
        path = user_folder() / f"{recipe.name}.json"
    with atomic_file(path) as file:
        file.write(json.dumps(recipe.to_dict(), indent=1).encode())
    return path
