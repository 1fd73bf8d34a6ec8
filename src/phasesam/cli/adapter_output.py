"""What commands that train an adapter have in common: where it goes, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from phasesam.cli.console import output_console
from phasesam.core.errors import InvalidSettingError, SaveError

if TYPE_CHECKING:
    from phasesam.training.fine_tuning import TrainedAdapter


# Who writes such an ending means a file, and would not find it.
_WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensor", ".json")


def adapter_target(output: str, *, replaces: bool) -> Path | None:
    """Find the file to write; None for a name in the store.

    Raises
    ------
    SaveError
        If it is there already, and is not to be replaced.
    InvalidSettingError
        If it is neither a file of an adapter nor a name.
    """
    from phasesam.models.adapter_store import SUFFIX, check_name, list_adapters

    if output.endswith(SUFFIX):
        path = Path(output).expanduser()
        if path.exists() and not replaces:
            raise SaveError(f"{path} exists; --overwrite replaces it")
        return path
    if "/" in output or "\\" in output or output.lower().endswith(_WEIGHTS):
        raise InvalidSettingError(
            f"an adapter is a name or a file ending in {SUFFIX}, got {output!r}"
        )
    if not replaces and any(entry.name == output for entry in list_adapters()):
        raise SaveError(f"there is an adapter {output} already; --overwrite replaces it")
    check_name(output, replaces)
    return None


def run_folder(output: str, asked: Path | None) -> Path:
    """Where log, curves and checkpoint go."""
    return asked or Path(output.removesuffix(".safetensors") + "_run").expanduser()


def check_run(output: str, asked: Path | None, *, resume: bool | None, overwrite: bool) -> None:
    """Refuse to lose a training that was interrupted, or to go on where there is nothing.

    Parameters
    ----------
    output : str
        The adapter.
    asked : Path or None
        Folder of the training, where the user names one.
    resume : bool or None
        Whether it is to go on; None where a command never does.
    overwrite : bool
        Whether it may be lost.

    Raises
    ------
    SaveError
        If a training is under way in the folder, or one that could be resumed is there.
    InvalidSettingError
        If there is nothing to resume.
    """
    from phasesam.training.acceleration import is_main_process
    from phasesam.training.run_folder import RunFolder

    run = RunFolder(run_folder(output, asked))
    status, has_checkpoint = run.status(), run.checkpoint_file.exists()
    if not is_main_process():
        return
    run.refuse_if_taken()
    if resume and not has_checkpoint:
        raise InvalidSettingError(
            f"there is nothing to resume in {run.path} yet; leave --resume out"
        )
    if has_checkpoint and status.state != "finished" and not (resume or overwrite):
        where = f" after {status.epoch} of {status.epochs} epochs" if status.epochs else ""
        other = "choose another --run" if resume is None else "--resume goes on with it"
        raise SaveError(
            f"{run.path} holds a training that was interrupted{where}; {other}, "
            "--overwrite begins anew"
        )


def training_watcher(console: Console, interruption: Any) -> Any:
    """Make a callback that shows progress and listens to Ctrl+C; torch is loaded by now."""
    from phasesam.training.trainer import Callback
    from phasesam.training.trainer import Progress as Place

    class Watcher(Callback):
        def __init__(self) -> None:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                disable=console.quiet or not console.is_terminal,
            )
            self._task = self.bar.add_task("preparing", total=None)

        def on_prepare(self, done: int, total: int) -> None:
            self.bar.update(
                self._task, completed=done, total=total, description="learning fine detail"
            )

        def on_step(self, progress: Place, loss: float) -> None:
            self.bar.update(
                self._task,
                completed=progress.step,
                total=progress.steps,
                description=f"epoch {progress.epoch + 1}/{progress.epochs}, loss {loss:.3f}",
            )

        def on_epoch(self, progress: Place, row: Mapping[str, float], preview: Any) -> None:
            figures = [f"{k} {v:.3f}" for k, v in row.items() if k.startswith(("loss", "val", "d"))]
            console.print(f"epoch {progress.epoch}/{progress.epochs}: {', '.join(figures)}")

        def should_stop(self) -> bool:
            return bool(interruption.requested())

    return Watcher()


def deliver_adapter(best: Path, name: str, target: Path | None) -> Path:
    """Put the adapter where it was asked for."""
    from phasesam.formats.atomic import atomic_file
    from phasesam.models.adapter_store import import_adapter

    try:
        if target is None:
            return import_adapter(best, name, replace=True).path
        with atomic_file(target) as file:
            file.write(best.read_bytes())
    except (SaveError, OSError) as error:
        raise SaveError(f"{error}; the adapter is in {best}") from error
    return target


def report_adapter(result: TrainedAdapter, path: Path, *, as_json: bool, quiet: bool) -> None:
    """Show how good the adapter is, and where it went."""
    metrics = dict(result.card.details["metrics"])
    if as_json:
        values = {"adapter": str(path), "metrics": metrics, "epochs": len(result.rows)}
        output_console().print_json(json.dumps(values))
        return
    if quiet:
        return
    table = Table("best epoch", f"{metrics.pop('epoch', 0):.0f}")
    for name, value in metrics.items():
        if name not in ("step", "seconds"):
            table.add_row(name, f"{value:.4g}")
    output_console().print(table)
    output_console().print(escape(f"{path}"))
