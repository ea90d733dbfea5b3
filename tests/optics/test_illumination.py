"""Illumination: edge tapers, symmetry, and a finite gradient through every parameter everywhere."""

import inspect
import math

import pytest
import torch

from ooftorch.errors import InputError
from ooftorch.optics import illumination
from ooftorch.optics.illumination import gaussian, squashed
from ooftorch.optics.telescope import UsualIllumination

PITCH = 0.1


def double(values):
    return torch.tensor(values, dtype=torch.float64)


# Centre, rim (twice, one of them not exactly on it in floating point), inside, outside.
X = double([0.0, 1.0, 0.6, -0.3, 1.5, 0.0])
Y = double([0.0, 0.0, 0.8, 0.4, -1.2, -2.0])

VALUES = {
    "gaussian": {"x0": 0.1, "y0": -0.2, "amp": 1.3, "sigma": 0.6, "rho": 0.3, "diff": -0.2},
    "pedestal": {"x0": 0.1, "y0": -0.2, "amp": 1.3, "taper_db": -11.0, "q": 1.4},
    "squashed": {"x0": 0.1, "y0": -0.2, "amp": 1.3, "sigma": 0.55},
    "tophat": {"amp": 1.3, "radius": 0.97},
}
ALL = sorted(VALUES)


def amplitude(name, x, y, pitch=PITCH, **values):
    return illumination.choose(name).amplitude(x, y, pitch, **values)


def declared(name, usual=UsualIllumination(taper_db=None)):  # noqa: B008
    return {p.name: p for p in illumination.choose(name).declare(usual, 50.0)}


def edge_db(name, **values):
    """Rim over centre, decibels of amplitude, the same all round."""
    usual = {key: p.start for key, p in declared(name).items()} | values
    centre = amplitude(name, X[:1], Y[:1], **usual)
    edges = amplitude(name, double([1, 0, -1, 0]), double([0, 1, 0, -1]), **usual)
    assert edges.std() < 1e-14
    return 20 * math.log10(float(edges[0] / centre))


@pytest.mark.parametrize("sigma", [0.3, 0.6, 0.72, 1.0])
def test_gaussian_taper(sigma):
    assert edge_db("gaussian", sigma=sigma) == pytest.approx(-4.3429 / sigma**2, rel=1e-4)


def test_the_papers_gaussian():
    assert edge_db("gaussian", sigma=0.72) == pytest.approx(-8.38, abs=5e-3)


def test_squashed_taper_of_alma():
    assert edge_db("squashed", sigma=0.55) == pytest.approx(-11.43, abs=5e-3)
    # The formula as it is usually written, half way out.
    g = math.exp(-(0.5**2) / 0.55**2)
    half = amplitude("squashed", X[:1] + 0.3, Y[:1] + 0.4, x0=0.0, y0=0.0, amp=2.0, sigma=0.55)
    assert float(half) == pytest.approx(2 * math.sqrt(1 - (1 - g) ** 2), rel=1e-12)


@pytest.mark.parametrize("taper_db", [-3.0, -12.0, -20.0])
@pytest.mark.parametrize("model", [gaussian, squashed])
def test_width_of_a_taper(model, taper_db):
    name = model.__name__.rsplit(".", 1)[1]
    sigma = model.find_width(taper_db)
    assert edge_db(name, sigma=sigma) == pytest.approx(taper_db, rel=1e-10)
    # A telescope's taper is where a fit starts.
    assert declared(name, UsualIllumination(name, taper_db))["sigma"].start == sigma


