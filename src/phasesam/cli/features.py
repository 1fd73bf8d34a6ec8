"""``phasesam features``: what the layers of an encoder see, in pictures and in figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from phasesam.cli.batch_options import ModelOptions, panel
from phasesam.cli.console import Interruption, exits_cleanly, message_console
from phasesam.cli.evaluate_options import ReportOptions
from phasesam.cli.evaluation_output import SCORES_FILE, deliver, refuse_to_replace, tell
from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.feature_files import SeenImage, file_name, save_arrays, save_sheets
from phasesam.cli.help_pages import with_examples
from phasesam.cli.inputs import find_jobs
from phasesam.cli.label_options import parse_classes
from phasesam.cli.model_setup import choose_model, prepare_model
from phasesam.cli.options import with_options
from phasesam.cli.progress import step_bar
from phasesam.core.errors import InvalidSettingError, SaveError

if TYPE_CHECKING:
    from phasesam.engines.feature_config import FeatureConfig
    from phasesam.engines.features import LayerComparison
    from phasesam.engines.segmenter import Segmenter
    from phasesam.models.adapter_loading import Adapter

HELP = with_examples(
    "Look at the layers of the image encoder: each layer's features as colours, in one basis for "
    "all layers, images and models, and what they are worth in figures. Writes a report, a "
    "contact sheet of each image (PNG and SVG), scores.csv and layers.zarr.",
    "phasesam features steel.tif --against steel_adapter -o layers",
    "phasesam features images/ --labels labels/ --against steel_adapter -o layers",
    "phasesam features a.tif --model sam_vit_b --layers block3,neck -o out",
)
ARRAYS = "layers.zarr"
_BASE = "base"

_what = panel("What is compared")
_look = panel("Colours and figures")


@dataclass(frozen=True)
class FeatureInputs:
    """Images, labels, and the second model."""

    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Image files, folders, or glob patterns in quotes; with --labels one file or one "
            "folder.",
            show_default=False,
        ),
    ]
    against: Annotated[
        str | None,
        _what(
            "--against",
            metavar="ADAPTER",
            text=f"Second adapter of the same model; {_BASE} for the model without any.",
            show_default=False,
        ),
    ] = None
    labels: Annotated[
        Path | None,
        _what(
            "--labels",
            metavar="PATH",
            text="Labels of the images by the same names: for figures of how well phases can be "
            "told apart.",
            show_default=False,
        ),
    ] = None
    classes: Annotated[
        str | None,
        _what(
            "--classes",
            metavar="NAMES",
            text="Names of the classes in the order of their values, or by value "
            "(0=matrix,128=pore).",
            show_default=False,
        ),
    ] = None
    unlabelled: Annotated[
        int | None,
        _what(
            "--unlabelled",
            metavar="VALUE",
            text="Value of pixels about which the labels say nothing.",
            show_default=False,
        ),
    ] = None
    plane: Annotated[
        int | None,
        _what(
            "--plane",
            metavar="N",
            min=0,
            text="Plane of stacks, from 0; the middle one when left out.",
            show_default=False,
        ),
    ] = None
    data_bar_detection: Annotated[
        bool,
        _what(
            "--data-bar-detection/--no-data-bar-detection",
            text="Find the data bar of SEM images and leave it out.",
        ),
    ] = True


@dataclass(frozen=True)
class FeatureLook:
    """Which layers, and how they are coloured."""

    layers: Annotated[
        str | None,
        _look(
            "--layers",
            metavar="NAMES",
            text="Layers, such as block3,block6,neck; all of them when left out.",
            show_default=False,
        ),
    ] = None
    basis: Annotated[
        str,
        _look(
            "--basis",
            metavar="NAME",
            text="Directions that are shown: principal components, or what tells labelled classes "
            "apart (classes).",
        ),
    ] = "principal"
    continuous: Annotated[
        bool,
        _look(
            "--continuous/--independent",
            text="Whether directions follow from layer to layer, or each layer has its own.",
        ),
    ] = True
    groups: Annotated[
        int,
        _look(
            "--groups",
            metavar="N",
            min=0,
            text="Colour this many groups of alike tokens instead of directions; 0 for none.",
        ),
    ] = 0
    foreground_first: Annotated[
        bool, _look("--foreground-first", text="Colour only what the last layer sets apart.")
    ] = False
    colours: Annotated[
        str, _look("--colours", metavar="SPACE", text="rgb, or lab: CIELAB, of even steps.")
    ] = "rgb"
    points: Annotated[
        int,
        _look("--points", metavar="N", min=16, text="Tokens of each image that bases are made of."),
    ] = 2048
    arrays: Annotated[bool, _look("--arrays/--no-arrays", text=f"Whether {ARRAYS} is written.")] = (
        True
    )

    def config(self) -> FeatureConfig:
        """Check them.

        Raises
        ------
        InvalidSettingError
            If a setting is none of those there are.
        """
        from phasesam.engines.feature_config import FeatureConfig

        layers = self.layers and tuple(name.strip() for name in self.layers.split(","))
        return FeatureConfig(
            layers or None,
            self.basis,  # type: ignore[arg-type]
            self.continuous,
            self.foreground_first,
            self.colours,  # type: ignore[arg-type]
            self.groups,
            self.points,
        )


@with_options(FeatureInputs, FeatureLook, ModelOptions, ReportOptions)
@exits_cleanly
def features(
    inputs: FeatureInputs, look: FeatureLook, model: ModelOptions, output: ReportOptions
) -> ExitCode:
    """Compare what the layers of two models see."""
    from phasesam.engines.features import compare_layers
    from phasesam.evaluation.feature_tables import (
        distinct,
        layer_columns,
        layer_report,
        suggested_start,
    )

    refuse_to_replace(output)
    config, chosen = look.config(), choose_model(model)
    seen, classes = _read(inputs)
    _refuse_results(output, seen, arrays=look.arrays)
    console = message_console(output.quiet)
    with Interruption(console) as interruption:
        adapter = prepare_model(model, console, interruption.requested)
        names = [model.adapter or chosen.name]
        pictures = [_segmenter(each, chosen.name, adapter, inputs) for each in seen]
        against: list[Segmenter] = []
        if inputs.against is not None:
            names.append(chosen.name if inputs.against == _BASE else inputs.against)
            other = None if inputs.against == _BASE else inputs.against
            against = [picture.with_adapter(other) for picture in pictures]
        with step_bar(console, "layers") as progress:
            found = compare_layers(
                pictures,
                against,
                [each.labels for each in seen],
                config,
                progress=progress,
                should_stop=interruption.requested,
            )
    names = list(distinct([Path(name).name.removesuffix(".safetensors") for name in names]))
    tell(_warnings(found, inputs, classes))
    sheets = (
        []
        if output.output is None
        else save_sheets(found, seen, pictures, (names, classes), output.output)
    )
    if output.output is not None and look.arrays:
        save_arrays(found, seen, names, output.output / ARRAYS)
    columns = layer_columns(found.layers, names, classes)
    are_all = config.layers is None
    report = layer_report(
        output.title or "Layers", found.layers, names, classes, sheets, are_all=are_all
    )
    values = {
        "layers": {name: [_plain(v) for v in column] for name, column in columns.items()},
        "suggested_start": suggested_start(found.layers) if are_all else None,
    }
    deliver(report, {SCORES_FILE: columns}, values, output)
    return ExitCode.OK


def _refuse_results(output: ReportOptions, seen: Sequence[SeenImage], *, arrays: bool) -> None:
    """Stop before the work when sheets or arrays are there already, or cannot be replaced."""
    from phasesam.evaluation.feature_sheet import FORMATS
    from phasesam.formats.layer_arrays import refuse_foreign

    if output.output is None:
        return
    if arrays:
        refuse_foreign(output.output / ARRAYS)
    names = [f"{each.name}_layers{ending}" for each in seen for ending in FORMATS]
    existing = [n for n in [*names, ARRAYS] if (output.output / n).exists()]
    if existing and not output.overwrite:
        raise SaveError(
            f"{output.output} holds {', '.join(existing)} already; --overwrite replaces them"
        )


def _warnings(found: LayerComparison, inputs: FeatureInputs, classes: Sequence[str]) -> list[str]:
    """Tell what the user may not expect."""
    warnings = []
    if found.is_same:
        warnings.append(
            "the second model has the encoder of the first: there is nothing to compare"
        )
    if inputs.labels is not None and not found.layers[0].figures.probe:
        warnings.append(
            f"no two of the classes {', '.join(classes)} are most of any token: no figures of them"
        )
    return warnings


def _plain(value: Any) -> Any:
    """Put None for a number that is none, which JSON does not know."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _segmenter(each: SeenImage, model: str, adapter: Adapter, inputs: FeatureInputs) -> Segmenter:
    from phasesam.engines.segmenter import Segmenter

    return Segmenter(each.image, model, adapter=adapter, exclude_data_bar=inputs.data_bar_detection)


