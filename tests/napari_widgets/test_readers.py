import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from phasesam.core.errors import FileFormatError
from phasesam.napari_widgets.layers import pixel_size
from phasesam.napari_widgets.readers import get_reader, read

RANDOM = np.random.default_rng(0)


@pytest.fixture
def stack_file(tmp_path):
    """ImageJ TIFF of three planes, 0.25 µm pixels, 0.5 µm between planes."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(
        path,
        RANDOM.integers(0, 60_000, (3, 20, 30), dtype=np.uint16),
        imagej=True,
        resolution=(4, 4),
        metadata={"spacing": 0.5, "unit": "um", "axes": "ZYX"},
    )
    return path


def test_stack_becomes_a_lazy_layer_in_micrometres(viewer_model, stack_file):
    ((data, options, kind),) = get_reader(str(stack_file))(str(stack_file))
    assert kind == "image"
    assert not isinstance(data, np.ndarray)
    layer = viewer_model.add_image(data, **options)
    assert layer.name == "stack"
    np.testing.assert_allclose(layer.scale, (0.5, 0.25, 0.25))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert pixel_size(layer).x == pytest.approx(0.25)
    np.testing.assert_array_equal(np.asarray(layer.data[1]), tifffile.imread(stack_file)[1])


def test_picture_with_a_wrong_ending(tmp_path, viewer_model):
    path = tmp_path / "really a png.tiff"
    pixels = RANDOM.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Picture.fromarray(pixels).save(path, format="PNG")
    ((data, options, _),) = get_reader(str(path))(str(path))
    layer = viewer_model.add_image(data, **options)
    assert layer.rgb
    np.testing.assert_array_equal(layer.data, pixels)


def test_folder_and_several_files_become_one_stack(tmp_path):
    for number in (1, 2, 10):
        pixels = np.full((8, 9), number, np.uint8)
        pixels[0, 0] = 200
        Picture.fromarray(pixels).save(tmp_path / f"slice_{number}.png")
    ((folder, _, _),) = read(str(tmp_path))
    assert [int(plane[1, 1]) for plane in np.asarray(folder)] == [1, 2, 10]
    files = [str(path) for path in tmp_path.glob("*.png")]
    ((several, _, _),) = get_reader(files)(files)
    np.testing.assert_array_equal(np.asarray(several), np.asarray(folder))


def test_hot_pixels_do_not_set_the_contrast(tmp_path):
    pixels = RANDOM.normal(100, 5, (200, 200)).astype(np.float32)
    pixels[0, 0] = 1e6
    path = tmp_path / "hot.tif"
    tifffile.imwrite(path, pixels)
    ((_, options, _),) = read(str(path))
    low, high = options["contrast_limits"]
    assert 70 < low < high < 130


def test_other_files_are_left_to_other_readers(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image at all")
    assert get_reader(str(text)) is None
    assert get_reader(str(tmp_path / "missing.png")) is None
    assert get_reader(str(tmp_path)) is None, "a folder of other things"


@pytest.mark.parametrize("name", ["text.tif", "empty.TIF", "notes.Png"])
def test_what_is_called_an_image_and_is_none_is_explained(tmp_path, name):
    path = tmp_path / name
    path.write_text("" if name.startswith("empty") else "no image at all")
    reader = get_reader(str(path))
    with pytest.raises(FileFormatError, match=f"{path.stem}.*not an image|{path.stem}.*empty"):
        reader(str(path))


def test_an_empty_folder_is_explained(tmp_path):
    with pytest.raises(FileFormatError, match="contains no images"):
        get_reader(str(tmp_path))(str(tmp_path))


def test_complex_numbers_are_explained(tmp_path):
    path = tmp_path / "wave.npy"
    np.save(path, np.ones((8, 9), np.complex64))
    with pytest.raises(FileFormatError, match=r"wave\.npy.*complex"):
        get_reader(str(path))(str(path))


@pytest.mark.parametrize("name", ["a.Tif", "a.TIFF", "a.Tiff", "sem.dat", "a.JPG"])
def test_napari_asks_this_reader_for(tmp_path, name):
    from fnmatch import fnmatchcase

    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-phasesam")
    (contribution,) = manifest.contributions.readers
    assert any(fnmatchcase(name, pattern) for pattern in contribution.filename_patterns)
    path = tmp_path / name
    tifffile.imwrite(path, np.arange(72, dtype=np.uint8).reshape(8, 9))
    ((data, _, _),) = get_reader(str(path))(str(path))
    assert data.shape == (8, 9)


def test_truncated_file_says_so(tmp_path, stack_file):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(stack_file.read_bytes()[:1500])
    reader = get_reader(str(broken))
    assert reader is not None
    with pytest.raises(FileFormatError, match=r"broken\.tif"):
        reader(str(broken))


@pytest.mark.gui
def test_napari_opens_files_with_this_reader(make_napari_viewer, stack_file):
    viewer = make_napari_viewer()
    (layer,) = viewer.open(str(stack_file), plugin="napari-phasesam")
    assert layer.data.shape == (3, 20, 30)
    assert tuple(layer.scale) == (0.5, 0.25, 0.25)


@pytest.mark.gui
def test_napari_opens_a_dropped_folder(make_napari_viewer, tmp_path):
    for number in range(3):
        Picture.fromarray(np.full((8, 9), number, np.uint8)).save(tmp_path / f"{number}.png")
    viewer = make_napari_viewer()
    (layer,) = viewer.open(str(tmp_path), plugin="napari-phasesam")
    assert layer.data.shape == (3, 8, 9)
