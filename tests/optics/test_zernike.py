"""Zernike polynomials: orthogonality, closed forms, parities, and the published tables of each convention."""

# ruff: noqa: E741

from fractions import Fraction
from math import factorial, sqrt

import numpy as np
import pytest

from ooftorch.errors import InputError
from ooftorch.optics import zernike

RNG = np.random.default_rng(20190426)
# Scattered points, in no symmetry of anything; centre, rim and a little over the rim are among them.
RHO = np.concatenate([[0.0, 1.0, 1.02], np.sqrt(RNG.uniform(0, 1, 12))])
PHI = RNG.uniform(-np.pi, np.pi, RHO.size)
X, Y = RHO * np.cos(PHI), RHO * np.sin(PHI)
R = RHO


def cos(m):
    return np.cos(m * PHI)


def sin(m):
    return np.sin(m * PHI)


# k: (n, l, polynomial, label), typed from the definition and not computed by the package.
OOF_TABLE = {
    0: (0, 0, 1 + 0 * R, "piston"),
    1: (1, -1, Y, "y tilt"),
    2: (1, 1, X, "x tilt"),
    3: (2, -2, 2 * X * Y, "astigmatism 45/135"),
    4: (2, 0, 2 * R**2 - 1, "defocus"),
    5: (2, 2, X**2 - Y**2, "astigmatism 0/90"),
    6: (3, -3, R**3 * sin(3), "y trefoil"),
    7: (3, -1, (3 * R**2 - 2) * Y, "y coma"),
    8: (3, 1, (3 * R**2 - 2) * X, "x coma"),
    9: (3, 3, R**3 * cos(3), "x trefoil"),
    10: (4, -4, R**4 * sin(4), "quatrefoil 22.5"),
    11: (4, -2, (4 * R**4 - 3 * R**2) * sin(2), "secondary astigmatism 45/135"),
    12: (4, 0, 6 * R**4 - 6 * R**2 + 1, "spherical"),
    13: (4, 2, (4 * R**4 - 3 * R**2) * cos(2), "secondary astigmatism 0/90"),
    14: (4, 4, R**4 * cos(4), "quatrefoil 0"),
    15: (5, -5, R**5 * sin(5), "(5, -5)"),
    16: (5, -3, (5 * R**5 - 4 * R**3) * sin(3), "(5, -3)"),
    17: (5, -1, (10 * R**5 - 12 * R**3 + 3 * R) * sin(1), "(5, -1)"),
    18: (5, 1, (10 * R**5 - 12 * R**3 + 3 * R) * cos(1), "(5, 1)"),
    19: (5, 3, (5 * R**5 - 4 * R**3) * cos(3), "(5, 3)"),
    20: (5, 5, R**5 * cos(5), "(5, 5)"),
}


def polar_quadrature():
    """Points and weights that average a polynomial of degree < 64 over the unit disc exactly."""
    node, weight = np.polynomial.legendre.leggauss(20)
    rho = np.sqrt((node + 1) / 2)  # uniform area: Gauss-Legendre in rho^2
    phi = 0.1 + 2 * np.pi * np.arange(64) / 64
    x, y = np.outer(rho, np.cos(phi)).ravel(), np.outer(rho, np.sin(phi)).ravel()
    return x, y, np.repeat(weight / 2 / 64, 64)


# ------------------------------------------------------------------------------------------- the modes


@pytest.mark.parametrize("k", OOF_TABLE)
def test_the_table_of_modes(k):
    n, l, polynomial, label = OOF_TABLE[k]
    assert zernike.nl(k) == (n, l)
    assert zernike.index(n, l) == k
    assert zernike.order_of(k) == n
    assert zernike.name(k) == f"z{k}"
    assert zernike.label(k) == label
    np.testing.assert_allclose(zernike.raster(5, X, Y)[k], polynomial, rtol=0, atol=2e-14)


