"""``phasesam predict``: apply a fine-tuned adapter to new images, whatever it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from phasesam.cli.batch_options import FileOptions, ImageOptions, ModelOptions, panel
from phasesam.cli.console import exits_cleanly
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.options import with_options
from phasesam.cli.segment_options import FilterOptions, PresetName, PromptOptions, SearchOptions
from phasesam.core.errors import InvalidSettingError

if TYPE_CHECKING:
    from phasesam.cli.phase_ratio import RatioRecipe
    from phasesam.models.adapter_card import AdapterCard

HELP = with_examples(
    "Apply an adapter to images. One with classes maps phases, without prompts, and writes "
    "NAME_labels.tif, NAME_overlay.png and NAME_phases.csv; any other finds objects, as "
    "phasesam segment does.",
    "phasesam predict images/ --adapter steel_phases -o results",
    "phasesam predict scan.tif --adapter best.safetensors -o maps --planes 0-9",
    'phasesam predict a.tif --adapter steel -o maps --ratio "martensite=25+-2%"',
    "phasesam predict powder.tif --adapter powder -o results --preset particles",
)

_phases = panel("Adapters with classes")
_ratio = panel("Amounts of phases")
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

    ratio: Annotated[
        list[str] | None,
        _ratio(
            "--ratio",
            metavar="CLASS=SHARE",
            text='How much of a phase there is: "pore=2%", with a standard error "pore=2+-0.5%", '
            'or a range "pore=1-3%". Once for each phase that is known.',
            show_default=False,
        ),
    ] = None
    ratio_over: Annotated[
        str | None,
        _ratio(
            "--ratio-over",
            metavar="LEVEL",
            text="Whether a stack has these shares as a whole (stack), or each plane of it "
            "(plane); stack when left out.",
            show_default=False,
        ),
    ] = None
    ratio_by: Annotated[
        str | None,
        _ratio(
            "--ratio-by",
            metavar="PART",
            text="Who uses these shares: the solver, which meets them; the network, as a hint, if "
            "the adapter takes such; or both. The solver when left out.",
            show_default=False,
        ),
    ] = None
    smoothing: Annotated[
        int | None,
        _ratio(
            "--smoothing",
            metavar="N",
            min=0,
            text="Smooth within N pixels first, except across edges of the image.",
            show_default=False,
        ),
    ] = None
    smallest_region: Annotated[
        int | None,
        _ratio(
            "--smallest-region",
            metavar="N",
            min=0,
            text="Pixels that a connected region has at least, as far as the shares, which hold "
            "all the same, allow.",
            show_default=False,
        ),
    ] = None

    fewest_changes: Annotated[
        bool,
        _ratio(
            "--fewest-changes",
            text="Change as few pixels as these shares allow, instead of making the most likely "
            "map: safer where shares contradict the image.",
        ),
    ] = False

    def changes(self) -> dict[str, Any]:
        """Fields of `phasesam.engines.semantic.PhaseMapConfig` that were given."""
        names = ("window", "overlap", "orientations")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def ratio_recipe(self, card: AdapterCard) -> RatioRecipe | None:
        """Read the wanted amounts, if there are any."""
        from phasesam.cli.phase_ratio import parse_ratio
        from phasesam.engines.ratio_guidance import RatioConfig

        of_solver = self.fewest_changes or any(
            value is not None for value in (self.smoothing, self.smallest_region)
        )
        if not self.ratio:
            if of_solver or self.ratio_over is not None or self.ratio_by is not None:
                raise InvalidSettingError(
                    "--ratio-over, --ratio-by, --smoothing, --smallest-region and "
                    "--fewest-changes need a --ratio"
                )
            return None
        config = RatioConfig(self.smoothing or 0, self.smallest_region or 0, self.fewest_changes)
        by = self.ratio_by or "solver"
        if by == "network" and of_solver:
            raise InvalidSettingError(
                "--smoothing, --smallest-region and --fewest-changes are for the solver, not for "
                "--ratio-by network"
            )
        found = parse_ratio(self.ratio, card.classes, self.ratio_over or "stack", config)
        return found.through(by, card)


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
        ratio = phases.ratio_recipe(chosen.card)
        recipe = phase_recipe(chosen.name, chosen.card, image, mapping, ratio)
        maps = PhaseBatch(find_inputs(files), recipe, files.output, files.skip_existing)
        return run_command(maps, files, model)
    if phases != PhaseOptions():
        raise InvalidSettingError(
            "--window, --overlap, --orientations and --ratio are for adapters with classes"
        )
    search = SearchOptions(preset=objects.preset)
    masks = build_recipe(chosen.name, image, PromptOptions(), search, FilterOptions())
    batch = Batch(find_inputs(files), masks, files.output, files.coco, files.skip_existing)
    return run_command(batch, files, model)
