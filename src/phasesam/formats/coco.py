"""Masks as COCO files, which pycocotools and most annotation tools read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phasesam.core.errors import FileFormatError, InvalidMaskError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.core.rle import decode_rle, encode_rle
from phasesam.core.types import PixelSize
from phasesam.formats.atomic import atomic_file
from phasesam.formats.micrograph_file import calibrated

DEFAULT_CATEGORY = "object"


@dataclass(frozen=True, eq=False)
class CocoImage:
    """One image and its masks.

    Attributes
    ----------
    masks : MaskSet
        The masks; its shape is that of the image.
    file_name : str
        Name of the image file.
    categories : tuple of str
        Category of each mask; all ``"object"`` when empty.
    pixel_size : PixelSize
        Kept as an extra field when physical.
    """

    masks: MaskSet
    file_name: str = ""
    categories: tuple[str, ...] = ()
    pixel_size: PixelSize = field(default_factory=PixelSize)

    def __post_init__(self) -> None:
        if self.categories and len(self.categories) != len(self.masks):
            raise InvalidMaskError(
                f"expected one category per mask, got {len(self.categories)} categories "
                f"for {len(self.masks)} masks"
            )


def save_coco(
    path: str | os.PathLike[str], images: MaskSet | CocoImage | Sequence[CocoImage]
) -> None:
    """Write masks as compressed run lengths.

    Each annotation carries, beside COCO's fields, ``predicted_iou``, ``stability_score``
    and the prompt ``point`` as ``[x, y]``, where they are known.

    Parameters
    ----------
    path : path-like
        File to write; replaced in one piece.
    images : MaskSet, CocoImage or sequence of CocoImage
        One image or several.

    Raises
    ------
    SaveError
        If it cannot be written; an older file is then intact.
    """
    if isinstance(images, MaskSet):
        images = CocoImage(images)
    if isinstance(images, CocoImage):
        images = [images]
    names = sorted({_name(c) for image in images for c in image.categories})
    if not names or any(not image.categories for image in images):
        names = sorted({*names, DEFAULT_CATEGORY})
    ids = {name: i for i, name in enumerate(names, start=1)}
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        for index in range(len(image.masks)):
            annotation = _annotation(image, index, ids)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
    document = {
        "info": {"description": "Written by PhaseSAM"},
        "licenses": [],
        "images": [_image(image, number) for number, image in enumerate(images, start=1)],
        "categories": [{"id": i, "name": name, "supercategory": ""} for name, i in ids.items()],
        "annotations": annotations,
    }
    with atomic_file(path) as file:
        file.write(json.dumps(document, allow_nan=False, separators=(",", ":")).encode())


def load_coco(path: str | os.PathLike[str]) -> tuple[CocoImage, ...]:
    """Read a COCO file with compressed or plain run lengths or polygons.

    Parameters
    ----------
    path : path-like
        File to read.

    Returns
    -------
    tuple of CocoImage
        In the order of the file.

    Raises
    ------
    FileFormatError
        If it is no COCO file with images and annotations, or a mask is damaged.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
        names = {int(c["id"]): str(c["name"]) for c in document.get("categories", ())}
        grouped: dict[int, list[Mapping[str, Any]]] = {}
        for annotation in document["annotations"]:
            grouped.setdefault(int(annotation["image_id"]), []).append(annotation)
        return tuple(
            _parse_image(image, grouped.get(int(image["id"]), []), names)
            for image in document["images"]
        )
    except OSError as error:
        raise FileFormatError(f"{path.name}: cannot be opened: {error.strerror}") from error
    except KeyError as error:
        raise FileFormatError(f"{path.name}: not a COCO file: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise FileFormatError(f"{path.name}: not a COCO file that can be read: {error}") from error


def _name(category: str) -> str:
    return category or DEFAULT_CATEGORY


def _image(image: CocoImage, number: int) -> dict[str, Any]:
    height, width = image.masks.shape
    entry: dict[str, Any] = {
        "id": number,
        "file_name": image.file_name,
        "height": int(height),
        "width": int(width),
    }
    if image.pixel_size.is_physical:
        size = image.pixel_size
        entry["pixel_size"] = {"y": size.y, "x": size.x, "unit": size.unit}
    return entry


def _annotation(image: CocoImage, index: int, ids: Mapping[str, int]) -> dict[str, Any]:
    masks, crop = image.masks, image.masks.crops[index]
    category = _name(image.categories[index]) if image.categories else DEFAULT_CATEGORY
    entry: dict[str, Any] = {
        "category_id": ids[category],
        "segmentation": encode_rle(crop, masks.shape),
        "area": int(crop.area),
        "bbox": [int(crop.x0), int(crop.y0), int(crop.width), int(crop.height)],
        "iscrowd": 0,
    }
    extra = {
        "predicted_iou": float(masks.scores[index]),
        "stability_score": float(masks.stability[index]),
    }
    entry.update({key: round(value, 6) for key, value in extra.items() if math.isfinite(value)})
    y, x = (float(value) for value in masks.points[index])
    if math.isfinite(y) and math.isfinite(x):
        entry["point"] = [round(x, 3), round(y, 3)]
    return entry


def _parse_image(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> CocoImage:
    shape = (int(image["height"]), int(image["width"]))
    crops = [_crop(annotation["segmentation"], shape) for annotation in annotations]
    points = [annotation.get("point") or (math.nan, math.nan) for annotation in annotations]
    stability = [annotation.get("stability_score", math.nan) for annotation in annotations]
    masks = MaskSet.from_crops(
        shape,
        crops,
        # Detection results call it score.
        [a.get("predicted_iou", a.get("score", math.nan)) for a in annotations],
        stability=np.array(stability, np.float32),
        points=np.array(points, np.float32).reshape(-1, 2)[:, ::-1],
    )
    size = image.get("pixel_size")
    physical = calibrated((size["y"], size["x"])) if size and size["unit"] == "um" else PixelSize()
    categories = tuple(
        names.get(int(a.get("category_id", 0)), DEFAULT_CATEGORY) for a in annotations
    )
    return CocoImage(masks, str(image.get("file_name", "")), categories, physical)


def _crop(segmentation: Any, shape: tuple[int, int]) -> MaskCrop:
    if isinstance(segmentation, list):
        from pycocotools import mask as coco_mask

        parts = coco_mask.frPyObjects(segmentation, *shape) if segmentation else []
        empty = {"size": list(shape), "counts": [shape[0] * shape[1]]}
        segmentation = coco_mask.merge(parts) if parts else empty
    if tuple(segmentation["size"]) != shape:
        raise InvalidMaskError(f"a mask of {segmentation['size']} in an image of {list(shape)}")
    return decode_rle(segmentation)
