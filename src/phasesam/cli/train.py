"""``phasesam train``: labelled images in, an adapter out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phasesam.cli.adapter_output import (
    adapter_target,
    check_run,
    deliver_adapter,
    report_adapter,
    run_folder,
    training_watcher,
)
from phasesam.cli.console import Interruption, exits_cleanly, message_console, output_console
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.label_meaning import options_as_learnt
from phasesam.cli.label_options import LabelOptions
from phasesam.cli.options import with_options
from phasesam.cli.results import prepare_folder
from phasesam.cli.train_options import DataChoice, RecipeChoice, TrainModel, TrainOutput
from phasesam.core.errors import InvalidSettingError

if TYPE_CHECKING:
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.training.data_checks import DataSummary
    from phasesam.training.dataset import TrainingData
    from phasesam.training.fine_tuning import TrainedAdapter
    from phasesam.training.recipes import Recipe

HELP = with_examples(
    "Adapt a model to labelled images; write an adapter for all other commands.",
    "phasesam train powder/ -o powder --task instance",
    "phasesam train steel/ -o steel.safetensors --task semantic",
    "phasesam train data.csv -o scan --task promptable --recipe dental-iterative",
    "phasesam train powder/ -o powder --task instance --resume",
    "phasesam train new/ -o new_steel --task semantic --start steel_phases",
)
RECIPES_HELP = with_examples(
    "List the recipes for training: the bundled ones and your own.",
    "phasesam recipes",
    "phasesam train powder/ -o powder --recipe one-image",
)


@with_options(DataChoice, LabelOptions, TrainOutput, RecipeChoice, TrainModel)
@exits_cleanly
def train(
    choice: DataChoice,
    labels: LabelOptions,
    output: TrainOutput,
    recipes: RecipeChoice,
    model: TrainModel,
) -> ExitCode:
    """Adapt a model to labelled images; write an adapter for all other commands."""
    from phasesam.models.adapter_store import card_of, get_adapter
    from phasesam.models.devices import asked_device
    from phasesam.training.acceleration import is_main_process
    from phasesam.training.data_checks import check
    from phasesam.training.fine_tuning import TrainingSettings
    from phasesam.training.memory_estimate import require_memory
    from phasesam.training.recipes import save_recipe
    from phasesam.training.visible_objects import unseen_objects

    console = message_console(output.quiet or not is_main_process())
    recipe = build_recipe(recipes)
    replaces = output.overwrite or output.resume or output.check_only
    target = adapter_target(output.output, replaces=replaces)
    start = "" if output.start is None else str(get_adapter(output.start).path)
    card = card_of(start) if start else None
    base = model.model if card is None else card.base
    if start:
        _refuse_beside_start(recipes, model, base)
    if recipes.save_recipe is not None and is_main_process():
        save_recipe(replace(recipe, name=recipes.save_recipe, title=recipes.save_recipe))
    settings = TrainingSettings(
        recipe,
        base=base,
        seed=model.seed,
        device=model.device,
        precision=model.precision,
        trackers=tuple(output.tracker or ()),
        licence=output.licence,
        start=start,
    )
    data = read_data(choice, labels, recipe, model.seed, card)
    with Interruption(console) as interruption:
        summary = check(data, should_stop=interruption.requested)
        _describe(console, data, summary)
        unseen = unseen_objects(settings, data.task, summary.objects)
        if unseen:
            console.print(f"[yellow]Warning:[/] {escape(unseen)}")
        memory = require_memory(settings, len(data.classes))
        console.print(f"memory: about {memory / 1e9:.1f} GB")
        asked_device(settings.device)
        if output.check_only:
            return ExitCode.OK
        if target is not None:
            prepare_folder(target.absolute().parent)
        check_run(output.output, output.run, resume=output.resume, overwrite=output.overwrite)
        result = _run(data, settings, output, console, interruption)
    if not is_main_process():
        return ExitCode.OK
    path = deliver_adapter(result.path, output.output, target)
    report_adapter(result, path, as_json=output.json_summary, quiet=output.quiet)
    return ExitCode.OK


# Settings that an adapter to go on from brings along, besides ``adapter``.
_OF_START = ("views.window", "auto_window", "stretch", "detail_steps")


def _refuse_beside_start(recipes: RecipeChoice, model: TrainModel, base: str) -> None:
    """Refuse options that the adapter to go on from has decided."""
    given = {"--rank": recipes.rank, "--window": recipes.window}
    decided = [name for name, value in given.items() if value is not None]
    keys = [text.partition("=")[0].strip() for text in recipes.set or ()]
    decided += [f"--set {key}" for key in keys if key.startswith("adapter.") or key in _OF_START]
    if model.model not in (base, TrainModel().model):
        decided.append("--model")
    if decided:
        raise InvalidSettingError(
            f"{' and '.join(decided)} cannot be chosen with --start: the layers, the window and "
            f"the base ({base}) are those of its adapter"
        )


def use_device(device: str) -> None:
    """Let models compute where others are trained: there, or where ``PHASESAM_DEVICE`` says."""
    from phasesam.models.devices import asked_choice
    from phasesam.models.manager import get_manager

    get_manager().set_device(asked_choice(device))


def refuse_other_task(recipe: Recipe, task: str) -> None:
    """Refuse a recipe that is not for a task, by an `InvalidSettingError`."""
    if task not in recipe.tasks:
        raise InvalidSettingError(
            f"the recipe {recipe.name} fits {', '.join(recipe.tasks)}, not {task}"
        )


def read_data(
    choice: DataChoice,
    labels: LabelOptions,
    recipe: Recipe,
    seed: int,
    start: AdapterCard | None = None,
) -> TrainingData:
    """Read labelled images as the options say, else as the adapter to go on from did.

    Raises
    ------
    InvalidSettingError
        If the recipe is not for the task.
    TrainingDataError
        If nothing can be learnt from what is there.
    """
    from phasesam.training.dataset import read_training_data

    task = choice.task or (recipe.tasks[0] if start is None else start.task)
    refuse_other_task(recipe, task)
    return read_training_data(
        choice.data,
        task,
        fractions=_fractions(choice.fractions) or recipe.fractions,
        seed=seed,
        **(
            labels.data_options()
            if start is None
            else options_as_learnt(choice.data, labels, start, to_learn=True)
        ),
    )


def build_recipe(options: RecipeChoice) -> Recipe:
    """Read a recipe and change what the options say.

    Raises
    ------
    InvalidSettingError
        If there is no such recipe or setting.
    """
    from phasesam.training.recipes import Recipe, get_recipe

    values = get_recipe(options.recipe).to_dict()
    changes: list[tuple[str, Any]] = []
    for key, value in (("epochs", options.epochs), ("batch", options.batch)):
        if value is not None:
            changes.append((key, value))
    if options.rank is not None:
        changes.append(("adapter.rank", options.rank))
    if options.window is not None:
        changes.append(("views.window", options.window or None))
        # Otherwise none asked for would be one that fits the images.
        changes.append(("auto_window", False))
    changes += [_parsed(text) for text in options.set or ()]
    for key, value in changes:
        _set(values, key, value)
    return Recipe.from_dict(values)


def _parsed(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidSettingError(f"--set takes KEY=VALUE, got {text!r}")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    part: Any = values
    for name in parents:
        part = part.get(name) if isinstance(part, dict) else None
    if not isinstance(part, dict) or last not in part:
        raise InvalidSettingError(f"a recipe has no setting {key!r}")
    part[last] = value


def _fractions(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidSettingError(
            f"--fractions takes three numbers, 0.7,0.2,0.1, got {text!r}"
        ) from error
    return first, second, third


def _run(
    data: TrainingData, settings: Any, output: TrainOutput, console: Console, interruption: Any
) -> TrainedAdapter:
    from phasesam.training.fine_tuning import train as fit

    watcher = training_watcher(console, interruption)
    with watcher.bar:
        return fit(
            data,
            run_folder(output.output, output.run),
            settings,
            resume=output.resume,
            callbacks=[watcher],
        )


def _describe(console: Console, data: TrainingData, summary: DataSummary) -> None:
    for split in data.splits:
        parts = [f"{summary.n_images[split]} images"]
        if split in summary.n_objects:
            parts.append(f"{summary.n_objects[split]} objects")
        if split in summary.class_fractions:
            shares = zip(data.classes, summary.class_fractions[split], strict=True)
            parts += [f"{name} {share:.1%}" for name, share in shares]
        console.print(escape(f"{split}: {', '.join(parts)}"))
    for warning in summary.warnings:
        console.print(f"[yellow]Warning:[/] {escape(warning)}")


def list_recipes() -> None:
    """List the recipes for training."""
    from phasesam.training.recipes import find_recipes

    table = Table("recipe", "tasks", "what for")
    recipes, problems = find_recipes()
    for recipe in recipes.values():
        table.add_row(recipe.name, ", ".join(recipe.tasks), recipe.description)
    output_console().print(table)
    for problem in problems:
        message_console().print(f"[yellow]Warning:[/] {escape(problem)}")
