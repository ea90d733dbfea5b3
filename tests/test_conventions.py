"""CONVENTIONS.md: one test, or a few, for each number."""

import itertools

import numpy as np
import pytest
import torch

from ooftorch import reference
from ooftorch.optics import farfield, telescopes, zernike
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel

WAVELENGTH = 3e-3
K = 2 * np.pi / WAVELENGTH
N, OVERSAMPLE = 32, 2.0
ORDER = 4
# Every mode, none of them alike, about 2 rad rms: symmetric aberrations hide every error of sign.
Z = 0.5 * np.random.default_rng(3).standard_normal(zernike.n_terms(ORDER))
OFF_CENTRE = {"x0": 0.2, "y0": -0.1}


def coefficients(z):
    return {zernike.name(k): c for k, c in enumerate(z)}


def beam_model(scope, x, y, dz=0.0, **values):
    model = BeamModel(
        scope,
        WAVELENGTH,
        [MapGeometry(dz, np.ravel(x), np.ravel(y))],
        order=ORDER,
        n=N,
        oversample=OVERSAMPLE,
    )
    model.set(**values)
    return model


def beam(scope, x, y, dz=0.0, **values):
    """Power in the directions x, y, in units of the perfect telescope's peak."""
    return beam_model(scope, x, y, dz, **values)().detach().numpy().reshape(np.shape(x))


def directions(scope, n=40, seed=1):
    """Scattered directions within three beam widths."""
    return np.random.default_rng(seed).uniform(-3, 3, (2, n)) * WAVELENGTH / (2 * scope.radius)


def cos_focus_angle(r, focal_length):
    a = r / (2 * focal_length)
    return (1 - a**2) / (1 + a**2)


def test_1_zernikes_have_peak_one_and_sines_for_negative_l():
    scope = telescopes.load("alma-nosec")
    model = beam_model(scope, [0.0], [0.0])
    x, y = model.pixels.x / model.telescope.radius, model.pixels.y / model.telescope.radius
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    typed = {
        "z1": y,
        "z2": x,
        "z3": r**2 * np.sin(2 * angle),
        "z4": 2 * r**2 - 1,
        "z5": r**2 * np.cos(2 * angle),
        "z6": r**3 * np.sin(3 * angle),
        "z7": (3 * r**3 - 2 * r) * np.sin(angle),
        "z8": (3 * r**3 - 2 * r) * np.cos(angle),
        "z9": r**3 * np.cos(3 * angle),
        "z11": (4 * r**4 - 3 * r**2) * np.sin(2 * angle),
        "z12": 6 * r**4 - 6 * r**2 + 1,
        "z14": r**4 * np.cos(4 * angle),
    }
    for name, polynomial in typed.items():
        u = torch.as_tensor(model.layout.coordinates({name: 0.3}))
        np.testing.assert_allclose(model.aperture(u)[1], 0.3 * polynomial, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "towards"), [("z2", (1, 0)), ("z1", (0, 1))])
@pytest.mark.parametrize("dz", [0.0, 4e-3])
def test_2_positive_tilt_moves_the_beam_to_plus(name, towards, dz):
    scope = telescopes.load("alma-dv")
    x, y = directions(scope)
    still = coefficients(Z) | OFF_CENTRE
    moved = still | {name: still[name] + 2.0}
    step = 2.0 * WAVELENGTH / (2 * np.pi * scope.radius)
    expected = beam(scope, x, y, dz, **still)
    found = beam(scope, x + step * towards[0], y + step * towards[1], dz, **moved)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    away = beam(scope, x - step * towards[0], y - step * towards[1], dz, **moved)
    assert np.abs(away - expected).max() > 0.01


def test_2_the_fft_and_the_pointing_parameters_have_the_same_sign():
    field = np.zeros((16, 16), complex)
    field[5:11, 5:12] = 1.0
    p = np.arange(16) - 8
    power = {}
    for steps in (0, 3):  # a whole number of sky pixels: the pattern moves and nothing else
        tilted = field * np.exp(2j * np.pi * steps * p / 16)
        power[steps] = farfield.power(farfield.transform(torch.view_as_real(torch.as_tensor(tilted))))
    torch.testing.assert_close(power[3], power[0].roll(3, -1))

    scope = telescopes.load("alma")
    x, y = directions(scope)
    tilt = beam(scope, x, y, z2=1.0, z1=-0.4)
    step = WAVELENGTH / (2 * np.pi * scope.radius)
    pointing = beam(scope, x, y, dx_0=1.0 * step, dy_0=-0.4 * step)
    np.testing.assert_allclose(pointing, tilt, rtol=0, atol=1e-13)


