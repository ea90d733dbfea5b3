"""Observations of known surfaces, made by the package's own model, for tests of the fit."""

from dataclasses import replace

import numpy as np
import torch

from ooftorch.observation import BeamMap, Observation
from ooftorch.optics import telescopes, zernike
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.receiver import Receiver

WAVELENGTH = 1.1e-3


def observe(
    z,
    *,
    name="paper",
    wavelength=WAVELENGTH,
    dz=(-0.05, 0.0, 0.05),
    samples=17,
    reach=4.0,
    noise=1e-3,
    seed=0,
    errors=True,
    receiver=Receiver(),  # noqa: B008
    centre=(0.0, 0.0),
    **values,
):
    """Maps of the surface with coefficients z (z1, z2, ...), noise as a fraction of the in-focus peak."""
    scope = telescopes.load(name)
    axis = np.linspace(-reach, reach, samples) * wavelength / (2 * scope.radius)
    x, y = (a.ravel() for a in np.meshgrid(axis + centre[0], axis + centre[1]))
    order = zernike.order_of(len(z))
    model = BeamModel(
        scope, wavelength, [MapGeometry(d, x, y) for d in dz], order=order, receiver=receiver, n=96
    )
    model.set(**{zernike.name(k): v for k, v in enumerate(z, 1)}, **values)
    with torch.no_grad():
        maps = [p.numpy() for p in model.split(model())]
    sigma = noise * max(np.abs(p).max() for p in maps)
    rng = np.random.default_rng(seed)
    return Observation(
        maps=tuple(
            BeamMap(d, x, y, p + rng.normal(scale=sigma, size=p.size), sigma=np.full(p.size, sigma))
            if errors
            else BeamMap(d, x, y, p + rng.normal(scale=sigma, size=p.size))
            for d, p in zip(dz, maps, strict=True)
        ),
        wavelength=wavelength,
        telescope=name,
        receiver=receiver,
    )


def surface(order, rms, seed):
    """Random coefficients z1, z2, ... of a given phase rms, tilts among them but not counted in it."""
    z = np.random.default_rng(seed).normal(size=zernike.n_terms(order))
    z[0] = 0
    z[3:] *= rms / np.sqrt(np.sum((z**2 * zernike.mean_square(order))[3:]))
    z[1:3] *= 0.3
    return z[1:]


def altered(observation, change):
    """The observation with `change(map, index)` in place of each map."""
    return replace(observation, maps=tuple(change(m, i) for i, m in enumerate(observation.maps)))


def phase_error(result, z):
    """Rms phase between a result and the truth z1, z2, ... over the dish, piston and tilt aside."""
    d = result.coefficients - np.concatenate([[0.0], z])
    return float(np.sqrt(np.sum((d**2 * zernike.mean_square(result.order))[3:])))