@pytest.mark.parametrize("q", [0.8, 1.0, 1.4, 2.0])
def test_pedestal_taper_whatever_the_exponent(q):
    assert edge_db("pedestal", taper_db=-14.5, q=q) == pytest.approx(-14.5, rel=1e-9)
    c = 10 ** (-14.5 / 20)
    values = {"x0": 0.0, "y0": 0.0, "amp": 2.0, "taper_db": -14.5, "q": q}
    half, beyond = amplitude("pedestal", X[[3, 4]], Y[[3, 4]], **values)
    assert float(half) == pytest.approx(2 * (c + (1 - c) * 0.75**q), rel=1e-12)
    assert float(beyond) == pytest.approx(2 * c, rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_peak_is_amp_at_the_centre_of_the_illumination(name):
    x0, y0 = VALUES[name].get("x0", 0.0), VALUES[name].get("y0", 0.0)
    ring = 0.5 * torch.exp(1j * torch.linspace(0, 6, 20, dtype=torch.float64))
    at_peak = amplitude(name, X[:1] + x0, Y[:1] + y0, **VALUES[name])
    assert float(at_peak) == pytest.approx(1.3, rel=1e-14)
    around = amplitude(name, x0 + ring.real, y0 + ring.imag, **VALUES[name])
    assert torch.all(around < 1.3) or name == "tophat"


def test_ellipticity():
    values = {"x0": 0.1, "y0": -0.2, "amp": 1.0, "sigma": 0.7}

    def bell(dx, dy, **shape):
        a, b = double([0.1 + dx]), double([-0.2 + dy])
        return float(amplitude("gaussian", a, b, **values, **shape))

    # rho multiplies dx dy: narrower along the diagonal where both have one sign.
    rho = {"rho": 0.5, "diff": 0.0}
    assert bell(0.4, 0.4, **rho) / bell(0.4, -0.4, **rho) == pytest.approx(math.exp(-0.5 * 0.4**2 / 0.7**2))
    assert bell(0.4, 0.0, **rho) == pytest.approx(bell(0.0, 0.4, **rho))
    # diff multiplies dx^2 - dy^2: narrower along x.
    diff = {"rho": 0.0, "diff": 0.3}
    assert bell(0.4, 0.0, **diff) / bell(0.0, 0.4, **diff) == pytest.approx(math.exp(-0.3 * 0.4**2 / 0.7**2))
    assert bell(0.4, 0.4, **diff) == pytest.approx(bell(0.4, -0.4, **diff))


def test_tophat_counts_a_cut_pixel_by_how_far_it_lies_inside():
    r = double([0.0, 0.74, 0.75, 0.775, 0.8, 0.825, 0.85, 0.9])
    expected = double([1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    found = amplitude("tophat", 0.6 * r, -0.8 * r, amp=2.0, radius=0.8)
    torch.testing.assert_close(found, 2 * expected)
    # So the area follows the radius smoothly, and has a slope.
    axis = torch.arange(-60, 61, dtype=torch.float64) / 50
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    for radius in (0.8, 0.803, 0.807):
        at = double(radius).requires_grad_()
        area = amplitude("tophat", x, y, 0.02, amp=1.0, radius=at).sum() * 0.02**2
        (slope,) = torch.autograd.grad(area, at)
        assert float(area.detach()) == pytest.approx(math.pi * radius**2, rel=5e-4)
        assert float(slope) == pytest.approx(2 * math.pi * radius, rel=0.1)


def leaves(values):
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values.values()]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_gradient_through_every_parameter(name, centred):
    values = dict(VALUES[name])
    if centred and "x0" in values:
        # The rim now lies exactly on points of X, Y, where the pedestal is smooth for q = 2.
        values |= {"x0": 0.0, "y0": 0.0} | ({"q": 2.0} if "q" in values else {})
    assert values.keys() == declared(name).keys()

    def function(*parameters):
        return amplitude(name, X, Y, **dict(zip(values, parameters, strict=True)))

    assert torch.autograd.gradcheck(function, leaves(values), eps=1e-6, atol=1e-5)


def test_squashed_gradient_is_finite_far_out_on_a_narrow_bell():
    # There g is lost beside 1, and the formula as usually written is the square root of zero.
    parameters = leaves(VALUES["squashed"] | {"sigma": 0.12})
    out = amplitude("squashed", X, Y, **dict(zip(VALUES["squashed"], parameters, strict=True)))
    gradients = torch.autograd.grad(out.sum(), parameters)
    assert torch.all(out > 0)
    assert all(torch.isfinite(g) for g in gradients)


@pytest.mark.parametrize("q", [0.5, 1.0, 1.4])
def test_pedestal_gradient_is_finite_at_the_rim_whatever_the_exponent(q):
    just = 1 + double([-1e-9, -1e-16, 0.0, 1e-16, 1e-9, 1.0])
    values = {"x0": 0.0, "y0": 0.0, "amp": 1.0, "taper_db": -12.0, "q": q}
    for x, y in ((just, 0 * just), (0 * just, just), (X, Y)):
        parameters = leaves(values)
        out = amplitude("pedestal", x, y, **dict(zip(values, parameters, strict=True)))
        gradients = torch.autograd.grad(out.sum(), parameters)
        assert torch.isfinite(out).all()
        assert all(torch.isfinite(g) for g in gradients)
    # The exponent and the taper do have a slope at the rim that can be checked.

    def function(taper_db, exponent):
        return amplitude("pedestal", X, Y, **(values | {"taper_db": taper_db, "q": exponent}))

    assert torch.autograd.gradcheck(function, leaves({"taper_db": -12.0, "q": q}))


@pytest.mark.parametrize("name", ALL)
def test_batches_of_parameters_broadcast(name):
    factors = double([1.0, 0.9, 1.1])
    batch = {key: (value * factors)[:, None] for key, value in VALUES[name].items()}
    found = amplitude(name, X, Y, **batch)
    assert found.shape == (3, len(X))
    for i, factor in enumerate(factors.tolist()):
        one = amplitude(name, X, Y, **{key: value * factor for key, value in VALUES[name].items()})
        torch.testing.assert_close(found[i], one, rtol=1e-13, atol=0)


# -------------------------------------------------------------------- derivatives of the logarithm


def derivatives(name, x, y, **values):
    """The written-out derivatives; each parameter's is computed when it is called for."""
    found = illumination.choose(name).log_derivatives(x, y, PITCH, **values)
    assert found.keys() == values.keys()
    return {key: derivative() for key, derivative in found.items()}


def by_autograd(name, x, y, **values):
    """The same by autograd, one point at a time; where it is dark there is no logarithm, and no slope."""
    out = {key: torch.zeros_like(x) for key in values}
    for i in range(len(x)):
        at = {key: double(float(v)).requires_grad_() for key, v in values.items()}
        bright = amplitude(name, x[i], y[i], **at)
        if bright > 0:
            by_each = torch.autograd.grad(torch.log(bright), list(at.values()))
            for key, slope in zip(at, by_each, strict=True):
                out[key][i] = slope
    return out


# In all directions, well inside the rim, close to it on both sides, and far beyond.
RING = torch.linspace(0, 2 * math.pi, 13, dtype=torch.float64)[:-1]
SIZE = double([0.0, 0.3, 0.7, 0.9, 0.97, 1.03, 1.15, 1.6])
POLAR_X, POLAR_Y = ((SIZE[:, None] * f(RING)).flatten() for f in (torch.cos, torch.sin))


@pytest.mark.parametrize(
    "change", [{}, {"q": 0.8}, {"q": 1.0}, {"q": 2.0}, {"x0": 0.0, "y0": 0.0}, {"amp": 0.3}]
)
@pytest.mark.parametrize("name", ALL)
def test_derivatives_are_those_of_the_logarithm(name, change):
    values = VALUES[name] | {key: v for key, v in change.items() if key in VALUES[name]}
    as_tensors = {key: double(v) for key, v in values.items()}
    found, expected = (f(name, POLAR_X, POLAR_Y, **as_tensors) for f in (derivatives, by_autograd))
    for key in values:
        assert found[key].shape == POLAR_X.shape
        assert expected[key].any()
        torch.testing.assert_close(
            found[key], expected[key], rtol=1e-10, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("name", ALL)
def test_derivatives_of_a_batch(name):
    factors = double([1.0, 0.9, 1.1])
    batch = {key: (value * factors)[:, None] for key, value in VALUES[name].items()}
    found = derivatives(name, POLAR_X, POLAR_Y, **batch)
    for key, slope in found.items():
        assert slope.shape == (3, len(POLAR_X))
        for i in range(3):
            one = {k: v[i, 0] for k, v in batch.items()}
            torch.testing.assert_close(
                slope[i], derivatives(name, POLAR_X, POLAR_Y, **one)[key], rtol=1e-13, atol=0
            )
            torch.testing.assert_close(
                slope[i], by_autograd(name, POLAR_X, POLAR_Y, **one)[key], rtol=1e-10, atol=1e-12
            )


def test_derivatives_are_finite_where_autograd_of_the_logarithm_is_not():
    # On the rim itself, and where a narrow bell is lost beside 1.
    for q in (0.5, 1.0, 1.4):
        values = VALUES["pedestal"] | {"x0": 0.0, "y0": 0.0, "q": q}
        found = derivatives("pedestal", X, Y, **{key: double(v) for key, v in values.items()})
        assert all(slope.isfinite().all() for slope in found.values())
    values = VALUES["squashed"] | {"sigma": 0.05}
    found = derivatives("squashed", 2 * X, 2 * Y, **{key: double(v) for key, v in values.items()})
    assert all(slope.isfinite().all() for slope in found.values())


def test_derivatives_of_the_tophat_across_its_edge():
    """Pixel by pixel: bright, cut by the edge, dark. The edge's slope is that of the share inside."""
    share = double([3.0, 1.2, 0.9, 0.5, 0.01, -0.2, -4.0])  # before it is cut to between 0 and 1
    r = 0.8 - 0.1 * (share - 0.5)
    values = {"amp": double(2.0), "radius": double(0.8)}
    found = derivatives("tophat", 0.6 * r, -0.8 * r, **values)
    torch.testing.assert_close(found["amp"], double([0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0]))
    expected = double([0, 0, 1 / (0.1 * 0.9), 1 / (0.1 * 0.5), 1 / (0.1 * 0.01), 0, 0])
    torch.testing.assert_close(found["radius"], expected, rtol=1e-9, atol=0)
    # Dark altogether.
    dark = derivatives("tophat", r, 0 * r, amp=double(2.0), radius=double(0.05))
    assert not any(slope.any() for slope in dark.values())


@pytest.mark.parametrize("name", ALL)
def test_what_is_declared_is_what_the_functions_take(name):
    model = illumination.choose(name)
    for function in (model.amplitude, model.log_derivatives):
        keywords = set(inspect.signature(function).parameters) - {"x", "y", "pitch"}
        assert declared(name).keys() == keywords
    assert model.name == name
    assert declared(name)["amp"].unobservable
    assert ("radius" in keywords) == model.has_edge


def test_an_edge_and_a_taper_exclude_each_other():
    edged = {name for name in illumination.NAMES if illumination.choose(name).has_edge}
    assert edged == set(illumination.NAMES) - set(illumination.TAPERED)


def test_refusals():
    with pytest.raises(InputError, match="'gausian'; known are gaussian, pedestal, squashed, tophat"):
        illumination.choose("gausian")


def test_a_model_is_taken_as_it_is():
    model = illumination.choose("gaussian")
    assert illumination.choose(model) is model
