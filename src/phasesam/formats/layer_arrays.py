"""Features of layers as a Zarr group."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import SaveError


def refuse_foreign(path: Path) -> None:
    """Raise `SaveError` if something that is no Zarr group is in the place of one."""
    if path.exists() and not (path / "zarr.json").is_file():
        raise SaveError(f"{path} is there and no Zarr group: it is not replaced")


def save_layer_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]
) -> None:
    """Write arrays to a Zarr group; an older one is replaced when the new one is complete.

    Parameters
    ----------
    path : Path
        Folder to write, such as ``layers.zarr``.
    arrays : mapping of str to array
        By name; slashes make groups.
    attributes : mapping of str to plain values
        Of the whole.

    Raises
    ------
    SaveError
        If it cannot be written, or something else is in its place.
    """
    import zarr

    refuse_foreign(path)
    draft = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        group: Any = zarr.open_group(draft, mode="w")
        group.attrs.update(attributes)
        for name, array in arrays.items():
            group.create_array(name, data=np.ascontiguousarray(array))
        shutil.rmtree(path, ignore_errors=True)
        draft.rename(path)
    except (OSError, ValueError) as error:
        raise SaveError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
