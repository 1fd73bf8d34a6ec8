"""``phasesam demo``: segment a bundled sample, tell what came out, show it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phasesam.cli.console import Interruption, exits_cleanly, message_console, output_console
from phasesam.cli.help_pages import with_examples

if TYPE_CHECKING:
    from phasesam.cli.recipe import Recipe
    from phasesam.cli.results import ResultFiles
    from phasesam.cli.segmentation import ImageResult


class SampleName(StrEnum):
    """The bundled samples, see `phasesam.simulation.samples`."""

    particles_sem = "particles_sem"
    three_phase_steel = "three_phase_steel"
    xct_pores = "xct_pores"


HELP = with_examples(
    "Segment a bundled sample; write labels.tif, overlay.png and measurements.csv.\n\n"
    "No display and no internet are needed. Existing results of the demo are replaced.",
    "phasesam demo",
    "phasesam demo --sample xct_pores -o pores",
    "phasesam demo --show",
)
_PLANE_OF_STACK = {SampleName.xct_pores: "32"}
_SECONDS_TO_START = 8.0


@exits_cleanly
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the results go.")
    ] = Path("phasesam_demo"),
    sample: Annotated[
        SampleName,
        typer.Option(
            "--sample",
            "-s",
            metavar="NAME",
            help=f"What to segment: {', '.join(SampleName)}.",
        ),
    ] = SampleName.particles_sem,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="Name of a model.")
    ] = "mobile_sam",
    points_per_side: Annotated[
        int,
        typer.Option(
            "--points-per-side", metavar="N", min=1, max=512, help="Point prompts along a side."
        ),
    ] = 32,
    show: Annotated[
        bool, typer.Option("--show", help="Open the result in napari, if there is a display.")
    ] = False,
) -> None:
    """Segment a bundled sample; write labels.tif, overlay.png and measurements.csv.

    No display and no internet are needed. Existing results of the demo are replaced.
    """
    from phasesam.cli.results import ResultFiles, prepare_folder, write_results
    from phasesam.simulation.samples import SAMPLES, sample_folder

    console = message_console()
    image = sample_folder() / f"{sample.value}.tif"
    files = ResultFiles(output / "labels.tif", output / "overlay.png", output / "measurements.csv")
    prepare_folder(output)
    recipe = _recipe(sample, SAMPLES[sample.value].preset, model, points_per_side)
    result = _segment(image, recipe, console)
    write_results(result, files)
    output_console().print(_table(sample, recipe, result))
    output_console().print(f"Written: {', '.join(escape(p) for p in files.as_dict().values())}")
    if show:
        _open_viewer(image, files, console)


def _recipe(sample: SampleName, preset: str, model: str, points_per_side: int) -> Recipe:
    from phasesam.cli.batch_options import ImageOptions
    from phasesam.cli.recipe import build_recipe
    from phasesam.cli.segment_options import FilterOptions, PresetName, PromptOptions, SearchOptions

    return build_recipe(
        model,
        ImageOptions(planes=_PLANE_OF_STACK.get(sample)),
        PromptOptions(),
        SearchOptions(preset=PresetName(preset), points_per_side=points_per_side),
        FilterOptions(),
    )


def _segment(image: Path, recipe: Recipe, console: Console) -> ImageResult:
    from phasesam.cli.batch_options import ModelOptions
    from phasesam.cli.inputs import Job
    from phasesam.cli.model_setup import prepare_model
    from phasesam.cli.plane import Watch
    from phasesam.cli.progress import BatchProgress
    from phasesam.cli.segmentation import segment_file

    console.print(f"Segmenting {escape(image.name)} with {escape(recipe.model)}")
    with Interruption(console) as interruption, BatchProgress(console, 1) as bars:
        bars.start("loading the model")
        prepare_model(ModelOptions(model=recipe.model), console, interruption.requested)
        watch = Watch(bars.step, interruption.requested)
        return segment_file(Job(image, image.stem), recipe, watch)


def _table(sample: SampleName, recipe: Recipe, result: ImageResult) -> Table:
    from phasesam.core.metrics import InstanceOverlap
    from phasesam.core.size_distribution import size_distribution
    from phasesam.simulation.samples import SAMPLES, load_sample

    sizes = size_distribution(result.table)
    unit = "µm" if sizes.unit == "um" else "px"
    truth = load_sample(sample.value).labels
    true_plane = truth[int(recipe.planes)] if recipe.planes is not None else truth
    overlap = InstanceOverlap.between(result.overlay_labels, true_plane)
    found = len(overlap.match(0.5)[0])
    table = Table(title=SAMPLES[sample.value].title, show_header=False, title_justify="left")
    table.add_row("Objects", str(len(result.table)))
    table.add_row("Image covered", f"{100 * result.coverage:.1f} %")
    if len(result.table):
        table.add_row("D10", f"{sizes.d10:.3g} {unit}")
        table.add_row("D50", f"{sizes.d50:.3g} {unit}")
        table.add_row("D90", f"{sizes.d90:.3g} {unit}")
    table.add_row("True objects found (IoU ≥ 0.5)", f"{found} of {len(overlap.true_areas)}")
    return table


def _open_viewer(image: Path, files: ResultFiles, console: Console) -> None:
    """Start napari as a process of its own; the demo does not wait for it to be closed."""
    if not has_display(os.environ, sys.platform):
        console.print("There is no display; napari is not opened.")
        return
    if importlib.util.find_spec("napari") is None:
        console.print('napari is not installed; see it with: pip install "napari-phasesam\\[all]"')
        return
    command = [sys.executable, "-m", "napari", "--plugin", "napari-phasesam"]
    paths = [str(image), str(files.labels)]
    console.print("Opening the result in napari")
    process = subprocess.Popen(
        [*command, *paths], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        code = process.wait(_SECONDS_TO_START)
    except subprocess.TimeoutExpired:
        return
    if code:
        console.print("napari could not be opened; the results are complete.")


def has_display(environment: Mapping[str, str], platform: str) -> bool:
    """Return whether windows can be opened: always on Windows and macOS."""
    if platform in ("win32", "darwin", "cygwin"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
