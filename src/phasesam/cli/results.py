"""The files that are written about an image."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from phasesam.core.errors import SaveError
from phasesam.formats.coco import save_coco
from phasesam.formats.label_tiff import save_labels_tiff
from phasesam.formats.overlay import save_overlay_png
from phasesam.formats.tables import save_table_csv

if TYPE_CHECKING:
    from phasesam.cli.segmentation import ImageResult


@dataclass(frozen=True)
class FileSet:
    """Where the results of one image go; fields that are None are not written."""

    def as_dict(self) -> dict[str, str]:
        """Return the paths by kind."""
        paths = {field.name: getattr(self, field.name) for field in fields(self)}
        return {kind: str(path) for kind, path in paths.items() if path is not None}

    def moved_to(self, folder: Path) -> Self:
        """Return files of the same names in another folder."""
        names = {kind: folder / Path(path).name for kind, path in self.as_dict().items()}
        return replace(self, **names)

    def existing(self) -> list[Path]:
        """Return those that exist already."""
        return [Path(path) for path in self.as_dict().values() if os.path.lexists(path)]

    def are_complete(self) -> bool:
        """Return whether all of them exist."""
        return len(self.existing()) == len(self.as_dict())


Files = TypeVar("Files", bound=FileSet)


@dataclass(frozen=True)
class ResultFiles(FileSet):
    """Where the objects of one image go.

    Attributes
    ----------
    labels, overlay, objects : Path
        Label image, picture and measurements.
    coco : Path or None
        All masks as COCO, where asked for.
    """

    labels: Path
    overlay: Path
    objects: Path
    coco: Path | None = None

    @classmethod
    def of(cls, folder: Path, name: str, *, coco: bool = False) -> ResultFiles:
        """Name the files of an image after `name`."""
        return cls(
            folder / f"{name}_labels.tif",
            folder / f"{name}_overlay.png",
            folder / f"{name}_objects.csv",
            folder / f"{name}_coco.json" if coco else None,
        )


def write_results(result: ImageResult, files: ResultFiles) -> None:
    """Write all files of an image; raises as `write_together`."""
    write_together(files, lambda drafts: _write_drafts(result, drafts))


def write_together(files: Files, write: Callable[[Files], None]) -> None:
    """Write files that belong together; they replace older ones when all are complete.

    Parameters
    ----------
    files : FileSet
        Where they go.
    write : callable
        ``write(drafts)`` writes them in a folder of its own.

    Raises
    ------
    SaveError
        If a file cannot be written; what was there before is intact.
    """
    folder = Path(next(iter(files.as_dict().values()))).parent
    try:
        with tempfile.TemporaryDirectory(
            prefix=".phasesam-", dir=folder, ignore_cleanup_errors=True
        ) as scratch:
            drafts = files.moved_to(Path(scratch))
            try:
                write(drafts)
            except SaveError as error:
                # The user knows nothing of the folder in between.
                raise SaveError(str(error).replace(scratch, str(folder))) from error
            _publish(drafts, files)
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(f"could not write into {folder}: {error}") from error


def _publish(drafts: FileSet, files: FileSet) -> None:
    pairs = [
        (Path(draft), Path(os.path.realpath(target)))
        for draft, target in zip(drafts.as_dict().values(), files.as_dict().values(), strict=True)
    ]
    for _, target in pairs:
        if target.is_dir():
            raise SaveError(f"could not write {target}: there is a folder of this name")
    for draft, target in pairs:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            shutil.copymode(target, draft)
        draft.replace(target)


def _write_drafts(result: ImageResult, files: ResultFiles) -> None:
    save_labels_tiff(files.labels, result.labels, result.pixel_size, result.z_size)
    save_overlay_png(files.overlay, result.overlay_image, result.overlay_labels, result.pixel_size)
    if files.coco is not None:
        save_coco(files.coco, result.coco)
    save_table_csv(files.objects, result.table.columns)


def prepare_folder(folder: Path) -> None:
    """Make the output folder and try to write there, before hours of work.

    Raises
    ------
    SaveError
        If it cannot be made or written to.
    """
    probe = folder / f".phasesam-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SaveError(f"cannot write into the output folder {folder}: {error}") from error


def refuse_to_replace(files: Sequence[FileSet]) -> None:
    """Stop before the work when results exist already.

    Raises
    ------
    SaveError
        If one does.
    """
    existing = [path for item in files for path in item.existing()]
    if existing:
        shown = ", ".join(str(path) for path in existing[:3])
        more = f" and {len(existing) - 3} more" if len(existing) > 3 else ""
        raise SaveError(
            f"results exist already: {shown}{more}; give --overwrite to replace them, or "
            "--skip-existing to segment only what is missing"
        )
