"""Zarr arrays and OME-Zarr images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phasesam.core.errors import FileFormatError
from phasesam.formats.lengths import to_micrometres
from phasesam.formats.micrograph_file import MicrographFile, calibrated


def read_zarr(path: Path, name: str) -> MicrographFile:
    """Read a Zarr array, or the finest level of the first image of an OME-Zarr group.

    Errors are those of zarr; `read_image` turns them into one kind.

    Parameters
    ----------
    path : Path
        Folder of the array or group.
    name : str
        What to call it.
    """
    import dask.array as da
    import zarr

    node: Any = zarr.open(str(path), mode="r")
    is_ome = isinstance(node, zarr.Group)
    scale: dict[str, float] = {}
    metadata: dict[str, Any] = {"format": "Zarr"}
    if is_ome:
        attributes: dict[str, Any] = node.attrs.asdict()
        described: Any = attributes.get("ome", attributes).get("multiscales")
        if not described:
            raise FileFormatError("the Zarr group holds no OME-Zarr image; open one of its arrays")
        level = described[0]["datasets"][0]
        scale = _micrometres(described[0].get("axes", ()), level)
        node = node[level["path"]]
        metadata["format"] = "OME-Zarr"
    if node.ndim < 2 or 0 in node.shape:
        raise FileFormatError(f"expected an image or a stack, got an array of {node.shape}")
    is_rgb = node.ndim >= 3 and node.shape[-1] in (3, 4) and not is_ome
    data: Any = da.from_zarr(node)
    if data.ndim == (3 if is_rgb else 2):
        data = data.compute()
    size = (scale["y"], scale["x"]) if {"y", "x"} <= scale.keys() else None
    if size is not None:
        metadata["pixel_size_source"] = "OME-Zarr"
    return MicrographFile(
        data,
        name,
        path,
        is_rgb,
        pixel_size=calibrated(size),
        z_size=scale.get("z"),
        metadata=metadata,
    )


def _micrometres(axes: Sequence[Any], level: Mapping[str, Any]) -> dict[str, float]:
    """Length of a step in µm along each named axis."""
    steps: Sequence[float] = next(
        (t["scale"] for t in level.get("coordinateTransformations", ()) if "scale" in t), ()
    )
    found: dict[str, float] = {}
    for axis, step in zip(axes, steps, strict=False):
        if isinstance(axis, Mapping) and axis.get("type") == "space":
            length = to_micrometres(step, str(axis.get("unit", "")))
            if length is not None:
                found[str(axis.get("name"))] = length
    return found
