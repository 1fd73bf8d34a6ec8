"""Which recipe is best: every variant gets its own learning rate before they are compared.

The learning rate that suits one rank does not suit another; comparing ranks at one rate compares
rates. So the rate is tuned for each variant on the validation images only, and each variant is
tested once, with the rate that was chosen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phasesam.core.errors import InvalidSettingError, TrainingError
from phasesam.evaluation.adapter_scores import Watch
from phasesam.evaluation.cells import ClickConfig, Opener, chosen_objects
from phasesam.evaluation.click_curves import MEASURES, ClickCurves
from phasesam.evaluation.clicks import evaluate_clicks
from phasesam.evaluation.report import Table
from phasesam.evaluation.statistics import number
from phasesam.models.adapter_card import read_card
from phasesam.training.data_checks import judgeable
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.feature_store import FeatureStore, shared_features
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.memory_estimate import require_memory
from phasesam.training.recipes import Recipe
from phasesam.training.run_folder import RunFolder
from phasesam.training.trainer import Callback

RATE_FACTORS = (0.3, 1.0, 3.0)
_CLICKS = (1, 3, 5, 11)


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes
    ----------
    variant : str
        Name of the variant.
    factor : float
        By which the recipe's learning rates were multiplied.
    rate : float
        Learning rate of the encoder that came of it.
    score : float
        Best validation score; NaN if the training failed.
    seconds : float
        Duration; what several trials have in common is counted in the first.
    parameters : int
        Numbers in the adapter file.
    path : Path
        The adapter.
    """

    variant: str
    factor: float
    rate: float
    score: float
    seconds: float
    parameters: int
    path: Path


def variants_of(recipes: Sequence[Recipe], ranks: Sequence[int] = ()) -> dict[str, Recipe]:
    """Make the variants to compare: every recipe with every rank.

    Parameters
    ----------
    recipes : sequence of Recipe
        At least one.
    ranks : sequence of int
        Ranks of the bottlenecks in the encoder; the recipes' own when empty.

    Raises
    ------
    InvalidSettingError
        If there is nothing to compare, or two variants have one name.
    """
    variants: dict[str, Recipe] = {}
    several = len({recipe.name for recipe in recipes}) > 1
    for recipe in recipes:
        for rank in ranks or (recipe.adapter.rank,):
            parts = [recipe.name] if several or not ranks else []
            parts += [f"rank {rank}"] if ranks else []
            name = ", ".join(parts)
            if name in variants:
                raise InvalidSettingError(f"expected different variants, got {name!r} twice")
            adapter = replace(recipe.adapter, rank=rank)
            variants[name] = replace(recipe, adapter=adapter)
    if not variants:
        raise InvalidSettingError("expected at least one recipe, got none")
    return variants


def tune_rates(
    data: TrainingData,
    folder: Path,
    variants: Mapping[str, Recipe],
    settings: TrainingSettings,
    factors: Sequence[float] = RATE_FACTORS,
    watch: Watch | None = None,
) -> tuple[Trial, ...]:
    """Train every variant with every learning rate.

    What is already in the folder is not trained again, so that an interrupted ablation goes on.

    Parameters
    ----------
    data : TrainingData
        With validation images.
    folder : Path
        One run folder per trial goes there.
    variants : mapping of str to Recipe
        By name.
    settings : TrainingSettings
        Base model, seed and device of all trials; the recipe is the variant's.
    factors : sequence of float
        By which the learning rates of a recipe are multiplied.
    watch : Watch, optional
        Who follows it, in trials.

    Returns
    -------
    tuple of Trial
        By variant, then by factor. A trial whose loss is no number has a score of NaN.

    Raises
    ------
    InvalidSettingError
        If there are no validation images, or a factor is not positive.
    DeviceMemoryError
        If a variant will not fit; nothing was trained then.
    CancelledError
        If somebody asked to stop.
    """
    if not judgeable(data):
        got = len(data.of("val"))
        raise InvalidSettingError(
            f"rates are tuned on validation images with labels; of {got} none has any"
            if got
            else "rates are tuned on validation images; the data have none"
        )
    if not factors or min(factors) <= 0:
        raise InvalidSettingError(f"factors must be positive numbers, got {list(factors)}")
    watch = watch or Watch()
    trials: list[Trial] = []
    total = len(variants) * len(factors)
    for name, recipe in variants.items():
        runs = [RunFolder(folder / _folder_name(name, factor)) for factor in factors]
        if any(run.status().state != "finished" for run in runs):
            require_memory(replace(settings, recipe=recipe), len(data.classes))
    # Variants that adapt the same blocks see the same features of the frozen ones.
    with shared_features(folder) as store:
        for name, recipe in variants.items():
            for factor in factors:
                watch.step(len(trials), total)
                run = folder / _folder_name(name, factor)
                chosen = replace(settings, recipe=at_rate(recipe, factor))
                trials.append(_trial(data, run, name, factor, chosen, watch, store))
    watch.step(total, total)
    return tuple(trials)


def at_rate(recipe: Recipe, factor: float) -> Recipe:
    """Multiply all learning rates of a recipe."""
    optimiser = recipe.optimiser
    return replace(
        recipe,
        optimiser=replace(
            optimiser,
            lr_encoder=optimiser.lr_encoder * factor,
            lr_decoder=optimiser.lr_decoder * factor,
            lr_heads=optimiser.lr_heads * factor,
        ),
    )


