"""Where pixels change when a phase ratio is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from phasesam.evaluation.case_pictures import CHANGE_CAPTION, change_picture
from phasesam.evaluation.ratio_requests import Fractions
from phasesam.evaluation.ratio_trials import Method, RatioTester, Request
from phasesam.evaluation.report import Picture
from phasesam.models.adapter_card import read_card
from phasesam.training.dataset import LabelledImage


def change_pictures(
    image: LabelledImage,
    model: str,
    adapters: Mapping[str, Path],
    methods: Sequence[Method],
    requests: Callable[[Fractions], Sequence[Request]],
) -> tuple[Picture, ...]:
    """Show the changes by each method that uses the ratio.

    Parameters
    ----------
    image : LabelledImage
        That the networks have not learnt from.
    model : str
        Name of the base.
    adapters : mapping of str to Path
        Networks.
    methods : sequence of Method
        The first gives the map that is changed.
    requests : callable
        From the true fractions to what is asked.
    """
    n_classes = len(read_card(next(iter(adapters.values()))).classes)
    tester = RatioTester(image, model, adapters)
    asked = requests(tester.true_fractions(n_classes))
    before = tester.answer(methods[0], asked[0], keep=True).labels
    assert before is not None
    pictures = []
    for method in methods[1:]:
        if not method.uses_ratio:
            continue
        found = [tester.answer(method, request, keep=True).labels for request in asked]
        picture = change_picture(
            tester.rgb, tester.truth, before, [labels for labels in found if labels is not None]
        )
        names = ", ".join(request.name for request in asked)
        caption = CHANGE_CAPTION.format(requests=names)
        pictures.append(Picture(f"{method.name}: {image.name}", caption, picture))
    return tuple(pictures)