def test_indices_count_up_through_order_40():
    modes = [(n, l) for n in range(41) for l in range(-n, n + 1, 2)]
    assert [zernike.nl(k) for k in range(len(modes))] == modes
    assert [zernike.index(n, l) for n, l in modes] == list(range(len(modes)))
    assert zernike.n_terms(40) == len(modes)
    assert [zernike.n_terms(n) for n in range(10)] == [1, 3, 6, 10, 15, 21, 28, 36, 45, 55]


def test_labels_name_the_axis_along_which_the_mode_is_odd():
    u, mirrored_x = zernike.raster(4, X, Y), zernike.raster(4, -X, Y)
    for k in range(15):
        if zernike.label(k)[:2] in ("x ", "y "):
            sign = -1 if zernike.label(k).startswith("x ") else 1
            np.testing.assert_allclose(mirrored_x[k], sign * u[k], atol=1e-15)


# -------------------------------------------------------------------------------------- the polynomials


def test_gram_matrix_through_order_30_is_diagonal_with_the_documented_norms():
    x, y, weight = polar_quadrature()
    u = zernike.raster(30, x, y)
    gram = (u * weight) @ u.T
    expected = zernike.mean_square(30)
    assert expected.shape == (496,)
    np.testing.assert_allclose(gram, np.diag(expected), rtol=0, atol=1e-12)
    # The smallest norm is 1/62: relative to it the same statement is sharper.
    np.testing.assert_allclose(np.diag(gram) / expected, 1.0, rtol=0, atol=1e-10)


def test_mean_square_by_hand():
    np.testing.assert_array_equal(zernike.mean_square(2), [1, 1 / 4, 1 / 4, 1 / 6, 1 / 3, 1 / 6])


