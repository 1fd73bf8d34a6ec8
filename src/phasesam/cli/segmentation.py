"""Segment one file after a recipe: every plane of it, into one label image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.cli.inputs import Job, choose_planes
from phasesam.cli.plane import PlaneResult, Watch, blank_plane, holds_nothing, segment_plane
from phasesam.cli.prompts_file import ObjectPrompt, PromptFile
from phasesam.cli.recipe import Recipe
from phasesam.core.errors import CancelledError, InvalidImageError, InvalidPromptError
from phasesam.core.images import to_rgb8
from phasesam.core.measurements import ObjectTable, join_tables
from phasesam.core.types import PixelSize
from phasesam.formats.coco import CocoImage

if TYPE_CHECKING:
    from phasesam.formats.micrograph_file import MicrographFile

PlaneIndex = tuple[int, ...]


@dataclass(frozen=True)
class ImageResult:
    """Everything that is written about one file.

    Attributes
    ----------
    labels : (…, h, w) int32 array
        As large as the file; planes that were left out are 0. Labels are unique.
    overlay_image, overlay_labels : (h, w, 3) uint8 and (h, w) int32 arrays
        The image, or the middle one of the segmented planes.
    table : ObjectTable
        Measurements; for stacks with the columns ``plane_0``, ….
    coco : tuple of CocoImage
        All masks of each segmented plane, whole, where asked for.
    z_size : float or None
        Distance of the planes in µm.
    dropped : Counter
        How many candidates were left out for which reason, over all planes.
    coverage : float
        Share of the segmented area that objects cover, without data bars, 0–1.
    n_planes : int
        How many planes were segmented.
    warnings : tuple of str
        What the user should know although nothing failed.
    """

    labels: NDArray[np.int32]
    overlay_image: NDArray[np.uint8]
    overlay_labels: NDArray[np.int32]
    table: ObjectTable
    coco: tuple[CocoImage, ...] = ()
    z_size: float | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    coverage: float = 0.0
    n_planes: int = 1
    warnings: tuple[str, ...] = ()

    @property
    def pixel_size(self) -> PixelSize:
        """Edge lengths of a pixel."""
        return self.table.pixel_size


def segment_file(
    job: Job, recipe: Recipe, watch: Watch, *, keep_masks: bool = False
) -> ImageResult:
    """Read and segment one input.

    Parameters
    ----------
    job : Job
        What to read.
    recipe : Recipe
        What to do.
    watch : Watch
        Who is told of progress, and may stop the work.
    keep_masks : bool
        Whether all masks are kept whole; where they overlap, the label image shows one.

    Raises
    ------
    FileFormatError, InvalidImageError
        If it is not an image that can be segmented.
    InvalidPromptError, InvalidSettingError
        If prompts or planes do not fit this image.
    CancelledError
        If the user asked to stop.
    """
    from phasesam.formats.readers import read_image

    watch.step("reading", 0, 1)
    micrograph = read_image(job.source)
    indices = plane_indices(micrograph, recipe.planes)
    prompts = None if recipe.prompts is None else _prompts_for(recipe.prompts, job, micrograph)
    if prompts is not None and not any(prompts[index] for index in indices):
        raise InvalidPromptError(f"the prompt file has no objects for {job.source.name}")
    collection = _Collection(micrograph, recipe, keep_masks)
    for number, index in enumerate(indices):
        if watch.should_stop():
            raise CancelledError(f"stopped before plane {number + 1} of {len(indices)}")
        prefix = f"plane {number + 1}/{len(indices)}: " if len(indices) > 1 else ""
        image = micrograph.plane(index)
        if prompts is None and micrograph.is_stack and holds_nothing(image[: micrograph.data_bar]):
            # Scans often begin and end with planes that hold nothing.
            result = blank_plane(image, micrograph.data_bar)
            collection.count_blank()
        else:
            asked = None if prompts is None else prompts[index]
            inner = watch.with_prefix(prefix)
            result = segment_plane(image, recipe, asked, inner, micrograph.data_bar)
        collection.add(index, result)
        if (number <= len(indices) // 2 or not collection.shows_any) and np.isfinite(image).any():
            collection.show(image, result)
    return collection.result()


class _Collection:
    """The planes of one file, put together as they come."""

    def __init__(self, micrograph: MicrographFile, recipe: Recipe, keep_masks: bool) -> None:
        self._pixel_size = recipe.pixel_size or micrograph.pixel_size
        self._normalisation = recipe.normalisation
        self._keep_masks = keep_masks
        # Zeros take no memory before they are written: planes left out cost nothing.
        shape = (*micrograph.stack_shape, *micrograph.plane_shape)
        self._labels = np.zeros(shape, dtype=np.int32)
        self._tables: list[ObjectTable] = []
        self._coco: list[CocoImage] = []
        self._source = micrograph.path.name
        self._z_size = micrograph.z_size
        self._dropped: Counter[str] = Counter()
        self._prompted = recipe.prompts is not None
        self._warnings: list[str] = []
        self._highest = self._covered = self._segmented = self._blank = 0
        self._shown: tuple[NDArray[Any], NDArray[np.int32]] | None = None

    def add(self, index: PlaneIndex, result: PlaneResult) -> None:
        """Take a plane in; its labels follow on those of the planes before."""
        plane = self._labels[index]
        np.add(result.labels, self._highest, out=plane, where=result.labels > 0)
        table = result.table(self._pixel_size)
        moved: dict[str, NDArray[Any]] = {"id": table["id"] + self._highest}
        for axis, position in enumerate(index):
            moved[f"plane_{axis}"] = np.full(len(table), position)
        self._tables.append(table.with_columns(moved))
        if self._keep_masks:
            categories = result.classes if any(result.classes) else ()
            name = f"{self._source}[{','.join(map(str, index))}]" if index else self._source
            self._coco.append(CocoImage(result.masks, name, categories, self._pixel_size))
        self._dropped.update(result.masks.dropped)
        self._dropped.update({"covered": len(result.hidden)} if result.hidden else {})
        if self._prompted:
            self._warn(index, result)
        self._highest += len(result.masks)
        self._covered += int(np.count_nonzero(result.labels))
        self._segmented += result.segmented_pixels

    def count_blank(self) -> None:
        """Note that a plane was left out because it holds nothing."""
        self._blank += 1

    def _warn(self, index: PlaneIndex, result: PlaneResult) -> None:
        """Say which objects that were asked for are not in the label image."""
        where = f"plane {','.join(map(str, index))}: " if index else ""
        asked = f"of {len(result.masks)} objects asked for"
        for missing, why in (
            (result.hidden, "do not show: smaller ones cover them"),
            (result.empty, "are empty: the model finds nothing there"),
        ):
            if missing:
                numbers = ", ".join(str(i + 1) for i in missing)
                self._warnings.append(f"{where}{len(missing)} {asked} {why} (number {numbers})")

    def show(self, image: NDArray[Any], result: PlaneResult) -> None:
        """Choose a plane for the overlay, instead of one before."""
        self._shown = image, result.labels

    @property
    def shows_any(self) -> bool:
        """Whether there is a plane for the overlay."""
        return self._shown is not None

    def result(self) -> ImageResult:
        """Return what has been collected."""
        if self._tables and self._blank == len(self._tables):
            raise InvalidImageError(
                "all pixels of each plane are equal, or none is finite: there is nothing to find"
            )
        if self._shown is None:
            raise InvalidPromptError("expected at least one plane, got none")
        if self._blank:
            self._warnings.append(
                f"{self._blank} of {len(self._tables)} planes hold nothing: all pixels are equal, "
                "or none is finite"
            )
        return ImageResult(
            self._labels,
            to_rgb8(self._shown[0], self._normalisation),
            self._shown[1],
            table=join_tables(self._tables),
            coco=tuple(self._coco),
            z_size=self._z_size,
            dropped=self._dropped,
            coverage=self._covered / max(1, self._segmented),
            n_planes=len(self._tables),
            warnings=tuple(self._warnings),
        )


def _prompts_for(
    prompts: PromptFile, job: Job, micrograph: MicrographFile
) -> dict[PlaneIndex, tuple[ObjectPrompt, ...]]:
    """Return the prompts of every plane; raises if one belongs to no plane."""
    every = list(np.ndindex(*micrograph.stack_shape))
    for item in prompts.for_image(job.source):
        if item.plane is not None and item.plane >= len(every):
            raise InvalidPromptError(
                f"the prompt file asks for an object in plane {item.plane}, but "
                f"{job.source.name} has {len(every)}, counted from 0"
            )
    return {index: prompts.for_plane(job.source, i) for i, index in enumerate(every)}


def plane_indices(micrograph: MicrographFile, planes: str | None) -> list[PlaneIndex]:
    """Return the planes that the user chose; all where `planes` is None, or it is no stack."""
    every = list(np.ndindex(*micrograph.stack_shape))
    # Images that are no stacks have no planes to choose from.
    if planes is None or not micrograph.is_stack:
        return every
    return [every[i] for i in choose_planes(planes, len(every))]