def test_3_defocus_phase_is_minus_k_times_the_growth_of_the_path():
    # Where a feed moves away from the vertex of a paraboloid, the way to it becomes longer.
    paper = telescopes.load("paper")
    f, r, dz = paper.focal_length, np.linspace(0, paper.radius, 7), 1e-3
    height = r**2 / (4 * f)
    growth = np.hypot(r, f + dz - height) - np.hypot(r, f - height)
    np.testing.assert_allclose(paper.path(r, 0 * r, dz), growth, rtol=1e-4)

    # ALMA, dz = +1 mm at a wavelength of 1 mm: what the original software gives 63 pixels of 24 m / 256 from
    # the centre.
    alma = telescopes.load("alma")
    rim, centre = alma.path([63 * 24 / 256, 0.0], [0.0, 0.0], 1e-3)
    assert -(2 * np.pi / 1e-3) * (rim - centre) == pytest.approx(3.462, abs=5e-4)

    # And the beam of the model is the one with that sign.
    x, y = directions(alma)
    dz = 2e-3
    model = beam_model(alma, x, y, dz, **coefficients(Z), **OFF_CENTRE)
    amplitude, phase = (t.detach().numpy() for t in model.aperture())
    px, py = model.pixels.x, model.pixels.y
    r = np.hypot(px, py)
    path = dz * (cos_focus_angle(r, 4.8) + cos_focus_angle(r, 96.0))
    kernel = np.exp(-1j * K * (np.outer(x, px) + np.outer(y, py)))
    for sign, same in ((-1, True), (+1, False)):
        field = amplitude * np.exp(1j * (phase + sign * K * path))
        expected = np.abs(kernel @ field) ** 2 / amplitude.sum() ** 2
        assert np.allclose(model().detach(), expected, rtol=0, atol=1e-13) == same


def raised_path(scope, r, e):
    """Growth of the path from the source to the prime focus when the dish rises by e along its axis."""
    height, f = r**2 / (4 * scope.focal_length), scope.focal_length

    def length(rise):
        return -(height + rise) + np.hypot(r, f - height - rise)

    return length(e) - length(0.0)


def test_4_a_high_surface_has_positive_phase():
    scope = telescopes.load("paper")
    e, r = 20e-6, np.linspace(0, scope.radius, 7)
    growth = raised_path(scope, r, e)
    # Raising the dish under a fixed feed is lowering the feed, plus the piston of the whole.
    np.testing.assert_allclose(scope.path(r, 0 * r, -e) - e, growth, rtol=1e-5)
    phase = -K * growth  # as in 3
    assert phase[0] == pytest.approx(4 * np.pi * e / WAVELENGTH, rel=1e-5)

    # A dish whose +x side is high throws its beam to -x: it sees the source when it points to +x of it.
    high_at_rim = 200e-6
    x = np.linspace(-scope.radius, scope.radius, 9)
    path = raised_path(scope, np.abs(x), high_at_rim * x / scope.radius)
    source_x = np.polyfit(x, path, 1)[0]  # the direction from which all paths are equal
    assert source_x < 0
    z2 = 4 * np.pi * high_at_rim / WAVELENGTH
    peak = 2 * high_at_rim / scope.radius
    assert -source_x == pytest.approx(peak, rel=0.02)  # the depth of the dish makes the difference
    np.testing.assert_allclose(beam(scope, [peak, -peak], [0, 0], z2=z2)[0], 1.0, rtol=1e-12)


def raster(axis_x_first):
    """Coordinates x, y in metres of N x N pixels, x = 0 at pixel N/2, in either order of the axes."""
    pitch = 2 * OVERSAMPLE * SCOPE.radius / N
    axis = (np.arange(N) - N / 2) * pitch
    x, y = np.meshgrid(axis, axis, indexing="ij" if axis_x_first else "xy")
    return x, y, pitch


SCOPE = telescopes.load("alma-dv")  # its hole makes the dish asymmetric
SIGMA = 0.5


