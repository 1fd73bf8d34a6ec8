"""Work through many files: one that fails takes no other with it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from phasesam.cli.exit_codes import ExitCode
from phasesam.cli.inputs import Job
from phasesam.cli.plane import Watch
from phasesam.cli.recipe import Recipe
from phasesam.cli.results import FileSet, ResultFiles, write_results
from phasesam.cli.segmentation import ImageResult, segment_file
from phasesam.core.errors import CancelledError, ModelError, SaveError
from phasesam.models.adapter_loading import Adapter, AdapterVersion
from phasesam.models.adapter_store import card_of

Status = Literal["ok", "failed", "skipped", "cancelled"]


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes
    ----------
    source : Path
        The input.
    status : {"ok", "failed", "skipped", "cancelled"}
        "skipped" means that results were there already.
    files : FileSet or None
        What was written; None unless `status` is "ok".
    objects, n_planes : int
        Objects found, and planes searched.
    coverage : float
        Share of the area that objects cover, 0–1.
    dropped : Counter
        Candidates left out, by reason.
    warnings : tuple of str
        What the user should know although nothing failed.
    seconds : float
        Time for reading, segmenting and writing.
    error : Exception or None
        Why it failed.
    fractions : mapping or None
        Share of the area of each class, 0–1, where phases were mapped and no objects found.
    """

    source: Path
    status: Status
    files: FileSet | None = None
    objects: int = 0
    n_planes: int = 0
    coverage: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    error: Exception | None = None
    fractions: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the JSON summary."""
        error = self.error
        found: dict[str, Any] = {
            "objects": self.objects,
            "planes": self.n_planes,
            "coverage": round(self.coverage, 6),
            "dropped": dict(self.dropped),
        }
        if self.fractions is not None:
            shares = {name: round(share, 6) for name, share in self.fractions.items()}
            found = {"planes": self.n_planes, "fractions": shares}
        return {
            "input": str(self.source),
            "status": self.status,
            **found,
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "outputs": self.files.as_dict() if self.files else {},
            "error": error and {"type": type(error).__name__, "message": str(error)},
        }


class Work(Protocol):
    """What is to be done with many inputs, one after the other."""

    @property
    def jobs(self) -> Sequence[Job]:
        """The inputs."""

    @property
    def folder(self) -> Path:
        """Where results go."""

    @property
    def skip_existing(self) -> bool:
        """Whether inputs are left out whose results exist."""

    def files_of(self, job: Job) -> FileSet:
        """Return where the results of an input go."""

    def do(self, job: Job, watch: Watch) -> Outcome:
        """Read one input and write its results; an error of any kind makes it a failure."""

    def with_adapter(self, adapter: Adapter) -> Self:
        """Return the same work with an adapter as it is now."""

    def summary(self) -> dict[str, Any]:
        """Return the settings as plain values, for the JSON summary."""


@dataclass(frozen=True)
class Batch:
    """Find objects in many inputs.

    Attributes
    ----------
    jobs : sequence of Job
        The inputs.
    recipe : Recipe
        What is done with each.
    folder : Path
        Where results go.
    coco : bool
        Whether COCO files are written.
    skip_existing : bool
        Whether inputs are left out whose results exist.
    """

    jobs: Sequence[Job]
    recipe: Recipe
    folder: Path
    coco: bool = False
    skip_existing: bool = False

    def files_of(self, job: Job) -> ResultFiles:
        """Return where the results of an input go."""
        return ResultFiles.of(self.folder, job.name, coco=self.coco)

    def do(self, job: Job, watch: Watch) -> Outcome:
        """Segment one input and write its results."""
        files = self.files_of(job)
        result = segment_file(job, self.recipe, watch, keep_masks=self.coco)
        watch.step("writing", 0, 1)
        write_results(result, files)
        return _success(job, files, result)

    def with_adapter(self, adapter: Adapter) -> Self:
        """Return the same work with an adapter as it is now."""
        return replace(self, recipe=replace(self.recipe, adapter=adapter))

    def summary(self) -> dict[str, Any]:
        """Return the settings as plain values, for the JSON summary."""
        return {
            "model": self.recipe.model,
            **adapter_summary(self.recipe.adapter),
            "prompted": self.recipe.prompts is not None,
            "settings": self.recipe.as_dict(),
        }


def adapter_summary(adapter: Adapter) -> dict[str, Any]:
    """Describe an adapter in a summary: name, content, strength and window; None for none."""
    if not isinstance(adapter, AdapterVersion):
        return {"adapter": adapter and str(adapter)}
    found = {
        "adapter": adapter.name,
        "adapter_sha256": adapter.content_hash,
        "adapter_strength": adapter.strength,
    }
    # Results are not lost because somebody took the file away meanwhile.
    with contextlib.suppress(ModelError):
        found["adapter_window"] = card_of(adapter.path).window
    return found


def run_batch(
    batch: Work,
    watch: Watch,
    on_start: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Go through all inputs of a batch, in order.

    Parameters
    ----------
    batch : Batch or PhaseBatch
        What to do.
    watch : Watch
        Who is told of progress, and may stop the work.
    on_start, on_end : callable
        Called around each input.

    Returns
    -------
    list of Outcome
        One for each input; those after an interruption are "cancelled".
    """
    outcomes: list[Outcome] = []
    stopped = False
    for job in batch.jobs:
        stopped = stopped or watch.should_stop()
        if stopped:
            outcomes.append(Outcome(job.source, "cancelled"))
            continue
        on_start(job)
        outcome = _run_job(batch, job, watch)
        outcomes.append(outcome)
        stopped = outcome.status == "cancelled"
        on_end(outcome)
    return outcomes


def _run_job(batch: Work, job: Job, watch: Watch) -> Outcome:
    started = time.perf_counter()
    if job.missing:
        return Outcome(job.source, "failed", error=FileNotFoundError(job.missing))
    if batch.skip_existing and batch.files_of(job).are_complete():
        return Outcome(job.source, "skipped")
    try:
        outcome = batch.do(job, watch)
    except (CancelledError, KeyboardInterrupt):
        outcome = Outcome(job.source, "cancelled")
    except Exception as error:  # noqa: BLE001 - whatever one file does, the others go on
        outcome = Outcome(job.source, "failed", error=error)
    return replace(outcome, seconds=time.perf_counter() - started)


def _success(job: Job, files: ResultFiles, result: ImageResult) -> Outcome:
    return Outcome(
        job.source,
        "ok",
        files,
        objects=len(result.table),
        n_planes=result.n_planes,
        coverage=result.coverage,
        dropped=result.dropped,
        warnings=result.warnings,
    )


def exit_code(outcomes: Sequence[Outcome]) -> ExitCode:
    """Return the exit status for a batch."""
    if any(outcome.status == "cancelled" for outcome in outcomes):
        return ExitCode.CANCELLED
    failed = [outcome.error for outcome in outcomes if outcome.status == "failed"]
    if not failed:
        return ExitCode.OK
    if len(failed) == len(outcomes):
        if all(isinstance(error, SaveError) for error in failed):
            return ExitCode.CANNOT_WRITE
        if all(isinstance(error, ModelError) for error in failed):
            return ExitCode.MODEL
    return ExitCode.SOME_FAILED
