"""Where pixels change when a phase ratio is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from phasesam.evaluation.case_pictures import CHANGE_CAPTION, change_picture
from phasesam.evaluation.ratio_requests import Fractions
from phasesam.evaluation.ratio_trials import Method, Networks, RatioTester, Request
from phasesam.evaluation.report import Picture
from phasesam.training.dataset import LabelledImage


def change_pictures(
    image: LabelledImage,
    networks: Networks,
    methods: Sequence[Method],
    requests: Callable[[Fractions], Sequence[Request]],
) -> tuple[Picture, ...]:
    """Show the changes by each method that uses the ratio.

    Parameters
    ----------
    image : LabelledImage
        That the networks have not learnt from.
    networks : Networks
        Who is asked.
    methods : sequence of Method
        Those that use a ratio are shown, each beside the map of its own network without one.
    requests : callable
        From the true fractions to what is asked.
    """
    tester = RatioTester(image, networks)
    asked = requests(tester.true_fractions)
    names = ", ".join(request.name for request in asked)
    pictures = []
    for method in methods:
        if not method.uses_ratio:
            continue
        untold = replace(method, told=False, boxes=False, solver="none", taught="none")
        before, *after = (
            tester.answer(how, request, keep=True).labels
            for how, request in ((untold, asked[0]), *((method, request) for request in asked))
        )
        assert before is not None
        picture = change_picture(
            tester.rgb, tester.truth, before, [labels for labels in after if labels is not None]
        )
        caption = CHANGE_CAPTION.format(requests=names)
        pictures.append(Picture(f"{method.name}: {image.name}", caption, picture))
    return tuple(pictures)
