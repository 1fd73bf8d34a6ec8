"""From labelled images to an adapter: the one entry for Python, command line and dock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from phasesam.core.errors import (
    CancelledError,
    DeviceMemoryError,
    OtherTrainingError,
    PhaseSAMError,
    SaveError,
    TrainingError,
)
from phasesam.models.adapter_card import AdapterCard
from phasesam.models.adapters import read_weights, save_adapter, weights_hash
from phasesam.models.sam import SamModel, build_model
from phasesam.models.shortage import attempt
from phasesam.training.acceleration import is_main_process, make_accelerator
from phasesam.training.checkpoint import TrainingState
from phasesam.training.class_objective import ClassObjective
from phasesam.training.data_checks import judgeable, require_training_images
from phasesam.training.feature_store import FeatureStore
from phasesam.training.going_back import decisive_parts, resumed, training_key
from phasesam.training.heap import keep_freed_memory
from phasesam.training.memory_estimate import suggestion
from phasesam.training.objective import SamObjective, Surroundings
from phasesam.training.prompt_objective import PromptObjective
from phasesam.training.run_folder import Preview, RunFolder, RunStatus, State
from phasesam.training.run_watch import RunWatch
from phasesam.training.score_scale import scale_scores
from phasesam.training.settings import TrainingSettings
from phasesam.training.starting_point import content_key, going_on, keep_start, learnt_before
from phasesam.training.trackers import TrackerCallback, check_installed
from phasesam.training.trainer import Callback, Progress, Trainer, TrainerConfig
from phasesam.training.visible_objects import ImageObjects, about_unseen, fitted_to_objects

if TYPE_CHECKING:
    from accelerate import Accelerator

    from phasesam.training.dataset import LabelledImage, TrainingData
    from phasesam.training.recipes import Recipe


@dataclass(frozen=True)
class TrainedAdapter:
    """What came out.

    Attributes
    ----------
    path : Path
        File of the best adapter.
    card : AdapterCard
        What is known about it.
    rows : list of dict
        The log, one row an epoch.
    """

    path: Path
    card: AdapterCard
    rows: list[dict[str, float]]


def train(
    data: TrainingData,
    folder: str | Path,
    settings: TrainingSettings | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    keep_requests: bool = False,
    features: FeatureStore | None = None,
) -> TrainedAdapter:
    """Train an adapter.

    Parameters
    ----------
    data : TrainingData
        Images, labels, splits.
    folder : path-like
        Folder of this training; see `RunFolder`.
    settings : TrainingSettings, optional
        The default recipe on MobileSAM when left out.
    resume : bool
        Go on from the checkpoint in the folder, if there is one.
    callbacks : sequence of Callback
        Told about steps and epochs; may stop the training.
    keep_requests : bool
        Whether to obey what the folder was asked for before, too, such as to pause.
    features : FeatureStore, optional
        Where what the frozen part of the encoder makes of the images is kept after the training,
        and found by the next one if it is the same for that; the caller clears it.

    Returns
    -------
    TrainedAdapter
        Its file is ``best.safetensors`` in `folder`.

    Raises
    ------
    TrainingDataError
        If there is nothing to learn from.
    TrainingError
        If the loss is not a number any more.
    CancelledError
        If it was stopped; ``resume=True`` goes on.
    DeviceMemoryError
        If it does not fit; the message says what to change.
    SaveError
        If results cannot be written.
    """
    settings = settings or TrainingSettings()
    run = RunFolder(folder)

    def work(told: Sequence[Callback]) -> TrainedAdapter:
        return _within_memory(
            lambda: _kept(run, lambda: _train(data, run, settings, resume, told, features)),
            settings,
            len(data.classes),
        )

    if not is_main_process():
        return work([])
    run.create()
    if not keep_requests:
        run.clear_requests()
    watch, before = RunWatch(run), run.status()
    watch.tell(RunStatus("preparing", "reading data"))
    try:
        result = work([*callbacks, watch])
    except CancelledError as error:
        watch.tell(replace(watch.last, state="cancelled", message=str(error)))
        raise
    except OtherTrainingError as error:
        # Nothing has happened to the one in the folder.
        watch.tell(before if before.is_over else RunStatus("failed", str(error)))
        raise
    except BaseException as error:
        # Else the folder would count as taken as long as this program runs.
        state: State = "failed"
        why = str(error) if isinstance(error, PhaseSAMError) else f"{type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            state, why = "cancelled", "interrupted"
        with suppress(SaveError):
            watch.tell(replace(watch.last, state=state, message=why))
        raise
    watch.tell(replace(watch.last, state="finished", message=""))
    return result


def _within_memory(
    work: Callable[[], TrainedAdapter], settings: TrainingSettings, n_classes: int
) -> TrainedAdapter:
    """Do the work, and say what to change where memory runs out."""
    outcome = attempt(work)
    if outcome.shortage:
        raise DeviceMemoryError(
            f"the training ran out of memory ({outcome.shortage}); what was kept before "
            f"stays. To need less: {suggestion(settings, n_classes)}"
        )
    return outcome.result


def _kept(run: RunFolder, work: Callable[[], TrainedAdapter]) -> TrainedAdapter:
    """Do the work; where the loss explodes, say where the best adapter so far is."""
    try:
        return work()
    except TrainingError as error:
        if not run.best_file.exists():
            raise
        raise TrainingError(f"{error}. The best adapter so far: {run.best_file}") from error


def _train(
    data: TrainingData,
    run: RunFolder,
    settings: TrainingSettings,
    resume: bool,
    callbacks: Sequence[Callback],
    features: FeatureStore | None,
) -> TrainedAdapter:
    keep_freed_memory()
    check_installed(settings.trackers)
    torch.manual_seed(settings.seed)
    accelerator = make_accelerator(settings, run)
    given = settings.start
    settings = keep_start(settings, run, resume, accelerator)
    base = build_model(settings.base)
    identity = weights_hash(base)
    settings = going_on(settings, data, identity)
    settings = replace(settings, recipe=fitted_to(settings.recipe, data, base.is_hq))
    store = _own_store(run, accelerator.process_index) if features is None else features
    objective = make_objective(base, data, settings, accelerator, store)
    if settings.start:
        read_weights(objective.weights(), Path(settings.start))
    store.serve(_features_key(objective, settings, identity))
    decisive = decisive_parts(data, settings, identity)
    config = TrainerConfig(
        optimiser=settings.recipe.optimiser,
        batch=settings.recipe.batch,
        epochs=settings.recipe.epochs,
        patience=settings.recipe.patience,
        checkpoint=run.checkpoint_file,
        key=training_key(decisive),
    )
    if settings.trackers:
        tracker = TrackerCallback(accelerator, settings.trackers, run.path, settings.to_dict())
        callbacks = [*callbacks, tracker]
    keeper = _Keeper(objective, data, settings, identity, run)
    trainer = Trainer(objective, config, accelerator, [keeper, *callbacks])
    if accelerator.is_main_process and not resume:
        _clear(run, given)
    accelerator.wait_for_everyone()
    if resume and resumed(trainer, run, decisive):
        keeper.remember(trainer.state)
        if accelerator.is_main_process:
            run.write_log(trainer.state.rows)
    # Not before: a refused attempt leaves what the folder says about the training in it.
    if accelerator.is_main_process:
        run.write_settings({**settings.to_dict(), **decisive, "recipe": settings.recipe.to_dict()})
    try:
        if data.task != "semantic":
            keeper.judge_base(accelerator.is_main_process, trainer.state.step == 0)
        trainer.run()
    finally:
        if features is None:
            store.clear()
        accelerator.end_training()
    card = keeper.card()
    if data.task == "instance" and accelerator.is_main_process:
        card = _with_usual_threshold(run, base, data, str(accelerator.device), callbacks)
    return TrainedAdapter(run.best_file, card, trainer.state.rows)


def _clear(run: RunFolder, start: str) -> None:
    """Remove what an earlier training left; what the new one begins with stays till it is better.

    Who resumes names it as before.
    """
    run.checkpoint_file.unlink(missing_ok=True)
    if not start or run.best_file.resolve() != Path(start).resolve():
        run.best_file.unlink(missing_ok=True)


def _own_store(run: RunFolder, process: int) -> FeatureStore:
    """Make a store of this training alone, without what one that was killed has left."""
    store = FeatureStore(run.cache_folder / str(process))
    store.remove_leftovers()
    return store


def _with_usual_threshold(
    run: RunFolder,
    base: SamModel,
    data: TrainingData,
    device: str,
    callbacks: Sequence[Callback],
) -> AdapterCard:
    """Scale the scores of the best adapter, so that SAM's usual threshold fits it."""
    message = "looking for the best threshold of the scores"
    run.write_status(replace(run.status(), state="finishing", message=message))

    def should_stop() -> bool:
        return run.is_cancelled or any(callback.should_stop() for callback in callbacks)

    judged = judgeable(data) or data.of("train")
    return scale_scores(run.best_file, base, judged, device, should_stop)