def aperture(x, y, pitch, z):
    """Amplitude and path per dz, which all programs agree about, and the sum of z U(x, y)."""
    u, v = x / SCOPE.radius, y / SCOPE.radius
    bell = np.exp(-((u - OFF_CENTRE["x0"]) ** 2 + (v - OFF_CENTRE["y0"]) ** 2) / (2 * SIGMA**2))
    r = np.hypot(x, y)
    path = cos_focus_angle(r, 4.8) + cos_focus_angle(r, 96.0)
    terms = [c * reference.zernike(k, u, v) for k, c in enumerate(z)]
    return bell * SCOPE.coverage(x, y, pitch), path, np.sum(terms, axis=0)


def oofpy(z, dz):
    """Power [y, x], radians, +k dL, exp(+i), axes x, y."""
    amplitude, path, phase = aperture(*raster(axis_x_first=True), z)
    field = amplitude * np.exp(1j * (phase + K * dz * path))
    far = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(field)))
    return (np.abs(far) ** 2 / (amplitude.sum() / N**2) ** 2).T


def pyoof(k_waves, dz):
    """Power [v, u], wavelengths, +k dL, exp(-i), axes y, x."""
    amplitude, path, waves = aperture(*raster(axis_x_first=False), k_waves)
    field = amplitude * np.exp(1j * (2 * np.pi * waves + K * dz * path))
    far = np.fft.fftshift(np.fft.fft2(field))
    return np.abs(far) ** 2 / amplitude.sum() ** 2


def sky():
    """Directions of those maps but for the first row and column, which have no mirror image."""
    step = farfield.sky_pitch(WAVELENGTH, N, 2 * OVERSAMPLE * SCOPE.radius / N)
    return np.meshgrid(*2 * [(np.arange(1, N) - N / 2) * step])


def ours(z, dz, x, y):
    return beam(SCOPE, x, y, dz, sigma=SIGMA, **OFF_CENTRE, **coefficients(z))


