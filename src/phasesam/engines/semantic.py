"""Maps of phases without prompts, by an adapter with class tokens.

Where the adapter was trained on windows of the image, the image is mapped window by window, at
the same magnification. Logits of overlapping windows are averaged, each with a weight that falls
off towards the border of its window, and are brought to the resolution of the image before a
class is chosen: edges of phases then have no steps.

Only the windows that still reach into rows to come are kept, and rows are finished a strip at a
time, so that the memory beyond the result itself does not grow with the height of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.boxes import Box
from phasesam.core.coordinates import resize_image_longest_side
from phasesam.core.errors import InvalidSettingError
from phasesam.core.images import stretched
from phasesam.core.levels import intensity_levels
from phasesam.core.tiles import tiles
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.engines.phase_hints import PhaseHints
from phasesam.engines.rendering import Raster, raster
from phasesam.engines.segmenter import Segmenter
from phasesam.models.adapter_loading import Adapter, AdapterVersion
from phasesam.models.adapter_store import card_of
from phasesam.models.shortage import check_stop

if TYPE_CHECKING:
    from phasesam.engines.embedding_cache import Embedding
    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.sam import SamModel

NO_CLASS = 255
"""Value of pixels that were not mapped: the data bar."""

ORIENTATIONS: Mapping[int, tuple[tuple[bool, bool], ...]] = {
    1: ((False, False),),
    2: ((False, False), (True, True)),
    4: ((False, False), (True, True), (False, True), (True, False)),
}
"""Whether rows and columns are in reverse order, each time a window is looked at."""


WindowEmbeddings = dict[tuple[Box, tuple[bool, bool]], Any]
"""Embeddings of the windows of an image, kept for other hints on the same image."""

_KEPT_BYTES = 2**31
_STRIP_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class PhaseMap:
    """Which phase each pixel of an image belongs to.

    Attributes
    ----------
    labels : (h, w) uint8 array
        Index of the class; `NO_CLASS` in the data bar.
    classes : tuple of str
        Their names.
    probabilities : (K, h, w) float32 array or None
        How sure the model is, over all classes 1; 0 in the data bar. None where they were not
        kept.
    data_bar : int or None
        First row of the data bar.
    window : int or None
        Side of the windows in pixels; None if the image was mapped in one piece.
    """

    labels: NDArray[np.uint8]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32] | None = None
    data_bar: int | None = None
    window: int | None = None

    @property
    def confidence(self) -> NDArray[np.float32] | None:
        """Probability of the class chosen, (h, w); None where probabilities were not kept."""
        if self.probabilities is None:
            return None
        highest: NDArray[np.float32] = self.probabilities.max(axis=0)
        return highest

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Area fraction of each class, (K,), without the data bar."""
        counts = np.bincount(self.labels.ravel(), minlength=NO_CLASS + 1)[: len(self.classes)]
        return counts / max(1, int(counts.sum()))


@dataclass(frozen=True)
class PhaseMapConfig:
    """How phases are mapped.

    Attributes
    ----------
    window : int or None
        Side in pixels of what the model sees at once; 0 is the whole image. As in training
        when None.
    overlap : float
        Share of a window that neighbours have in common at least, 0–0.9.
    orientations : {1, 2, 4}
        How often each window is looked at: as it is, turned upside down too, and mirrored both
        ways too. The mean is more accurate, most of all on images unlike those of the training,
        and takes as many times as long.
    keep_probabilities : bool or None
        Whether they are part of the result; unless they are more than 2 GiB when None.
    hints : PhaseHints or None
        Phase fractions and boxes, for adapters that take them.

    Raises
    ------
    InvalidSettingError
        If a value is out of its range.
    """

    window: int | None = None
    overlap: float = 0.25
    orientations: int = 2
    keep_probabilities: bool | None = None
    hints: PhaseHints | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.9:
            raise InvalidSettingError(f"the overlap must be within 0–0.9, got {self.overlap}")
        if self.window is not None and self.window < 0:
            raise InvalidSettingError(
                f"expected a window of 0 pixels (all) or more, got {self.window}"
            )
        if self.orientations not in ORIENTATIONS:
            raise InvalidSettingError(f"expected 1, 2 or 4 orientations, got {self.orientations}")


