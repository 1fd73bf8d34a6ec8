"""Which objects are large enough to be learnt, as the model will see them.

Importing this file does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.coordinates import MODEL_SIDE
from phasesam.core.errors import TrainingDataError
from phasesam.models.adapter_store import card_of
from phasesam.training.window_choice import object_sides, typical_extent

if TYPE_CHECKING:
    from phasesam.training.label_values import Task
    from phasesam.training.recipes import Recipe
    from phasesam.training.settings import TrainingSettings
    from phasesam.training.views import ViewConfig

SMALLEST_AREA = 64
"""Of an object that can be learnt, in pixels of the model."""
MOST_COVERED = 0.95
"""Share of a view below which an object can be told from the rest."""


@dataclass(frozen=True, eq=False)
class ImageObjects:
    """The objects of one training image.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image.
    areas : (n,) int array
        Pixels of each object.
    sides : list of int
        Longer side of the bounding box of each object, in pixels.
    """

    shape: tuple[int, int]
    areas: NDArray[np.int64]
    sides: list[int]

    @classmethod
    def of(cls, labels: NDArray[np.int32]) -> ImageObjects:
        """Measure objects 1, 2, … of a label image, (h, w)."""
        areas = np.unique(labels[labels > 0], return_counts=True)[1]
        return cls((labels.shape[0], labels.shape[1]), areas, object_sides(labels))


def large_extent(images: Sequence[ImageObjects]) -> float:
    """Tell how long large objects are, in pixels; 0 without any."""
    return typical_extent([side for image in images for side in image.sides])


def fitted_to_objects(
    recipe: Recipe, task: Task, is_hq: bool, images: Sequence[ImageObjects]
) -> Recipe:
    """Complete a recipe with what the objects of the training images ask for."""
    longest = max(max(image.shape) for image in images)
    return recipe.fitted(task, is_hq, longest, large_extent(images))


def unseen_objects(settings: TrainingSettings, task: Task, images: Sequence[ImageObjects]) -> str:
    """Say how many objects a training will not learn, with the window that it will take.

    Parameters
    ----------
    settings : TrainingSettings
        Recipe, and the adapter to go on from.
    task : {"promptable", "instance", "semantic"}
        Classes have no objects.
    images : sequence of ImageObjects
        To learn from.

    Returns
    -------
    str
        As `about_unseen`.

    Raises
    ------
    TrainingDataError
        As `about_unseen`.
    """
    if task == "semantic":
        return ""
    views = fitted_to_objects(settings.recipe, task, False, images).views
    if settings.start:
        views = replace(views, window=card_of(settings.start).window)
    return about_unseen(images, views)


def about_unseen(images: Sequence[ImageObjects], views: ViewConfig) -> str:
    """Say how many objects will not be learnt, because they are too small or fill their image.

    Parameters
    ----------
    images : sequence of ImageObjects
        To learn from.
    views : ViewConfig
        What views show. Objects count as they are in the view that suits them best.

    Returns
    -------
    str
        A sentence; empty if all can be learnt.

    Raises
    ------
    TrainingDataError
        If none can.
    """
    n, small, large, least = 0, 0, 0, 0.0
    smallest, largest = views.augmentation.scale
    for image in images:
        longest = max(image.shape)
        shown = min(views.window or longest, longest)
        pixels = (shown / (MODEL_SIDE * max(1.0, largest))) ** 2 * SMALLEST_AREA
        n += len(image.areas)
        small += int((image.areas < pixels).sum())
        # A turned view has margins, as a reduced one.
        if shown == longest and not views.augmentation.any_angle:
            room = image.shape[0] * image.shape[1] / min(1.0, smallest) ** 2
            large += int((image.areas >= MOST_COVERED * room).sum())
        least = max(least, pixels)
    if n == 0 or small + large == 0:
        return ""
    parts = [f"{small} are smaller than {least:.0f} pixels"] if small else []
    parts += [f"{large} fill their image"] if large else []
    advice = "; a smaller window shows them larger" if small else ""
    found = " and ".join(parts)
    if small + large == n:
        raise TrainingDataError(
            f"expected objects that the model can tell, got {n} of which {found}{advice}"
        )
    return f"of {n} objects {found}, and are not learnt{advice}"
