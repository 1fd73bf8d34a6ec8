"""Draw the sample images beside their ground truth: ``python docs/pictures_samples.py``."""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from phasesam.simulation import Micrograph
from phasesam.simulation.samples import SAMPLES, load_sample

FOLDER = Path(__file__).parent / "pictures"
HEIGHT = 480
# Okabe and Ito's colours; the first class of a sample stays grey.
COLOURS = np.array(
    [[0, 0, 0], [86, 180, 233], [230, 159, 0], [213, 94, 0], [0, 158, 115]], np.float64
)


def truth_overlay(grey, labels, classes):
    """Tint every class but the first and outline every object; (h, w, 3) uint8."""
    rgb = np.repeat(grey[..., None].astype(np.float64), 3, axis=2)
    tinted = classes > 0
    rgb[tinted] = 0.62 * rgb[tinted] + 0.38 * COLOURS[classes[tinted]]
    rgb[find_boundaries(labels, mode="inner")] = (255, 255, 255)
    return rgb.astype(np.uint8)


def panels(sample: Micrograph):
    """Image and truth side by side, of a stack one slice."""
    middle = () if sample.image.ndim == 2 else (sample.image.shape[0] // 8,)
    image, labels, classes = sample.image[middle], sample.labels[middle], sample.classes[middle]
    # Small images are enlarged first, so that outlines stay thin.
    zoom = np.ones((max(1, HEIGHT // image.shape[0]),) * 2, dtype=np.uint8)
    image, classes = np.kron(image, zoom), np.kron(classes, zoom)
    labels = np.kron(labels, zoom.astype(np.int32))
    pair = np.concatenate(
        [np.repeat(image[..., None], 3, axis=2), truth_overlay(image, labels, classes)], axis=1
    )
    shape = (HEIGHT, round(pair.shape[1] * HEIGHT / pair.shape[0]), 3)
    return resize(pair, shape, anti_aliasing=shape[0] < pair.shape[0], preserve_range=True)


def main():
    FOLDER.mkdir(exist_ok=True)
    for name in SAMPLES:
        picture = Image.fromarray(panels(load_sample(name)).round().astype(np.uint8))
        picture.save(FOLDER / f"sample_{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