def segment_classes(
    image: ArrayLike | Segmenter,
    adapter: Adapter = None,
    config: PhaseMapConfig | None = None,
    *,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
    embeddings: WindowEmbeddings | None = None,
    **changes: Any,
) -> PhaseMap:
    """Find the phase of every pixel.

    Parameters
    ----------
    image : array-like or Segmenter
        As for `phasesam.Segmenter`. A segmenter says how the image is read, and which model
        and manager are used; of an array it is the model that the adapter was trained on.
    adapter : str, path or AdapterVersion, optional
        An adapter with classes; that of the segmenter when left out.
    config : PhaseMapConfig, optional
        How to map.
    progress : callable, optional
        ``progress(done, total)`` in windows.
    should_stop : callable, optional
        Asked before every window.
    embeddings : WindowEmbeddings, optional
        Filled, and used where it is filled: only for calls that differ in their hints alone.
        A window takes 4 MB.
    **changes
        Fields of `PhaseMapConfig` to change.

    Returns
    -------
    PhaseMap
        At the resolution of the image.

    Raises
    ------
    InvalidSettingError
        If the adapter has no classes or does not take the hints, or settings make no sense.
    InvalidImageError
        If it is no image.
    ModelError
        If model or adapter cannot be had, do not fit, or memory runs out.
    CancelledError
        If the user asked to stop.
    """
    config = replace(config or PhaseMapConfig(), **changes)
    chosen = adapter if adapter is not None or not isinstance(image, Segmenter) else image.adapter
    card = _card(chosen)
    if not isinstance(image, Segmenter):
        image = Segmenter(image, card.base, adapter=chosen)
    if config.hints is not None:
        config.hints.check(card)
    version = image.manager.adapter_version(image.model, chosen)
    mapping = _Mapping(image, card, version, config, embeddings)
    return mapping.run(progress, should_stop)


def _card(adapter: Adapter) -> AdapterCard:
    if adapter is None:
        raise InvalidSettingError("a map of phases needs an adapter with classes, got none")
    card = adapter.card if isinstance(adapter, AdapterVersion) else card_of(adapter)
    if not card.classes:
        raise InvalidSettingError(
            f"the adapter has no classes: it was trained for the task {card.task!r}. Use it with "
            "prompts or automatic masks"
        )
    return card


@dataclass(frozen=True)
class _Window:
    """Logits of one window, (K, 256, 256), and where it lies."""

    box: Box
    logits: NDArray[np.float32]
    raster: Raster

    def add_to(
        self, total: NDArray[np.float32], weight: NDArray[np.float32], start: int, stop: int
    ) -> None:
        """Add weighted logits and weights for the image rows `start` to `stop`."""
        y0, x0, y1, x1 = self.box
        first, last = max(start, y0), min(stop, y1)
        if first >= last:
            return
        rows = self.raster.rows[first - y0 : last - y0]
        taps = np.flatnonzero(rows.any(axis=0))
        used = slice(int(taps[0]), int(taps[-1]) + 1)
        fine = rows[:, used] @ self.logits[:, used] @ self.raster.columns.T
        share = _taper(y1 - y0)[first - y0 : last - y0, None] * _taper(x1 - x0)
        total[:, first - start : last - start, x0:x1] += fine * share
        weight[first - start : last - start, x0:x1] += share


def _taper(length: int) -> NDArray[np.float32]:
    """Weights along a side: 1 in the middle, falling off to the ends, nowhere 0."""
    place = (np.arange(length, dtype=np.float32) + 0.5) / length
    return np.minimum(place, 1 - place) * 2