def fitted_to(recipe: Recipe, data: TrainingData, is_hq: bool) -> Recipe:
    """Complete a recipe with what task, model and training images ask for.

    Raises
    ------
    TrainingDataError
        If there are no training images, or the model could not tell any object.
    """
    require_training_images(data)
    images = data.of("train")
    if data.task == "semantic":
        longest = max(max(image.rgb().shape[:2]) for image in images)
        return recipe.fitted(data.task, is_hq, longest)
    objects = [ImageObjects.of(image.label_array()) for image in images]
    fitted = fitted_to_objects(recipe, data.task, is_hq, objects)
    about_unseen(objects, fitted.views)
    return fitted


def make_objective(
    base: SamModel,
    data: TrainingData,
    settings: TrainingSettings,
    accelerator: Accelerator,
    store: FeatureStore,
) -> SamObjective:
    """Put what is learnt together."""
    surroundings = Surroundings(accelerator.device, accelerator.autocast, store, settings.seed)
    kind = ClassObjective if data.task == "semantic" else PromptObjective
    return kind(base, data, settings.recipe, surroundings)


def _features_key(objective: SamObjective, settings: TrainingSettings, base_hash: str) -> str:
    """Fingerprint everything that the frozen features of views depend on."""
    recipe = settings.recipe
    return repr(
        (
            base_hash, objective.data.key, objective.encoder.cut, recipe.views, recipe.pool,
            recipe.stretch, settings.seed, settings.device, settings.precision,
        )
    )  # fmt: skip


