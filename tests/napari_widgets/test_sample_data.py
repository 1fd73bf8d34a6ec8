import numpy as np
import pytest

from phasesam.core.types import PixelSize
from phasesam.napari_widgets.sample_data import as_layers
from phasesam.simulation.micrograph import Micrograph


def micrograph(shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    labels = (image > 200).astype(np.int32)
    return Micrograph(
        image=image,
        labels=labels,
        classes=labels.astype(np.uint8),
        pixel_size=PixelSize(0.2, 0.2, "um"),
        class_names=("ground", "pore"),
        z_size=0.4,
        name="test",
        metadata={"seed": 0},
    )


@pytest.mark.parametrize(
    ("shape", "scale"), [((20, 30), (0.2, 0.2)), ((4, 20, 30), (0.4, 0.2, 0.2))]
)
def test_image_and_hidden_ground_truth_lie_on_each_other(viewer_model, shape, scale):
    for data, options, kind in as_layers(micrograph(shape), "test"):
        getattr(viewer_model, f"add_{kind}")(data, **options)
    truth, image = viewer_model.layers
    assert image.name == "test"
    assert viewer_model.layers.selection.active is image
    assert not truth.visible
    for layer in (truth, image):
        np.testing.assert_allclose(layer.scale, scale)
        assert {str(unit) for unit in layer.units} == {"micrometer"}


@pytest.mark.gui
@pytest.mark.parametrize("key", ["particles", "steel", "xct"])
def test_samples_open_from_the_menu(make_napari_viewer, key):
    viewer = make_napari_viewer()
    viewer.open_sample("napari-phasesam", key)
    truth, image = viewer.layers
    assert truth.data.max() > 0
    assert truth.data.shape == image.data.shape[: truth.ndim]
