"""Where images disagree with a ratio: what the command line warns of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phasesam.core.ratio import IMPLAUSIBLE, MANY_CHANGES
from phasesam.core.ratio_request import FAR_OFF, RatioRequest

if TYPE_CHECKING:
    from phasesam.core.ratio import RatioSolution
    from phasesam.core.ratio_volume import VolumeRatio


@dataclass
class RatioDoubts:
    """Gathers what came of a ratio on the planes of a file.

    Parameters
    ----------
    request : RatioRequest
        What was asked of each plane, or of all together.
    classes : tuple of str
        Names of the phases.
    whole : str
        What the request was about, in words: "the image", "a plane", "the stack".
    """

    request: RatioRequest
    classes: tuple[str, ...]
    whole: str
    _contradicted: float = 0.0
    _off: float = 0.0
    _share: str = ""
    _spared: tuple[float, float] = (0.0, 0.0)

    def note(self, solution: RatioSolution | VolumeRatio) -> None:
        """Take what came of one plane, or of all: what it contradicts, and the shares it has.

        Parameters
        ----------
        solution : RatioSolution or VolumeRatio
            With ``achieved`` and ``contradicted``.
        """
        self._contradicted = max(self._contradicted, solution.contradicted)
        off = self.request.standard_errors_off(solution.achieved)
        k = int(np.argmax(off))
        if off[k] > self._off:
            self._off, self._share = off[k], f"{solution.achieved[k]:.1%} {self.classes[k]}"

    def note_changes(self, own: NDArray[np.float64], solution: RatioSolution) -> None:
        """Take how many pixels changed, where fewer may do.

        Parameters
        ----------
        own : (K,) array
            Shares as the model sees them.
        solution : RatioSolution
            With what changed.
        """
        least, changed = self.request.least_change(own, solution.achieved), solution.changed
        if solution.contradicted < IMPLAUSIBLE or changed <= MANY_CHANGES * least:
            return
        before = self._spared[1] - self._spared[0]
        if changed - least > before:
            self._spared = least, changed

    def __iter__(self) -> Iterator[str]:
        """Say it, the worst of all planes."""
        if self._off > FAR_OFF:
            yield (
                f"{self.whole} allows {self._share}, which is {self._off:.1f} standard errors from "
                "what is wanted"
            )
        if self._contradicted >= IMPLAUSIBLE:
            yield (
                f"the ratio contradicts what the model sees in {self._contradicted:.0%} of "
                f"{self.whole}"
            )
        least, changed = self._spared
        if changed:
            yield (
                f"the ratio changes {changed:.0%} of the pixels of {self.whole}; "
                f"--fewest-changes would change {least:.0%}"
            )