def _specimens(images: Sequence[LabelledImage]) -> list[str]:
    """Names of the specimens, without images that are their own."""
    return sorted({image.specimen for image in images if image.specimen != image.name})


class _Keeper(Callback):
    """Saves the best adapter, with its card."""

    def __init__(
        self,
        objective: SamObjective,
        data: TrainingData,
        settings: TrainingSettings,
        base_hash: str,
        run: RunFolder,
    ) -> None:
        self._objective = objective
        self._data = data
        self._settings = settings
        self._base_hash = base_hash
        self._run = run
        self._row: Mapping[str, float] = {}
        self._base_figures: Mapping[str, float] = {}
        self._rows: list[dict[str, float]] = []
        self._before = learnt_before(settings.start)

    def remember(self, state: TrainingState) -> None:
        """Know the epoch whose adapter was kept before an interruption."""
        self._row = next((r for r in state.rows if r["epoch"] == state.best_epoch), {})
        self._rows = list(state.rows)

    def judge_base(self, writes: bool, is_new: bool) -> None:
        """Measure the base on the validation images: the adapter changes nothing as yet."""
        if is_new:
            self._objective.learning(False)
            self._base_figures = self._objective.validate()[0]
            if writes:
                self._run.write_base_figures(self._base_figures)
        else:
            self._base_figures = self._run.base_figures()

    def on_best(self, row: Mapping[str, float]) -> None:
        self._row = row
        save_adapter(self._objective.model, self.card(), self._run.best_file)

    def on_epoch(
        self, progress: Progress, row: Mapping[str, float], preview: Preview | None
    ) -> None:
        self._rows.append(dict(row))
        # Only to look at, and the checkpoint has the rows: not worth the end of a training.
        with suppress(SaveError):
            self._run.write_log(self._rows)
            if preview is not None:
                self._run.write_preview(preview)

    def card(self) -> AdapterCard:
        """Describe the adapter."""
        data, recipe = self._data, self._settings.recipe
        size = data.pixel_size
        details = {
            "recipe": recipe.name,
            "data_hash": data.key,
            "window": recipe.views.window,
            "stretch": recipe.stretch,
            "pixel_size_um": [size.y, size.x] if size.unit == "um" else None,
            "splits": {name: [i.name for i in data.of(name)] for name in data.splits},
            "specimens": {name: _specimens(data.of(name)) for name in data.splits},
            "picture_keys": {image.name: image.picture_key for image in data.images},
            "class_values": list(data.class_values),
            "unlabelled": data.images[0].mapping.unlabelled,
            "components": data.images[0].mapping.components,
            "class_colours": list(self._settings.class_colours),
            "metrics": dict(self._row),
            "base_metrics": dict(self._base_figures),
            "seed": self._settings.seed,
            "start": content_key(self._settings.start),
            "learnt_before": self._before,
            "licence": self._settings.licence,
        }
        return AdapterCard(
            recipe.adapter, self._settings.base, self._base_hash, data.task, data.classes, details
        )
