from dataclasses import replace

import numpy as np
import pytest

from phasesam.simulation.particle_shapes import Ellipsoid, Particle
from phasesam.simulation.particle_surface import Surface, Texture, render_surface
from phasesam.simulation.sem_imaging import (
    SemDetector,
    SemScan,
    carbon_tape,
    charge,
    hollow_depth,
    scan_image,
    topographic_signal,
)

QUIET = SemScan(dose=100.0, beam_diameter=0.01, line_jitter=0.0, line_noise=0.0)


def plain(surface):
    zero = np.zeros_like(surface.height)
    return Texture(zero, zero, zero)


def flat(shape=(40, 50)):
    normal = np.zeros((3, *shape), np.float32)
    normal[2] = 1.0
    return Surface(
        np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.ones(shape, np.uint8), normal
    )


def test_a_flat_open_surface_gives_one():
    surface = flat()
    np.testing.assert_allclose(
        topographic_signal(surface, plain(surface), 0.5, SemDetector()), 1.0, atol=1e-5
    )


def test_a_sphere_brightens_towards_its_limb_and_towards_the_detector():
    body = Ellipsoid(np.zeros(3), np.eye(3) * 10.0)
    surface = render_surface(
        [Particle((body,), 10.0, np.array([12.0, 12.0, 10.0]))], (240, 240), 0.1
    )
    detector = SemDetector(direction=0.0, shadowing=0.0)
    signal = topographic_signal(surface, plain(surface), 0.1, detector)
    row = signal[120, 20:220]
    rho = np.abs(np.arange(20, 220) + 0.5 - 120) / 100
    symmetric = 0.5 * (row + row[::-1])
    assert symmetric[rho < 0.05].mean() == pytest.approx(1.0, abs=0.01)
    assert (np.diff(symmetric[100:198]) > 0).all()
    # 1 / cos θ at 60° is 2.
    at_60 = float(np.interp(np.sin(np.pi / 3), rho[100:], symmetric[100:]))
    assert at_60 == pytest.approx(1.0 + 0.78 / np.sqrt(2.0), rel=0.02)
    assert row[180] > 1.1 * row[20]


def test_gaps_are_hollow_and_the_open_is_not():
    height = np.full((60, 60), 20.0, np.float32)
    height[:, 28:32] = 0.0
    hollow = hollow_depth(height, 0.5)
    assert hollow[30, 30] > 0.5
    assert hollow[30, 2] == pytest.approx(0.0, abs=1e-3)


def test_charged_regions_glow_and_leave_tails_along_the_scan_only():
    signal = np.full((20, 200), 0.2, np.float32)
    signal[8:12, 60:80] = 1.5
    charged = np.zeros_like(signal)
    charged[8:12, 60:80] = 1.0
    changed = charge(signal, charged, 0.4, 14.0)
    assert (changed[8:12, 60:80] > 1.2 * 1.5).all()
    np.testing.assert_array_equal(changed[:8], signal[:8])
    np.testing.assert_array_equal(changed[12:], signal[12:])
    np.testing.assert_array_equal(changed[:, :60], signal[:, :60])
    assert abs(changed[10, 110] - 0.2) > 5 * abs(changed[10, 195] - 0.2)


@pytest.mark.parametrize("dose", [40.0, 400.0])
def test_noise_follows_the_dose(dose):
    signal = np.full((200, 200), 0.5, np.float32)
    image = scan_image(np.random.default_rng(0), signal, 0.4, replace(QUIET, dose=dose))
    assert image[:, 5:].mean() == pytest.approx(0.5, rel=0.01)
    # The amplifier smooths a little: var = (0.95² / (1 - 0.05²)) · mean / dose.
    assert image[:, 5:].var() == pytest.approx(0.9048 * 0.5 / dose, rel=0.05)


def test_line_jitter_moves_lines_by_less_than_half_a_pixel():
    ramp = np.tile(np.arange(100, dtype=np.float32), (80, 1))
    scan = replace(QUIET, dose=1e9, line_jitter=0.2)
    image = scan_image(np.random.default_rng(0), ramp, 0.4, scan)
    shift = (image - ramp)[:, 20:80].mean(axis=1)
    assert 0.1 < shift.std() < 0.4
    assert np.abs(shift).max() < 0.6


def test_line_noise_changes_whole_lines():
    signal = np.ones((120, 120), np.float32)
    scan = replace(QUIET, dose=1e9, line_noise=0.05)
    image = scan_image(np.random.default_rng(0), signal, 0.4, scan)
    assert image.mean(axis=1).std() > 0.02
    assert image[:, 10:].std(axis=1).max() < 1e-3


def test_the_tape_is_dark():
    tape = carbon_tape(np.random.default_rng(0), (100, 120), 0.4)
    assert tape.min() > 0.0
    assert tape.mean() == pytest.approx(0.15, abs=0.03)
    assert np.percentile(tape, 99) < 0.35
