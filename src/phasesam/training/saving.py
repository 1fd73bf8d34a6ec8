"""Write training data as a folder that can be read anywhere, also by another process."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError, SaveError
from phasesam.core.images import Normalisation
from phasesam.core.types import PixelSize, ProgressCallback, StopCallback
from phasesam.formats.lengths import micrometres_per
from phasesam.formats.tables import save_table_csv
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.label_values import UNLABELLED

_LONGEST_NAME = 60


def save_training_folder(
    data: TrainingData,
    folder: str | os.PathLike[str],
    *,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Path:
    """Write images, labels and their splits.

    `read_training_data` of the folder gives the same images, labels, splits and classes.

    Parameters
    ----------
    data : TrainingData
        What to write; images keep their intensities.
    folder : path-like
        Must not exist, or be empty. Gets ``images/``, ``labels/``, ``data.csv`` and, for
        classes, ``classes.csv``.
    progress : callable, optional
        Called as ``progress(done, total)`` after each image.
    should_stop : callable, optional
        Asked before each image.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    SaveError
        If it cannot be written or is not empty; nothing is left behind then.
    CancelledError
        If `should_stop` said so; nothing is left behind.
    """
    target = Path(folder)
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise SaveError(f"expected a new or empty folder, got {target}")
        part.mkdir(parents=True)
        _write(data, part, progress, should_stop)
        if target.exists():
            target.rmdir()
        part.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, SaveError):
            reason = error.strerror or str(error) or type(error).__name__
            raise SaveError(f"could not write {target}: {reason}") from error
        raise
    return target


def _write(
    data: TrainingData,
    folder: Path,
    progress: ProgressCallback | None,
    should_stop: StopCallback | None,
) -> None:
    rows: dict[str, list[str]] = {
        name: [] for name in ("image", "label", "split", "specimen", "name", "normalisation")
    }
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index, image in enumerate(data.images):
        if should_stop is not None and should_stop():
            raise CancelledError("writing the training data was stopped")
        file = f"{index + 1:04d}_{re.sub(r'[^0-9A-Za-z.-]+', '_', image.name)[:_LONGEST_NAME]}.tif"
        intensities, pixel_size = image.image.load()
        _write_image(folder / "images" / file, intensities[: image.data_bar], pixel_size)
        _write_labels(folder / "labels" / file, _file_values(image))
        shown = "" if image.normalisation == Normalisation() else image.normalisation.key
        cells = (
            f"images/{file}", f"labels/{file}", image.split, image.specimen, image.name, shown
        )  # fmt: skip
        for column, cell in zip(rows.values(), cells, strict=True):
            column.append(cell)
        if progress is not None:
            progress(index + 1, len(data.images))
    if not any(rows["normalisation"]):
        del rows["normalisation"]
    if data.classes:
        values = [str(value) for value in data.class_values]
        save_table_csv(folder / "classes.csv", {"value": values, "name": list(data.classes)})
    save_table_csv(folder / "data.csv", rows)


def _file_values(image: LabelledImage) -> NDArray[np.int32]:
    """Labels with the values of the classes, -1 where nothing is labelled."""
    labels = image.label_array()
    values = image.mapping.class_values
    if values is None:
        return labels
    # The index -1 of unlabelled pixels takes the last entry.
    return np.take(np.array([*values, UNLABELLED], np.int32), labels, mode="wrap")


def _write_image(path: Path, image: NDArray[Any], pixel_size: PixelSize) -> None:
    if image.dtype.kind == "b":
        image = image.astype(np.uint8) * np.uint8(255)
    elif image.dtype.kind in "iu" and image.dtype.itemsize > 4:
        image = image.astype(np.float64)
    elif image.dtype == np.float16:
        image = image.astype(np.float32)
    is_rgb = image.ndim == 3
    metadata: dict[str, Any] = {"axes": "YXS" if is_rgb else "YX"}
    factor = micrometres_per(pixel_size.unit) if pixel_size.is_physical else None
    if factor is not None:
        for axis, length in (("Y", pixel_size.y), ("X", pixel_size.x)):
            metadata[f"PhysicalSize{axis}"] = length * factor
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
    tifffile.imwrite(
        path, image, ome=True, metadata=metadata, photometric="rgb" if is_rgb else "minisblack"
    )


def _write_labels(path: Path, labels: NDArray[np.int32]) -> None:
    tifffile.imwrite(path, labels, photometric="minisblack", compression="zlib")
