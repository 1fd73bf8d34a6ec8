"""Maps of phases without prompts, by an adapter with class tokens.

Where the adapter was trained on windows of the image, the image is mapped window by window, at
the same magnification. Logits of overlapping windows are averaged, each with a weight that falls
off towards the border of its window, and are brought to the resolution of the image before a
class is chosen: edges of phases then have no steps.

Only the windows that still reach into rows to come are kept, and rows are finished a strip at a
time, so that the memory beyond the result itself does not grow with the height of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.coordinates import resize_image_longest_side
from phasesam.core.errors import InvalidSettingError
from phasesam.core.images import stretched
from phasesam.core.tiles import tiles
from phasesam.core.types import ProgressCallback, StopCallback
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


def segment_classes(
    image: ArrayLike | Segmenter,
    adapter: Adapter = None,
    *,
    window: int | None = None,
    overlap: float = 0.25,
    keep_probabilities: bool | None = None,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> PhaseMap:
    """Find the phase of every pixel.

    Parameters
    ----------
    image : array-like or Segmenter
        As for `phasesam.Segmenter`. A segmenter says how the image is read, and which model
        and manager are used; of an array it is the model that the adapter was trained on.
    adapter : str, path or AdapterVersion, optional
        An adapter with classes; that of the segmenter when left out.
    window : int, optional
        Side in pixels of what the model sees at once; 0 is the whole image. As in training
        when left out.
    overlap : float
        Share of a window that neighbours have in common at least, 0–0.9.
    keep_probabilities : bool, optional
        Whether they are part of the result; unless they are more than 2 GiB when left out.
    progress : callable, optional
        ``progress(done, total)`` in windows.
    should_stop : callable, optional
        Asked before every window.

    Returns
    -------
    PhaseMap
        At the resolution of the image.

    Raises
    ------
    InvalidSettingError
        If the adapter has no classes, or window or overlap make no sense.
    InvalidImageError
        If it is no image.
    ModelError
        If model or adapter cannot be had, do not fit, or memory runs out.
    CancelledError
        If the user asked to stop.
    """
    if not 0 <= overlap <= 0.9:
        raise InvalidSettingError(f"the overlap must be within 0–0.9, got {overlap}")
    if window is not None and window < 0:
        raise InvalidSettingError(f"expected a window of 0 pixels (all) or more, got {window}")
    chosen = adapter if adapter is not None or not isinstance(image, Segmenter) else image.adapter
    card = _card(chosen)
    if not isinstance(image, Segmenter):
        image = Segmenter(image, card.base, adapter=chosen)
    version = image.manager.adapter_version(image.model, chosen)
    side = trained_window(card) or 0 if window is None else window
    mapping = _Mapping(image, card, version, side, int(overlap * side), keep_probabilities)
    return mapping.run(progress, should_stop)


def _card(adapter: Adapter) -> AdapterCard:
    if adapter is None:
        raise InvalidSettingError("a map of phases needs an adapter with classes, got none")
    card = card_of(adapter.path if isinstance(adapter, AdapterVersion) else adapter)
    if not card.classes:
        raise InvalidSettingError(
            f"the adapter has no classes: it was trained for the task {card.task!r}. Use it with "
            "prompts or automatic masks"
        )
    return card


def trained_window(card: AdapterCard) -> int | None:
    """Side of the windows that an adapter was trained on, in pixels; None for whole images."""
    window = card.details.get("window")
    return window if isinstance(window, int) and window > 0 else None


@dataclass(frozen=True)
class _Window:
    """Logits of one window, (K, 256, 256), and where it lies."""

    box: tuple[int, int, int, int]
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
        side: int,
        overlap: int,
        keep_probabilities: bool | None,
    ) -> None:
        self.segmenter = segmenter
        self.classes = classes = card.classes
        self.version = version
        # As the adapter was trained.
        stretch = card.details.get("stretch") is True
        self.rgb = stretched(segmenter.rgb) if stretch else segmenter.rgb
        shape = self.rgb.shape[:2]
        self.boxes = tiles((shape[0], shape[1]), side or max(shape), overlap)
        self.side = side if len(self.boxes) > 1 else None
        height, width = segmenter.shape
        self.labels = np.full((height, width), NO_CLASS, dtype=np.uint8)
        size = 4 * len(classes) * height * width
        kept = size <= _KEPT_BYTES if keep_probabilities is None else keep_probabilities
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
                for box in band:
                    check_stop(should_stop)
                    waiting.append(self._window(model, box, embedding))
                    done += 1
                    if progress is not None:
                        progress(done, len(self.boxes))
                # No window to come reaches into the rows above the next band.
                self._finish(waiting, band[0][0], end)
                waiting = [item for item in waiting if item.box[2] > end]
        return PhaseMap(self.labels, self.classes, self.probabilities, seg.data_bar, self.side)

    def _embedding(self, should_stop: StopCallback | None) -> Embedding | None:
        """Look up what prompts on the whole image use as well; None for windows."""
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
        self, model: SamModel, box: tuple[int, int, int, int], embedding: Embedding | None
    ) -> _Window:
        """Ask the model about one window."""
        import torch

        from phasesam.engines.embedding import encode
        from phasesam.models.class_decoder import class_logits

        y0, x0, y1, x1 = box
        crop = self.rgb[y0:y1, x0:x1]
        if embedding is None:
            features, _, _ = encode(model, crop, self.segmenter.manager)
        else:
            features = embedding.features.to(model.pixel_mean.device)

        def run() -> NDArray[np.float32]:
            with torch.inference_mode():
                picture = model.preprocess(resize_image_longest_side(crop, model.image_size))
                found = class_logits(model, features, picture)[0].float().cpu()
            return np.asarray(found)

        logits = self.segmenter.manager.retry(run, doing="mapping phases")
        side = logits.shape[-1]
        return _Window(box, logits, raster((y1 - y0, x1 - x0), side, model.image_size))

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
