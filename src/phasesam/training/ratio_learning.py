"""Learn from images of which only the phase fractions are known, and no mask.

The network maps the images, the solver gives the maps the known amounts, and the network learns
from what it is surest of in them: it gets used to images unlike those it was trained on, and the
amounts keep it from confirming its own mistakes. After self-training with class balance (Zou et
al., ECCV 2018) and adaptation to known class ratios (Bateson et al., MICCAI 2020); here the
amounts are met exactly, or as far as they deserve trust, before anything is learnt from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio import Errors, RatioSolution, solve
from phasesam.core.ratio_request import RatioRequest, Wanted
from phasesam.core.types import PixelSize
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.models.adapter_card import AdapterCard, read_card
from phasesam.models.adapter_store import get_adapter
from phasesam.training.dataset import TrainingData, from_arrays
from phasesam.training.fine_tuning import TrainedAdapter, train
from phasesam.training.label_values import UNLABELLED
from phasesam.training.recipes import Recipe, get_recipe
from phasesam.training.settings import TrainingSettings

if TYPE_CHECKING:
    from phasesam.training.trainer import Callback

_LEAST_PROBABILITY = 1e-30
_VIEWS_PER_IMAGE = 16
_FEWEST_VIEWS, _MOST_VIEWS = 24, 96
_LOOKS = 3


@dataclass(frozen=True, eq=False)
class RatioExample:
    """An image of which the phase fractions are known.

    Attributes
    ----------
    name : str
        Unique among the examples.
    image : array-like
        As for `phasesam.Segmenter`.
    fractions : sequence of Wanted
        Of each class, as for `phasesam.core.ratio.solve`.
    uncertainty : float, sequence of float, or None
        Standard errors of the fractions; exact when None.
    logits : (K, h, w) array or None
        What the adapter makes of the image, where `mapped` has said so before.
    pixel_size : PixelSize
        Of the image; where the examples differ, or say nothing, that of the adapter goes on.
    """

    name: str
    image: ArrayLike
    fractions: Sequence[Wanted]
    uncertainty: Errors = None
    logits: NDArray[np.float32] | None = None
    pixel_size: PixelSize = field(default_factory=PixelSize)


@dataclass(frozen=True)
class RatioLearning:
    """How to learn from amounts alone.

    Attributes
    ----------
    believed : float
        Share of the pixels of each class in the solved maps, the surest ones, that is learnt
        from, 0–1.
    rate : float
        By which the learning rates of the default recipe are multiplied: what was learnt from
        masks is to stay.
    views : int or None
        Views of the images that are learnt from, one after the other; 16 for each image, but 24
        at least and 96 at most, when None.

    Raises
    ------
    InvalidSettingError
        If a value is out of its range.
    """

    believed: float = 0.7
    rate: float = 0.3
    views: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.believed <= 1:
            raise InvalidSettingError(
                f"expected a believed share above 0, and 1 at most, got {self.believed:g}"
            )
        if not self.rate > 0:
            raise InvalidSettingError(f"expected a rate above 0, got {self.rate}")
        if self.views is not None and self.views < 1:
            raise InvalidSettingError(f"expected at least 1 view, got {self.views}")


def learn_from_ratios(
    examples: Sequence[RatioExample],
    adapter: str | Path,
    folder: str | Path,
    config: RatioLearning | None = None,
    *,
    settings: TrainingSettings | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainedAdapter:
    """Train an adapter further on images of which only the amounts are known.

    Parameters
    ----------
    examples : sequence of RatioExample
        Images; a handful is enough, best of one material.
    adapter : str or path-like
        Name or file of an adapter with classes; it stays as it is.
    folder : path-like
        Folder of this training; see `RunFolder`.
    config : RatioLearning, optional
        How to learn.
    settings : TrainingSettings, optional
        Seed, device and precision; recipe, base and start are taken from the adapter.
    callbacks : sequence of Callback
        Told about steps; may stop the training.

    Returns
    -------
    TrainedAdapter
        A new adapter for the same classes.

    Raises
    ------
    InvalidSettingError
        If there is no example, or fractions of one are not those of the classes or cannot add up
        to 1; nothing has been computed then.
    InvalidImageError
        If an image is none.
    ModelError
        If the adapter does not fit, or memory runs out.
    CancelledError
        If it was stopped.
    """
    if not examples:
        raise InvalidSettingError("expected at least one image with its fractions, got none")
    config, path = config or RatioLearning(), get_adapter(adapter).path
    card = read_card(path)
    for example in examples:
        _check_amounts(example, card.classes)
    settings = settings or TrainingSettings()
    stops = [callback.should_stop for callback in callbacks]
    items = []
    for example in examples:
        segmenter = Segmenter(example.image, card.base, adapter=str(path))
        logits = example.logits
        if logits is None:
            logits = mapped(segmenter, lambda: any(stop() for stop in stops))
        labels = ratio_labels(logits, example, config.believed)
        items.append((example.name, segmenter.rgb, labels, None))
    further = replace(
        settings, recipe=_recipe(config, len(items)), base=card.base, start=str(path),
        class_colours=tuple(card.details.get("class_colours", ())),
        licence=settings.licence or str(card.details.get("licence", "")),
    )  # fmt: skip
    return train(_data(items, examples, card), folder, further, callbacks=callbacks)


def _data(
    items: Sequence[tuple[str, Any, NDArray[np.int32], None]],
    examples: Sequence[RatioExample],
    card: AdapterCard,
) -> TrainingData:
    """Make data of maps, with the values that classes have in label files of the adapter."""
    values = card.details.get("class_values") or range(len(card.classes))
    # The last one is that of what is not labelled.
    written = np.array([*values, UNLABELLED], np.int32)
    sizes = {example.pixel_size for example in examples}
    size = sizes.pop() if len(sizes) == 1 else PixelSize()
    trained = card.details.get("pixel_size_um")
    if not size.is_physical and trained:
        size = PixelSize(float(trained[0]), float(trained[1]), "um")
    return from_arrays(
        [(name, rgb, written[labels], specimen) for name, rgb, labels, specimen in items],
        "semantic",
        fractions=(1, 0, 0),
        classes=dict(zip(map(int, values), card.classes, strict=True)),
        pixel_size=size,
    )


def _check_amounts(example: RatioExample, classes: Sequence[str]) -> None:
    """Refuse amounts that cannot be met before images are mapped, which takes long."""
    if len(example.fractions) != len(classes):
        raise InvalidSettingError(
            f"{example.name}: expected fractions of {len(classes)} classes "
            f"({', '.join(classes)}), got {len(example.fractions)}"
        )
    try:
        RatioRequest(list(example.fractions), example.uncertainty)
    except InvalidSettingError as error:
        raise InvalidSettingError(f"{example.name}: {error}") from error


def mapped(
    segmenter: Segmenter, should_stop: Callable[[], bool] | None = None
) -> NDArray[np.float32]:
    """Ask the network about an image that it is to learn from.

    Parameters
    ----------
    segmenter : Segmenter
        With the image, and an adapter with classes.
    should_stop : callable, optional
        Asked before every window.

    Returns
    -------
    (K, h, w) float32 array
        Logits, for the image without its data bar.
    """
    found = segment_classes(segmenter, keep_probabilities=True, should_stop=should_stop)
    assert found.probabilities is not None
    shown = found.probabilities[:, : segmenter.rgb.shape[0]]
    return np.asarray(np.log(np.maximum(shown, _LEAST_PROBABILITY)))


def ratio_labels(
    logits: NDArray[np.float32], example: RatioExample, believed: float
) -> NDArray[np.int32]:
    """Label an image by its amounts, where the network is surest.

    Parameters
    ----------
    logits : (K, h, w) array
        What the network makes of it.
    example : RatioExample
        Its amounts.
    believed : float
        Share of the pixels of each class that get a label.

    Returns
    -------
    (h, w) int32 array
        Class indices; `UNLABELLED` where the network is less sure.
    """
    shape = logits.shape[1:]
    logits = logits.reshape(len(logits), -1)
    solution = solve(logits, list(example.fractions), example.uncertainty)
    margin = _margins(logits, solution)
    chosen = solution.labels.astype(np.int32)
    for k in range(len(logits)):
        of_class = np.flatnonzero(solution.labels == k)
        if len(of_class):
            rank = int((1 - believed) * len(of_class))
            least = np.partition(margin[of_class], rank)[rank]
            chosen[of_class[margin[of_class] < least]] = UNLABELLED
    return chosen.reshape(shape)


def _margins(logits: NDArray[np.float32], solution: RatioSolution) -> NDArray[np.float32]:
    """How much likelier the class of each pixel, (n,), is than any other."""
    # Of classes that must not occur the network's own word counts: what looks like one of them
    # is nothing to learn another class from.
    bias = np.where(np.isfinite(solution.bias), solution.bias, 0).astype(np.float32)
    odds = logits + bias[:, None]
    chosen = solution.labels[None].astype(np.intp)
    own = np.take_along_axis(odds, chosen, 0)[0]
    np.put_along_axis(odds, chosen, -np.inf, 0)
    return np.asarray(own - odds.max(axis=0))


def _recipe(config: RatioLearning, n_images: int) -> Recipe:
    """Make the default recipe short and careful."""
    recipe = get_recipe("default")
    views = config.views or int(np.clip(_VIEWS_PER_IMAGE * n_images, _FEWEST_VIEWS, _MOST_VIEWS))
    rates = recipe.optimiser
    return replace(
        recipe,
        epochs=1,
        views_per_epoch=views,
        pool=max(1, views // _LOOKS),
        optimiser=replace(
            rates,
            lr_encoder=rates.lr_encoder * config.rate,
            lr_decoder=rates.lr_decoder * config.rate,
            lr_heads=rates.lr_heads * config.rate,
        ),
    )
