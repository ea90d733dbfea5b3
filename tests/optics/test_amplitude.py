"""The bend of the illumination, and the order of the factors' parameters."""

import numpy as np
import pytest
import torch

from ooftorch.errors import InputError
from ooftorch.optics import illumination, telescopes, zernike
from ooftorch.optics.illumination.gaussian import Gaussian
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel

WAVELENGTH = 3e-3
BEND = {"a3": 0.2, "a4": -0.3, "a7": 0.15, "a9": -0.1}


def build(model="gaussian", name="effelsberg", amplitude_order=3, **options):
    scope = telescopes.load(name)
    beam = WAVELENGTH / (2 * scope.radius)
    x, y = beam * np.random.default_rng(0).uniform(-3, 3, (2, 40))
    maps = [MapGeometry(dz, x, y) for dz in (-3e-3, 3e-3)]
    return BeamModel(
        scope,
        WAVELENGTH,
        maps,
        order=2,
        illumination=model,
        amplitude_order=amplitude_order,
        n=48,
        oversample=1.25,
        **options,
    )


class Bent(Gaussian):
    """A Gaussian with that bend, written by a user as a model of its own."""

    name = "bent"

    def amplitude(self, x, y, pitch, **parameters):
        terms = zernike.raster(3, x.numpy(), y.numpy())
        bend = sum(a * terms[int(name[1:])] for name, a in BEND.items())
        return super().amplitude(x, y, pitch, **parameters) * torch.as_tensor(np.exp(bend))


def test_bend_is_the_exponential_of_its_zernikes():
    """Two routes to one beam: the coefficients, and an illumination model that has them in it."""
    bent, plain = build(), build()
    other = build(Bent(), amplitude_order=0)
    bent.set(**BEND, x0=0.1, z3=0.5)
    plain.set(x0=0.1, z3=0.5)
    other.set(x0=0.1, z3=0.5)
    with torch.no_grad():
        torch.testing.assert_close(bent(), other(), rtol=0, atol=1e-13)
        torch.testing.assert_close(bent.aperture()[0], other.aperture()[0], rtol=1e-13, atol=0)
        assert float((bent() - plain()).abs().max()) > 0.01


def test_bend_that_is_zero_changes_nothing():
    with torch.no_grad():
        torch.testing.assert_close(build()(), build(amplitude_order=0)(), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("model", illumination.NAMES)
def test_parameters_follow_those_of_the_illumination(model):
    """Whatever the model: first its own, then a3, a4, ... with priors that fall, then the widths."""
    with_bend, without = (build(model, amplitude_order=m).layout for m in (4, 0))
    added = [f"a{k}" for k in range(3, 15)]
    names = list(without.names)
    at = names.index("legs")
    assert with_bend.names == [*names[:at], *added, *names[at:]]
    assert names[at : at + 2] == ["legs", "shadow"]
    for k in range(3, 15):
        p = with_bend[f"a{k}"]
        assert (p.unit, p.start, p.free, p.log) == ("", 0.0, True, False)
        assert p.prior == pytest.approx(0.5 / zernike.order_of(k))


def test_mirror_with_a_bend():
    """CONVENTIONS 8 holds for any real amplitude."""
    one, other = build("pedestal"), build("pedestal")
    flipped = [MapGeometry(-m.dz, -m.x, -m.y) for m in other.maps]
    other = BeamModel(
        other.telescope,
        WAVELENGTH,
        flipped,
        order=2,
        illumination="pedestal",
        amplitude_order=3,
        n=48,
        oversample=1.25,
    )
    real = BEND | {"legs": 1.4, "shadow": 0.7, "dz_scale": 1.1, "x0": 0.1}
    odd = {"z1": 0.2, "z3": 0.5, "z4": -0.4, "z5": 0.3, "dx_0": 2e-6, "dy_1": -1e-6, "dz": 5e-4}
    one.set(**real, **odd)
    other.set(**real, **{name: -value for name, value in odd.items()})
    with torch.no_grad():
        torch.testing.assert_close(one(), other(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [-1, 1, 33])
def test_an_amplitude_order_out_of_range_is_refused(order):
    with pytest.raises(InputError, match=f"amplitude order {order}; expected 2 to 32, or 0"):
        build(amplitude_order=order)