@pytest.mark.parametrize("n", range(0, 41, 5))
def test_radial_polynomials_against_exact_rational_arithmetic(n):
    rho = np.array([0.0, 1 / 64, 0.3125, 0.71875, 0.96875, 1.0, 1.03125])  # exact in binary
    for m in range(n % 2, n + 1, 2):
        terms = [
            (
                Fraction(
                    (-1) ** s * factorial(n - s),
                    factorial(s) * factorial((n + m) // 2 - s) * factorial((n - m) // 2 - s),
                ),
                n - 2 * s,
            )
            for s in range((n - m) // 2 + 1)
        ]
        exact = np.array([float(sum(c * Fraction(r) ** p for c, p in terms)) for r in rho])
        np.testing.assert_allclose(zernike.radial(n, m, rho), exact, rtol=1e-12, atol=1e-13)
        assert zernike.radial(n, m, 1.0) == pytest.approx(1.0, abs=1e-12)


def test_raster_is_radial_polynomial_times_cosine_or_sine():
    u = zernike.raster(20, X, Y)
    for k in range(zernike.n_terms(20)):
        n, l = zernike.nl(k)
        angular = cos(l) if l >= 0 else sin(-l)
        np.testing.assert_allclose(u[k], zernike.radial(n, abs(l), RHO) * angular, rtol=0, atol=1e-13)


def test_parities():
    u = zernike.raster(12, X, Y)
    n, l = np.array([zernike.nl(k) for k in range(zernike.n_terms(12))]).T
    in_x = np.where(l >= 0, (-1.0) ** l, (-1.0) ** (l + 1))
    in_y = np.where(l >= 0, 1.0, -1.0)
    turned = (-1.0) ** n
    np.testing.assert_allclose(zernike.raster(12, -X, Y), in_x[:, None] * u, rtol=0, atol=1e-14)
    np.testing.assert_allclose(zernike.raster(12, X, -Y), in_y[:, None] * u, rtol=0, atol=1e-14)
    np.testing.assert_allclose(zernike.raster(12, -X, -Y), turned[:, None] * u, rtol=0, atol=1e-14)


def test_raster_keeps_the_shape_and_the_axes_and_works_in_float64():
    y, x = np.mgrid[-0.6:0.6:3j, -0.7:0.7:5j].astype(np.float32)
    u = zernike.raster(3, x, y)
    assert u.shape == (10, 3, 5)
    assert u.dtype == np.float64
    np.testing.assert_array_equal(u[2], x)
    np.testing.assert_array_equal(u[1], y)
    exact = 2 * (x.astype(float) ** 2 + y.astype(float) ** 2) - 1
    np.testing.assert_allclose(u[4], exact, rtol=0, atol=4e-15)
    assert zernike.raster(0, 0.0, 0.0).shape == (1,)


# ------------------------------------------------------------------------------------- the conventions

NOLL = {  # Noll 1976, table I
    1: (0, 1 + 0 * R),
    2: (2, 2 * X),
    3: (1, 2 * Y),
    4: (4, sqrt(3) * (2 * R**2 - 1)),
    5: (3, sqrt(6) * R**2 * sin(2)),
    6: (5, sqrt(6) * R**2 * cos(2)),
    7: (7, sqrt(8) * (3 * R**3 - 2 * R) * sin(1)),
    8: (8, sqrt(8) * (3 * R**3 - 2 * R) * cos(1)),
    9: (6, sqrt(8) * R**3 * sin(3)),
    10: (9, sqrt(8) * R**3 * cos(3)),
    11: (12, sqrt(5) * (6 * R**4 - 6 * R**2 + 1)),
    12: (13, sqrt(10) * (4 * R**4 - 3 * R**2) * cos(2)),
    13: (11, sqrt(10) * (4 * R**4 - 3 * R**2) * sin(2)),
    14: (14, sqrt(10) * R**4 * cos(4)),
    15: (10, sqrt(10) * R**4 * sin(4)),
}
OSA = {  # Thibos et al. 2002, table 2
    0: (0, 1 + 0 * R),
    1: (1, 2 * Y),
    2: (2, 2 * X),
    3: (3, sqrt(6) * R**2 * sin(2)),
    4: (4, sqrt(3) * (2 * R**2 - 1)),
    5: (5, sqrt(6) * R**2 * cos(2)),
    6: (6, sqrt(8) * R**3 * sin(3)),
    7: (7, sqrt(8) * (3 * R**3 - 2 * R) * sin(1)),
    8: (8, sqrt(8) * (3 * R**3 - 2 * R) * cos(1)),
    9: (9, sqrt(8) * R**3 * cos(3)),
    12: (12, sqrt(5) * (6 * R**4 - 6 * R**2 + 1)),
}
FRINGE = {  # University of Arizona, first 16, counted from 1
    1: (0, 1 + 0 * R),
    2: (2, X),
    3: (1, Y),
    4: (4, 2 * R**2 - 1),
    5: (5, R**2 * cos(2)),
    6: (3, R**2 * sin(2)),
    7: (8, (3 * R**3 - 2 * R) * cos(1)),
    8: (7, (3 * R**3 - 2 * R) * sin(1)),
    9: (12, 6 * R**4 - 6 * R**2 + 1),
    10: (9, R**3 * cos(3)),
    11: (6, R**3 * sin(3)),
    12: (13, (4 * R**4 - 3 * R**2) * cos(2)),
    13: (11, (4 * R**4 - 3 * R**2) * sin(2)),
    14: (18, (10 * R**5 - 12 * R**3 + 3 * R) * cos(1)),
    15: (17, (10 * R**5 - 12 * R**3 + 3 * R) * sin(1)),
    16: (24, 20 * R**6 - 30 * R**4 + 12 * R**2 - 1),
}
# OOF index: GBT index with the sign of the conversion, as the original software has it, through order 6.
# fmt: off
GBT = {
    0: 1, 1: -3, 2: 2, 3: -6, 4: 5, 5: 4, 6: -10,
    7: -9, 8: 8, 9: 7, 10: -15, 11: -14, 12: 13, 13: 12,
    14: 11, 15: -21, 16: -20, 17: -19, 18: 18, 19: 17, 20: 16,
    21: -28, 22: -27, 23: -26, 24: 25, 25: 24, 26: 23, 27: 22,
}
# fmt: on


@pytest.mark.parametrize(("convention", "table"), [("noll", NOLL), ("osa", OSA), ("fringe", FRINGE)])
def test_published_polynomials(convention, table):
    for j, (k, polynomial) in table.items():
        assert zernike.convention_index(k, convention) == j
        z = zernike.convert_from({j: 1.0}, convention)
        assert np.flatnonzero(z).tolist() == [k]
        np.testing.assert_allclose(z @ zernike.raster(6, X, Y)[: len(z)], polynomial, rtol=0, atol=5e-14)


def test_gbt_table():
    assert len(GBT) == 28
    for k, signed in GBT.items():
        g, sign = abs(signed), np.sign(signed)
        assert zernike.convention_index(k, "schwab") == g
        unit = np.zeros(28)
        unit[k] = 0.25
        converted = zernike.convert_to(unit, "schwab")
        assert {j: c for j, c in converted.items() if c} == {g: 0.25 * sign}
        np.testing.assert_array_equal(zernike.convert_from({g: 0.25 * sign}, "schwab"), unit[: k + 1])


def test_the_end_of_the_classical_fringe_set():
    # The rule holds up to 36, (10, 0). It gives 37 to (6, 6), where the set of 37 has (12, 0).
    assert zernike.convention_index(zernike.index(10, 0), "fringe") == 36
    assert zernike.convention_index(zernike.index(6, 6), "fringe") == 37
    assert zernike.convention_index(zernike.index(12, 0), "fringe") == 49


def rms(n, l):
    return sqrt(n + 1) if l == 0 else sqrt(2 * (n + 1))


# Each convention said once more: its first index, the key by which it sorts the modes, and the factor on the
# peak-normalised polynomial. Noll's order is no sorting, and has its own lines in `numbered`.
SORTED_BY = {
    "oof": (0, lambda n, l: (n, l), lambda n, l: 1),
    "osa": (0, lambda n, l: (n, l), rms),
    "fringe": (1, lambda n, l: (n + abs(l), -abs(l), l < 0), lambda n, l: 1),
    "schwab": (1, lambda n, l: (n, -l), lambda n, l: -1 if l < 0 else 1),
}


def numbered(convention):
    """Return {index: (n, l, factor)}.

    Fringe numbers modes by n + |l|: listing all to n = 24 leaves no gap among those of order 12.
    """
    modes = [(n, l) for n in range(25) for l in range(-n, n + 1, 2)]
    if convention != "noll":
        first, key, factor = SORTED_BY[convention]
        modes.sort(key=lambda mode: key(*mode))
        return {j: (*mode, factor(*mode)) for j, mode in enumerate(modes, start=first)}
    table = {}
    for n, m in (mode for mode in modes if mode[1] >= 0):
        j = len(table) + 1
        pair = [(n, 0)] if m == 0 else [(n, m), (n, -m)] if j % 2 == 0 else [(n, -m), (n, m)]
        for mode in pair:
            table[len(table) + 1] = (*mode, rms(*mode))
    return table


@pytest.mark.parametrize("convention", zernike.CONVENTIONS)
def test_converted_coefficients_give_the_same_phase(convention):
    order = 12
    z = np.random.default_rng(3).normal(size=zernike.n_terms(order))
    table = numbered(convention)
    phase = np.zeros_like(R)
    for j, coefficient in zernike.convert_to(z, convention).items():
        n, l, factor = table[j]
        phase += coefficient * factor * zernike.radial(n, abs(l), R) * (cos(l) if l >= 0 else sin(-l))
    np.testing.assert_allclose(phase, z @ zernike.raster(order, X, Y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("convention", zernike.CONVENTIONS)
def test_unit_coefficients_have_the_size_the_convention_promises(convention):
    x, y, weight = polar_quadrature()
    for k in range(zernike.n_terms(8)):
        z = zernike.convert_from({zernike.convention_index(k, convention): 1.0}, convention)
        field = z @ zernike.raster(8, x, y)[: len(z)]
        if convention in ("noll", "osa"):
            assert weight @ field**2 == pytest.approx(1.0, rel=1e-12)
        else:
            phi = np.linspace(0, 2 * np.pi, 3361)  # holds a ridge of every l through 8
            rim = z @ zernike.raster(8, np.cos(phi), np.sin(phi))[: len(z)]
            assert np.abs(rim).max() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("convention", zernike.CONVENTIONS)
@pytest.mark.parametrize("size", [0, 1, 4, 21, 91])
def test_round_trip(convention, size):
    z = np.random.default_rng(size).normal(size=size)
    there = zernike.convert_to(z, convention)
    assert len(there) == size
    assert list(there) == sorted(there)
    back = zernike.convert_from(there, convention)
    # One multiplication and one division by the norm: the last bit may go, where there is a norm at all.
    np.testing.assert_allclose(back, z, rtol=0 if convention in ("oof", "fringe", "schwab") else 5e-16)
    assert back.shape == z.shape


@pytest.mark.parametrize("convention", zernike.CONVENTIONS)
def test_every_index_names_one_mode(convention):
    first = 0 if convention in ("oof", "osa") else 1
    modes = []
    for j in range(first, first + 169):
        (k,) = np.flatnonzero(zernike.convert_from({j: 1.0}, convention))
        assert zernike.convention_index(k, convention) == j
        modes.append(int(k))
    assert len(set(modes)) == 169


def test_an_index_left_out_is_zero():
    np.testing.assert_array_equal(
        zernike.convert_from({9: 2.0, 4: -1.0}, "fringe"), [0] * 4 + [-1] + [0] * 7 + [2]
    )


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: zernike.convert_to([1.0], "wyant"), "'wyant'; use one of oof, noll, osa, fringe, schwab"),
        (lambda: zernike.convert_from({1: 1.0}, "Noll"), "unknown Zernike convention 'Noll'"),
        (lambda: zernike.convention_index(4, ""), "unknown Zernike convention ''"),
        (lambda: zernike.convert_from({0: 1.0}, "noll"), "noll Zernike index 0 does not exist.* from 1 up"),
        (lambda: zernike.convert_from({0: 1.0}, "fringe"), "fringe Zernike index 0"),
        (lambda: zernike.convert_from({0: 1.0}, "schwab"), "schwab Zernike index 0"),
        (lambda: zernike.convert_from({-1: 1.0}, "osa"), "osa Zernike index -1 does not exist.* from 0 up"),
        (lambda: zernike.convert_from({-1: 1.0}, "oof"), "oof Zernike index -1"),
        (lambda: zernike.convert_from({"z4": 1.0}, "oof"), "oof Zernike index 'z4'"),
        (lambda: zernike.convert_to([[1.0, 2.0]], "noll"), r"shape \(1, 2\); give one list"),
        (lambda: zernike.index(3, 2), r"n = 3, \|l\| = 2"),
        (lambda: zernike.index(2, -4), r"n = 2, \|l\| = 4"),
        (lambda: zernike.index(-1, 1), "radial order n -1"),
        (lambda: zernike.radial(4, 1, 0.5), r"n = 4, \|l\| = 1"),
        (lambda: zernike.radial(4, -2, 0.5), r"\|l\| -2 does not exist"),
        (lambda: zernike.nl(-1), "Zernike index -1"),
        (lambda: zernike.name(2.0), "Zernike index 2.0"),
        (lambda: zernike.n_terms(-1), "Zernike order -1 does not exist; give a whole number from 0 up"),
        (lambda: zernike.raster(2.5, 0.0, 0.0), "Zernike order 2.5"),
        (lambda: zernike.raster(2, np.zeros(3), np.zeros(4)), r"shape \(3,\) and y \(4,\)"),
    ],
)
def test_refusals_are_one_line(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("radius", [1.0, 0.9, 0.3])
def test_gram_over_a_smaller_disc(radius):
    """Against the plain average over points spread evenly in area."""
    k = np.arange(40000)
    r = radius * np.sqrt((k + 0.5) / k.size)
    angle = k * np.pi * (3 - np.sqrt(5))  # a sunflower
    u = zernike.raster(6, r * np.cos(angle), r * np.sin(angle))
    np.testing.assert_allclose(zernike.gram(6, radius), np.cov(u, bias=True), atol=2e-4)


def test_gram_over_the_dish_is_the_mean_square():
    expected = zernike.mean_square(8)
    expected[0] = 0
    np.testing.assert_allclose(zernike.gram(8), np.diag(expected), atol=1e-14)
