import json

import numpy as np
import pytest
import tifffile

from phasesam.core.errors import FileFormatError, InvalidSettingError
from phasesam.formats.readers import read_image
from phasesam.simulation import samples
from phasesam.simulation.samples import SAMPLES, load_sample, main, sample_folder, write_samples
from phasesam.simulation.steel import SteelConfig, simulate_steel

SHAPES = {
    "particles_sem": (768, 1024),
    "three_phase_steel": (768, 1024),
    "xct_pores": (64, 192, 192),
}


def test_the_bundled_samples_are_small_and_free():
    files = [path for path in sample_folder().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6
    assert len(files) == 3 * len(SAMPLES) + 2
    index = json.loads((sample_folder() / "samples.json").read_text(encoding="utf-8"))
    assert list(index) == list(SAMPLES)
    assert {entry["licence"] for entry in index.values()} == {"CC0-1.0"}
    assert "phasesam.simulation" in (sample_folder() / "README.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SAMPLES)
def test_the_simulator_still_makes_the_bundled_sample(name):
    bundled, made = load_sample(name), SAMPLES[name].make()
    assert bundled.image.shape == SHAPES[name]
    assert bundled.image.dtype == made.image.dtype
    assert bundled.pixel_size == made.pixel_size
    assert bundled.z_size == made.z_size
    assert bundled.class_names == made.class_names
    assert bundled.metadata == json.loads(json.dumps(dict(made.metadata)))
    # Another processor may round the last digit another way; a pixel in a thousand may differ.
    for kind in ("image", "labels", "classes"):
        differs = getattr(bundled, kind) != getattr(made, kind)
        assert differs.mean() < 1e-3, kind
    off = np.abs(bundled.image.astype(int) - made.image)
    assert np.count_nonzero(off > 2) < 1e-4 * off.size


@pytest.mark.parametrize("name", SAMPLES)
def test_the_readers_find_the_scale(name):
    sample = load_sample(name)
    for ending in ("", "_labels"):
        file = read_image(sample_folder() / f"{name}{ending}.tif")
        assert file.pixel_size.unit == "um"
        assert file.pixel_size.x == pytest.approx(sample.pixel_size.x, rel=1e-6)
        assert file.z_size == sample.z_size
        assert file.data.shape == sample.image.shape


def test_samples_survive_writing(tmp_path, monkeypatch):
    config = SteelConfig(shape=(60, 70), pixel_size=0.3, grain_size=6.0)
    recipe = samples.SampleRecipe("small", "t", "d", "grains", lambda: simulate_steel(config, 1))
    monkeypatch.setattr(samples, "SAMPLES", {"small": recipe})
    write_samples(tmp_path / "new")
    made, read = simulate_steel(config, 1), load_sample("small", tmp_path / "new")
    np.testing.assert_array_equal(read.image, made.image)
    np.testing.assert_array_equal(read.labels, made.labels)
    np.testing.assert_array_equal(read.classes, made.classes)
    assert read.pixel_size == made.pixel_size
    assert read.labels.dtype == np.int32
    assert tifffile.imread(tmp_path / "new" / "small_labels.tif").dtype == np.uint16

    (tmp_path / "new" / "small_classes.tif").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="small"):
        load_sample("small", tmp_path / "new")

    main([str(tmp_path / "again")])
    first = (tmp_path / "again" / "small.tif").read_bytes()
    assert first == (tmp_path / "new" / "small.tif").read_bytes()


def test_unknown_and_missing_samples_are_refused(tmp_path):
    with pytest.raises(InvalidSettingError, match="particles_sem"):
        load_sample("moon")
    with pytest.raises(FileFormatError, match="xct_pores"):
        load_sample("xct_pores", tmp_path)
