import json

import numpy as np
import pytest
from astropy.io import fits

import ooftorch
from ooftorch.errors import InputError
from ooftorch.io.result_file import write_fit
from ooftorch.io.surfaces import read_coefficients, read_phase_map
from ooftorch.optics import zernike
from ooftorch.reporting.numbers import summary
from ooftorch.simulation import surfaces as surface
from ooftorch.simulation.noise import KINDS, Streams
from ooftorch.simulation.surfaces import PhaseMap

WAVELENGTH = 1e-3


def phase(values, x, y):
    order = zernike.order_of(len(values) - 1)
    z = [values[zernike.name(k)] for k in range(zernike.n_terms(order))]
    return z @ zernike.raster(order, x, y)


def disc(n=201):
    axis = np.linspace(-1, 1, n)
    x, y = np.meshgrid(axis, axis)
    inside = np.hypot(x, y) <= 1
    return x[inside], y[inside]


@pytest.mark.parametrize("values", [surface.random(5, 0.7, seed=1), surface.gravity(0.7, seed=1)])
def test_rms_over_the_dish_is_what_was_asked_for(values):
    assert np.std(phase(values, *disc())) == pytest.approx(0.7, rel=0.01)
    assert values["z0"] == values["z1"] == values["z2"] == 0


def test_seeds_and_spectrum():
    assert surface.random(4, 1.0, seed=1) == surface.random(4, 1.0, seed=1)
    assert surface.random(4, 1.0, seed=1) != surface.random(4, 1.0, seed=2)
    flat, red = (
        np.array([list(surface.random(6, 1.0, seed=s, spectrum=p).values()) for s in range(50)])
        for p in (0.0, 2.0)
    )

    def ratio(z):  # of order 6 to order 2, in each draw
        return np.linalg.norm(z[:, 21:], axis=1) / np.linalg.norm(z[:, 3:6], axis=1)

    assert ratio(red) / ratio(flat) == pytest.approx((2 / 6) ** 2)
    assert np.median(ratio(flat)) == pytest.approx(np.sqrt(7 / 3), rel=0.2)


def test_a_surface_shares_no_random_numbers_with_the_noise_of_its_seed():
    for seed in range(9):
        # In the order of the noise's streams, of seed 0 and of its own.
        draws = {Streams(s)[kind].normal() for s in (0, seed) for kind in KINDS}
        draws.add(np.random.default_rng(seed).normal())
        own = {np.random.default_rng((seed, tag)).normal() for tag in (surface._RANDOM, surface._GRAVITY)}
        assert not draws & own


def test_gravity_is_the_same_left_and_right():
    values = surface.gravity(1.0, seed=3)
    x, y = disc(51)
    assert phase(values, x, y) == pytest.approx(phase(values, -x, y), abs=1e-12)
    assert np.abs(phase(values, x, y) - phase(values, x, -y)).max() > 0.1
    assert zernike.order_of(len(values) - 1) == 4


def test_bump():
    height = 2e-5
    shape = surface.bump(3.0, -1.0, 0.8, height, WAVELENGTH)
    top = 4 * np.pi * height / WAVELENGTH  # high towards the source: positive (CONVENTIONS 4)
    assert shape(np.array([3.0]), np.array([-1.0])) == pytest.approx(top)
    assert shape(np.array([3.4, 3.0]), np.array([-1.0, -1.4])) == pytest.approx(top / 2)
    assert shape(np.array([-1.0]), np.array([3.0])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1)])
def test_a_map_is_linear_between_its_pixels_and_not_transposed(signs):
    x, y = (s * np.linspace(-2, 2, n) for s, n in zip(signs, (21, 31), strict=True))
    there = PhaseMap(x[0], y[0], x[1] - x[0], y[1] - y[0], 3 * x[None] - 0.5 * y[:, None] + 1)
    u, v = np.random.default_rng(0).uniform(-2, 2, size=(2, 50))
    assert there(u, v) == pytest.approx(3 * u - 0.5 * v + 1)