def test_5_map_coordinates_are_telescope_minus_source():
    # A wave from the source reaches the pixels on the source's side first.
    x, y = directions(SCOPE)
    model = beam_model(SCOPE, x, y, **coefficients(Z))
    amplitude, phase = (t.detach().numpy() for t in model.aperture())
    place = np.stack([model.pixels.x, model.pixels.y])
    source = -np.stack([x, y])  # as seen from the telescope's axis
    early = np.exp(1j * K * source.T @ place)
    expected = np.abs(early @ (amplitude * np.exp(1j * phase))) ** 2 / amplitude.sum() ** 2
    np.testing.assert_allclose(model().detach(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dz", [-3e-3, 0.0, 3e-3])
def test_5_a_pyoof_simulation_has_minus_two_pi_k(dz):
    k_waves = 0.08 * np.random.default_rng(5).standard_normal(zernike.n_terms(ORDER))
    simulated = pyoof(k_waves, dz)[1:, 1:]
    u, v = sky()
    np.testing.assert_allclose(ours(-2 * np.pi * k_waves, dz, -u, -v), simulated, rtol=0, atol=1e-12)
    for z, x, y in ((2 * np.pi * k_waves, -u, -v), (-2 * np.pi * k_waves, u, v)):
        assert np.abs(ours(z, dz, x, y) - simulated).max() > 0.01


def test_6_arrays_are_indexed_y_x():
    # Two slits with a phase step from one to the other; the pattern moves along the axis they differ on.
    ny, nx = 6, 10
    field = torch.zeros(2, ny, nx, 2, dtype=torch.float64)
    field[0, 3, 5, 0], field[0, 3, 6, 1] = 1.0, 1.0  # one pixel apart in x, a quarter turn ahead
    field[1, 3, 5, 0], field[1, 4, 5, 1] = 1.0, 1.0  # the same in y
    power = farfield.power(farfield.transform(field))
    along = 2 + 2 * np.cos(2 * np.pi * (np.arange(nx) - nx // 2) / nx - np.pi / 2)
    np.testing.assert_allclose(power[0], np.broadcast_to(along, (ny, nx)), atol=1e-14)
    along = 2 + 2 * np.cos(2 * np.pi * (np.arange(ny) - ny // 2) / ny - np.pi / 2)
    np.testing.assert_allclose(power[1], np.broadcast_to(along[:, None], (ny, nx)), atol=1e-14)

    # The hole of the Vertex antenna is at x = -3.53, y = 0.29: row y, column x.
    x, y = np.meshgrid(np.linspace(-6, 6, 121), np.linspace(-5, 5, 101))
    is_open = telescopes.load("alma-dv").open_at(x, y)
    assert is_open.shape == (101, 121)
    assert not is_open[53, 25]  # y = 0.3, x = -3.5
    assert is_open[53, 95]
    assert is_open[25 - 10, 53 + 10]
    np.testing.assert_array_equal(zernike.raster(1, x / 6, y / 6)[1:], [y / 6, x / 6])


def test_7_normal_error_is_half_path_error_times_the_slope_factor():
    # A dish that rises by e has moved by e cos(slope) along its normal, tan(slope) = r/2F.
    scope = telescopes.load("paper")
    e, r = 20e-6, np.linspace(0, scope.radius, 7)
    phase = -K * raised_path(scope, r, e)
    half_path = WAVELENGTH * phase / (4 * np.pi)
    normal = e * np.cos(np.arctan(r / (2 * scope.focal_length)))
    np.testing.assert_allclose(half_path * scope.surface_normal_factor(r, 0 * r), normal, rtol=1e-5)
    # On an offset dish r counts from the axis of the parent; +y is towards it.
    gbt = telescopes.load("gbt")
    expected = np.sqrt(1 + ((54 - 20) / 120) ** 2), np.sqrt(1 + (54 + 20) ** 2 / 120**2)
    np.testing.assert_allclose(gbt.surface_normal_factor([0, 0], [20, -20]), expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["alma-dv", "effelsberg", "gbt", "paper"])
def test_8_mirror(name):
    scope = telescopes.load(name)
    x, y = directions(scope)
    step = WAVELENGTH / (20 * scope.radius)
    beams = [
        beam(scope, s * x, s * y, s * 4e-3, dx_0=s * step, dz_scale=1.2, **OFF_CENTRE, **coefficients(s * Z))
        for s in (1, -1)
    ]
    np.testing.assert_allclose(*beams, rtol=0, atol=1e-13)
    # No part of it will do alone.
    for sz, sd, st in itertools.product((1, -1), repeat=3):
        if not sz == sd == st:
            other = beam(scope, st * x, st * y, sd * 4e-3, **OFF_CENTRE, **coefficients(sz * Z))
            assert np.abs(other - beams[0]).max() > 0.01


def test_9_even_orders_take_their_sign_from_the_defocus():
    scope = telescopes.load("alma")
    x, y = directions(scope)
    even = np.array([zernike.order_of(k) % 2 == 0 for k in range(len(Z))])
    flipped = np.where(even, -Z, Z)
    for dz in (0.0, 4e-3):
        expected = beam(scope, x, y, dz, **coefficients(Z))
        found = beam(scope, x, y, -dz, **coefficients(flipped))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert np.abs(beam(scope, x, y, dz, **coefficients(flipped)) - expected).max() > 0.01


@pytest.mark.parametrize(
    ("wanted", "made_with", "options"),
    [
        # Signs of z, of dz, of the sky's x and of its y.
        ("ours", oofpy, {(-1, 1, 1, 1), (1, -1, -1, -1)}),
        ("ours", pyoof, {(1, -1, 1, 1), (-1, 1, -1, -1)}),
        ("oofpy", pyoof, {(-1, -1, 1, 1), (1, 1, -1, -1)}),
    ],
)
def test_10_conversion_table(wanted, made_with, options):
    dz = 2e-3
    target = ours(Z, dz, *sky()) if wanted == "ours" else oofpy(Z, dz)[1:, 1:]
    z = Z / (2 * np.pi) if made_with is pyoof else Z
    difference = {}
    for sz, sd in itertools.product((1, -1), repeat=2):
        power = made_with(sz * z, sd * dz)[1:, 1:]
        for sx, sy in itertools.product((1, -1), repeat=2):
            difference[sz, sd, sx, sy] = np.abs(power[::sy, ::sx] - target).max()
    assert {signs for signs, d in difference.items() if d < 1e-12} == options
    assert min(d for signs, d in difference.items() if signs not in options) > 0.01
