"""``phasesam segment``: files in, label images, overlays and measurements out."""

from __future__ import annotations

from dataclasses import replace

from rich.markup import escape

from phasesam.cli.batch_options import FileOptions, ImageOptions, ModelOptions
from phasesam.cli.console import exits_cleanly, message_console
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.options import with_options
from phasesam.cli.segment_options import FilterOptions, PromptOptions, SearchOptions

HELP = with_examples(
    "Segment images; write NAME_labels.tif, NAME_overlay.png and NAME_objects.csv.",
    "phasesam segment powder.tif -o results",
    "phasesam segment images/ -o results --preset particles --pixel-size 12nm",
    'phasesam segment "run*/*.tif" -o results --pred-iou 0.9 --min-area 50 --coco',
    "phasesam segment scan.tif -o results --planes 0-99/10 --preset pores",
    "phasesam segment a.tif -o results --adapter powder",
    "phasesam segment a.tif -o results --prompts clicks.json --json --quiet",
)


@with_options(FileOptions, ModelOptions, ImageOptions, PromptOptions, SearchOptions, FilterOptions)
@exits_cleanly
def segment(
    files: FileOptions,
    model: ModelOptions,
    image: ImageOptions,
    prompts: PromptOptions,
    search: SearchOptions,
    filters: FilterOptions,
) -> ExitCode:
    """Segment images; write NAME_labels.tif, NAME_overlay.png and NAME_objects.csv."""
    from phasesam.cli.batch import Batch
    from phasesam.cli.batch_command import find_inputs, run_command
    from phasesam.cli.model_setup import choose_model
    from phasesam.cli.recipe import build_recipe

    jobs = find_inputs(files)
    chosen = choose_model(model)
    if chosen.card is not None and not chosen.card.answers_prompts:
        message_console(files.quiet).print(
            f"[yellow]Warning:[/] {escape(str(model.adapter))} maps phases (phasesam predict); "
            f"objects are found by {chosen.name} alone"
        )
        model = replace(model, model=chosen.name, adapter=None, adapter_strength=None)
    recipe = build_recipe(chosen.name, image, prompts, search, filters)
    if recipe.prompts is not None:
        recipe.prompts.check_names(job.source for job in jobs)
    batch = Batch(jobs, recipe, files.output, files.coco, files.skip_existing)
    return run_command(batch, files, model)
