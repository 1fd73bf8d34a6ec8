import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.ratio import solve
from phasesam.engines.ratio_guidance import RatioConfig, RatioGuide, guide_phases
from phasesam.engines.semantic import NO_CLASS, PhaseMap

CLASSES = ("matrix", "particle", "pore")


def made_map(shape=(120, 90), data_bar=None, seed=0):
    rng = np.random.default_rng(seed)
    z = np.stack([gaussian_filter(rng.normal(size=shape), 4) * 25 for _ in CLASSES])
    z = np.exp(z + rng.normal(0, 0.4, z.shape))
    probabilities = (z / z.sum(axis=0)).astype(np.float32)
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    if data_bar is not None:
        probabilities[:, data_bar:], labels[data_bar:] = 0, NO_CLASS
    return PhaseMap(labels, CLASSES, probabilities, data_bar)


def test_a_map_obeys():
    found = made_map()
    obeying = guide_phases(found, [0.2, 0.3, 0.5])
    assert_allclose(obeying.fractions, [0.2, 0.3, 0.5], atol=1 / found.labels.size)
    assert_array_equal(obeying.labels, solve(np.log(found.probabilities), [0.2, 0.3, 0.5]).labels)
    assert obeying.probabilities is found.probabilities


def test_the_data_bar_has_no_share():
    found = made_map(data_bar=100)
    obeying = guide_phases(found, [0.2, 0.3, 0.5])
    assert (obeying.labels[100:] == NO_CLASS).all()
    counts = np.bincount(obeying.labels[:100].ravel(), minlength=3)
    assert_allclose(counts, [1800, 2700, 4500], atol=1)
    assert_allclose(RatioGuide(found).fractions, found.fractions)


@pytest.mark.parametrize("shape", [(700, 300), (512, 512), (130, 90)])
def test_a_preview_is_close_to_the_full_map(shape):
    found = made_map(shape, data_bar=shape[0] - 20)
    guide = RatioGuide(found)
    preview, full = guide.preview([0.2, 0.3, 0.5]), guide.solve([0.2, 0.3, 0.5])
    assert preview.labels.shape == shape
    mapped = full.labels != NO_CLASS
    assert_array_equal(preview.labels == NO_CLASS, ~mapped)
    assert (preview.labels == full.labels)[mapped].mean() > 0.8
    assert_allclose(preview.solution.achieved, [0.2, 0.3, 0.5], atol=1e-3)


def test_regions_in_full_and_in_a_preview():
    found = made_map((700, 300))
    regions = np.zeros((700, 300), int)
    regions[:350] = 4
    guide = RatioGuide(found)
    for result in (guide.solve, guide.preview):
        labels = result({4: [0.1, 0.2, 0.7]}, regions=regions).labels
        shares = np.bincount(labels[:350].ravel(), minlength=3) / labels[:350].size
        assert_allclose(shares, [0.1, 0.2, 0.7], atol=0.02)
    full = guide.solve({4: [0.1, 0.2, 0.7]}, regions=regions).labels
    assert_array_equal(full[350:], found.labels[350:])


@pytest.mark.parametrize("shape", [(2, 2000), (2000, 1), (11, 2000), (1100, 700)])
def test_regions_in_a_preview_of_a_strip(shape):
    guide = RatioGuide(made_map(shape))
    regions = np.zeros(shape, int)
    regions[shape[0] // 2 :, shape[1] // 2 :] = 4
    wanted = {0: [1.0, 0.0, 0.0], 4: [0.0, 0.0, 1.0]}
    preview = guide.preview(wanted, regions=regions)
    assert preview.labels.shape == shape
    assert set(np.unique(preview.labels)) <= {0, 2}
    full = guide.solve(wanted, regions=regions).labels
    assert (preview.labels == full).mean() > 0.49


def test_a_region_between_the_pixels_of_a_preview_is_left_alone():
    found = made_map((700, 300))
    regions = np.zeros((700, 300), int)
    regions[0, 0] = 9
    guide = RatioGuide(found)
    shares = {9: [0.0, 0.0, 1.0]}
    assert guide.solve(shares, regions=regions).labels[0, 0] == 2
    preview = guide.preview(shares, regions=regions).solution
    assert (preview.changed, preview.bias.size) == (0, 0)


def test_fewest_changes_have_the_amounts_and_costs_of_the_model():
    guide = RatioGuide(made_map((300, 280), data_bar=290))
    few = guide.with_config(RatioConfig(fewest=True))
    wanted = [0.5, 0.35, 0.15]
    likely, found = guide.solve(wanted), few.solve(wanted)
    assert found.solution.achieved == pytest.approx(likely.solution.achieved, abs=2e-3)
    assert found.solution.cost >= likely.solution.cost - 1e-6
    own = guide.own_labels
    assert (found.labels != own).sum() <= (likely.labels != own).sum()
    assert few.preview(wanted).solution.achieved == pytest.approx(wanted, abs=0.02)
    margin = few.margin(found)
    assert margin.shape == own.shape
    assert not np.isnan(margin).any()
    # And back again.
    again = few.with_config(RatioConfig()).solve(wanted)
    assert (again.labels == likely.labels).all()


def test_smoothing_and_smallest_regions():
    found = made_map()
    image = np.random.default_rng(0).integers(0, 255, (120, 90, 3), dtype=np.uint8)
    config = RatioConfig(smoothing=3, smallest=20)
    obeying = guide_phases(found, [0.2, 0.3, 0.5], image=image, config=config)
    assert_allclose(obeying.fractions, [0.2, 0.3, 0.5], atol=1e-4)
    rough = guide_phases(found, [0.2, 0.3, 0.5]).labels
    edges = [(np.diff(labels.astype(int)) != 0).sum() for labels in (obeying.labels, rough)]
    assert edges[0] < edges[1] / 1.5


def test_bad_input_is_refused():
    found = made_map()
    with pytest.raises(InvalidImageError, match="keep_probabilities=True"):
        guide_phases(PhaseMap(found.labels, CLASSES), [0.2, 0.3, 0.5])
    with pytest.raises(InvalidImageError, match=r"expected an image of \(120, 90\)"):
        guide_phases(found, [0.2, 0.3, 0.5], image=np.zeros((120, 91)))
    with pytest.raises(InvalidSettingError, match="needs the image"):
        guide_phases(found, [0.2, 0.3, 0.5], config=RatioConfig(smoothing=2))
    with pytest.raises(InvalidSettingError, match="needs the image"):
        RatioGuide(found).with_config(RatioConfig(smoothing=2))
    with pytest.raises(InvalidSettingError, match="regions of"):
        guide_phases(found, {0: [0.2, 0.3, 0.5]}, regions=np.zeros((5, 5), int))
    with pytest.raises(InvalidSettingError, match="0 pixels or more"):
        RatioConfig(smallest=-1)
