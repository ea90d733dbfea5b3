"""Receiver: the chopped pair and the extended source, each against the plain beam it is made of."""

import itertools
import math

import numpy as np
import pytest
import torch

from ooftorch.optics import farfield
from ooftorch.optics.received_power import ReceivedPower
from ooftorch.optics.receiver import Receiver

WAVELENGTH = 2e-3
PITCH = 0.7
NY, NX = 14, 12
BEAM = WAVELENGTH / (NX * PITCH)  # about the width of the beam
LIKE = torch.zeros((), dtype=torch.float64)
X = (np.arange(NX) - NX // 2) * PITCH
Y = (np.arange(NY) - NY // 2) * PITCH


def coma_field(*batch, seed=0):
    """A tapered aperture (..., NY, NX, 2) with coma and some noise: its beam has no symmetry."""
    x, y = np.meshgrid(X / X.max(), Y / Y.max())
    rng = np.random.default_rng(seed)
    field = np.exp(-(x**2) - 0.7 * y**2 + 1j * (1.5 * (x**2 + y**2) * x + y**3 - x * y))
    field = field * (1 + 0.1 * rng.standard_normal((*batch, NY, NX)))
    return torch.view_as_real(torch.as_tensor(field))


def received(receiver, u, v, field, gain_ratio=None):
    return ReceivedPower(receiver, X, Y, u, v, WAVELENGTH, like=LIKE)(field, gain_ratio)


def plain(u, v, field):
    return received(Receiver(), u, v, field)


def scattered(n=20, reach=2.0, seed=1):
    return np.random.default_rng(seed).uniform(-reach, reach, (2, n)) * BEAM


def grid(n=9, reach=2.0):
    u, v = np.meshgrid(np.linspace(-reach, reach, n), np.linspace(-reach, reach, n - 2))
    return np.stack([u.ravel(), v.ravel()]) * BEAM


def assert_same(found, expected, field, tolerance=1e-12):
    peak = float(plain(*grid(), field).max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * peak)


def test_a_plain_beam_is_the_squared_far_field():
    field, (u, v) = coma_field(), scattered()
    far = farfield.DirectTransform(X, Y, u, v, WAVELENGTH, like=LIKE)(field)
    assert_same(plain(u, v, field), far.square().sum(-1), field)


@pytest.mark.parametrize("directions", [scattered(), grid()], ids=["scattered", "grid"])
@pytest.mark.parametrize(("hx", "hy"), [(1.5, 0.0), (0.0, -0.8), (-1.2, 0.7)])
@pytest.mark.parametrize("g", [1, 0.8, 2.0])
def test_chopped_pair_is_a_weighted_difference(directions, hx, hy, g):
    field, (u, v) = coma_field(), directions
    hx, hy = hx * BEAM, hy * BEAM
    positive, negative = plain(u - hx / 2, v - hy / 2, field), plain(u + hx / 2, v + hy / 2, field)
    expected = positive / math.sqrt(g) - negative * math.sqrt(g)
    receiver = Receiver(chop_x=hx, chop_y=hy, gain_ratio=g)
    assert_same(received(receiver, u, v, field), expected, field)
    # A ratio given later replaces the receiver's.
    other = Receiver(chop_x=hx, chop_y=hy, gain_ratio=7.0)
    assert_same(received(other, u, v, field, g), expected, field)
    assert_same(received(other, u, v, field, torch.tensor([g], dtype=torch.float64)), expected, field)


def test_chopping_is_a_tilt_of_the_aperture_each_way():
    # The original software's form: the field with the phase +-k(x h + y v)/2.
    field, (u, v) = coma_field(), scattered()
    hx, hy = 1.3 * BEAM, -0.4 * BEAM
    x, y = np.meshgrid(X, Y)
    half = torch.as_tensor(math.pi / WAVELENGTH * (x * hx + y * hy))
    beams = [
        plain(u, v, torch.view_as_real(torch.view_as_complex(field) * torch.exp(sign * 1j * half)))
        for sign in (1, -1)
    ]
    found = received(Receiver(chop_x=hx, chop_y=hy), u, v, field)
    assert_same(found, beams[0] - beams[1], field)
    assert float((found + beams[0] - beams[1]).abs().max()) > 0.1 * float(beams[0].max())


def test_the_positive_beam_is_at_plus_half_and_the_ratio_is_negative_over_positive():
    field, g = coma_field(), 0.6
    hx, hy = 6.0 * BEAM, 2.0 * BEAM  # far apart: each beam alone, but for a side lobe of the other
    u, v = grid(n=41, reach=5)
    power = received(Receiver(chop_x=hx, chop_y=hy, gain_ratio=g), u, v, field)
    high, low = int(power.argmax()), int(power.argmin())
    peak = int(plain(u, v, field).argmax())  # not at zero: coma
    assert u[high] - u[peak] == pytest.approx(hx / 2, abs=0.3 * BEAM)
    assert v[high] - v[peak] == pytest.approx(hy / 2, abs=0.3 * BEAM)
    assert u[low] - u[peak] == pytest.approx(-hx / 2, abs=0.3 * BEAM)
    assert v[low] - v[peak] == pytest.approx(-hy / 2, abs=0.3 * BEAM)
    assert float(-power[low] / power[high]) == pytest.approx(g, rel=0.05)
    assert not Receiver(disc_radius=1.0).chopped


def mean_over_disc(radius, u, v, field):
    """Gauss-Legendre in the square of the distance, equal steps in angle."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    distance = radius * np.sqrt((nodes + 1) / 2)
    angles = 2 * np.pi * np.arange(32) / 32
    return sum(
        w / 2 * plain(u - r * math.cos(a), v - r * math.sin(a), field) / len(angles)
        for (r, w), a in itertools.product(zip(distance, weights, strict=True), angles)
    )


@pytest.mark.parametrize("directions", [scattered(), grid()], ids=["scattered", "grid"])
@pytest.mark.parametrize("radius", [0.2, 0.9])
def test_disc_source_is_the_mean_over_the_disc(directions, radius):
    field, radius = coma_field(), radius * BEAM
    expected = mean_over_disc(radius, *directions, field)
    assert_same(received(Receiver(disc_radius=radius), *directions, field), expected, field)
    assert float((plain(*directions, field) - expected).abs().max()) > 0.01 * float(expected.max())


@pytest.mark.parametrize(("ny", "nx"), [(7, 7), (6, 9), (9, 6), (8, 8)])
def test_disc_source_on_rasters_of_any_shape(ny, nx):
    x, y = (np.arange(nx) - 2) * PITCH, (np.arange(ny) - 3) * PITCH
    field = torch.as_tensor(np.random.default_rng(ny).standard_normal((ny, nx, 2)))
    u, v = scattered()
    small, point = Receiver(disc_radius=1e-7 * BEAM), Receiver()
    found, expected = (ReceivedPower(r, x, y, u, v, WAVELENGTH, like=LIKE)(field) for r in (small, point))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.max()))


def test_a_small_disc_approaches_the_point_as_the_square_of_its_radius():
    field, (u, v) = coma_field(), grid()
    point = plain(u, v, field)
    error = [
        float((received(Receiver(disc_radius=r * BEAM), u, v, field) - point).abs().max())
        for r in (0.02, 0.01)
    ]
    assert error[0] / error[1] == pytest.approx(4, rel=0.01)


def test_a_disc_keeps_the_flux():
    # Steps fine enough for every baseline, over the whole period of the pixels: the sum is exact.
    n = 2 * NY
    step = farfield.sky_pitch(WAVELENGTH, n, PITCH)
    u, v = (a.ravel() for a in np.meshgrid(*2 * [(np.arange(n) - n // 2) * step]))
    field = coma_field()
    for receiver in (Receiver(), Receiver(disc_radius=0.3 * BEAM), Receiver(disc_radius=1.1 * BEAM)):
        flux = received(receiver, u, v, field).sum()
        torch.testing.assert_close(flux, n**2 * field.square().sum(), rtol=1e-12, atol=0)


def test_a_chopped_disc_is_both():
    field, (u, v) = coma_field(), scattered()
    hx, hy, radius, g = 1.3 * BEAM, 0.5 * BEAM, 0.6 * BEAM, 1.7
    disc = Receiver(disc_radius=radius)
    expected = received(disc, u - hx / 2, v - hy / 2, field) / math.sqrt(g)
    expected = expected - received(disc, u + hx / 2, v + hy / 2, field) * math.sqrt(g)
    both = Receiver(chop_x=hx, chop_y=hy, gain_ratio=g, disc_radius=radius)
    assert_same(received(both, u, v, field), expected, field)


RECEIVERS = {
    "plain": Receiver(),
    "chopped": Receiver(chop_x=1.3 * BEAM, gain_ratio=0.8),
    "disc": Receiver(disc_radius=0.4 * BEAM),
    "chopped disc": Receiver(chop_x=1.3 * BEAM, chop_y=0.2 * BEAM, disc_radius=0.4 * BEAM),
}


@pytest.mark.parametrize("name", RECEIVERS)
def test_gradients(name):
    x, y = X[:4], Y[:3]
    power = ReceivedPower(RECEIVERS[name], x, y, *scattered(5), WAVELENGTH, like=LIKE)
    field = coma_field()[5:8, 4:8].clone().requires_grad_()
    ratio = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(power, (field, ratio))


@pytest.mark.parametrize("name", RECEIVERS)
def test_batches_come_first(name):
    field, (u, v) = coma_field(2, 3), grid()
    ratio = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).reshape(2, 3, 1)
    power = ReceivedPower(RECEIVERS[name], X, Y, u, v, WAVELENGTH, like=LIKE)
    found = power(field, ratio)
    assert found.shape == (2, 3, len(u))
    for i, j in itertools.product(range(2), range(3)):
        assert_same(found[i, j], power(field[i, j], ratio[i, j]), field[i, j])


def point(name, *batch, directions=None):
    """The power at a field, that field, a change of it, and random weights of the samples."""
    u, v = scattered() if directions is None else directions
    power = ReceivedPower(RECEIVERS[name], X, Y, u, v, WAVELENGTH, like=LIKE)
    field, change = coma_field(*batch), coma_field(*batch, seed=3)
    # Not along the field: neither its size nor its phase alone.
    change = torch.view_as_real(torch.view_as_complex(change) * torch.exp(torch.as_tensor(1j * X / 3)))
    weights = torch.as_tensor(np.random.default_rng(4).standard_normal((*batch, len(u))))
    return power, field, change, weights


DIRECTIONS = pytest.mark.parametrize("directions", [scattered(), grid()], ids=["scattered", "grid"])


@DIRECTIONS
@pytest.mark.parametrize("name", RECEIVERS)
def test_vjp_is_the_gradient(name, directions):
    for batch in ((), (2, 3)):
        power, field, _, weights = point(name, *batch, directions=directions)
        ratio = torch.linspace(0.5, 1.5, math.prod(batch), dtype=torch.float64).reshape(*batch, 1)
        at = field.clone().requires_grad_()
        (expected,) = torch.autograd.grad((power(at, ratio) * weights).sum(), at)
        found = power.at(field, ratio).vjp(weights)
        assert found.shape == field.shape
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@DIRECTIONS
@pytest.mark.parametrize("name", RECEIVERS)
def test_jvp_is_the_change(name, directions):
    power, field, change, _ = point(name, 2, directions=directions)
    step = 1e-3
    # The power is quadratic in the field: a two-sided difference is exact but for rounding.
    expected = (power(field + step * change) - power(field - step * change)) / (2 * step)
    found = power.at(field).jvp(change)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("name", RECEIVERS)
def test_vjp_is_the_adjoint_of_jvp(name):
    power, field, change, weights = point(name, 2, 3)
    ratio = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).reshape(2, 3, 1)
    at = power.at(field, ratio)
    backward, forward = (at.vjp(weights) * change).sum((-3, -2, -1)), (weights * at.jvp(change)).sum(-1)
    assert forward.shape == (2, 3)
    torch.testing.assert_close(backward, forward, rtol=1e-11, atol=1e-11 * float(forward.abs().max()))
    # Along the field itself the power grows by twice itself; along its phase not at all.
    torch.testing.assert_close(at.jvp(field), 2 * at.power)
    turned = torch.view_as_real(1j * torch.view_as_complex(field))
    assert float(at.jvp(turned).abs().max()) < 1e-12 * float(at.power.abs().max())


@pytest.mark.parametrize("name", RECEIVERS)
def test_changes_may_have_more_dimensions_than_the_field(name):
    """Columns of a Jacobian come first, before the dimensions of the field."""
    power, field, _, _ = point(name, 2)
    changes = coma_field(4, 2, seed=5)
    ratio = torch.tensor([[0.8], [1.3]], dtype=torch.float64)
    found = power.at(field, ratio).jvp(changes)
    assert found.shape == (4, 2, 20)
    for i, j in itertools.product(range(4), range(2)):
        assert_same(found[i, j], power.at(field[j], ratio[j]).jvp(changes[i, j]), field[j])


@pytest.mark.parametrize("name", [name for name, r in RECEIVERS.items() if r.chopped])
def test_derivative_by_the_logarithm_of_the_ratio(name):
    power, field, _, _ = point(name, 3)
    ratio, step = torch.tensor([[0.6], [1.0], [1.7]], dtype=torch.float64), 1e-5
    expected = (power(field, ratio * math.exp(step)) - power(field, ratio * math.exp(-step))) / (2 * step)
    found = power.at(field, ratio).log_ratio_derivative()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
    assert (found <= 0).all()  # more of the negative beam, less of the positive


# -------------------------------------------------------------------------------------------- smeared samples


SMEARED = pytest.mark.parametrize("alike", [True, False], ids=["alike", "each another"])


def smear(n, alike):
    """A vector of half a beam for every sample, all the same or in all directions."""
    angle = np.full(n, 0.3) if alike else np.random.default_rng(7).uniform(0, 2 * np.pi, n)
    return 0.5 * BEAM * np.stack([np.cos(angle), np.sin(angle)])


@SMEARED
@DIRECTIONS
@pytest.mark.parametrize("name", RECEIVERS)
def test_smeared_samples_are_means_over_the_way(name, directions, alike):
    """Against 16 points of it; the way from end to end, not half of it, and centred."""
    field, (u, v) = coma_field(), directions
    way = smear(len(u), alike)
    power = ReceivedPower(RECEIVERS[name], X, Y, u, v, WAVELENGTH, smear=way, like=LIKE)(field, 0.7)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    expected = sum(
        w / 2 * received(RECEIVERS[name], u + t / 2 * way[0], v + t / 2 * way[1], field, 0.7)
        for t, w in zip(nodes, weights, strict=True)
    )
    assert_same(power, expected, field, 1e-4)
    moved = float((received(RECEIVERS[name], u, v, field, 0.7) - expected).abs().max())
    assert moved > 0.01 * float(plain(*grid(), field).max())


def test_three_points_suffice_for_a_way_of_a_beam():
    field, (u, v) = coma_field(), grid(n=25, reach=3)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    for angle in (0.0, 0.7, np.pi / 2):
        across = PITCH * (NX * np.cos(angle) + NY * np.sin(angle))  # the aperture, in that direction
        way = WAVELENGTH / across * np.cos(angle), WAVELENGTH / across * np.sin(angle)
        expected = sum(
            w / 2 * plain(u + t / 2 * way[0], v + t / 2 * way[1], field)
            for t, w in zip(nodes, weights, strict=True)
        )
        each = np.outer(way, np.ones(len(u)))
        found = ReceivedPower(Receiver(), X, Y, u, v, WAVELENGTH, smear=each, like=LIKE)(field)
        assert_same(found, expected, field, 1e-3)


@SMEARED
@DIRECTIONS
@pytest.mark.parametrize("name", RECEIVERS)
def test_derivatives_of_smeared_samples(name, directions, alike):
    u, v = directions
    way = smear(len(u), alike)
    power = ReceivedPower(RECEIVERS[name], X, Y, u, v, WAVELENGTH, smear=way, like=LIKE)
    _, field, change, weights = point(name, 2, directions=directions)
    ratio = torch.tensor([[0.8], [1.3]], dtype=torch.float64)
    at = power.at(field, ratio)
    step = 1e-3
    expected = (power(field + step * change, ratio) - power(field - step * change, ratio)) / (2 * step)
    scale = float(expected.abs().max())
    torch.testing.assert_close(at.jvp(change), expected, rtol=0, atol=1e-10 * scale)
    own = field.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((power(own, ratio) * weights).sum(), own)
    assert at.vjp(weights).shape == field.shape
    torch.testing.assert_close(at.vjp(weights), gradient, rtol=0, atol=1e-12 * float(gradient.abs().max()))
    if RECEIVERS[name].chopped:
        by_log = (power(field, ratio * 1.001) - power(field, ratio / 1.001)) / (2 * math.log(1.001))
        torch.testing.assert_close(at.log_ratio_derivative(), by_log, rtol=0, atol=1e-6 * scale)


def test_a_regular_map_that_is_smeared_alike_stays_regular():
    """No sum over scattered directions, which costs many times as much."""
    u, v = (a.ravel() for a in np.meshgrid(*2 * [np.linspace(-2, 2, 41) * BEAM]))
    x = (np.arange(64) - 32) * PITCH / 4
    for way in ((BEAM, 0.0), (0.0, BEAM)):
        each = np.outer(way, np.ones(len(u)))
        power = ReceivedPower(Receiver(), x, x, u, v, WAVELENGTH, smear=each, like=LIKE)
        plain_one = ReceivedPower(Receiver(), x, x, u, v, WAVELENGTH, like=LIKE)
        (one,), (other,) = (
            [t.shape for t in p.tensors() if t.is_complex() and t.ndim == 2][:1] for p in (power, plain_one)
        )
        assert max(one) <= 3 * max(other), "kernels of the rows and columns, not of every sample"
