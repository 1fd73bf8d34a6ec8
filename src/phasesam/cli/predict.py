"""``phasesam predict``: apply a fine-tuned adapter to new images, whatever it was trained for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from phasesam.cli.batch_options import FileOptions, ImageOptions, ModelOptions, panel
from phasesam.cli.console import exits_cleanly
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.options import with_options
from phasesam.cli.segment_options import FilterOptions, PresetName, PromptOptions, SearchOptions
from phasesam.core.errors import InvalidSettingError

HELP = with_examples(
    "Apply an adapter to images. One with classes maps phases, without prompts, and writes "
    "NAME_labels.tif, NAME_overlay.png and NAME_phases.csv; any other finds objects, as "
    "phasesam segment does.",
    "phasesam predict images/ --adapter steel_phases -o results",
    "phasesam predict scan.tif --adapter best.safetensors -o maps --planes 0-9",
    "phasesam predict powder.tif --adapter powder -o results --preset particles",
)

_phases = panel("Adapters with classes")
_objects = panel("Adapters without classes")


@dataclass(frozen=True)
class PhaseOptions:
    """How phases are mapped."""

    window: Annotated[
        int | None,
        _phases(
            "--window",
            metavar="N",
            min=0,
            text="Side of what the model sees at once (pixels), 0 for the whole image; as in "
            "training when left out.",
            show_default=False,
        ),
    ] = None
    overlap: Annotated[
        float | None,
        _phases(
            "--overlap",
            metavar="X",
            min=0.0,
            max=0.9,
            text="Share of a window that neighbours have in common; 0.25 when left out.",
            show_default=False,
        ),
    ] = None
    orientations: Annotated[
        int | None,
        _phases(
            "--orientations",
            metavar="N",
            text="Look at everything 1, 2 or 4 times, turned and mirrored, and take the mean: "
            "slower, and more accurate, most of all on images unlike those of the training. 2 when "
            "left out.",
            show_default=False,
        ),
    ] = None

    def changes(self) -> dict[str, Any]:
        """Fields of `phasesam.engines.semantic.PhaseMapConfig` that were given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ObjectOptions:
    """How objects are found; phasesam segment has more."""

    preset: Annotated[
        PresetName | None,
        _objects(
            "--preset",
            "-p",
            metavar="NAME",
            text=f"Settings for a kind of object: {', '.join(PresetName)}.",
            show_default=False,
        ),
    ] = None


@with_options(FileOptions, ModelOptions, ImageOptions, PhaseOptions, ObjectOptions)
@exits_cleanly
def predict(
    files: FileOptions,
    model: ModelOptions,
    image: ImageOptions,
    phases: PhaseOptions,
    objects: ObjectOptions,
) -> ExitCode:
    """Apply an adapter to images."""
    from phasesam.cli.batch import Batch
    from phasesam.cli.batch_command import find_inputs, run_command
    from phasesam.cli.model_setup import choose_model
    from phasesam.cli.phases import PhaseBatch, phase_recipe
    from phasesam.cli.recipe import build_recipe
    from phasesam.engines.semantic import PhaseMapConfig

    if model.adapter is None:
        raise InvalidSettingError("predict needs an --adapter; without one, use phasesam segment")
    chosen = choose_model(model)
    if chosen.card is not None and chosen.card.classes:
        if objects.preset is not None or files.coco:
            raise InvalidSettingError(
                "--preset and --coco are for objects; this adapter maps phases: "
                + ", ".join(chosen.card.classes)
            )
        mapping = PhaseMapConfig(**phases.changes())
        recipe = phase_recipe(chosen.name, chosen.card, image, mapping)
        maps = PhaseBatch(find_inputs(files), recipe, files.output, files.skip_existing)
        return run_command(maps, files, model)
    if phases != PhaseOptions():
        raise InvalidSettingError(
            "--window, --overlap and --orientations are for adapters with classes"
        )
    search = SearchOptions(preset=objects.preset)
    masks = build_recipe(chosen.name, image, PromptOptions(), search, FilterOptions())
    batch = Batch(find_inputs(files), masks, files.output, files.coco, files.skip_existing)
    return run_command(batch, files, model)
