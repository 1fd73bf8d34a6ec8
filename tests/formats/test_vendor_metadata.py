"""Pixel sizes come out in µm, from the forms in which the vendors write them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from phasesam.formats.readers import read_image
from phasesam.formats.vendor_metadata import VendorMetadata

ASCII, BYTE, SIGNED = 2, 1, 6
IMAGE = np.random.default_rng(0).integers(0, 255, (120, 160), dtype=np.uint8)


def write_tag(path: Path, code: int, text: str | bytes, dtype: int = ASCII, **options) -> Path:
    raw = text if isinstance(text, bytes) else text.encode("cp1252") + b"\0"
    tag = (code, dtype, len(raw), raw, True)
    tifffile.imwrite(path, IMAGE, extratags=[tag], metadata=None, **options)
    return path


def micrometres(path: Path) -> tuple[float, float]:
    size = read_image(path).pixel_size
    assert size.unit == "um"
    return size.y, size.x


# --- in the TIFF -----------------------------------------------------------------------------

FEI = """[User]\r
Date=03/12/2019\r
Time=10:22:13 AM\r
[System]\r
Type=DualBeam\r
SystemType=Helios G4 UX\r
DisplayWidth=0.4\r
[EBeam]\r
HV=5000\r
WD=0.00412\r
[Scan]\r
InternalScan=true\r
Dwelltime=3e-006\r
PixelWidth=2.0345e-009\r
PixelHeight=2.5e-009\r
HorFieldsize=2.0833e-006\r
[Image]\r
ResolutionX=160\r
ResolutionY=100\r
[PrivateFei]\r
DatabarHeight=20\r
"""


@pytest.mark.parametrize("code", [34680, 34682])
def test_fei(tmp_path: Path, code: int):
    file = read_image(write_tag(tmp_path / "a.tif", code, FEI))
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((0.0025, 0.0020345))
    assert file.data_bar == 100
    assert file.metadata["vendor"] == "FEI / Thermo Fisher"
    assert file.metadata["fields"]["EBeam.HV"] == "5000"


def test_fei_without_data_bar_and_size(tmp_path: Path):
    text = FEI.replace("DatabarHeight=20", "DatabarHeight=0").replace("PixelWidth", "Other")
    file = read_image(write_tag(tmp_path / "a.tif", 34682, text))
    assert file.data_bar is None
    assert not file.pixel_size.is_physical
    assert "pixel_size_source" not in file.metadata


def fei_image(path: Path, shape: tuple[int, int], text: str = FEI) -> Path:
    raw = text.encode() + b"\0"
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    tifffile.imwrite(path, image, extratags=[(34682, ASCII, len(raw), raw, True)], metadata=None)
    return path


@pytest.mark.parametrize(
    ("shape", "factor", "bar"),
    [
        ((120, 160), 1, 100),
        # Stored without the bar that the metadata describe, or the bar was cut off.
        ((100, 160), 1, None),
        # Scaled after recording, with and without bar, and with rounded heights.
        ((60, 80), 2, 50),
        ((50, 80), 2, None),
        ((240, 320), 0.5, 200),
        ((52, 70), 160 / 70, 44),
        # Rows were cut off: where the bar is, the metadata do not tell.
        ((110, 160), 1, None),
        ((119, 160), 1, None),
        ((80, 80), None, None),
    ],
)
def test_fei_image_against_what_was_recorded(tmp_path: Path, shape, factor, bar):
    file = read_image(fei_image(tmp_path / "a.tif", shape))
    assert file.data_bar == bar
    if factor is None:
        assert not file.pixel_size.is_physical
    else:
        sizes = file.pixel_size.y, file.pixel_size.x
        assert sizes == pytest.approx((0.0025 * factor, 0.0020345 * factor))


def test_fei_without_the_size_of_the_image(tmp_path: Path):
    text = FEI.replace("ResolutionX=160", "ResolutionX=").replace("ResolutionY=100\r\n", "")
    assert read_image(fei_image(tmp_path / "a.tif", (110, 160), text)).data_bar == 90


def test_phenom_xml(tmp_path: Path):
    text = (
        '<?xml version="1.0"?><FeiImage><databarHeight>24</databarHeight>'
        '<pixelWidth unit="nm">52.4</pixelWidth><pixelHeight unit="nm">52.4</pixelHeight>'
        "</FeiImage>"
    )
    file = read_image(write_tag(tmp_path / "a.tif", 34683, text))
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((0.0524, 0.0524))
    assert file.data_bar == 96


def test_thermo_xml(tmp_path: Path):
    text = (
        '<Metadata><BinaryResult><PixelSize><X unit="m">1.5E-08</X><Y unit="m">1.6E-08</Y>'
        "</PixelSize></BinaryResult></Metadata>"
    )
    path = write_tag(tmp_path / "a.tif", 34683, text)
    assert micrometres(path) == pytest.approx((0.016, 0.015))


def zeiss(entry: str) -> str:
    unnamed = ["0", "0", "0", "7.27e-008", "1.5", "0"]
    named = ["AP_MAG", "Mag =  10.00 K X", entry, "DP_DETECTOR_CHANNEL", "Signal A = InLens"]
    return "\r\n".join([*unnamed, *filter(None, named), ""])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 12.3 nm", 0.0123),
        ("AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size =  558.2 pm", 0.0005582),
        ("AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 1.117 µm", 1.117),
        ("", 0.0727 * 1024 / 160),
    ],
)
def test_zeiss(tmp_path: Path, entry: str, expected: float):
    path = write_tag(tmp_path / "a.tif", 34118, zeiss(entry))
    assert micrometres(path) == pytest.approx((expected, expected))
    assert read_image(path).metadata["vendor"] == "Zeiss SmartSEM"


@pytest.mark.parametrize("prefix", ["DP", "AP"])
@pytest.mark.parametrize(
    ("named", "expected"),
    [("AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 12.3 nm", 0.0123), ("", 0.0727 * 1024 / 320)],
)
@pytest.mark.parametrize(
    ("stored", "factor"),
    [("320 * 240", 2), ("160 * 120", 1), ("160 * 200", 1), ("320 * 900", None)],
)
def test_zeiss_image_against_what_was_stored(
    tmp_path: Path, prefix: str, named: str, expected: float, stored: str, factor: float | None
):
    entry = f"{prefix}_IMAGE_STORE\r\nStore resolution = {stored}"
    path = write_tag(tmp_path / "a.tif", 34118, zeiss("\r\n".join(filter(None, [named, entry]))))
    file = read_image(path)
    if not named:
        expected *= 320 / int(stored[:3])
    assert file.data_bar is None
    if factor is None:
        assert not file.pixel_size.is_physical
    else:
        assert file.pixel_size.x == pytest.approx(expected * factor)


TESCAN = """[MAIN]
AccFrames=1
Company=Institute of Metals
Date=2018-11-22
Device=VEGA3 SBH
ImageStripSize=24
Magnification=5000
PixelSizeX=4.7e-08
PixelSizeY=4.8e-08
[SEM]
Detector=SE
HV=20000.0
"""


def tescan_tag() -> bytes:
    """Blocks of size, kind and content: a thumbnail, the main part, the beam, the end."""
    main, beam = (part.encode() for part in TESCAN.removeprefix("[MAIN]\n").split("[SEM]\n"))
    blocks = [(1, bytes(range(200))), (2, main), (3, beam), (0, b"")]
    return b"".join(struct.pack("<IH", len(body) + 2, kind) + body for kind, body in blocks)


@pytest.mark.parametrize("dtype", [BYTE, SIGNED])
def test_tescan_tag(tmp_path: Path, dtype: int):
    raw = np.frombuffer(tescan_tag(), np.uint8 if dtype == BYTE else np.int8)
    tag = (50431, dtype, len(raw), raw, True)
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, extratags=[tag], metadata=None)
    assert micrometres(tmp_path / "a.tif") == pytest.approx((0.048, 0.047))
    assert read_image(tmp_path / "a.tif").data_bar == 96


# --- beside the image ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "sidecar"),
    [("a.tif", "a.hdr"), ("a.tif", "a-tif.hdr"), ("a.png", "a-png.hdr"), ("a.png", "a.png.hdr")],
)
def test_tescan_sidecar(tmp_path: Path, image: str, sidecar: str):
    Image.fromarray(IMAGE).save(tmp_path / image)
    (tmp_path / sidecar).write_text(TESCAN)
    file = read_image(tmp_path / image)
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((0.048, 0.047))
    assert file.data_bar == 96
    assert file.metadata["fields"]["Device"] == "VEGA3 SBH"


JEOL = (
    "$CM_FORMAT JEOL/SEM\r\n$CM_VERSION 1.0\r\n$CM_INSTRUMENT JSM-7800F\r\n$CM_SIGNAL SEI\r\n"
    "$CM_MAG 5000\r\n$CM_FULL_SIZE {size}\r\n$$SM_MICRON_BAR 125\r\n$$SM_MICRON_MARKER {mark}\r\n"
)


@pytest.mark.parametrize("ending", ["tif", "jpg", "bmp"])
@pytest.mark.parametrize(
    ("mark", "expected"), [("1um", 0.008), ("500nm", 0.004), ("100μm", 0.8), ("1 mm", 8.0)]
)
def test_jeol_sidecar(tmp_path: Path, ending: str, mark: str, expected: float):
    Image.fromarray(IMAGE).save(tmp_path / f"a.{ending}")
    (tmp_path / "a.txt").write_text(JEOL.format(size="160 100", mark=mark), encoding="utf-8")
    file = read_image(tmp_path / f"a.{ending}")
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((expected, expected))
    assert file.data_bar == 100
    assert file.metadata["pixel_size_source"] == "JEOL"


def test_jeol_image_that_was_halved(tmp_path: Path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(JEOL.format(size="320 200", mark="1um"))
    file = read_image(tmp_path / "a.png")
    assert file.pixel_size.x == pytest.approx(0.016)
    assert file.data_bar == 100


HITACHI = (
    "[SemImageFile]\r\nInstructName=SU8000\r\nDataSize={size}\r\nPixelSize=24.8\r\n"
    "Magnification=4000\r\n"
)


@pytest.mark.parametrize("encoding", ["ascii", "utf-16", "utf-8-sig"])
def test_hitachi_sidecar(tmp_path: Path, encoding: str):
    Image.fromarray(IMAGE).save(tmp_path / "a.tif")
    (tmp_path / "a.txt").write_bytes(HITACHI.format(size="160x120").encode(encoding))
    file = read_image(tmp_path / "a.tif")
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((0.0248, 0.0248))
    assert file.data_bar is None
    assert file.metadata["vendor"] == "Hitachi"


def test_hitachi_image_that_was_cropped_to_other_proportions(tmp_path: Path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(HITACHI.format(size="1280x100"))
    assert not read_image(tmp_path / "a.png").pixel_size.is_physical


@pytest.mark.parametrize(
    "text",
    [
        "PixelSize=5\n",
        "nothing of interest",
        "[SemImageFile]\nPixelSize=\n",
        "[SemImageFile]\nPixelSize=nan\n",
        "$CM_MAG 10\n$$SM_MICRON_BAR 0\n$$SM_MICRON_MARKER 1um\n",
        "$CM_MAG 10\n$$SM_MICRON_BAR 50\n$$SM_MICRON_MARKER 1 parsec\n",
        "",
    ],
)
def test_sidecars_without_sense(tmp_path: Path, text: str):
    Image.fromarray(IMAGE).save(tmp_path / "a.tif")
    (tmp_path / "a.txt").write_text(text)
    assert not read_image(tmp_path / "a.tif").pixel_size.is_physical


def test_sidecar_of_a_slice_counts_for_the_stack(tmp_path: Path):
    for i in range(3):
        Image.fromarray(IMAGE).save(tmp_path / f"{i}.tif")
        (tmp_path / f"{i}.txt").write_text(HITACHI.format(size="160x120"))
    assert read_image(tmp_path).pixel_size.x == pytest.approx(0.0248)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((960, 1280), (0.01, None)),
        ((1024, 1280), (0.01, 960)),
        ((480, 640), (0.02, None)),
        ((512, 640), (0.02, 480)),
        ((500, 1280), (0.01, None)),
        ((960, 640), (None, None)),
    ],
)
def test_fit_to_the_image(shape: tuple[int, int], expected):
    vendor = VendorMetadata("any", (0.01, 0.01), image_shape=(960, 1280))
    size, rows = vendor.fit_to(*shape)
    assert (None if size is None else pytest.approx(size[1]), rows) == expected


# --- ImageJ, OME and plain resolution --------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("micron", 1), ("um", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3), ("cm", 1e4)],
)
def test_imagej(tmp_path: Path, unit: str, factor: float):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.stack([IMAGE] * 3),
        imagej=True,
        resolution=(40, 50),
        metadata={"unit": unit, "spacing": 0.2, "axes": "ZYX"},
    )
    file = read_image(tmp_path / "a.tif")
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((0.02 * factor, 0.025 * factor))
    assert file.z_size == pytest.approx(0.2 * factor)
    assert file.metadata["pixel_size_source"] == "ImageJ metadata"


@pytest.mark.parametrize("unit", ["pixel", "", "inch"])
def test_imagej_without_physical_unit(tmp_path: Path, unit: str):
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE, imagej=True, resolution=(0, 0), metadata={"unit": unit}
    )
    assert not read_image(tmp_path / "a.tif").pixel_size.is_physical


def test_ome(tmp_path: Path):
    sizes = {"PhysicalSizeX": 25.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.03}
    depth = {"PhysicalSizeZ": 0.0002, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.stack([IMAGE] * 3),
        metadata={"axes": "ZYX", **sizes, **depth},
    )
    file = read_image(tmp_path / "a.ome.tif")
    assert (file.pixel_size.y, file.pixel_size.x) == pytest.approx((0.03, 0.025))
    assert file.z_size == pytest.approx(0.2)


@pytest.mark.parametrize("dpi", [72, 96, 300, 600, 1200, 2400])
@pytest.mark.parametrize("ending", ["tif", "png", "jpg", "bmp"])
def test_print_resolutions_are_no_pixel_size(tmp_path: Path, dpi: int, ending: str):
    Image.fromarray(IMAGE).save(tmp_path / f"a.{ending}", dpi=(dpi, dpi))
    assert not read_image(tmp_path / f"a.{ending}").pixel_size.is_physical


@pytest.mark.parametrize(("unit", "factor"), [("CENTIMETER", 1e4), ("INCH", 25_400)])
def test_plain_resolution_of_a_microscope(tmp_path: Path, unit: str, factor: float):
    tifffile.imwrite(
        tmp_path / "a.tif",
        IMAGE,
        metadata=None,
        resolution=(factor / 0.05, factor / 0.04),
        resolutionunit=unit,
    )
    assert micrometres(tmp_path / "a.tif") == pytest.approx((0.04, 0.05), rel=1e-5)


def test_resolution_without_a_unit_is_no_pixel_size(tmp_path: Path):
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE, metadata=None, resolution=(2e5, 2e5), resolutionunit="NONE"
    )
    assert not read_image(tmp_path / "a.tif").pixel_size.is_physical


def test_vendor_counts_more_than_resolution_tags(tmp_path: Path):
    path = write_tag(
        tmp_path / "a.tif", 34682, FEI, resolution=(1e6, 1e6), resolutionunit="CENTIMETER"
    )
    assert micrometres(path) == pytest.approx((0.0025, 0.0020345))
