"""Far field: the definition typed as loops, the FFT, and the direct transform in all its ways."""

import cmath
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import optimize, special
from torch.utils.flop_counter import FlopCounterMode

from ooftorch.optics import farfield, telescopes
from ooftorch.optics.farfield import DirectTransform, dot, estimate_costs, power, sky_pitch, transform

WAVELENGTH = 2e-3
PITCH = 0.7
LIKE = torch.zeros((), dtype=torch.float64)


def random_field(*shape, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).standard_normal((*shape, 2)))


def axis(n):
    """Pixel coordinates as the FFT has them, metres."""
    return (np.arange(n) - n // 2) * PITCH


def explicit(field, x, y, u, v):
    """The sum of CONVENTIONS 2 for one field (ny, nx, 2): complex far field (n,)."""
    out = []
    for a, b in zip(u, v, strict=True):
        total = 0j
        for i, j in itertools.product(range(len(y)), range(len(x))):
            e = complex(*field[i, j].tolist())
            total += e * cmath.exp(-2j * math.pi * (x[j] * a + y[i] * b) / WAVELENGTH)
        out.append(total)
    return np.array(out)


def as_complex(samples):
    return torch.view_as_complex(samples).numpy()


def assert_same(found, expected, tolerance=1e-12):
    peak = np.abs(expected).max()
    np.testing.assert_allclose(as_complex(found), expected, rtol=0, atol=tolerance * peak)


def fft_directions(ny, nx):
    v, u = np.meshgrid(
        (np.arange(ny) - ny // 2) * sky_pitch(WAVELENGTH, ny, PITCH),
        (np.arange(nx) - nx // 2) * sky_pitch(WAVELENGTH, nx, PITCH),
        indexing="ij",
    )
    return u.ravel(), v.ravel()


def scattered(n, seed=1):
    reach = 0.5 * WAVELENGTH / PITCH
    return np.random.default_rng(seed).uniform(-reach, reach, (2, n))


def direct(ny, nx, u, v, like=LIKE):
    return DirectTransform(axis(nx), axis(ny), u, v, WAVELENGTH, like=like)


@pytest.mark.parametrize(("ny", "nx"), [(4, 6), (6, 4), (5, 7), (1, 8)])
def test_fft_is_the_sum(ny, nx):
    field = random_field(ny, nx)
    expected = explicit(field, axis(nx), axis(ny), *fft_directions(ny, nx))
    assert_same(transform(field).reshape(-1, 2), expected)


@pytest.mark.parametrize(("ny", "nx"), [(16, 16), (12, 20), (9, 14)])
def test_direct_is_the_fft_at_its_directions(ny, nx):
    field = random_field(ny, nx)
    operator = direct(ny, nx, *fft_directions(ny, nx))
    assert operator.way != "scattered"
    assert_same(operator(field), as_complex(transform(field)).ravel())


def test_fft_keeps_the_power():
    field = random_field(3, 12, 10)
    found = power(transform(field)).sum((-2, -1))
    torch.testing.assert_close(found, 12 * 10 * power(field).sum((-2, -1)))


def grid(nv=5, nu=7):
    v, u = np.meshgrid(np.linspace(-4e-4, 7e-4, nv), np.linspace(-9e-4, 3e-4, nu), indexing="ij")
    return np.stack([u.ravel(), v.ravel()])


def holes(directions):
    return directions[:, np.random.default_rng(2).random(directions.shape[1]) < 0.8]


def permuted(directions):
    return directions[:, np.random.default_rng(2).permutation(directions.shape[1])]


@pytest.mark.parametrize(
    "directions",
    [
        grid(),
        holes(grid()),
        permuted(grid()),
        grid()[:, ::-1],
        np.flip(grid().reshape(2, 5, 7), 2).reshape(2, -1),
        np.concatenate([grid(), grid()[:, 3:9]], axis=1),
        grid().astype(np.float32).astype(float),
        permuted(holes(grid())).astype(np.float32).astype(float),
        grid() * (1 + 1e-16 * np.arange(35)),
        grid().reshape(2, 5, 7).transpose(0, 2, 1).reshape(2, -1),
    ],
    ids=[
        "grid",
        "holes",
        "permuted",
        "descending",
        "descending-x",
        "repeated",
        "float32",
        "float32-permuted-holes",
        "rounding",
        "first-coordinate-slow",
    ],
)
def test_regular_maps_in_every_disorder(directions):
    ny, nx = 8, 10
    field = random_field(ny, nx)
    operator = direct(ny, nx, *directions)
    assert operator.way != "scattered"
    assert_same(operator(field), explicit(field, axis(nx), axis(ny), *directions))


def test_float32_noise_on_the_coordinates_is_no_grid_and_no_error():
    ny, nx = 8, 10
    u, v = grid() * (1 + 1e-7 * np.random.default_rng(4).standard_normal((2, 35)))
    field = random_field(ny, nx)
    operator = direct(ny, nx, u, v)
    assert operator.way == "scattered"
    assert_same(operator(field), explicit(field, axis(nx), axis(ny), u, v))


@pytest.mark.parametrize(("ny", "nx", "on_grid"), [(20, 2, True), (2, 20, False), (9, 11, False)])
def test_scattered_directions_by_both_ways(ny, nx, on_grid):
    u, v = scattered(8)
    field = random_field(ny, nx)
    operator = direct(ny, nx, u, v)
    assert (operator.way != "scattered") == on_grid  # the cheaper of the two
    assert_same(operator(field), explicit(field, axis(nx), axis(ny), u, v))
    # The sum does not know which axis is which; the operator's choice does.
    turned = direct(nx, ny, v, u)
    assert_same(turned(field.transpose(0, 1).contiguous()), as_complex(operator(field)))


DIRECTIONS = {
    "grid": grid(),
    "holes": permuted(holes(grid())),
    "repeated": np.concatenate([grid(), grid()[:, 3:9], grid()[:, 3:5]], axis=1),
    "scattered": scattered(9),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_adjoint(name):
    ny, nx = 6, 9
    operator = direct(ny, nx, *DIRECTIONS[name])
    assert (operator.way == "scattered") == (name == "scattered")
    field = random_field(3, ny, nx)
    samples = random_field(3, operator.n, seed=7)
    a = torch.view_as_complex
    forward = (a(samples).conj() * a(operator(field))).sum()
    backward = (a(operator.adjoint(samples)).conj() * a(field)).sum()
    torch.testing.assert_close(backward, forward, rtol=1e-13, atol=1e-13)
    assert operator.adjoint(samples).shape == field.shape


@pytest.mark.parametrize("name", DIRECTIONS)
def test_gradient_of_the_direct_transform(name):
    operator = direct(3, 4, *DIRECTIONS[name][:, :6])
    assert torch.autograd.gradcheck(operator, random_field(3, 4).requires_grad_())
    assert torch.autograd.gradcheck(lambda e: power(operator(e)), random_field(3, 4).requires_grad_())
    assert torch.autograd.gradcheck(operator.adjoint, random_field(operator.n).requires_grad_())


def test_gradient_of_the_fft():
    assert torch.autograd.gradcheck(transform, random_field(4, 3).requires_grad_())


@pytest.mark.parametrize("name", DIRECTIONS)
def test_batches_come_first(name):
    ny, nx = 6, 9
    operator = direct(ny, nx, *DIRECTIONS[name])
    field = random_field(2, 3, ny, nx)
    found, by_fft, back = operator(field), transform(field), operator.adjoint(operator(field))
    assert found.shape == (2, 3, DIRECTIONS[name].shape[1], 2)
    assert by_fft.shape == back.shape == (2, 3, ny, nx, 2)
    assert power(found).shape == found.shape[:-1]
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(found[i, j], operator(field[i, j]), rtol=1e-13, atol=1e-12)
        torch.testing.assert_close(by_fft[i, j], transform(field[i, j]), rtol=1e-13, atol=1e-12)
        torch.testing.assert_close(back[i, j], operator.adjoint(found[i, j]), rtol=1e-13, atol=1e-10)


def test_the_last_dimension_is_real_and_imaginary():
    field = torch.zeros(4, 6, 2, dtype=torch.float64)
    field[2, 3] = torch.tensor([3.0, -4.0])  # the pixel at the origin: the same in every direction
    for found in (transform(field), direct(4, 6, *grid())(field), direct(4, 6, *scattered(9))(field)):
        torch.testing.assert_close(found, torch.tensor([3.0, -4.0]).double().expand(found.shape))
        assert power(found).flatten()[0] == pytest.approx(25.0)
    for wrong in (torch.zeros(4, 6), torch.zeros(4, 6, 3)):
        with pytest.raises(RuntimeError):
            transform(wrong)
        with pytest.raises(RuntimeError):
            direct(4, 6, *grid())(wrong)


def test_single_precision_follows_like():
    like = torch.zeros((), dtype=torch.float32)
    field = random_field(8, 10)
    for directions in (grid(), scattered(9)):
        expected = direct(8, 10, *directions)(field)
        found = direct(8, 10, *directions, like=like)(field.float())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


# ------------------------------------------------------------------------------------ pruned FFT


# Pixels along y and x, pixels before zero, directions, FFT lengths, and the first direction in steps.
PRUNED = {
    "even": ((24, 24), (12, 12), (32, 32), (32, 32), (-16, -16)),
    "part of the sky": ((24, 24), (12, 12), (30, 29), (32, 32), (-13, -15)),
    "off centre": ((25, 24), (3, 20), (30, 31), (32, 36), (2, -34)),
    "between the steps": ((24, 26), (12, 11), (31, 30), (33, 32), (-15.31, -12.75)),
    "odd": ((23, 25), (11, 12), (33, 35), (33, 35), (-16, -17)),
    "from zero on": ((24, 23), (0, 22), (30, 32), (36, 33), (0, 0)),
    "oblong": ((30, 40), (15, 20), (60, 46), (64, 48), (-30, -21)),
    "dish as wide as the period": ((32, 30), (16, 15), (30, 30), (32, 30), (-15, -15)),
}


def pruned_directions(case, order=lambda u, v: (u, v)):
    """Pixels x, y and directions u, v of a case."""
    (ny, nx), (by, bx), (nv, nu), (my, mx), (fv, fu) = PRUNED[case]
    x, y = (np.arange(nx) - bx) * PITCH, (np.arange(ny) - by) * PITCH
    grid_u = (np.arange(nu) + fu) * sky_pitch(WAVELENGTH, mx, PITCH)
    grid_v = (np.arange(nv) + fv) * sky_pitch(WAVELENGTH, my, PITCH)
    v, u = np.meshgrid(grid_v, grid_u, indexing="ij")
    return x, y, u.ravel(), v.ravel()


def pruned(case, some=slice(None)):
    x, y, u, v = pruned_directions(case)
    operator = DirectTransform(x, y, u[some], v[some], WAVELENGTH, like=LIKE)
    assert operator.way == "fft"
    assert operator.way != "scattered"
    return operator


def by_matrix(monkeypatch, *args):
    """The same operator by matrix products, whatever they cost."""
    with monkeypatch.context() as patch:
        patch.setattr(farfield, "estimate_costs", lambda *_: {"matrix": 1.0})
        operator = DirectTransform(*args, WAVELENGTH, like=LIKE)
    assert operator.way == "matrix"
    return operator


@pytest.mark.parametrize("case", PRUNED)
def test_pruned_fft_is_the_sum(case, monkeypatch):
    x, y, u, v = pruned_directions(case)
    field = random_field(len(y), len(x))
    found = pruned(case)(field)
    assert_same(found, as_complex(by_matrix(monkeypatch, x, y, u, v)(field)))
    some = np.random.default_rng(0).choice(len(u), 8, replace=False)
    peak = float(power(found).max().sqrt())
    expected = explicit(field, x, y, u[some], v[some])
    np.testing.assert_allclose(as_complex(found)[some], expected, rtol=0, atol=1e-12 * peak)


def test_pruned_fft_is_the_whole_one():
    """A dish on part of a padded grid: the rows without pixels are skipped, not the pixels."""
    n = 32
    field = torch.zeros(n, n, 2, dtype=torch.float64)
    field[4:28, 5:29] = random_field(24, 24)
    x, y = axis(n)[5:29], axis(n)[4:28]
    operator = DirectTransform(x, y, *fft_directions(n, n), WAVELENGTH, like=LIKE)
    assert operator.way == "fft"
    assert_same(operator(field[4:28, 5:29]), as_complex(transform(field)).ravel())


@pytest.mark.parametrize(
    "some",
    [
        np.random.default_rng(2).permutation(900),
        np.random.default_rng(2).permutation(900)[:850],
        np.arange(900)[::-1],
        np.concatenate([np.arange(900), np.arange(40, 70)]),
    ],
    ids=["permuted", "holes", "descending", "repeated"],
)
def test_pruned_fft_in_every_disorder(some, monkeypatch):
    x, y, u, v = pruned_directions("part of the sky")
    u, v = u[:870][some % 870], v[:870][some % 870]
    operator = DirectTransform(x, y, u, v, WAVELENGTH, like=LIKE)
    assert operator.way == "fft"
    matrix = by_matrix(monkeypatch, x, y, u, v)
    field, samples = random_field(len(y), len(x)), random_field(len(u), seed=3)
    assert_same(operator(field), as_complex(matrix(field)))
    torch.testing.assert_close(operator.adjoint(samples), matrix.adjoint(samples), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", PRUNED)
def test_adjoint_of_the_pruned_fft(case, monkeypatch):
    operator = pruned(case)
    ny, nx = PRUNED[case][0]
    field, samples = random_field(3, ny, nx), random_field(3, operator.n, seed=7)
    found = operator.adjoint(samples)
    assert found.shape == field.shape
    torch.testing.assert_close(
        dot(samples, operator(field)).sum(), dot(found, field).sum(), rtol=1e-12, atol=1e-9
    )
    expected = by_matrix(monkeypatch, *pruned_directions(case)).adjoint(samples)
    assert_same(found, as_complex(expected))


def test_gradient_of_the_pruned_fft():
    operator = pruned("off centre")
    field, samples = random_field(25, 24).requires_grad_(), random_field(operator.n, seed=7).requires_grad_()
    assert torch.autograd.gradcheck(operator, field, fast_mode=True)
    assert torch.autograd.gradcheck(operator.adjoint, samples, fast_mode=True)
    # The adjoint is what autograd pulls back.
    (pulled,) = torch.autograd.grad((operator(field) * samples.detach()).sum(), field)
    torch.testing.assert_close(operator.adjoint(samples.detach()), pulled, rtol=0, atol=1e-10)


def test_batches_come_first_in_the_pruned_fft():
    operator = pruned("oblong", np.random.default_rng(2).permutation(60 * 46)[:-9])
    field = random_field(2, 3, 30, 40)
    found = operator(field)
    back = operator.adjoint(found)
    assert found.shape == (2, 3, 60 * 46 - 9, 2)
    assert back.shape == field.shape
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(found[i, j], operator(field[i, j]), rtol=1e-13, atol=1e-11)
        torch.testing.assert_close(back[i, j], operator.adjoint(found[i, j]), rtol=1e-13, atol=1e-9)


def test_pruned_fft_in_single_precision():
    x, y, u, v = pruned_directions("between the steps")
    field = random_field(len(y), len(x))
    expected = pruned("between the steps")(field)
    found = DirectTransform(x, y, u, v, WAVELENGTH, like=LIKE.float())(field.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


def test_a_grid_that_does_not_suit_the_pixels_is_no_fft():
    x, y, u, v = pruned_directions("part of the sky")
    good = DirectTransform(x, y, u, v, WAVELENGTH, like=LIKE)
    assert good.costs.keys() == {"matrix", "scattered", "fft"}
    field = random_field(len(y), len(x))
    unsuited = {
        "steps a little off along x": (x, y, u * 1.001, v),
        "and along y": (x, y, u, v * 0.9995),
        "steps of a period and a half": (x, y, u, v * 32 / 31.5),
        "pixels with none at zero": (x + 0.5 * PITCH, y, u, v),
        "pixels that lie all on one side": (x, y - y[0] + PITCH, u, v),
        "more directions than a period has": (
            x,
            y,
            *pruned_directions("odd")[2:] * np.array([[33 / 20], [1]]),
        ),
        "one row": (x, y, u[:29], v[:29]),
    }
    for why, args in unsuited.items():
        operator = DirectTransform(*args, WAVELENGTH, like=LIKE)
        assert operator.costs.keys() == {"matrix", "scattered"}, why
        assert operator.way == "matrix", why
        some = [0, 7, 20]
        expected = explicit(field, *args[:2], args[2][some], args[3][some])
        np.testing.assert_allclose(as_complex(operator(field))[some], expected, rtol=0, atol=1e-10)


def test_the_way_is_the_cheapest_one():
    seen = set()
    for case, part in itertools.product(PRUNED, (1.0, 0.9, 0.05, 0.004)):
        x, y, u, v = pruned_directions(case)
        some = np.random.default_rng(1).random(len(u)) < part
        some[[0, -1]] = True
        (ny, nx), _, _, periods, _ = PRUNED[case]
        u, v = u[some], v[some]
        operator = DirectTransform(x, y, u, v, WAVELENGTH, like=LIKE)
        nv, nu = len(np.unique(v)), len(np.unique(u))
        if "fft" in operator.costs:
            assert operator.costs == estimate_costs(ny, nx, nv, nu, len(u), periods)
        else:  # a row or a column is missing altogether
            assert operator.costs == estimate_costs(ny, nx, nv, nu, len(u))
        assert operator.costs[operator.way] == min(operator.costs.values())
        seen.add(operator.way)
    assert seen == {"matrix", "fft", "scattered"}


def test_costs_grow_as_they_should():
    costs = estimate_costs(64, 64, 64, 64, 64**2, (256, 256))
    assert (costs["matrix"], costs["scattered"]) == (64 * 64 * 128, 64**2 * 64 * 65)
    # Only rows that hold something are transformed: half of them, half the cost.
    assert estimate_costs(64, 32, 32, 64, 64**2, (256, 256))["fft"] == costs["fft"] / 2
    # On the full sky of a large raster the FFT wins, by more the larger it is; on the middle of it it loses.
    gains = []
    for n in (128, 256, 512, 1024):
        full = estimate_costs(n // 2, n // 2, n, n, n * n, (n, n))
        gains.append(full["matrix"] / full["fft"])
        middle = estimate_costs(n // 2, n // 2, n // 8, n // 8, (n // 8) ** 2, (n, n))
        assert n > 512 or middle["matrix"] < middle["fft"]
    assert gains[0] > 1
    assert gains == sorted(gains)
    # Few directions all over the sky.
    few = estimate_costs(50, 50, 40, 40, 40, (64, 64))
    assert min(few, key=few.__getitem__) == "scattered"
    assert estimate_costs(5, 5, 5, 5, 25, (None, 8)).keys() == {"matrix", "scattered"}


def test_uniform_disc_gives_the_airy_pattern():
    dish = telescopes.load("alma-nosec")
    n, pitch = 72, 2 * dish.radius / 64
    x = (np.arange(n) - n // 2) * pitch
    open_part = torch.as_tensor(dish.coverage(*np.meshgrid(x, x), pitch))
    field = torch.stack([open_part, torch.zeros_like(open_part)], -1)

    def beam(s, angle=0.0):
        """Far field over its peak where k R times the distance from the axis is s."""
        distance = np.atleast_1d(s) * WAVELENGTH / (2 * math.pi * dish.radius)
        u, v = distance * math.cos(angle), distance * math.sin(angle)
        far = DirectTransform(x, x, u, v, WAVELENGTH, like=LIKE)(field)
        assert far[..., 1].abs().max() < 1e-9 * float(field.sum())
        return (far[..., 0] / field.sum()).numpy()

    s = np.linspace(0.1, 12, 60)
    for angle in (0.0, 0.5, math.pi / 2):
        # What remains is the width of a pixel.
        np.testing.assert_allclose(beam(s, angle), 2 * special.j1(s) / s, rtol=0, atol=5e-4)
    null = optimize.brentq(lambda t: float(beam(t)[0]), 3.0, 5.0)
    assert null == pytest.approx(1.21967 * math.pi, rel=1e-3)
    assert float(field.sum()) * pitch**2 == pytest.approx(math.pi * dish.radius**2, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("ny", "nx", "nv", "nu"), [(30, 20, 25, 25), (20, 20, 10, 25), (20, 20, 25, 10)])
def test_the_matrix_way_costs_what_it_says(ny, nx, nv, nu):
    v, u = (a.ravel() * 1e-5 for a in np.meshgrid(np.arange(nv), np.arange(nu) * 1.1, indexing="ij"))
    x, y = np.arange(nx) - nx // 2, np.arange(ny) - ny // 2
    operator = DirectTransform(x, y, u, v, 2e-3, like=torch.zeros((), dtype=torch.float64))
    assert operator.way == "matrix"
    with FlopCounterMode(display=False) as counter:
        operator(torch.ones(ny, nx, 2, dtype=torch.float64))
    assert counter.get_total_flops() == 2 * operator.costs["matrix"]