class _Mapping:
    """One run."""

    def __init__(
        self,
        segmenter: Segmenter,
        card: AdapterCard,
        version: AdapterVersion | str | None,
        config: PhaseMapConfig,
        embeddings: WindowEmbeddings | None,
    ) -> None:
        self.segmenter = segmenter
        self.embeddings = embeddings
        self.classes = classes = card.classes
        self.version = version
        self.hints = config.hints
        # As the adapter was trained.
        stretch = card.details.get("stretch") is True
        self.rgb = stretched(segmenter.rgb) if stretch else segmenter.rgb
        self.levels = intensity_levels(self.rgb)
        shape = self.rgb.shape[:2]
        side = card.window or 0 if config.window is None else config.window
        self.boxes = tiles((shape[0], shape[1]), side or max(shape), int(config.overlap * side))
        self.flips = ORIENTATIONS[config.orientations]
        self.side = side if len(self.boxes) > 1 else None
        height, width = segmenter.shape
        self.labels = np.full((height, width), NO_CLASS, dtype=np.uint8)
        size = 4 * len(classes) * height * width
        wanted = config.keep_probabilities
        kept = size <= _KEPT_BYTES if wanted is None else wanted
        full = (len(classes), height, width)
        self.probabilities = np.zeros(full, dtype=np.float32) if kept else None

    def run(self, progress: ProgressCallback | None, should_stop: StopCallback | None) -> PhaseMap:
        seg = self.segmenter
        embedding = self._embedding(should_stop)
        bands = [list(band) for _, band in groupby(self.boxes, key=lambda box: box[0])]
        ends = [*(band[0][0] for band in bands[1:]), self.boxes[-1][2]]
        waiting: list[_Window] = []
        done = 0
        with seg.manager.lease(seg.model, self.version, should_stop=should_stop) as model:
            for band, end in zip(bands, ends, strict=True):
                for box, flip in product(band, self.flips):
                    check_stop(should_stop)
                    whole = None if any(flip) else embedding
                    waiting.append(self._window(model, box, flip, whole))
                    done += 1
                    if progress is not None:
                        progress(done, len(self.boxes) * len(self.flips))
                # No window to come reaches into the rows above the next band.
                self._finish(waiting, band[0][0], end)
                waiting = [item for item in waiting if item.box[2] > end]
        return PhaseMap(self.labels, self.classes, self.probabilities, seg.data_bar, self.side)

    def _embedding(self, should_stop: StopCallback | None) -> Embedding | None:
        """Encode the whole image, or look its embedding up; None for windows."""
        from phasesam.engines.embedding import embed

        seg = self.segmenter
        if len(self.boxes) > 1:
            return None
        return embed(
            self.rgb,
            model=seg.model,
            adapter=self.version,
            manager=seg.manager,
            should_stop=should_stop,
        )

    def _window(
        self, model: SamModel, box: Box, flip: tuple[bool, bool], embedding: Embedding | None
    ) -> _Window:
        """Ask the model about one window, with rows and columns in reverse order or not."""
        import torch

        from phasesam.engines.embedding import encode
        from phasesam.models.class_decoder import class_logits
        from phasesam.models.detail_head import detail_picture

        y0, x0, y1, x1 = box
        down, right = (slice(None, None, -1 if turned else None) for turned in flip)
        crop = np.ascontiguousarray(self.rgb[y0:y1, x0:x1][down, right])
        kept = None if self.embeddings is None else self.embeddings.get((box, flip))
        if embedding is not None:
            features = embedding.features.to(model.pixel_mean.device)
        elif kept is not None:
            features = kept.to(model.pixel_mean.device)
        else:
            features, _, _ = encode(model, crop, self.segmenter.manager)
            if self.embeddings is not None:
                self.embeddings[box, flip] = features.cpu()

        hints = None
        if self.hints is not None:
            hints = self.hints.of_window(box, flip, model.image_size, len(self.classes))

        def run() -> NDArray[np.float32]:
            with torch.inference_mode():
                resized = resize_image_longest_side(crop, model.image_size)
                picture = detail_picture(resized, self.levels, model.image_size)
                found = class_logits(model, features, picture, hints)[0].float().cpu()
            return np.asarray(found)

        logits = self.segmenter.manager.retry(run, doing="mapping phases")
        grid = raster((y1 - y0, x1 - x0), logits.shape[-1], model.image_size)
        if any(flip):
            grid = replace(grid, rows=grid.rows[down], columns=grid.columns[right])
        return _Window(box, logits, grid)

    def _finish(self, waiting: list[_Window], start: int, stop: int) -> None:
        """Choose the classes of some rows, a strip at a time."""
        width = self.labels.shape[1]
        step = max(1, _STRIP_BYTES // (4 * len(self.classes) * width))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            total = np.zeros((len(self.classes), last - first, width), dtype=np.float32)
            weight = np.zeros((last - first, width), dtype=np.float32)
            for item in waiting:
                item.add_to(total, weight, first, last)
            total /= weight
            self.labels[first:last] = total.argmax(axis=0)
            if self.probabilities is not None:
                total -= total.max(axis=0)
                np.exp(total, out=total)
                total /= total.sum(axis=0)
                self.probabilities[:, first:last] = total
