"""Which measurements the object table shows, in pixels or in micrometres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.napari_widgets.object_table import TableColumn

if TYPE_CHECKING:
    from phasesam.core.measurements import ObjectTable


def shown_columns(
    data: Mapping[str, NDArray[Any]], physical: bool, n_leading: int = 0
) -> tuple[TableColumn, ...]:
    """List the columns from left to right.

    Parameters
    ----------
    data : mapping of str to (n,) array
        From `table_data`; decides how many digits are shown.
    physical : bool
        Whether lengths are shown in micrometres.
    n_leading : int, optional
        Number of axes before (y, x): each gets a column with the plane.
    """
    area_digits = _digits(data["area"]) if physical else 0
    diameter_digits = max(_digits(data["diameter"]), 0 if physical else 1)
    planes = ("Plane",) if n_leading == 1 else tuple(f"Axis {i}" for i in range(n_leading))
    return (
        TableColumn("id", "ID", "Number of the object = its value in the Labels layer", 0),
        *(
            TableColumn(f"plane_{axis}", title, "Where in the stack the object lies", 0)
            for axis, title in enumerate(planes)
        ),
        TableColumn("class", "Class", "Double click to change it", editable=True),
        TableColumn(
            "area", "Area µm²" if physical else "Area px", "Size of the object", area_digits
        ),
        TableColumn(
            "diameter",
            "Ø µm" if physical else "Ø px",
            "Diameter of the circle of the same area",
            diameter_digits,
        ),
        TableColumn(
            "aspect", "Aspect", "Long over short axis of the fitting ellipse; 1 = round", 2
        ),
        TableColumn("circularity", "Circ.", "4π area / perimeter²; 1 for a circle", 2),
        TableColumn("score", "Score", "IoU that the model predicts for the mask, 0–1", 2),
        TableColumn("edge", "Edge", "Whether the edge of the image cuts the object"),
    )


def _digits(values: NDArray[Any]) -> int:
    """Count the digits after the point with which a usual value has three in all."""
    usual = float(np.median(values)) if len(values) else 1.0
    return int(np.clip(2 - np.floor(np.log10(usual)), 0, 5)) if usual > 0 else 2


def table_data(table: ObjectTable, physical: bool) -> dict[str, NDArray[Any]]:
    """Give the measurements the short names that the filter box uses.

    Parameters
    ----------
    table : ObjectTable
        From `SegmentationSession.table`.
    physical : bool
        Whether ``area`` and ``diameter`` are in micrometres.

    Returns
    -------
    dict of str to (n,) array
        ``id``, ``class``, ``area``, ``diameter``, ``aspect``, ``circularity``, ``score``,
        ``edge``, and ``plane_0``, ... for stacks; further the centre ``y``, ``x`` in pixels.
    """
    data = {
        "id": table["id"],
        "class": table["class"],
        "area": table["area_um2" if physical else "area_px"],
        "diameter": table["equivalent_diameter_um" if physical else "equivalent_diameter_px"],
        "aspect": table["aspect_ratio"],
        "circularity": table["circularity"],
        # The model's estimate of an IoU may come out a little above 1.
        "score": np.minimum(table["score"], 1.0),
        "edge": np.asarray(table["touches_edge"], dtype=np.bool_),
        "y": table["centroid_y"],
        "x": table["centroid_x"],
    }
    data |= {name: table[name] for name in table.columns if name.startswith("plane_")}
    return data
