"""Teach networks the specimens they are tested on, without a mask: by amounts, or by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from phasesam.core.ratio_request import Wanted
from phasesam.engines.segmenter import Segmenter
from phasesam.evaluation.ablation import Stopper
from phasesam.evaluation.adapter_scores import Watch
from phasesam.evaluation.ratio_requests import Fractions
from phasesam.evaluation.ratio_trials import Method, Request
from phasesam.models.adapter_card import read_card
from phasesam.models.adapter_store import content_hash
from phasesam.training.class_hints import amounts
from phasesam.training.dataset import LabelledImage
from phasesam.training.ratio_learning import RatioExample, learn_from_ratios, mapped
from phasesam.training.run_folder import RunFolder
from phasesam.training.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class Teacher:
    """Teaches; what is in the folder already is not taught again.

    Parameters
    ----------
    images : sequence of LabelledImage
        That are tested. Those of one specimen are learnt together.
    folder : Path
        One run folder per specimen and request goes there.
    requests : callable
        From the true fractions of an image to what is asked.
    settings : TrainingSettings
        Seed, device, precision.
    watch : Watch
        Who may stop it.
    """

    images: Sequence[LabelledImage]
    folder: Path
    requests: Callable[[Fractions], Sequence[Request]]
    settings: TrainingSettings
    watch: Watch
    _seen: dict[tuple[str, str, str], NDArray[np.float32]] = field(default_factory=dict)

    def __call__(
        self, adapter: Path, image: LabelledImage, request: Request, method: Method
    ) -> Path:
        """Return the adapter after it has learnt from the specimen of an image.

        Parameters
        ----------
        adapter : Path
            Before.
        image : LabelledImage
            One of the specimen.
        request : Request
            Its name and draw say what is asked about all of them.
        method : Method
            What is taught, and with which standard error.
        """
        n_classes = len(read_card(adapter).classes)
        examples = []
        for other in self.images:
            if other.specimen != image.specimen:
                continue
            wanted: list[Wanted] = [None] * n_classes
            error = None
            if method.taught == "ratio":
                asked = self._same(request, amounts(other.label_array(), n_classes))
                wanted, error = asked.wanted.tolist(), asked.error_for(method)
            examples.append(RatioExample(other.name, other.rgb(), wanted, error))
        folder = RunFolder(self.folder / _name(image.specimen, examples, method.taught, adapter))
        if folder.status().state != "finished":
            # Whatever the amounts, the lesson starts from the same maps.
            shown = [replace(e, logits=self._map(adapter, image.specimen, e)) for e in examples]
            learn_from_ratios(
                shown, adapter, folder.path,
                settings=self.settings, callbacks=[Stopper(self.watch)],
            )  # fmt: skip
        return folder.best_file

    def _map(self, adapter: Path, specimen: str, example: RatioExample) -> NDArray[np.float32]:
        """Ask the adapter about an image, once."""
        key = (specimen, content_hash(adapter), example.name)
        if key not in self._seen:
            # Those of other specimens are not needed any more; maps are large.
            for other in [k for k in self._seen if k[:2] != key[:2]]:
                del self._seen[other]
            segmenter = Segmenter(example.image, read_card(adapter).base, adapter=str(adapter))
            self._seen[key] = mapped(segmenter, self.watch.should_stop)
        return self._seen[key]

    def _same(self, request: Request, true: Fractions) -> Request:
        """Find what is asked about another image by the same request."""
        return next(
            other
            for other in self.requests(true)
            if (other.name, other.draw) == (request.name, request.draw)
        )


def _name(specimen: str, examples: Sequence[RatioExample], taught: str, adapter: Path) -> str:
    """Name a folder by what is taught to whom."""
    what = [(e.name, e.fractions, e.uncertainty) for e in examples]
    digest = xxhash.xxh3_64(repr((content_hash(adapter), what)).encode()).hexdigest()
    return f"{taught}-{re.sub(r'[^A-Za-z0-9]+', '-', specimen)[:24]}-{digest}"
