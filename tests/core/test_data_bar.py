"""The data bar is found to the row, and nothing else is taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from phasesam.core.data_bar import detect_data_bar
from phasesam.core.errors import InvalidImageError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
REAL_SETS = [
    "ampis_powder",
    "uhcs_spheroidite",
    "nasa_superalloy",
    "nasa_ebc",
    "nasa_meltpool_val",
]


# --- bars as the vendors draw them -----------------------------------------------------------


def canvas(height: int, width: int, grey: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("L", (width, height), grey)
    return picture, ImageDraw.Draw(picture)


def write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, grey: int, size: int) -> None:
    draw.text((x, y), text, fill=grey, font=ImageFont.load_default(size=size))


def thermo_bar(width: int) -> np.ndarray:
    picture, draw = canvas(60, width, 0)
    draw.rectangle((0, 0, width - 1, 59), outline=255)
    cells = [("HV", "15.00 kV"), ("mag", "5 000 x"), ("det", "ETD"), ("WD", "10.1 mm")]
    for i, (name, value) in enumerate(cells):
        x = 10 + i * width // 7
        write(draw, x, 6, name, 255, 16)
        write(draw, x, 30, value, 255, 16)
        draw.line((x + width // 7 - 8, 0, x + width // 7 - 8, 60), fill=255)
    draw.line((0.7 * width, 20, 0.85 * width, 20), fill=255, width=2)
    write(draw, 0.75 * width, 30, "20 um", 255, 16)
    return np.asarray(picture)


def zeiss_bar(width: int) -> np.ndarray:
    picture, draw = canvas(70, width, 255)
    draw.line((0, 0, width, 0), fill=0)
    draw.line((20, 15, 120, 15), fill=0, width=2)
    write(draw, 40, 25, "2 um", 0, 18)
    lines = [("EHT =  5.00 kV", "WD =  4.9 mm"), ("Signal A = InLens", "Mag =  10.00 K X")]
    for i, (upper, lower) in enumerate(lines):
        write(draw, 170 + i * width // 3, 8, upper, 0, 17)
        write(draw, 170 + i * width // 3, 38, lower, 0, 17)
    return np.asarray(picture)


def tescan_bar(width: int) -> np.ndarray:
    picture, draw = canvas(96, width, 40)
    draw.line((0, 0, width, 0), fill=200)
    for row in range(3):
        for i, text in enumerate(["SEM HV: 20.0 kV", "WD: 15.02 mm", "VEGA3 TESCAN"]):
            write(draw, 12 + i * width // 3, 6 + row * 30, text, 230, 18)
    draw.line((0.4 * width, 40, 0.6 * width, 40), fill=230, width=2)
    return np.asarray(picture)


def jeol_bar(width: int) -> np.ndarray:
    picture, draw = canvas(64, width, 0)
    write(draw, 20, 20, "SEI   15.0kV   X5,000   WD 10.0mm", 255, 22)
    draw.line((0.7 * width, 40, 0.82 * width, 40), fill=255, width=4)
    write(draw, 0.73 * width, 8, "1um", 255, 22)
    return np.asarray(picture)


def hitachi_bar(width: int) -> np.ndarray:
    picture, draw = canvas(48, width, 0)
    write(draw, 10, 14, "S4800 5.0kV 8.2mm x10.0k SE(M) 3/12/2021", 255, 16)
    for tick in range(11):
        x = int(0.75 * width) + tick * int(0.02 * width)
        draw.line((x, 12, x, 20), fill=255, width=2)
    write(draw, 0.85 * width, 24, "5.00um", 255, 18)
    return np.asarray(picture)


BARS: list[Callable[[int], np.ndarray]] = [
    thermo_bar,
    zeiss_bar,
    tescan_bar,
    jeol_bar,
    hitachi_bar,
]


# --- micrographs -----------------------------------------------------------------------------


def grains(seed: int = 0, shape: tuple[int, int] = (480, 640), noise: float = 6) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=shape), 8)
    image = 110 + 60 * np.sign(image) * np.abs(image / image.std()) ** 0.5
    return (image + rng.normal(0, noise, shape)).clip(0, 255).astype(np.uint8)


def particles_on_black(seed: int = 0, shape: tuple[int, int] = (480, 640)) -> np.ndarray:
    """Bright discs on a background that is clipped to 0, as with too little brightness."""
    rng = np.random.default_rng(seed)
    image = rng.normal(-12, 8, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(60):
        cy, cx, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(8, 40)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        image[inside] = 150 + rng.normal(0, 12, int(inside.sum()))
    return image.clip(0, 255).astype(np.uint8)


MICROGRAPHS = [grains, particles_on_black]


def with_bar(micrograph: np.ndarray, bar: np.ndarray, kind: str) -> np.ndarray:
    image = np.vstack([micrograph, bar])
    if kind == "16-bit":
        return image.astype(np.uint16) * 257
    if kind == "float":
        return image.astype(np.float32) / 255
    if kind == "RGB":
        return np.dstack([image] * 3)
    if kind == "JPEG":
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75)
        return np.asarray(Image.open(file))
    return image


@pytest.mark.parametrize("kind", ["8-bit", "16-bit", "float", "RGB"])
@pytest.mark.parametrize("micrograph", MICROGRAPHS)
@pytest.mark.parametrize("bar", BARS)
def test_bar_is_found_to_the_row(bar, micrograph, kind: str):
    image = micrograph()
    assert detect_data_bar(with_bar(image, bar(image.shape[1]), kind)) == image.shape[0]


@pytest.mark.parametrize("shape", [(480, 640), (477, 644), (478, 1280), (960, 1281)])
def test_bar_in_jpeg(shape: tuple[int, int]):
    image = grains(3, shape)
    for bar in BARS:
        found = detect_data_bar(with_bar(image, bar(shape[1]), "JPEG"))
        assert found is not None
        assert abs(found - shape[0]) <= 2


def test_coloured_bar_and_coloured_image():
    bar = np.dstack([tescan_bar(640) // 3, tescan_bar(640) // 2, tescan_bar(640)])
    image = np.vstack([np.dstack([grains(1), grains(2), grains(3)]), bar])
    assert detect_data_bar(image) == 480


# --- nothing there ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("micrograph", MICROGRAPHS)
def test_no_bar_in_a_micrograph(micrograph, seed: int):
    image = micrograph(seed)
    for view in (image, image[:401], image[::-1], image.T):
        assert detect_data_bar(view) is None


def test_no_bar_in_images_without_noise():
    y, x = np.mgrid[:400, :500]
    disc = ((y - 200) ** 2 + (x - 250) ** 2 < 190**2).astype(np.uint8) * 200
    assert detect_data_bar(disc) is None
    assert detect_data_bar(np.full((400, 500), 7, np.uint8)) is None
    assert detect_data_bar((particles_on_black() > 0).astype(bool)) is None
    assert detect_data_bar((y + x).astype(np.float64)) is None


def test_plain_margin_without_writing_is_no_data_bar():
    image = np.vstack([grains(), np.zeros((60, 640), np.uint8)])
    assert detect_data_bar(image) is None


def test_flat_resin_with_dust_below_a_straight_coating_is_no_data_bar():
    rng = np.random.default_rng(0)
    resin = np.zeros((90, 640))
    y, x = np.mgrid[:90, :640]
    for _ in range(40):
        cy, cx, r = rng.uniform(5, 85), rng.uniform(0, 640), rng.uniform(1, 4)
        resin += rng.uniform(60, 250) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / r**2)
    image = np.vstack([grains(), resin.clip(0, 255).astype(np.uint8)])
    assert detect_data_bar(image) is None


def test_nan_and_tiny_images_are_no_trouble():
    assert detect_data_bar(np.full((200, 200), np.nan)) is None
    assert detect_data_bar(np.zeros((1, 1))) is None
    assert detect_data_bar(np.zeros((20_000, 3), np.uint8)) is None


def test_stack_is_refused():
    with pytest.raises(InvalidImageError, match="plane"):
        detect_data_bar(np.zeros((5, 100, 100)))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_SETS)
def test_no_bar_in_real_micrographs(name: str):
    paths = sorted((DATA / name / "images").glob("*")) if DATA.is_dir() else []
    if not paths:
        pytest.skip(f"development data not found in {DATA}")
    for path in paths:
        image = np.asarray(Image.open(path))
        for view in (image, image[: len(image) * 2 // 3], image[::-1], np.rot90(image)):
            assert detect_data_bar(view) is None, path.name


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_SETS)
def test_bar_below_real_micrographs(name: str):
    paths = sorted((DATA / name / "images").glob("*.png"))[:4] if DATA.is_dir() else []
    if not paths:
        pytest.skip(f"no 8-bit development data for {name} in {DATA}")
    for path in paths:
        image = np.asarray(Image.open(path))
        for bar in BARS:
            found = detect_data_bar(np.vstack([image, bar(image.shape[1])]))
            assert found == image.shape[0], (path.name, bar.__name__)
