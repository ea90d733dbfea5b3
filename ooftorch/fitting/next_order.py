"""What a wider model would change, to first order, without a fit of it.

At a minimum the gradient by terms that are not in the fit tells how much lower the objective would be with
them, and where the other parameters would go: one Newton step (the score test of Rao 1948). The terms are
those of the next order of the surface, and of the next orders of the amplitude.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ooftorch.fitting.posterior import Linearised, Posterior
from ooftorch.optics import zernike
from ooftorch.optics.amplitude import BEND_PRIOR
from ooftorch.optics.basis import BASES

__all__ = ["Wider", "try_wider_model"]

# Orders of the amplitude that are added, and the highest of them.
_AMPLITUDE_STEP, _HIGHEST_AMPLITUDE = 2, 8


class Wider(NamedTuple):
    """A Newton step into a wider model.

    Attributes
    ----------
    n_terms : int
        Of the next order of the surface; 0 if the basis has none.
    gain : float
        How much lower the objective would be with these alone, natural units; half of `n_terms` on average
        where they are not needed and the noise is independent.
    change : Tensor, (n_free,)
        Of the free coordinates, with the terms of the amplitude as well.
    noise : Tensor, (n_free,)
        Standard deviation of that change where nothing more is needed and the noise is independent.
    """

    n_terms: int
    gain: float
    change: Tensor
    noise: Tensor


@torch.no_grad()
def try_wider_model(posterior: Posterior, linear: Linearised, amplitude_order: int) -> Wider:
    """Take a Newton step from the minimum of one observation into a wider model.

    Parameters
    ----------
    posterior : Posterior
    linear : Linearised
        At the minimum.
    amplitude_order : int
        Highest order of the amplitude that is in the fit.
    """
    phases, phase_precision = _find_next_phases(posterior)
    amplitudes, amplitude_precision = _find_next_amplitudes(posterior, amplitude_order)
    precision = torch.tensor([*phase_precision, *amplitude_precision]).to(linear.rows)
    changes = posterior.whiten(linear.at, linear.at.differentiate(phases, amplitudes))
    rows, terms = posterior.absorb_rows(changes)
    r, valid = linear.residuals, posterior.samples.valid
    gradient = changes @ torch.where(valid, linear.law.score(r), 0.0)
    curvature = linear.law.curvature(r)[valid].mean()
    cross, own = curvature * linear.rows @ rows.mT, curvature * rows @ rows.mT + torch.diag(precision)
    if terms is not None and linear.amplitudes is not None:
        cross, own = cross + linear.amplitudes @ terms.mT, own + terms @ terms.mT
    # Pseudo-inverses: maps need not fix every parameter.
    response = torch.linalg.pinv(posterior.find_information(linear, curvature), hermitian=True) @ cross
    left = own - cross.mT @ response  # information on the new terms when all others adapt
    n = len(phases)
    inverse = torch.linalg.pinv(left, hermitian=True)
    of_phases = torch.linalg.pinv(left[:n, :n], hermitian=True)
    return Wider(
        n,
        0.5 * float(gradient[:n] @ of_phases @ gradient[:n]),
        response @ (inverse @ gradient),
        torch.sqrt(((response @ inverse) * response).sum(-1).clamp(min=0.0)),
    )


def _find_next_phases(posterior: Posterior) -> tuple[Tensor, list[float]]:
    """Terms of the next order of the surface on the pixels (k, n_pixels), and their priors' precision."""
    model = posterior.model
    basis, matrix = model.instrument.basis, model.parts.surface.matrix
    if basis.name not in BASES:
        return matrix[:0], []
    wider, radius = BASES[basis.name](basis.order + 1), model.telescope.radius
    new = [i for i, name in enumerate(wider.names) if name not in basis.names]
    terms = wider.evaluate(model.pixels.x / radius, model.pixels.y / radius)[new]
    precision = 0.0 if wider.prior is None else wider.prior**-2
    return torch.as_tensor(terms).to(matrix), [precision] * len(new)


def _find_next_amplitudes(posterior: Posterior, order: int) -> tuple[Tensor, list[float]]:
    """Terms of the next orders of the amplitude on the pixels (k, n_pixels), and their priors' precision."""
    model = posterior.model
    radius, matrix = model.telescope.radius, model.parts.surface.matrix
    highest = max(order, min(order + _AMPLITUDE_STEP, _HIGHEST_AMPLITUDE))
    new = range(max(zernike.n_terms(order), 3), zernike.n_terms(highest))
    terms = zernike.raster(highest, model.pixels.x / radius, model.pixels.y / radius)[new.start : new.stop]
    return torch.as_tensor(terms).to(matrix), [(zernike.order_of(k) / BEND_PRIOR) ** 2 for k in new]
