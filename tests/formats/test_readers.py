"""Any micrograph file is read by its content; stacks stay on disk; damage is reported."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from phasesam.core.errors import FileFormatError
from phasesam.formats.readers import is_image_file, read_image, read_slices
from phasesam.formats.slices import slice_files

GREY = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
RGB = np.dstack([GREY, GREY // 2, GREY // 3])
DEEP = GREY.astype(np.uint16) * 257
STACK = np.arange(5 * 20 * 30, dtype=np.uint16).reshape(5, 20, 30)


# --- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [GREY, RGB, DEEP], ids=["grey", "rgb", "16-bit"])
@pytest.mark.parametrize("ending", ["tif", "png", "bmp", "npy"])
def test_single_planes(tmp_path: Path, image: np.ndarray, ending: str):
    path = tmp_path / f"my image.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, image)
    elif ending == "npy":
        np.save(path, image)
    elif ending == "bmp" and image is DEEP:
        pytest.skip("BMP has no 16-bit grey")
    else:
        Image.fromarray(image).save(path)
    file = read_image(path)
    np.testing.assert_array_equal(file.data, image)
    assert isinstance(file.data, np.ndarray)
    assert file.data.dtype == image.dtype
    assert file.data.flags.writeable
    assert file.is_rgb == (image.ndim == 3)
    assert file.plane_shape == (20, 30)
    assert not file.is_stack
    assert file.name == "my image"
    assert not file.pixel_size.is_physical
    assert is_image_file(path)


def test_jpeg(tmp_path: Path):
    Image.fromarray(np.full((20, 30), 99, np.uint8)).save(tmp_path / "a.jpg")
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").data, 99, atol=2)


@pytest.mark.parametrize(("kind", "ending"), [("PNG", "tiff"), ("TIFF", "jpg"), ("BMP", "png")])
def test_content_counts_not_the_ending(tmp_path: Path, kind: str, ending: str):
    path = tmp_path / f"wrong.{ending}"
    Image.fromarray(GREY).save(path, kind)
    file = read_image(path)
    np.testing.assert_array_equal(file.data, GREY)
    assert file.metadata["format"] == kind


def test_16_bit_colours_of_png_are_kept(tmp_path: Path):
    from imagecodecs import png_encode

    deep = np.dstack([DEEP, DEEP + 1, DEEP + 2])
    (tmp_path / "deep.png").write_bytes(png_encode(deep))
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png").data, deep)


def test_rare_picture_modes(tmp_path: Path):
    grey_palette = Image.fromarray(GREY).convert("P")
    grey_palette.save(tmp_path / "grey.bmp")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.bmp").data, GREY)
    Image.fromarray(RGB).quantize(16).save(tmp_path / "colours.png")
    assert read_image(tmp_path / "colours.png").is_rgb
    Image.fromarray(GREY > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png").data, (GREY > 99) * 255)
    Image.fromarray(GREY).convert("LA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png").data, GREY)
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert read_image(tmp_path / "print.jpg").data.shape == (20, 30, 3)


def test_tiff_palette_and_inverted_grey(tmp_path: Path):
    ramp = np.arange(256, dtype=np.uint16) * 257
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, GREY, photometric="palette", colormap=np.stack([ramp[::-1]] * 3))
    np.testing.assert_array_equal(read_image(path).data, 255 - GREY)
    tifffile.imwrite(path, GREY, photometric="palette", colormap=np.stack([ramp, ramp, ramp * 0]))
    file = read_image(path)
    assert file.is_rgb
    np.testing.assert_array_equal(file.data[..., 2], 0)
    tifffile.imwrite(path, GREY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path).data, 255 - GREY)


def test_big_endian_and_planar_tiff(tmp_path: Path):
    tifffile.imwrite(tmp_path / "big.tif", DEEP, byteorder=">")
    file = read_image(tmp_path / "big.tif")
    np.testing.assert_array_equal(file.data, DEEP)
    planar = np.moveaxis(RGB, -1, 0).copy()
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate")
    file = read_image(tmp_path / "planar.tif")
    assert file.is_rgb
    np.testing.assert_array_equal(file.data, RGB)


def test_images_larger_than_pillow_likes(tmp_path: Path, monkeypatch):
    image = np.zeros((20_000, 50), np.uint8)
    image[-1, -1] = 200
    Image.fromarray(image).save(tmp_path / "long.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    np.testing.assert_array_equal(read_image(tmp_path / "long.png").data, image)


# --- stacks ----------------------------------------------------------------------------------

WRITERS = {
    "plain": {},
    "compressed": {"compression": "zlib"},
    "bare": {"metadata": None, "compression": "zlib"},
    "big-endian": {"byteorder": ">"},
    "ImageJ": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "OME": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "volumetric": {"volumetric": True, "tile": (16, 16, 16)},
}


@pytest.mark.parametrize("how", WRITERS)
def test_multi_page_tiff_is_lazy(tmp_path: Path, how: str):
    path = tmp_path / ("stack.ome.tif" if how == "OME" else "stack.tif")
    tifffile.imwrite(path, STACK, **WRITERS[how])
    file = read_image(path)
    assert isinstance(file.data, da.Array)
    assert file.stack_shape == (5,)
    assert file.plane_shape == (20, 30)
    assert file.name == "stack"
    np.testing.assert_array_equal(file.plane((3,)), STACK[3])
    np.testing.assert_array_equal(file.data.compute(), STACK)
    assert file.data.compute().dtype == np.dtype("u2")
    if how != "volumetric":
        assert file.data.chunksize[0] == 1


def test_only_the_plane_that_is_asked_for_is_read(tmp_path: Path, monkeypatch):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK, compression="zlib")
    read: list[int] = []
    original = tifffile.TiffPage.asarray

    def counted(self, *args, **kwargs):
        read.append(self.offset)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(tifffile.TiffPage, "asarray", counted)
    file = read_image(path)
    assert read == []
    file.plane((4,))
    assert len(read) == 1


def test_four_dimensions_and_colour_stacks(tmp_path: Path):
    data = np.arange(2 * 3 * 20 * 30, dtype=np.uint16).reshape(2, 3, 20, 30)
    tifffile.imwrite(tmp_path / "tz.tif", data, imagej=True, metadata={"axes": "TZYX"})
    file = read_image(tmp_path / "tz.tif")
    assert file.stack_shape == (2, 3)
    np.testing.assert_array_equal(file.plane((1, 2)), data[1, 2])
    colours = np.stack([RGB, RGB[::-1]])
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb", compression="zlib")
    file = read_image(tmp_path / "rgb.tif")
    assert file.is_rgb
    assert file.stack_shape == (2,)
    np.testing.assert_array_equal(file.plane((1,)), RGB[::-1])


def test_thumbnail_beside_the_micrograph_is_left_out(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(GREY[::2, ::2], metadata=None)
        writer.write(GREY, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "two.tif").data, GREY)


def test_npy_stack_is_lazy(tmp_path: Path):
    np.save(tmp_path / "stack.npy", STACK)
    file = read_image(tmp_path / "stack.npy")
    assert isinstance(file.data, da.Array)
    np.testing.assert_array_equal(file.plane((2,)), STACK[2])


def test_names_with_superscripts_and_other_digits(tmp_path: Path):
    for name in ("x1²3.tif", "x1²10.tif", "²2.tif", "s٢.tif", "s10.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 5), np.uint8))
    names = [path.name for path in slice_files(tmp_path)]
    assert names == ["s٢.tif", "s10.tif", "x1²3.tif", "x1²10.tif", "²2.tif"]
    assert read_image(tmp_path).data.shape == (5, 4, 5)


def test_folder_of_slices_in_natural_order(tmp_path: Path):
    folder = tmp_path / "scan"
    folder.mkdir()
    for i in (10, 2, 1):
        Image.fromarray(np.full((20, 30), i, np.uint8)).save(folder / f"slice{i}.png")
    (folder / "notes.txt").write_text("not a slice")
    (folder / ".hidden.png").write_bytes((folder / "slice1.png").read_bytes())
    tifffile.imwrite(folder / "slice1_labels.tif", STACK[0])
    file = read_image(folder)
    assert isinstance(file.data, da.Array)
    assert file.name == "scan"
    assert file.data[:, 0, 0].compute().tolist() == [1, 2, 10]
    assert file.data.chunks[0] == (1, 1, 1)


def test_slices_are_read_one_by_one(tmp_path: Path):
    for i in range(4):
        tifffile.imwrite(tmp_path / f"{i}.tif", STACK[i])
    file = read_image(tmp_path)
    (tmp_path / "2.tif").write_bytes(b"")
    np.testing.assert_array_equal(file.plane((3,)), STACK[3])
    with pytest.raises(FileFormatError, match=r"2\.tif: the file is empty"):
        file.plane((2,))


def test_list_of_slices(tmp_path: Path):
    paths = [tmp_path / f"{i}.png" for i in (3, 1)]
    for path in paths:
        Image.fromarray(np.full((4, 5), int(path.stem), np.uint8)).save(path)
    assert read_slices(paths).data[:, 0, 0].compute().tolist() == [1, 3]
    with pytest.raises(FileFormatError, match="at least one"):
        read_slices([])


def test_slices_of_different_size(tmp_path: Path):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 31), np.uint8))
    with pytest.raises(FileFormatError, match=r"a\.png is 20 × 30 pixels, b\.tif is 20 × 31"):
        read_image(tmp_path)


def test_slices_of_different_dtype(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    tifffile.imwrite(tmp_path / "b.tif", DEEP)
    with pytest.raises(FileFormatError, match=r"b\.tif is \(20, 30\) uint16"):
        read_image(tmp_path).plane((1,))


def test_folder_of_stacks(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    with pytest.raises(FileFormatError, match=r"a\.tif is itself a stack"):
        read_image(tmp_path)


# --- Zarr ------------------------------------------------------------------------------------


def test_zarr_array(tmp_path: Path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=STACK.shape, chunks=(1, 20, 30), dtype="u2"
    )
    array[:] = STACK
    file = read_image(tmp_path / "a.zarr")
    assert isinstance(file.data, da.Array)
    np.testing.assert_array_equal(file.plane((1,)), STACK[1])


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr(tmp_path: Path, version: int):
    group = zarr.create_group(tmp_path / "a.ome.zarr", zarr_format=version)
    array = group.create_array("0", shape=STACK.shape, chunks=(1, 20, 30), dtype="u2")
    array[:] = STACK
    described = [
        {
            "axes": [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [{"type": "scale", "scale": [40, 20, 10]}],
                }
            ],
        }
    ]
    group.attrs.update(
        {"multiscales": described} if version == 2 else {"ome": {"multiscales": described}}
    )
    file = read_image(tmp_path / "a.ome.zarr")
    assert file.name == "a"
    assert (file.pixel_size.y, file.pixel_size.x, file.z_size) == (0.02, 0.01, 0.04)
    np.testing.assert_array_equal(file.data.compute(), STACK)


def test_zarr_group_without_image(tmp_path: Path):
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(FileFormatError, match=r"a\.zarr: the Zarr group holds no OME-Zarr image"):
        read_image(tmp_path / "a.zarr")


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "compressed", "tiled", "stack", "lzw stack", "imagej"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.97])
def test_truncated_tiff(tmp_path: Path, how: str, share: float):
    rng = np.random.default_rng(0)
    path = tmp_path / "cut.tif"
    image = rng.integers(0, 255, (5, 64, 64) if "stack" in how or how == "imagej" else (64, 64))
    options = {
        "plain": {},
        "compressed": {"compression": "zlib"},
        "tiled": {"tile": (16, 16), "compression": "zlib"},
        "stack": {},
        "lzw stack": {"compression": "lzw"},
        "imagej": {"imagej": True},
    }
    tifffile.imwrite(path, image.astype(np.uint8), **options[how])
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(FileFormatError, match=r"^cut\.tif: ") as caught:
        np.asarray(read_image(path).data)
    assert len(str(caught.value)) > len("cut.tif: ") + 5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "NPY"])
@pytest.mark.parametrize("share", [0.05, 0.6])
def test_truncated_pictures(tmp_path: Path, kind: str, share: float):
    path = tmp_path / "cut"
    image = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    if kind == "NPY":
        with path.open("wb") as file:
            np.save(file, image)
    else:
        Image.fromarray(image).save(path, kind)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(FileFormatError, match=rf"^cut: cannot be read as {kind}: ."):
        read_image(path)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG", "BMP"])
def test_damaged_bytes_never_end_in_another_error(tmp_path: Path, kind: str):
    rng = np.random.default_rng(1)
    path = tmp_path / "bad"
    Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(path, kind)
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(60):
        damaged = raw.copy()
        damaged[rng.integers(8, len(raw), 12)] = rng.integers(0, 256, 12)
        path.write_bytes(damaged.tobytes())
        try:
            np.asarray(read_image(path).data)
        except FileFormatError:
            refused += 1
    assert kind == "BMP" or refused > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is no image", "begins with b'hello, t'"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"PK\x03\x04", "ZIP"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    assert not is_image_file(path)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith("x.tif: ")


def test_missing_file_and_empty_folder(tmp_path: Path):
    with pytest.raises(FileFormatError, match=r"nothing\.tif: .*No such file"):
        read_image(tmp_path / "nothing.tif")
    assert not is_image_file(tmp_path / "nothing.tif")
    with pytest.raises(FileFormatError, match="no images"):
        read_image(tmp_path)


def test_pickles_are_not_opened(tmp_path: Path):
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match=r"evil\.npy: cannot be read as NPY"):
        read_image(tmp_path / "evil.npy")


def test_numbers_that_are_no_image(tmp_path: Path):
    np.save(tmp_path / "line.npy", np.zeros(5))
    with pytest.raises(FileFormatError, match=r"got an array of \(5,\)"):
        read_image(tmp_path / "line.npy")