def test_holes_of_a_map_are_filled_at_their_edges_only():
    axis = np.linspace(-1, 1, 101)
    x, y = np.meshgrid(axis, axis)
    r = np.hypot(x, y)
    known = PhaseMap(-1, -1, 0.02, 0.02, np.where((r > 0.2) & (r < 1), 1.0 + x, np.nan))
    assert known(np.array([0.18]), np.array([0.0])) == pytest.approx(1.2, abs=0.02)
    with pytest.raises(InputError, match="50% of the dish is off this map"):
        known(np.array([0.5, 0.0]), np.array([0.0, 0.0]))
    with pytest.raises(InputError, match="off this map"):
        known(np.array([1.2]), np.array([0.0]))
    with pytest.raises(InputError, match="no pixel"):
        PhaseMap(0, 0, 1, 1, np.full((3, 3), np.nan))(np.array([0.0]), np.array([0.0]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"order": 1}, "order 1"),
        ({"rms": -1.0}, "rms of -1"),
        ({"rms": np.nan}, "rms of nan"),
        ({"spectrum": np.inf}, "spectrum of inf"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_surfaces_that_are_none(wrong, message):
    with pytest.raises(InputError, match=message):
        surface.random(**({"order": 5, "rms": 0.5} | wrong))


def test_a_steep_spectrum_leaves_the_lowest_order():
    values = surface.random(5, 0.5, spectrum=1e4, seed=1)
    assert {name for name, value in values.items() if value} == {"z3", "z4", "z5"}


@pytest.mark.parametrize("width", [0.0, -1.0, np.inf])
def test_bumps_that_are_none(width):
    with pytest.raises(InputError, match="width must be positive"):
        surface.bump(0, 0, width, 1e-5, WAVELENGTH)


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "text",
    [
        '{"z5": 1.5, "sigma": 0.6}',
        "# a surface\nz5 1.5\nsigma 0.6  # and its illumination\n\n",
        "z5 = 1.5\nsigma=0.6\n",
        "z5, 1.5\nsigma, 0.6",
    ],
)
def test_coefficients_by_name(tmp_path, text):
    file = tmp_path / "surface"
    file.write_text(text)
    assert read_coefficients(file) == {"z5": 1.5, "sigma": 0.6}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z5 1.5\nz6\n", "line 2 is 'z6'"),
        ('{"z5": "high"}', "z5 is 'high'"),
        ('{"z5": NaN}', "z5 is nan"),
        ('{"z5": true}', "z5 is True"),
        ("{z5: 1}", "not valid JSON"),
        ("z5 inf", "z5 is inf"),
        ("", "no coefficients"),
        ("{}", "no coefficients"),
    ],
)
def test_files_without_coefficients(tmp_path, text, message):
    file = tmp_path / "surface"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_coefficients(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_coefficients(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The result of a fit as a file, and the surface in it."""
    simulator = ooftorch.Simulator("alma", dz=(-0.004, 0, 0.004), reach=4, step=0.5, n=128)
    result = ooftorch.fit(simulator.observe(surface.random(3, 0.5, seed=2)), order=3, n=96)
    directory = tmp_path_factory.mktemp("fit")
    write_fit(result, directory / "fit.fits")
    (directory / "summary.json").write_text(json.dumps(summary(result)))
    return directory, result


@pytest.mark.parametrize("name", ["fit.fits", "summary.json"])
def test_the_coefficients_of_a_fit(fitted, name):
    directory, result = fitted
    values = read_coefficients(directory / name)
    assert list(values.values()) == pytest.approx(result.coefficients)
    assert "gain_0" not in values


def test_the_phase_map_of_a_fit(fitted):
    directory, result = fitted
    there = read_phase_map(directory / "fit.fits", WAVELENGTH)
    r, angle = np.meshgrid([1.0, 3.0, 5.0], np.linspace(0, 6, 9))
    x, y = (r * np.cos(angle)).ravel(), (r * np.sin(angle)).ravel()
    z = result.coefficients.copy()
    z[:3] = 0
    expected = z @ zernike.raster(3, x / 6, y / 6)
    assert there(x, y) == pytest.approx(expected, abs=0.01)


def image(tmp_path, data, **cards):
    usual = {"CRPIX1": 1, "CDELT1": 0.5, "CRVAL1": -1, "CRPIX2": 1, "CDELT2": 0.25, "CRVAL2": -1}
    hdu = fits.PrimaryHDU(data)
    hdu.header.update({k: v for k, v in (usual | cards).items() if v is not None})
    hdu.writeto(tmp_path / "map.fits", overwrite=True)
    return tmp_path / "map.fits"


def test_units_of_a_phase_map(tmp_path):
    data = np.arange(9.0 * 5).reshape(9, 5)
    here = np.array([0.5]), np.array([-0.75])  # column 3, row 1
    assert read_phase_map(image(tmp_path, data), WAVELENGTH)(*here) == pytest.approx(8)
    for unit, metres in (("um", 1e-6), ("mm", 1e-3), ("m", 1.0)):
        there = read_phase_map(image(tmp_path, data, BUNIT=unit), WAVELENGTH)
        assert there(*here) == pytest.approx(8 * 4 * np.pi * metres / WAVELENGTH)
    small = {"CDELT1": 500, "CRVAL1": -1000, "CDELT2": 250, "CRVAL2": -1000}
    there = read_phase_map(image(tmp_path, data, CUNIT1="mm", CUNIT2="mm", **small), WAVELENGTH)
    assert there(*here) == pytest.approx(8)


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"BUNIT": "Jy"}, "BUNIT is 'Jy'"),
        ({"CUNIT1": "deg"}, "CUNIT1 is 'deg'"),
        ({"CDELT2": None}, "no CRPIX2 or CDELT2"),
        ({"CD1_2": 0.1}, "turned coordinates"),
    ],
)
def test_images_that_are_no_phase_map(tmp_path, cards, message):
    with pytest.raises(InputError, match=message):
        read_phase_map(image(tmp_path, np.zeros((9, 5)), **cards), WAVELENGTH)


def test_files_that_are_no_phase_map(tmp_path):
    with pytest.raises(InputError, match=r"expected two, y and x"):
        read_phase_map(image(tmp_path, np.zeros((2, 9, 5))), WAVELENGTH)
    hdus = fits.HDUList([fits.PrimaryHDU(np.zeros((3, 3))), fits.ImageHDU(np.zeros((3, 3)))])
    hdus.writeto(tmp_path / "two.fits")
    with pytest.raises(InputError, match="0 images that may be the phase"):
        read_phase_map(tmp_path / "two.fits", WAVELENGTH)
    (tmp_path / "text").write_text("z5 1")
    with pytest.raises(InputError, match="not a FITS file"):
        read_phase_map(tmp_path / "text", WAVELENGTH)
