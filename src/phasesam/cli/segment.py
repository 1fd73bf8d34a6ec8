"""``phasesam segment``: files in, label images, overlays and measurements out."""

from __future__ import annotations

from dataclasses import replace

import typer

from phasesam.cli.batch_options import FileOptions, ImageOptions, ModelOptions
from phasesam.cli.console import Interruption, exits_cleanly, message_console, output_console
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.help_pages import with_examples
from phasesam.cli.options import with_options
from phasesam.cli.segment_options import FilterOptions, PromptOptions, SearchOptions
from phasesam.core.errors import InvalidSettingError

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
    from phasesam.cli.batch import Batch, exit_code, run_batch
    from phasesam.cli.inputs import find_jobs
    from phasesam.cli.model_setup import choose_model, prepare_model
    from phasesam.cli.plane import Watch
    from phasesam.cli.progress import BatchProgress
    from phasesam.cli.recipe import build_recipe
    from phasesam.cli.report import line_of, summary_json, summary_table
    from phasesam.cli.results import prepare_folder, refuse_to_replace

    if files.overwrite and files.skip_existing:
        raise InvalidSettingError("--overwrite and --skip-existing exclude each other")
    console = message_console(files.quiet)
    jobs = find_jobs(
        files.inputs,
        recursive=files.recursive,
        folder_is_stack=files.folder_is_stack,
    )
    recipe = build_recipe(choose_model(model).name, image, prompts, search, filters)
    if recipe.prompts is not None:
        recipe.prompts.check_names(job.source for job in jobs)
    batch = Batch(jobs, recipe, files.output, files.coco, files.skip_existing)
    prepare_folder(files.output)
    if not files.overwrite and not files.skip_existing:
        refuse_to_replace([batch.files_of(job) for job in jobs])
    with Interruption(console) as interruption:
        adapter = prepare_model(model, console, interruption.requested)
        batch = replace(batch, recipe=replace(recipe, adapter=adapter))
        with BatchProgress(console, len(jobs)) as bars:
            outcomes = run_batch(
                batch,
                Watch(bars.step, interruption.requested),
                on_start=lambda job: bars.start(job.source.name),
                on_end=lambda outcome: bars.finish(line_of(outcome)),
            )
    code = exit_code(outcomes)
    if files.json_summary:
        typer.echo(summary_json(batch, outcomes, code))
    elif not files.quiet:
        output_console().print(summary_table(outcomes))
    return code
