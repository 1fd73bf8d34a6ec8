"""SAM must find the simulated samples neither trivial nor hopeless, but as hard as real ones."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.io import imread

from phasesam.simulation.samples import load_sample

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

REAL_POWDER = Path(__file__).parents[2].parent / "shared" / "data" / "ampis_powder"


def first_click(image, labels, n_objects, min_area=60):
    """Mean IoU of SAM's own best mask for a click at the middle of each object."""
    from phasesam import Segmenter

    segmenter = Segmenter(image)
    areas = np.bincount(labels.ravel())
    numbers = np.flatnonzero(areas >= min_area)
    numbers = np.random.default_rng(0).permutation(numbers[numbers > 0])[:n_objects]
    ious = []
    for number in numbers:
        truth = labels == number
        depth = ndimage.distance_transform_edt(np.pad(truth, 1))[1:-1, 1:-1]
        answer = segmenter.predict(points=[np.unravel_index(depth.argmax(), truth.shape)])
        mask = answer.mask(int(answer.scores.argmax()))
        ious.append((mask & truth).sum() / (mask | truth).sum())
    return float(np.mean(ious))


def test_powder_is_as_hard_as_real_powder():
    sample = load_sample("particles_sem")
    simulated = first_click(sample.image, sample.labels, 80)
    assert 0.72 < simulated < 0.95
    if not REAL_POWDER.is_dir():
        pytest.skip("no real powder to compare with")
    name = "Sc1Tile_001-001-000_0-000.png"
    image = imread(REAL_POWDER / "images" / name)
    labels = imread(REAL_POWDER / "labels_instance_particle" / name).astype(np.int32)
    assert simulated == pytest.approx(first_click(image, labels, 80), abs=0.10)


def test_steel_grains_are_found_but_not_all():
    sample = load_sample("three_phase_steel")
    ferrite = np.where(sample.classes == 1, sample.labels, 0)
    assert 0.65 < first_click(sample.image, ferrite, 50) < 0.95
    martensite = np.where(sample.classes == 3, sample.labels, 0)
    assert 0.6 < first_click(sample.image, martensite, 40, min_area=200) < 0.95


def test_pores_are_found_in_a_slice():
    sample = load_sample("xct_pores")
    scores = [
        first_click(sample.image[z], sample.labels[z], 10, min_area=16) for z in (8, 24, 40, 56)
    ]
    assert 0.6 < np.mean(scores) < 0.95