def best_trials(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Choose the trial of each variant by its validation score.

    Raises
    ------
    InvalidSettingError
        If no trial of a variant has a score.
    """
    best: dict[str, Trial] = {}
    for trial in trials:
        known = not math.isnan(trial.score)
        if known and (trial.variant not in best or trial.score > best[trial.variant].score):
            best[trial.variant] = trial
    missing = {trial.variant for trial in trials} - set(best)
    if missing:
        raise InvalidSettingError(f"no training of {', '.join(sorted(missing))} succeeded")
    return best


def _trial(
    data: TrainingData,
    folder: Path,
    name: str,
    factor: float,
    settings: TrainingSettings,
    watch: Watch,
    store: FeatureStore,
) -> Trial:
    rate = settings.recipe.optimiser.lr_encoder
    run = RunFolder(folder)
    try:
        # Goes on where it was; a finished one ends at once.
        watching = [Stopper(watch)]
        train(data, folder, settings, resume=True, callbacks=watching, features=store)
    except TrainingError:
        return Trial(name, factor, rate, math.nan, _seconds(run), 0, run.best_file)
    card = read_card(run.best_file)
    score = float(card.details.get("metrics", {}).get("val_score", math.nan))
    return Trial(
        name, factor, rate, score, _seconds(run), count_parameters(run.best_file), run.best_file
    )


class Stopper(Callback):
    """Ends a training when somebody asked to stop."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def should_stop(self) -> bool:
        """Whether somebody asked."""
        return self._watch.should_stop is not None and self._watch.should_stop()


def _seconds(run: RunFolder) -> float:
    rows = run.log()
    return rows[-1].get("seconds", math.nan) if rows else math.nan


def count_parameters(path: Path) -> int:
    """Count the numbers in an adapter file without reading them."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def click_variants(
    images: Sequence[LabelledImage],
    openers: Mapping[str, Opener],
    config: ClickConfig | None = None,
    watch: Watch | None = None,
) -> dict[str, ClickCurves]:
    """Click on the same objects with every variant.

    Parameters
    ----------
    images : sequence of LabelledImage
        Test images.
    openers : mapping of str to Opener
        By variant, the base among them.
    config : ClickConfig, optional
        How to click.
    watch : Watch, optional
        Who follows it, in images, each counted once per variant.

    Raises
    ------
    CancelledError
        If somebody asked to stop.
    """
    config, watch = config or ClickConfig(), watch or Watch()
    found: dict[str, list[ClickCurves]] = {name: [] for name in openers}
    total = len(images) * len(openers)
    for image in images:
        labels = image.label_array()
        objects = chosen_objects(labels, config)
        for name, opener in openers.items():
            watch.step(sum(map(len, found.values())), total)
            curves = evaluate_clicks(
                opener(image), labels, config.max_clicks, config.thresholds, objects,
                should_stop=watch.should_stop,
            )  # fmt: skip
            found[name].append(curves)
    watch.step(total, total)
    specimens, names = [i.specimen for i in images], [i.name for i in images]
    return {name: ClickCurves.joined(curves, specimens, names) for name, curves in found.items()}


def trial_table(trials: Sequence[Trial], title: str = "Learning rates") -> Table:
    """Write the validation score of every trial; the best of each variant is marked."""
    factors = list(dict.fromkeys(trial.factor for trial in trials))
    best = best_trials(trials)
    rows = []
    for name in dict.fromkeys(trial.variant for trial in trials):
        of = {trial.factor: trial for trial in trials if trial.variant == name}
        cells = [
            f"{number(of[f].score)}{' *' if of[f] is best[name] else ''}" if f in of else "–"
            for f in factors
        ]
        chosen = best[name]
        rows.append(
            (name, *cells, f"{chosen.rate:.2g}", f"{chosen.parameters / 1e6:.2f} M",
             number(chosen.seconds, 0))
        )  # fmt: skip
    return Table(
        title,
        ("variant", *(f"rates x {f:g}" for f in factors), "encoder's rate", "parameters",
         "seconds"),
        tuple(rows),
        "Scores on the validation images; * marks the rate that was chosen there and is tested.",
    )  # fmt: skip


def click_variant_table(curves: Mapping[str, ClickCurves], title: str = "Test") -> Table:
    """Quality after some clicks, and clicks needed, one column per variant."""
    everyone = list(curves.values())
    first = everyone[0]
    shown = [k for k in _CLICKS if k <= min(first.complete, first.max_clicks)]
    rows: list[tuple[str, ...]] = []
    for k in shown:
        for label, measure in MEASURES:
            texts = (c.after(k, measure).text() for c in everyone)
            rows.append((f"{label}, {k} click{'s' if k > 1 else ''}", *texts))
    for threshold in first.thresholds:
        texts = (c.noc(threshold).text(2) for c in everyone)
        rows.append((f"NoC@{100 * threshold:.0f}", *texts))
    return Table(
        title,
        ("figure", *curves),
        tuple(rows),
        f"Means over {len(first)} objects; NoC is {first.max_clicks} where an IoU is not reached.",
    )


def _folder_name(variant: str, factor: float) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{variant}_x{factor:g}")
