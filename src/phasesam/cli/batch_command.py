"""What commands for many images have in common, from the options to the summary."""

from __future__ import annotations

import typer

from phasesam.cli.batch import Work, exit_code, run_batch
from phasesam.cli.batch_options import FileOptions, ModelOptions
from phasesam.cli.console import Interruption, message_console, output_console
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.inputs import Job, find_jobs
from phasesam.cli.model_setup import prepare_model
from phasesam.cli.plane import Watch
from phasesam.cli.progress import BatchProgress
from phasesam.cli.report import line_of, summary_json, summary_table
from phasesam.cli.results import prepare_folder, refuse_to_replace
from phasesam.core.errors import InvalidSettingError


def find_inputs(files: FileOptions) -> list[Job]:
    """Find what is to be read.

    Raises
    ------
    InvalidSettingError
        If there is nothing, or options exclude each other.
    """
    if files.overwrite and files.skip_existing:
        raise InvalidSettingError("--overwrite and --skip-existing exclude each other")
    return find_jobs(files.inputs, recursive=files.recursive, folder_is_stack=files.folder_is_stack)


def run_command(batch: Work, files: FileOptions, model: ModelOptions) -> ExitCode:
    """Check the output folder, load the model, work through the batch and report.

    Parameters
    ----------
    batch : Batch or PhaseBatch
        What to do.
    files, model : options
        What the user asked for.

    Raises
    ------
    SaveError
        If results may not or cannot be written.
    ModelError, InvalidSettingError
        If the model cannot be had.
    """
    console = message_console(files.quiet)
    prepare_folder(batch.folder)
    if not files.overwrite and not files.skip_existing:
        refuse_to_replace([batch.files_of(job) for job in batch.jobs])
    with Interruption(console) as interruption:
        batch = batch.with_adapter(prepare_model(model, console, interruption.requested))
        with BatchProgress(console, len(batch.jobs)) as bars:
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
