"""Four cells that belong together: {base, adapted} x {one click, n clicks}.

A first click of the one compared with the last click of the other says nothing about adaptation,
so the cells are never computed or shown apart. Both models are clicked by the same rule on the
same objects of the same images. Adapters that were trained on parts of images look at such parts,
a model as published at the whole image; `opener` lets it look at parts, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.engines.segmenter import Segmenter
from phasesam.evaluation.click_curves import ClickCurves, Measure
from phasesam.evaluation.clicks import (
    COMPLETE_CLICKS,
    MAX_CLICKS,
    THRESHOLDS,
    ClickPredictor,
    evaluate_clicks,
)
from phasesam.evaluation.statistics import Interval, PairedDifference, paired_difference
from phasesam.models.adapter_loading import Adapter
from phasesam.training.dataset import LabelledImage

Model = Literal["base", "adapted"]
Opener = Callable[[LabelledImage], Segmenter | ClickPredictor]
"""Opens an image with a model, ready to be clicked."""


@dataclass(frozen=True)
class ClickConfig:
    """How objects are clicked.

    Attributes
    ----------
    clicks : int
        The n of the four cells.
    max_clicks : int
        Most clicks per object, for the number of clicks (NoC).
    thresholds : tuple of float
        IoU values whose numbers of clicks are wanted.
    min_area : int
        Smaller true objects are left out, in pixels; reports say so.
    most_objects : int or None
        At most so many objects of each image, drawn at random but always the same ones.
    """

    clicks: int = COMPLETE_CLICKS
    max_clicks: int = MAX_CLICKS
    thresholds: tuple[float, ...] = THRESHOLDS
    min_area: int = 0
    most_objects: int | None = None

    def __post_init__(self) -> None:
        if not 1 < self.clicks <= self.max_clicks:
            raise InvalidSettingError(
                f"expected 2 to {self.max_clicks} clicks beside the first, got {self.clicks}"
            )
        if self.clicks > COMPLETE_CLICKS:
            raise InvalidSettingError(
                f"curves are complete up to {COMPLETE_CLICKS} clicks, got {self.clicks}"
            )


@dataclass(frozen=True, eq=False)
class FourCells:
    """Clicks on the same objects with two models.

    Attributes
    ----------
    base, adapted : ClickCurves
        Of the model as published and of the adapted one; rows are the same objects.
    config : ClickConfig
        How they were clicked.
    """

    base: ClickCurves
    adapted: ClickCurves
    config: ClickConfig

    def __post_init__(self) -> None:
        first, second = self.base, self.adapted
        if not (
            np.array_equal(first.object_ids, second.object_ids)
            and np.array_equal(first.images, second.images)
        ):
            raise InvalidSettingError(
                f"expected the same objects for both models, got {len(first)} and {len(second)}"
            )

    def curves(self, model: Model) -> ClickCurves:
        """Curves of one of the models."""
        return self.base if model == "base" else self.adapted

    def cell(self, model: Model, clicks: int, measure: Measure = "iou") -> Interval:
        """Mean quality of one model after so many clicks."""
        return self.curves(model).after(clicks, measure)

    def gain(self, clicks: int, measure: Measure = "iou") -> PairedDifference:
        """Difference adapted minus base after equally many clicks, per object, by image."""
        first, second = (getattr(c, measure)[:, clicks - 1] for c in (self.base, self.adapted))
        return paired_difference(first, second, self.base.images)

    def saved_clicks(self, threshold: float) -> PairedDifference:
        """How many clicks fewer the adapted model needs to reach an IoU."""
        numbers = [c.number_of_clicks(threshold) for c in (self.adapted, self.base)]
        return paired_difference(numbers[0], numbers[1], self.base.images)


def evaluate_cells(
    images: Sequence[LabelledImage],
    base: Opener,
    adapted: Opener,
    config: ClickConfig | None = None,
    *,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> FourCells:
    """Click on every object of some images with two models.

    Parameters
    ----------
    images : sequence of LabelledImage
        Test images with objects.
    base, adapted : callable
        Open an image with the model as published and with the adapted one; see `opener`.
    config : ClickConfig, optional
        How to click.
    progress : callable, optional
        ``progress(done, total)`` in images, each counted twice.
    should_stop : callable, optional
        Asked between clicks.

    Raises
    ------
    InvalidSettingError
        If there is no image, or none has an object.
    CancelledError
        If the user asked to stop.
    """
    config = config or ClickConfig()
    found: dict[Model, list[ClickCurves]] = {"base": [], "adapted": []}
    openers: dict[Model, Opener] = {"base": base, "adapted": adapted}
    for image in images:
        for model, curves in found.items():
            curves.append(click_image(image, openers[model], config, should_stop))
            if progress is not None:
                progress(sum(map(len, found.values())), 2 * len(images))
    if not any(len(curves) for curves in found["base"]):
        raise InvalidSettingError(
            f"expected objects of at least {config.min_area} pixels in the images, got none"
        )
    specimens, names = [i.specimen for i in images], [i.name for i in images]
    return FourCells(
        ClickCurves.joined(found["base"], specimens, names),
        ClickCurves.joined(found["adapted"], specimens, names),
        config,
    )


def click_image(
    image: LabelledImage,
    open_image: Opener,
    config: ClickConfig,
    should_stop: StopCallback | None = None,
) -> ClickCurves:
    """Click on the chosen objects of one image with one model; as `evaluate_cells`."""
    labels = image.label_array()
    return evaluate_clicks(
        open_image(image),
        labels,
        config.max_clicks,
        config.thresholds,
        chosen_objects(labels, config),
        should_stop=should_stop,
    )


def chosen_objects(labels: NDArray[np.int32], config: ClickConfig) -> list[int]:
    """Labels of the objects that are clicked."""
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    ids = ids[areas >= config.min_area]
    if config.most_objects is not None and len(ids) > config.most_objects:
        ids = np.sort(np.random.default_rng(0).choice(ids, config.most_objects, replace=False))
    return [int(i) for i in ids]


def opener(model: str = "mobile_sam", adapter: Adapter = None, window: int | None = None) -> Opener:
    """Open images as a segmenter sees them: as normalised for training, no data bar looked for.

    Parameters
    ----------
    model : str
        Name in the registry.
    adapter : Adapter, optional
        Name, file or version of an adapter; the model as published when left out.
    window : int, optional
        Side in pixels of the parts of an image that the model looks at. When left out, what the
        adapter was trained on; the whole image, shrunk, for a model as published.
    """

    def open_image(image: LabelledImage) -> Segmenter:
        segmenter = Segmenter(image.rgb(), model, adapter=adapter, exclude_data_bar=False)
        segmenter.window = window
        return segmenter

    return open_image
