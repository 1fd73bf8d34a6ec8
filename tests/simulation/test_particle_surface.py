import numpy as np
import pytest

from phasesam.simulation.particle_shapes import BODY, Ellipsoid, Particle
from phasesam.simulation.particle_surface import Surface, grain_texture, render_surface


def sphere(y, x, z, radius, kind=BODY):
    return Particle(
        (Ellipsoid(np.zeros(3), np.eye(3) * radius, kind),), radius, np.array([y, x, z])
    )


def test_a_sphere_has_the_height_and_normal_of_a_sphere():
    pixel = 0.25
    surface = render_surface([sphere(8.0, 10.0, 5.0, 5.0)], (64, 80), pixel)
    y, x = (np.indices((64, 80)) + 0.5) * pixel
    flat = (y - 8.0) ** 2 + (x - 10.0) ** 2
    inside = flat < 25.0
    assert ((surface.owner == 0) == inside).all()
    assert (surface.kind[~inside] == 0).all()
    expected = 5.0 + np.sqrt(25.0 - flat[inside])
    np.testing.assert_allclose(surface.height[inside], expected, rtol=1e-5)
    np.testing.assert_allclose(surface.normal[0][inside], (y - 8.0)[inside] / 5.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(surface.normal, axis=0), 1.0, atol=1e-5)
    assert (surface.normal[2][~inside] == 1.0).all()


def test_a_tilted_ellipsoid_covers_the_area_of_its_shadow():
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    body = Ellipsoid(np.zeros(3), turn * np.array([12.0, 6.0, 3.0]))
    particle = Particle((body,), 8.0, np.array([20.0, 20.0, 3.0]))
    surface = render_surface([particle], (200, 200), 0.2)
    assert np.count_nonzero(surface.owner == 0) * 0.04 == pytest.approx(np.pi * 72, rel=5e-3)
    assert surface.height.max() == pytest.approx(6.0, abs=1e-2)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_higher_particle_hides_the_lower_one_in_any_order(order):
    low, high = sphere(10.0, 8.0, 4.0, 4.0), sphere(10.0, 11.0, 11.0, 4.0)
    pair = [(low, high)[i] for i in order]
    surface = render_surface(pair, (80, 80), 0.25)
    top = order.index(1)
    y, x = (np.indices((80, 80)) + 0.5) * 0.25
    disc = (y - 10.0) ** 2 + (x - 11.0) ** 2 < 16.0
    assert (surface.owner[disc] == top).all()
    assert np.count_nonzero(surface.owner == 1 - top) > 0


def test_lobes_stay_inside_the_painted_window():
    body = sphere(10.0, 10.0, 5.0, 5.0)
    lobes = np.array([[0.1, 0.1], [0.3, 1.0]])
    particle = Particle(body.ellipsoids, 5.0, body.position, lobes)
    owner = render_surface([particle], (100, 100), 0.2).owner
    y, x = (np.indices(owner.shape) + 0.5) * 0.2 - 10.0
    angle = np.arctan2(y, x)
    outline = 1 + 0.1 * np.cos(2 * angle + 0.3) + 0.1 * np.cos(3 * angle + 1.0)
    assert ((owner == 0) == (np.hypot(y, x) < 5.0 * outline)).all()


def test_grain_texture_lies_on_particles_only_and_is_foreshortened():
    pixel = 0.1
    particle = sphere(16.0, 16.0, 15.0, 15.0)
    surface = render_surface([particle], (320, 320), pixel)
    texture = grain_texture(np.random.default_rng(0), surface, [particle], pixel, 2.0)
    off = surface.owner < 0
    assert not texture.ridge[off].any()
    assert not texture.facet[off].any()
    assert 0.0 <= texture.ridge.min() < texture.ridge.max() <= 1.0
    assert texture.dome.max() <= 1.0
    y, x = np.indices(off.shape) * pixel - 16.0

    def crossings(region, axis):
        changed = np.diff(texture.facet, axis=axis, prepend=0) != 0
        return np.count_nonzero(changed & region)

    middle = np.hypot(y, x) < 6.0
    limb = (np.abs(y) < 5.0) & (np.abs(x) > 12.5) & (np.abs(x) < 13.9)
    assert crossings(middle, 1) == pytest.approx(crossings(middle, 0), rel=0.3)
    assert crossings(limb, 1) > 1.5 * crossings(limb, 0)


def test_particles_out_of_the_field_leave_no_trace():
    surface = render_surface([sphere(-50.0, -50.0, 4.0, 4.0)], (20, 20), 1.0)
    assert isinstance(surface, Surface)
    assert (surface.owner == -1).all()
    assert not surface.height.any()