def _read(inputs: FeatureInputs) -> tuple[list[SeenImage], tuple[str, ...]]:
    """Read the images, and labels if there are any; also names of the classes."""
    if inputs.labels is not None:
        return _read_labelled(inputs, inputs.labels)
    if inputs.classes is not None or inputs.unlabelled is not None:
        raise InvalidSettingError("--classes and --unlabelled need --labels")
    from phasesam.formats.readers import read_image

    seen = []
    for job in find_jobs(inputs.inputs):
        if job.missing:
            raise InvalidSettingError(f"{job.source}: {job.missing}")
        micrograph = read_image(job.source)
        planes = list(np.ndindex(*micrograph.stack_shape))
        number = len(planes) // 2 if inputs.plane is None else inputs.plane
        if number >= len(planes):
            raise InvalidSettingError(
                f"{job.source} has {len(planes)} planes, from 0; there is no plane {number}"
            )
        seen.append(SeenImage(file_name(job.name), micrograph.plane(planes[number])))
    return seen, ()


def _read_labelled(inputs: FeatureInputs, labels: Path) -> tuple[list[SeenImage], tuple[str, ...]]:
    """Read pairs of the same names."""
    from phasesam.evaluation.label_files import ValueChoice, classes_of, match_label_files
    from phasesam.training.data_sources import ImageFile
    from phasesam.training.label_values import LabelMapping

    if len(inputs.inputs) != 1:
        raise InvalidSettingError(
            f"with --labels, expected one file or one folder of images, got {len(inputs.inputs)}"
        )
    if inputs.plane is not None:
        raise InvalidSettingError("--plane is for images without --labels: all planes are taken")
    source = Path(inputs.inputs[0])
    pairs, warnings = match_label_files(source, labels, skip_missing=True)
    tell(warnings)
    choice = ValueChoice(inputs.unlabelled, by_index=True)
    classes = classes_of(pairs, parse_classes(inputs.classes), choice)
    mapping = LabelMapping(inputs.unlabelled, tuple(classes))
    seen = []
    for pair in pairs:
        image = ImageFile(pair.predicted.path, pair.predicted.plane).load()[0]
        truth = mapping.apply(pair.truth.read(), pair.truth.name)
        if image.shape[:2] != truth.shape:
            raise InvalidSettingError(
                f"{pair.name}: expected labels of the size {image.shape[:2]} of the image, got "
                f"{truth.shape}"
            )
        # One image is named after itself, not after its labels.
        name = pair.name.replace(labels.stem, source.stem, 1) if source.is_file() else pair.name
        seen.append(SeenImage(file_name(name), image, truth))
    return seen, tuple(classes.values())
