import numpy as np
import pytest

from phasesam.simulation.particle_shapes import (
    AGGLOMERATE,
    BODY,
    SATELLITE,
    Ellipsoid,
    Particle,
    ShapeMix,
    drop_particles,
    make_particle,
    random_direction,
    random_rotation,
)


def spheres(radii):
    return [Particle((Ellipsoid(np.zeros(3), np.eye(3) * r),), r) for r in radii]


def test_rotations_are_rotations_and_directions_have_unit_length():
    rng = np.random.default_rng(0)
    for _ in range(20):
        turn = random_rotation(rng)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        direction = random_direction(rng, 0.2)
        assert np.linalg.norm(direction) == pytest.approx(1.0)
        assert direction[2] >= 0.2


def test_reach_of_an_ellipsoid_is_its_bounding_box():
    rng = np.random.default_rng(1)
    axes = random_rotation(rng) * np.array([3.0, 2.0, 1.0])
    ball = rng.standard_normal((200_000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    np.testing.assert_allclose(
        Ellipsoid(np.zeros(3), axes).reach, (ball @ axes.T).max(axis=0), rtol=2e-3
    )


@pytest.mark.parametrize(
    ("mix", "kind"),
    [
        (ShapeMix(0.0, 0.0, 1.0, 0.0), AGGLOMERATE),
        (ShapeMix(0.0, 1.0, 0.0, 0.0), BODY),
        (ShapeMix(1.0, 0.0, 0.0, 0.0), BODY),
    ],
)
def test_the_mix_decides_the_shape(mix, kind):
    particle = make_particle(np.random.default_rng(0), 12.0, mix)
    assert {ellipsoid.kind for ellipsoid in particle.ellipsoids} == {kind}
    assert particle.is_agglomerate == (kind == AGGLOMERATE)
    assert (len(particle.ellipsoids) == 1) == (mix.elongated == 1.0)


def test_satellites_touch_the_body():
    mix = ShapeMix(0.0, 0.0, 0.0, 4.0)
    particle = make_particle(np.random.default_rng(2), 15.0, mix)
    satellites = [e for e in particle.ellipsoids if e.kind == SATELLITE]
    assert satellites
    for satellite in satellites:
        gap = np.linalg.norm(satellite.centre) - 15.0
        assert gap < 1.3 * satellite.reach.max()


def test_settled_spheres_neither_overlap_nor_sink():
    rng = np.random.default_rng(0)
    placed = drop_particles(rng, spheres(rng.uniform(2.0, 9.0, 120)), (90.0, 120.0), 0.3)
    assert len(placed) > 60
    at = np.array([p.position for p in placed])
    radius = np.array([p.radius for p in placed])
    assert (at[:, 2] >= radius - 1e-9).all()
    apart = np.linalg.norm(at[:, None] - at[None], axis=2) - radius[:, None] - radius[None]
    assert apart[~np.eye(len(at), dtype=bool)].min() > -1e-6
    # Some rest on others: they are off the plate and touch one below.
    lifted = at[:, 2] > radius + 1e-6
    assert lifted.any()
    np.fill_diagonal(apart, np.inf)
    assert apart[lifted].min(axis=1) == pytest.approx(0.0, abs=1e-6)


def test_without_stacking_everything_lies_on_the_plate():
    rng = np.random.default_rng(0)
    placed = drop_particles(rng, spheres([5.0] * 60), (60.0, 60.0), 0.0)
    assert 0 < len(placed) < 60
    assert all(p.position[2] == p.radius for p in placed)
