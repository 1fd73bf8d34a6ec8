import numpy as np
import pytest
from scipy import ndimage

from phasesam.simulation.xct_phantom import (
    AIR,
    INCLUSION,
    MATRIX,
    PORE,
    DefectSizes,
    fill_with_defects,
    make_part,
)

SHAPE = (24, 96, 96)
PORES = DefectSizes(0.03, 6.0, 0.3, flat=0.2)
INCLUSIONS = DefectSizes(0.004, 4.0, 0.2)


@pytest.fixture(scope="module")
def phantom():
    rng = np.random.default_rng(0)
    return fill_with_defects(rng, make_part(rng, SHAPE, "cylinder", 0.85), PORES, INCLUSIONS)


@pytest.mark.parametrize(
    ("outline", "area"), [("cylinder", np.pi), ("rectangular", 4 * 0.74 * 0.64)]
)
def test_the_part_has_its_cross_section(outline, area):
    part = make_part(np.random.default_rng(1), SHAPE, outline, 0.8)
    assert part.min() == 0.0
    assert part.max() == 1.0
    assert part.sum(axis=(1, 2)).mean() == pytest.approx(area * (0.4 * 96) ** 2, rel=0.06)
    y, x = np.mgrid[:96, :96] - 48
    assert not part[:, np.hypot(y, x) > 47.5].any()


def test_fractions_are_near_the_asked_ones(phantom):
    whole = phantom.part.sum()
    assert phantom.pore.sum() / whole == pytest.approx(0.03, rel=0.15)
    assert phantom.inclusion.sum() / whole == pytest.approx(0.004, rel=0.3)


def test_every_voxel_is_filled_once(phantom):
    assert (phantom.pore + phantom.inclusion <= phantom.part + 1e-5).all()
    classes = phantom.classes
    assert set(np.unique(classes)) == {AIR, MATRIX, PORE, INCLUSION}
    assert ((phantom.owner > 0) == np.isin(classes, (PORE, INCLUSION))).all()


def test_defects_are_apart_and_numbered_by_kind(phantom):
    solid = phantom.owner > 0
    pieces, n_pieces = ndimage.label(solid, np.ones((3, 3, 3)))
    assert n_pieces == phantom.n_pores + phantom.n_inclusions == phantom.owner.max()
    assert len(np.unique(np.stack([pieces, phantom.owner])[:, solid], axis=1).T) == n_pieces
    pores = phantom.owner[phantom.classes == PORE]
    inclusions = phantom.owner[phantom.classes == INCLUSION]
    assert pores.max() == phantom.n_pores < inclusions.min()


def test_flat_pores_lie_in_the_plane_of_the_layers():
    rng = np.random.default_rng(2)
    part = make_part(rng, (48, 96, 96), "cylinder", 0.85)
    flat = fill_with_defects(rng, part, DefectSizes(0.02, 12.0, 0.05, 1.0), DefectSizes(0, 4, 0.1))
    extents = [
        (s[0].stop - s[0].start, max(s[1].stop - s[1].start, s[2].stop - s[2].start))
        for s in ndimage.find_objects(flat.owner)
        if s[0].start > 0 and s[0].stop < 48
    ]
    assert len(extents) >= 3
    assert np.mean([height / width for height, width in extents]) < 0.75


def test_no_defects_when_none_are_asked_for():
    rng = np.random.default_rng(0)
    none = DefectSizes(0.0, 5.0, 0.3)
    phantom = fill_with_defects(rng, make_part(rng, SHAPE, "cylinder", 0.8), none, none)
    assert phantom.n_pores == phantom.n_inclusions == 0
    assert set(np.unique(phantom.classes)) == {AIR, MATRIX}
