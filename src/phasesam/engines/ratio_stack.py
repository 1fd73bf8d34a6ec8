"""One ratio for all planes of a stack together: maps wait on the disk until all are there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError, SaveError
from phasesam.core.ratio import Errors
from phasesam.core.ratio_request import Wanted
from phasesam.core.ratio_volume import VolumeRatio, solve_volume
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.engines.ratio_guidance import RatioGuide
from phasesam.engines.semantic import NO_CLASS

_BYTES = np.dtype(np.float32).itemsize


class RatioStack:
    """Collects the maps of the planes of a stack, and labels all with one ratio.

    Use it as a context: the files that it keeps are gone at its end. Memory does not grow with
    the number of planes; in the folder for temporary files a pixel takes four bytes for each
    class.

    Parameters
    ----------
    n_values : int
        How many values, pixels times classes, will be kept, if that is known.

    Raises
    ------
    SaveError
        If there is no room for so many.

    Examples
    --------
    >>> with RatioStack() as stack:  # doctest: +SKIP
    ...     for plane in planes:
    ...         found = phasesam.segment_classes(plane, "steel", keep_probabilities=True)
    ...         stack.add(RatioGuide(found))
    ...     stack.solve([0.25, 0.55, None], write=labels.__setitem__)
    """

    def __init__(self, n_values: int = 0) -> None:
        needed, folder = _BYTES * n_values, tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise SaveError(
                f"the maps of the stack need {needed / 1e9:.1f} GB in {folder}, where "
                f"{free / 1e9:.1f} GB are free: set TMPDIR to a folder with more room, or take "
                "fewer planes"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="phasesam-")
        self._heights: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._heights)

    def add(self, guide: RatioGuide) -> None:
        """Keep the map of the next plane.

        Raises
        ------
        InvalidSettingError
            If regions of a least size or fewest changes are wanted: those are found plane by
            plane.
        SaveError
            If it cannot be kept.
        """
        if guide.config.needs_planes:
            raise InvalidSettingError(
                "a smallest region and fewest changes work plane by plane, not for a stack with "
                f"one ratio; got {guide.config.smallest} pixels, fewest changes "
                f"{'on' if guide.config.fewest else 'off'}"
            )
        try:
            np.save(self._path(len(self)), guide.solver.logits.reshape(-1, *guide.solver.shape))
        except OSError as error:
            raise SaveError(
                f"the map of plane {len(self)} could not be kept in {self._folder.name}: {error}"
            ) from error
        self._heights.append(guide.shape[0])

    def _path(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number}.npy"

    def solve(
        self,
        fractions: Sequence[Wanted],
        uncertainty: Errors = None,
        *,
        write: Callable[[int, NDArray[np.uint8]], None],
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> VolumeRatio:
        """Label all planes such that the classes have the wanted shares of the whole.

        Parameters
        ----------
        fractions, uncertainty
            As for `phasesam.core.ratio.solve`.
        write : callable
            ``write(number, labels)`` is given each plane, (h, w) uint8 with `NO_CLASS` in the
            data bar, in the order in which they were added.
        progress, should_stop
            As for `phasesam.core.ratio_volume.solve_volume`.

        Raises
        ------
        InvalidImageError, InvalidSettingError, CancelledError
            See `phasesam.core.ratio_volume.solve_volume`.
        """

        def write_whole(number: int, rows: NDArray[np.uint8]) -> None:
            missing = self._heights[number] - len(rows)
            write(number, np.pad(rows, [(0, missing), (0, 0)], constant_values=NO_CLASS))

        files = _Files([self._path(number) for number in range(len(self))])
        return solve_volume(
            files, fractions, uncertainty,
            write=write_whole, progress=progress, should_stop=should_stop,
        )  # fmt: skip


class _Files(Sequence[NDArray[np.float32]]):
    """Arrays in files, read when they are asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        return np.load(self._paths[index])
