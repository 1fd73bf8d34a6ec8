"""What a request for amounts of phases comes to, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phasesam.core.ratio import IMPLAUSIBLE, MANY_CHANGES
from phasesam.core.ratio_request import FAR_OFF, RatioRequest
from phasesam.session.ratio_sheet import WHOLE

if TYPE_CHECKING:
    from phasesam.core.ratio import RatioSolution
    from phasesam.core.ratio_request import Wanted
    from phasesam.core.ratio_shares import PhaseShares
    from phasesam.napari_widgets.ratio_run import RatioAnswer
    from phasesam.session.ratio_sheet import RatioQuery

_SOME = 0.0005


def plausibility(answer: RatioAnswer) -> str:
    """Say how plausible a request is, and how much it changes."""
    solution = answer.solution
    if solution is None:
        return "As the model sees it."
    words = _resistance(answer) or _verdict(answer, solution)
    if solution.specks:
        words += f" {solution.specks} regions stay smaller than asked."
    return words


def _resistance(answer: RatioAnswer) -> str:
    """Say where the image kept a share far from what was wanted; nothing if it did not."""
    query = answer.task.query
    if query is None:
        return ""
    worst, words = FAR_OFF, ""
    for number, achieved in answer.achieved.items():
        if number not in query.fractions:
            continue
        request = RatioRequest(query.fractions[number], query.errors.get(number))
        off = request.standard_errors_off(achieved)
        k = int(off.argmax())
        if off[k] > worst:
            worst = float(off[k])
            words = (
                f"Doubtful: the image allows {percent(achieved[k])} "
                f"{answer.task.guides.guide.classes[k]}, which is {worst:.1f} "
                "standard errors from what is wanted."
            )
    return words


def _verdict(answer: RatioAnswer, solution: RatioSolution) -> str:
    if solution.changed == 0:
        return "Plausible: nothing changes."
    changes = f"changes {percent(solution.changed)} of the pixels"
    against = solution.contradicted
    if against < _SOME:
        return f"Plausible: {changes}, where the model is unsure."
    if against < IMPLAUSIBLE:
        return f"Plausible: {changes}, mostly where the model is unsure."
    return (
        f"Doubtful: this request contradicts the image in {percent(against)} of it; {changes}"
        f"{_spared(answer)}."
    )


def _spared(answer: RatioAnswer) -> str:
    """Say how many pixels *Fewest changes* would change, if far fewer; nothing otherwise."""
    config, solution, guides = answer.config, answer.solution, answer.task.guides
    if solution is None or config.fewest or config.smallest > 1:
        return ""
    # With regions, or a map of another network, the shares in all do not tell.
    if answer.task.has_regions or guides.untold is not guides.guide:
        return ""
    query = answer.task.query
    assert query is not None
    request = RatioRequest(query.fractions[WHOLE], query.errors[WHOLE])
    least = request.least_change(answer.own[WHOLE], answer.achieved[WHOLE])
    return (
        f", {percent(least)} with Fewest changes" if solution.changed > MANY_CHANGES * least else ""
    )


def request_note(shares: PhaseShares) -> str:
    """Say why a request does not do what it seems to; nothing if it does."""
    if shares.is_tied:
        return "± changes nothing while all other shares are exact: give one a ±, or tick its ?."
    return ""


def percent(share: float) -> str:
    """Write a share with a sensible number of digits."""
    return f"{100 * share:.1f}\u00a0%" if share < 0.1 else f"{100 * share:.0f}\u00a0%"


def request_name(image: str, query: RatioQuery | None, region: int) -> str:
    """Name a map after what was asked: "SEM 25/55/20 %", "SEM region 2 25/?/? %"."""
    if query is None:
        return f"{image} as the model sees it"
    region = region if region in query.fractions else list(query.fractions)[-1]
    where = "" if region == WHOLE else f" region {region}"
    return f"{image}{where} {_text(query.fractions[region])}"


def request_text(shares: PhaseShares) -> str:
    """Write shares: "25/55/20 %", "25/?/? %"."""
    return _text(shares.request[0])


def _text(wanted: list[Wanted]) -> str:
    parts = [f"{100 * share:.0f}" if isinstance(share, float) else "?" for share in wanted]
    return f"{'/'.join(parts)} %"
