"""The objective of a fit as a function of its free parameters, to minimise with any method."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.errors import InputError
from ooftorch.fitting.evaluation import evaluate
from ooftorch.fitting.refinement import begin
from ooftorch.fitting.results import build_result
from ooftorch.fitting.search import Minima
from ooftorch.fitting.setup import FitOptions, Setup, set_up
from ooftorch.observation import Observation
from ooftorch.optics.telescope import Telescope
from ooftorch.optim.bfgs import inverse_root
from ooftorch.result import FitResult

__all__ = ["Prior", "Problem", "problem"]


class Prior(NamedTuple):
    """Normal prior of a parameter.

    Attributes
    ----------
    centre, width : float
        Mean and standard deviation, in the unit of the parameter.
    log : bool
        Whether it is a prior on the logarithm; the width is then relative.
    """

    centre: float
    width: float
    log: bool


def problem(
    observation: Observation, telescope: Telescope | str | Path | None = None, **options
) -> "Problem":
    """Return the objective that `ooftorch.fit` minimises, as a function of the free parameters.

    That is the one before anything is taken up by evidence: without errors of scan lines, and with as many
    amplitude terms as `amplitude_order` says, none by default.

    Parameters
    ----------
    observation : Observation
    telescope, **options
        As in `ooftorch.fit`, without `progress`.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        As `ooftorch.fit`.

    Examples
    --------
    ::

        problem = ooftorch.problem(observation, order=5)
        minimum = ooftorch.minimize(problem, problem.start, method="BFGS", jac=True)
        print(ooftorch.report(problem.result(minimum.x)))
    """
    chosen = FitOptions(**options)
    if chosen.nuisance not in ("auto", "none"):
        raise InputError(
            f"nuisance is {chosen.nuisance!r}; a problem has no errors of scan lines, only a fit"
        )
    return Problem(set_up([observation], telescope, chosen))


class Problem:
    """Negative log-posterior of one observation, in natural units, as a function of n free coordinates.

    The coordinates are dimensionless and of order one: `values` converts them to parameters in their units,
    `coordinates` back.

    Parameters
    ----------
    setup : Setup
        Of one observation.

    Attributes
    ----------
    start : Tensor, (n,)
        The perfect dish, with flux and pointing estimated from the maps.
    names, units : list of str, (n,)
        Of the free parameters.
    priors : dict of str to Prior
        Of the free parameters that have one.
    ties : tuple of Tie
        Groups of parameters tied to each other.
    posterior : Posterior
        The objective, with likelihood, priors, model and samples.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        layout, levels = setup.layout, setup.levels
        self.posterior = levels.posterior(levels.exact, layout, 0, setup.starts[0])
        free = [layout.parameters[i] for i in layout.free]
        self.start = setup.starts[0, self.posterior.free].clone()
        self.names = [p.name for p in free]
        self.units = [p.unit for p in free]
        self.priors = {p.name: Prior(p.start, p.prior, p.log) for p in free if p.prior is not None}
        self.ties = layout.ties

    def __call__(self, x):
        """Value and gradient in closed form, for `minimize` with `jac=True`.

        Parameters
        ----------
        x : Tensor or ndarray, (n,)
            Free coordinates.

        Returns
        -------
        value, gradient
            Tensors () and (n,) without a graph; a float and an ndarray if x is an ndarray, as SciPy expects.
        """
        given = torch.as_tensor(x).to(self.start).detach()
        value, gradient = (t.clone() for t in self.posterior.value_and_gradient(given))
        if isinstance(x, np.ndarray):
            return value.item(), gradient.cpu().numpy()
        return value, gradient

    def value(self, x: Tensor) -> Tensor:
        """Value () at x (n,), differentiable with torch to any order."""
        return self.posterior(x)

    def metric(self, x: Tensor | None = None) -> Tensor:
        """Positive definite (Gauss-Newton) estimate of the Hessian (n, n) at x, by default at the start."""
        return self.posterior.metric(self.start if x is None else x.detach()).clone()

    def values(self, x: Tensor) -> dict[str, float]:
        """All parameters of the model at x (n,), free and held, by name and in their units."""
        complete = self.posterior.complete(x.detach())
        return self._setup.layout.values(complete.cpu().numpy())

    def coordinates(self, values: Mapping[str, float]) -> Tensor:
        """Free coordinates (n,) of parameters given by name, in their units; others as at the start."""
        layout = self._setup.layout
        u = self._setup.starts[0].clone()
        for name, value in values.items():
            u[layout.index(name)] = layout[name].coordinate(value)
        return u[self.posterior.free]

    def result(self, x: Tensor, n_eval: int = 0, seconds: float = 0.0) -> FitResult:
        """Build the `FitResult` for the point x.

        Parameters
        ----------
        x : Tensor, (n,)
            Free coordinates, of a minimum found by any method.
        n_eval : int
            Number of evaluations to record.
        seconds : float
            Wall time to record.

        Returns
        -------
        FitResult
            With one entry in `orders`, the highest order.
        """
        x = x.detach()
        value, gradient = self(x)
        distance = torch.linalg.vector_norm(inverse_root(self.metric(x)).mT @ gradient)
        u, basis = self.posterior.complete(x), self.posterior.model.instrument.basis
        minimum = Minima(u[None], value[None], distance[None], torch.tensor([n_eval]))
        (fit,) = begin(self._setup, self._setup.layout, minimum)
        (fitted,) = evaluate(self._setup, [fit], torch.arange(1), basis.order, seconds)
        return build_result(self._setup, 0, fitted, seconds)
