"""Overlays colour objects, outline them and carry a scale bar of the right length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.formats.overlay import (
    PALETTE,
    OverlayConfig,
    render_overlay,
    round_length,
    save_overlay_png,
)

RGB = np.full((300, 400, 3), 100, np.uint8)
LABELS = np.zeros((300, 400), np.int32)
LABELS[20:80, 30:90] = 1
LABELS[20:80, 90:150] = 2


def saved(path: Path, *args, **kwargs) -> np.ndarray:
    save_overlay_png(path, *args, **kwargs)
    return np.asarray(Image.open(path))


def test_colours_and_contours(tmp_path: Path):
    picture = saved(tmp_path / "a.png", RGB, LABELS, config=OverlayConfig(opacity=0.5))
    assert picture.shape == RGB.shape
    np.testing.assert_array_equal(picture[200:], 100)
    np.testing.assert_array_equal(picture[50, 60], (PALETTE[0].astype(int) + 100 + 1) // 2)
    np.testing.assert_array_equal(picture[50, 30], PALETTE[0])
    np.testing.assert_array_equal(picture[50, 89], PALETTE[0])
    np.testing.assert_array_equal(picture[50, 90], PALETTE[1])
    np.testing.assert_array_equal(picture[50, 29], 100)


def test_switches():
    plain = render_overlay(RGB, LABELS, OverlayConfig(contour=False, opacity=0))
    np.testing.assert_array_equal(plain, RGB)
    full = render_overlay(RGB, LABELS, OverlayConfig(contour=False, opacity=1))
    np.testing.assert_array_equal(full[LABELS == 2], np.broadcast_to(PALETTE[1], (3600, 3)))


def test_work_in_strips_leaves_no_seams(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 5, (30, 40)), np.ones((10, 10), int))
    whole = render_overlay(RGB, labels, OverlayConfig())
    monkeypatch.setattr("phasesam.formats.overlay._ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(render_overlay(RGB, labels, OverlayConfig()), whole)


@pytest.mark.parametrize("pixel", [0.0123, 0.4, 7.0])
def test_scale_bar_has_the_length_it_claims(tmp_path: Path, pixel: float):
    picture = saved(tmp_path / "a.png", RGB, LABELS * 0, PixelSize(pixel, pixel, "um"))
    length, _text = round_length(0.2 * 400 * pixel)
    white = (picture == 255).all(axis=-1)
    longest_run = max(int(row.sum()) for row in white[-40:])
    assert longest_run == pytest.approx(length / pixel, abs=1)


def test_no_scale_bar_without_length_or_room(tmp_path: Path):
    np.testing.assert_array_equal(saved(tmp_path / "a.png", RGB, LABELS * 0), RGB)
    size = PixelSize(1, 1, "um")
    off = OverlayConfig(scale_bar=False)
    np.testing.assert_array_equal(saved(tmp_path / "a.png", RGB, LABELS * 0, size, off), RGB)
    tiny = RGB[:20, :30]
    np.testing.assert_array_equal(saved(tmp_path / "a.png", tiny, LABELS[:20, :30] * 0, size), tiny)


@pytest.mark.parametrize(
    ("longest", "length", "text"),
    [
        (0.0003, 0.0002, "0.2 nm"),
        (0.024, 0.02, "20 nm"),
        (0.99, 0.5, "500 nm"),
        (1.0, 1.0, "1 µm"),
        (49, 20, "20 µm"),
        (999, 500, "500 µm"),
        (6000, 5000, "5 mm"),
    ],
)
def test_round_lengths(longest: float, length: float, text: str):
    assert round_length(longest) == (pytest.approx(length), text)


def test_impossible_input(tmp_path: Path):
    with pytest.raises(InvalidMaskError, match=r"labels of shape \(300, 400\)"):
        save_overlay_png(tmp_path / "a.png", RGB, LABELS[1:])
    with pytest.raises(InvalidMaskError, match="uint8 image"):
        save_overlay_png(tmp_path / "a.png", RGB.astype(float), LABELS)
    with pytest.raises(InvalidSettingError, match="opacity"):
        OverlayConfig(opacity=2)
    with pytest.raises(InvalidSettingError, match="known unit"):
        save_overlay_png(tmp_path / "a.png", RGB, LABELS, PixelSize(1, 1, "parsec"))
    assert list(tmp_path.iterdir()) == []
