"""The objective of a fit, for those who minimise it themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ooftorch.fitting.orders import evaluate
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.results import build_result
from ooftorch.fitting.setup import FitOptions, Setup, set_up
from ooftorch.observation import Observation
from ooftorch.optics.telescope import Telescope
from ooftorch.optim.bfgs import inverse_root
from ooftorch.result import FitResult

__all__ = ["Prior", "Problem", "problem"]


class Prior(NamedTuple):
    """Normal prior of a parameter: centre, and standard deviation, which is relative for a logarithm.

    Attributes
    ----------
    centre, width : float
        In the parameter's unit.
    log : bool
        Whether it is a prior on the logarithm, the width then being relative.
    """

    centre: float
    width: float
    log: bool


def problem(
    observation: Observation, telescope: Telescope | str | Path | None = None, **options
) -> "Problem":
    """Return the very objective that `ooftorch.fit` minimises, as a function of the free parameters.

    Parameters
    ----------
    observation : Observation
    telescope, **options
        As of `ooftorch.fit`.

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
        end = ooftorch.minimize(problem, problem.start, method="BFGS", jac=True)
        print(ooftorch.report(problem.result(end.x)))
    """
    return Problem(set_up([observation], telescope, FitOptions(**options)))


class Problem:
    """Negative log-posterior of one observation, in natural units, as a function of n free coordinates.

    The coordinates are dimensionless and of order one: `values` turns them into parameters in their units,
    and `coordinates` back.

    Parameters
    ----------
    setup : Setup
        Of one observation.

    Attributes
    ----------
    start : Tensor, (n,)
        The perfect dish, with the flux and the pointing of the maps.
    names, units : list of str, (n,)
        Of the free parameters.
    priors : dict of str to Prior
        Of the free parameters that have one.
    ties : tuple of (names, float)
        Groups of parameters held together: see `Layout`.
    posterior : Posterior
        The objective with all its parts.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        layout, exact = setup.layout, setup.levels.exact
        self.posterior = Posterior(
            exact.model,
            layout,
            exact.samples.of(0),
            setup.levels.likelihood,
            setup.levels.noise,
            setup.starts[0],
        )
        free = [layout.parameters[i] for i in layout.free]
        self.start = setup.starts[0, self.posterior.free].clone()
        self.names = [p.name for p in free]
        self.units = [p.unit for p in free]
        self.priors = {p.name: Prior(p.start, p.prior, p.log) for p in free if p.prior is not None}
        self.ties = layout.ties

    def __call__(self, x):
        """Value and gradient, in closed form: what `minimize` takes with `jac=True`.

        Parameters
        ----------
        x : Tensor or ndarray, (n,)

        Returns
        -------
        value, gradient
            Tensors () and (n,) without a graph; a float and an ndarray where x is an ndarray, as SciPy has
            it.
        """
        given = torch.as_tensor(x).to(self.start).detach()
        value, gradient = (t.clone() for t in self.posterior.value_and_gradient(given))
        if isinstance(x, np.ndarray):
            return value.item(), gradient.cpu().numpy()
        return value, gradient

    def value(self, x: Tensor) -> Tensor:
        """Value () at x (n,), differentiable by torch as often as is wanted."""
        return self.posterior(x)

    def metric(self, x: Tensor | None = None) -> Tensor:
        """Positive estimate of the Hessian (n, n) at x, by default at the start: the Gauss-Newton form."""
        return self.posterior.metric(self.start if x is None else x.detach()).clone()

    def values(self, x: Tensor) -> dict[str, float]:
        """Every parameter of the model by name, in its unit, those that are held too."""
        complete = self.posterior.complete(x.detach())
        return self._setup.layout.values(complete.cpu().numpy())

    def coordinates(self, values: Mapping[str, float]) -> Tensor:
        """Free coordinates (n,) of parameters by name, in their units; others as at the start."""
        layout = self._setup.layout
        u = self._setup.starts[0].clone()
        for name, value in values.items():
            u[layout.index(name)] = layout[name].coordinate(value)
        return u[self.posterior.free]

    def result(self, x: Tensor, n_eval: int = 0, seconds: float = 0.0) -> FitResult:
        """Everything that `fit` tells of its end, of the place x.

        Parameters
        ----------
        x : Tensor, (n,)
        n_eval : int
            Evaluations that it took.
        seconds : float
            Time that it took.
        """
        x = x.detach()
        _, gradient = self(x)
        distance = torch.linalg.vector_norm(inverse_root(self.metric(x)).mT @ gradient)
        rows, u = torch.arange(1, device=x.device), self.posterior.complete(x)
        basis = self.posterior.model.instrument.basis
        (fitted,) = evaluate(
            self._setup,
            self._setup.layout,
            rows,
            u[None],
            basis.order,
            distance[None],
            torch.tensor([n_eval]),
            seconds,
        )
        return build_result(self._setup, 0, fitted, seconds)
