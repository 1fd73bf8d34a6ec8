"""Map the phases of many files with an adapter that has classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phasesam.cli.batch import Outcome, adapter_summary
from phasesam.cli.batch_options import ImageOptions
from phasesam.cli.inputs import Job, parse_pixel_size, parse_planes
from phasesam.cli.phase_ratio import RatioRecipe, RatioWork
from phasesam.cli.plane import Watch, holds_nothing
from phasesam.cli.recipe import normalisation_of
from phasesam.cli.results import FileSet, write_together
from phasesam.cli.segmentation import PlaneIndex, plane_indices
from phasesam.core.errors import CancelledError, InvalidImageError
from phasesam.core.images import Normalisation, is_constant, to_rgb8
from phasesam.core.phase_fraction import phase_fraction
from phasesam.core.types import PixelSize
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import NO_CLASS, PhaseMap, PhaseMapConfig, segment_classes
from phasesam.formats.label_tiff import save_labels_tiff
from phasesam.formats.lengths import micrometres_per
from phasesam.formats.overlay import save_overlay_png
from phasesam.formats.readers import read_image
from phasesam.formats.tables import save_table_csv
from phasesam.models.adapter_card import AdapterCard
from phasesam.models.adapter_loading import Adapter

# Training shows structures larger and smaller by about this factor.
_LARGEST_RESCALING = 1.5


@dataclass(frozen=True)
class PhaseRecipe:
    """How every plane of every image is mapped.

    Attributes
    ----------
    model : str
        Name in the registry.
    classes : tuple of str
        Of the adapter.
    adapter : str, AdapterVersion or None
        The adapter.
    mapping : PhaseMapConfig
        Windows and orientations.
    trained_pixel_um : float or None
        Edge of a pixel in µm of the images that the adapter was trained on.
    pixel_size : PixelSize or None
        Overrides that of the files.
    planes : str or None
        Planes of stacks, as the user wrote them; None for all.
    normalisation : Normalisation
        How intensities become 8 bit.
    exclude_data_bar : bool
        Whether the data bar of SEM images is left out.
    ratio : RatioRecipe or None
        Wanted amounts of the phases.
    """

    model: str
    classes: tuple[str, ...]
    adapter: Adapter
    mapping: PhaseMapConfig = field(default_factory=PhaseMapConfig)
    trained_pixel_um: float | None = None
    pixel_size: PixelSize | None = None
    planes: str | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    exclude_data_bar: bool = True
    ratio: RatioRecipe | None = None


@dataclass(frozen=True)
class PhaseFiles(FileSet):
    """Where the phases of one image go.

    Attributes
    ----------
    labels, overlay, phases : Path
        Label image, picture and table of phase fractions.
    """

    labels: Path
    overlay: Path
    phases: Path


@dataclass(frozen=True)
class PhaseImage:
    """Everything that is written about one file.

    Attributes
    ----------
    labels : (…, h, w) uint8 array
        Index of the class; 255 for data bars and for planes that were left out.
    overlay_image, overlay_labels : (h, w, 3) and (h, w) uint8 arrays
        The image, or the middle one of the mapped planes; its first class is 0.
    table : mapping of str to list
        One row for each class of each plane.
    fractions : mapping of str to float
        Share of each class over all planes, 0–1.
    pixel_size : PixelSize
        Edge lengths of a pixel.
    z_size : float or None
        Distance of the planes in µm.
    n_planes : int
        How many planes were mapped.
    warnings : tuple of str
        What the user should know although nothing failed.
    """

    labels: NDArray[np.uint8]
    overlay_image: NDArray[np.uint8]
    overlay_labels: NDArray[np.uint8]
    table: dict[str, list[Any]]
    fractions: dict[str, float]
    pixel_size: PixelSize
    z_size: float | None = None
    n_planes: int = 1
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhaseBatch:
    """Map the phases of many inputs.

    Attributes
    ----------
    jobs : sequence of Job
        The inputs.
    recipe : PhaseRecipe
        What is done with each.
    folder : Path
        Where results go.
    skip_existing : bool
        Whether inputs are left out whose results exist.
    """

    jobs: Sequence[Job]
    recipe: PhaseRecipe
    folder: Path
    skip_existing: bool = False

    def files_of(self, job: Job) -> PhaseFiles:
        """Return where the results of an input go."""
        return PhaseFiles(
            self.folder / f"{job.name}_labels.tif",
            self.folder / f"{job.name}_overlay.png",
            self.folder / f"{job.name}_phases.csv",
        )

    def do(self, job: Job, watch: Watch) -> Outcome:
        """Map one input and write its results."""
        files = self.files_of(job)
        result = map_file(job, self.recipe, watch)
        watch.step("writing", 0, 1)
        write_together(files, lambda drafts: _write(result, drafts))
        return Outcome(
            job.source,
            "ok",
            files,
            n_planes=result.n_planes,
            warnings=result.warnings,
            fractions=result.fractions,
        )

    def with_adapter(self, adapter: Adapter) -> Self:
        """Return the same work with an adapter as it is now."""
        return replace(self, recipe=replace(self.recipe, adapter=adapter))

    def summary(self) -> dict[str, Any]:
        """Return the settings as plain values, for the JSON summary."""
        recipe = self.recipe
        mapping = recipe.mapping
        settings = {
            "window": mapping.window,
            "overlap": mapping.overlap,
            "orientations": mapping.orientations,
        }
        return {
            "model": recipe.model,
            **adapter_summary(recipe.adapter),
            "task": "semantic",
            "classes": list(recipe.classes),
            "settings": settings,
            **({} if recipe.ratio is None else {"ratio": recipe.ratio.to_dict()}),
        }


def phase_recipe(
    model: str,
    card: AdapterCard,
    image: ImageOptions,
    mapping: PhaseMapConfig | None = None,
    ratio: RatioRecipe | None = None,
) -> PhaseRecipe:
    """Check the options and put them together; the adapter itself comes later.

    Raises
    ------
    InvalidSettingError
        If an option makes no sense; nothing has been computed then.
    """
    if image.planes is not None:
        parse_planes(image.planes)
    trained = card.details.get("pixel_size_um")
    known = isinstance(trained, list) and all(isinstance(x, float | int) and x > 0 for x in trained)
    return PhaseRecipe(
        model,
        card.classes,
        None,
        mapping or PhaseMapConfig(),
        math.prod(trained) ** (1 / len(trained)) if known and trained else None,
        None if image.pixel_size is None else parse_pixel_size(image.pixel_size),
        image.planes,
        normalisation_of(image),
        image.data_bar_detection,
        ratio,
    )


def map_file(job: Job, recipe: PhaseRecipe, watch: Watch) -> PhaseImage:
    """Read one input and map the phases of its planes.

    Parameters
    ----------
    job : Job
        What to read.
    recipe : PhaseRecipe
        What to do.
    watch : Watch
        Who is told of progress, and may stop the work.

    Raises
    ------
    FileFormatError, InvalidImageError, InvalidSettingError
        If it is no image that can be mapped, or planes do not fit it.
    CancelledError
        If the user asked to stop.
    """
    watch.step("reading", 0, 1)
    micrograph = read_image(job.source)
    indices = plane_indices(micrograph, recipe.planes)
    # Cheap before they are written: planes left out hold no class.
    labels = np.full((*micrograph.stack_shape, *micrograph.plane_shape), NO_CLASS, np.uint8)
    nothing = holds_nothing if micrograph.is_stack else is_constant
    blank, shown = 0, None
    with RatioWork(recipe.ratio, len(indices), math.prod(micrograph.plane_shape)) as ratio:
        for number, index in enumerate(indices):
            if watch.should_stop():
                raise CancelledError(f"stopped before plane {number + 1} of {len(indices)}")
            prefix = f"plane {number + 1}/{len(indices)}: " if len(indices) > 1 else ""
            image = micrograph.plane(index)
            if nothing(image[: micrograph.data_bar]):
                blank += 1
                continue
            shown = index if number <= len(indices) // 2 or shown is None else shown
            seen = image[: micrograph.data_bar if recipe.exclude_data_bar else None]
            finds_bar = recipe.exclude_data_bar and micrograph.data_bar is None
            found = _map_plane(seen, recipe, watch.with_prefix(prefix), finds_bar)
            labels[index][: len(seen)] = ratio.labels(index, found, seen)
        ratio.finish(labels, watch)
    if shown is None:
        raise InvalidImageError(
            "all pixels of each plane are equal, or none is finite: there is nothing to map"
        )
    size = recipe.pixel_size or micrograph.pixel_size
    overlay = labels[shown]
    return PhaseImage(
        labels,
        to_rgb8(micrograph.plane(shown), recipe.normalisation),
        np.where(overlay == NO_CLASS, 0, overlay).astype(np.uint8),
        _table(list(_rows(labels, indices, recipe.classes, size, ratio))),
        _fractions(labels, indices, recipe.classes),
        size,
        micrograph.z_size,
        len(indices),
        (*_warnings(recipe, size, blank, len(indices)), *ratio.warnings()),
    )


def _map_plane(image: NDArray[Any], recipe: PhaseRecipe, watch: Watch, finds_bar: bool) -> PhaseMap:
    segmenter = Segmenter(
        image,
        recipe.model,
        normalisation=recipe.normalisation,
        exclude_data_bar=finds_bar,
        adapter=recipe.adapter,
    )
    ratio = recipe.ratio
    return segment_classes(
        segmenter,
        config=recipe.mapping,
        keep_probabilities=ratio is not None and ratio.solves,
        hints=None if ratio is None else ratio.hints,
        progress=lambda done, total: watch.step("mapping", done, total),
        should_stop=watch.should_stop,
    )


def _rows(
    labels: NDArray[np.uint8],
    indices: Sequence[PlaneIndex],
    classes: tuple[str, ...],
    size: PixelSize,
    ratio: RatioWork,
) -> Iterator[dict[str, Any]]:
    """Yield one row for each class of each plane that was mapped."""
    factor = micrometres_per(size.unit) if size.is_physical else None
    for index in indices:
        plane = labels[index]
        region = plane != NO_CLASS
        if not region.any():
            continue
        for value, name in enumerate(classes):
            phase = plane == value
            pixels = int(np.count_nonzero(phase))
            share = phase_fraction(phase, region)
            row: dict[str, Any] = {f"plane_{axis}": position for axis, position in enumerate(index)}
            row |= {"class": name, "value": value, "area_px": pixels}
            if factor is not None:
                row["area_um2"] = pixels * size.area * factor**2
            row |= {"fraction": share.fraction, "low_95": share.low, "high_95": share.high}
            yield row | ratio.columns(index, value)


def _fractions(
    labels: NDArray[np.uint8], indices: Sequence[PlaneIndex], classes: tuple[str, ...]
) -> dict[str, float]:
    counts = np.zeros(len(classes), dtype=np.int64)
    for index in indices:
        counts += np.bincount(labels[index].ravel(), minlength=NO_CLASS + 1)[: len(classes)]
    return dict(zip(classes, (counts / max(1, int(counts.sum()))).tolist(), strict=True))


def _table(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _warnings(recipe: PhaseRecipe, size: PixelSize, blank: int, total: int) -> Iterator[str]:
    if blank:
        yield f"{blank} of {total} planes hold nothing: all pixels are equal, or none is finite"
    factor = micrometres_per(size.unit) if size.is_physical else None
    if factor is not None and recipe.trained_pixel_um:
        ratio = math.sqrt(size.area) * factor / recipe.trained_pixel_um
        if not 1 / _LARGEST_RESCALING <= ratio <= _LARGEST_RESCALING:
            yield (
                f"a pixel is {ratio:.2g} times as large as in the images that the adapter was "
                "trained on: scale the image for better results"
            )


def _write(result: PhaseImage, files: PhaseFiles) -> None:
    save_labels_tiff(files.labels, result.labels, result.pixel_size, result.z_size)
    save_overlay_png(files.overlay, result.overlay_image, result.overlay_labels, result.pixel_size)
    save_table_csv(files.phases, result.table)
