"""What a fit takes up beyond the model of its search: terms of scan lines, and an illumination that bends.

At the minimum of the highest order both are tried, and the one that the evidence asks for more is taken up; the
minimum is found again, and so on until nothing more is asked for.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ooftorch.fitting import search
from ooftorch.fitting.absorption import Absorption
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.scan_terms import build_templates, find_widths
from ooftorch.fitting.search import Minima
from ooftorch.fitting.setup import Setup
from ooftorch.optics.parameters import Layout

__all__ = ["Refined", "begin", "refine"]

# Evidence that has to be gained, natural units, and the most rounds.
_LEAST_GAIN, _MAX_ROUNDS = 5.0, 6
# Change of the widths of the terms, relative to the largest of their kind, below which they are settled; and
# the most rounds in which only they change.
_SETTLED = 0.1


@dataclass(frozen=True, eq=False)
class Refined:
    """One fit and what it has taken up.

    Attributes
    ----------
    layout : Layout
        With the parameters that are free in the end.
    minimum : Minima
        One row.
    widths : Tensor, (n_maps, n_terms)
        Of the priors of the terms of scan lines; zero for a term that is not there.
    absorption : Absorption or None
        Takes those terms out; of one observation, without a first dimension.
    """

    layout: Layout
    minimum: Minima
    widths: Tensor
    absorption: Absorption | None


def begin(setup: Setup, layout: Layout, minima: Minima) -> list[Refined]:
    """Fits of that layout that have taken up nothing yet, one for each row of the minima."""
    n_maps, n_terms = len(setup.observations[0].maps), len(setup.terms)
    nothing = minima.coordinates.new_zeros((n_maps, n_terms))
    rows = zip(*(t.split(1) for t in minima), strict=True)
    return [Refined(layout, Minima(*row), nothing, None) for row in rows]


def refine(setup: Setup, rows: Tensor, minima: Minima, progress: search.Progress) -> list[Refined]:
    """Take up what the evidence asks for, and find the minima again.

    Parameters
    ----------
    setup : Setup
    rows : int Tensor, (b,)
        Numbers of the observations.
    minima : Minima
        Their minima, of the layout of the setup.
    progress : callable

    Returns
    -------
    list of Refined
        One per observation.
    """
    fits = begin(setup, setup.layout, minima)
    if setup.lines is None and not setup.bends:
        return fits
    active = list(range(len(rows)))
    for _ in range(_MAX_ROUNDS):
        changed = []
        for group in _group(fits, active):
            found = _find_changes(setup, rows[group], [fits[i] for i in group])
            for i, fit in zip(group, found, strict=True):
                if fit is not None:
                    fits[i] = fit
                    changed.append(i)
        for group in _group(fits, changed):
            _descend(setup, rows, fits, group, progress)
        active = changed
        if not active:
            break
    return fits


def _group(fits: list[Refined], numbers: list[int]) -> list[list[int]]:
    """Numbers of the fits that can go on side by side: with the same free parameters, with terms or without."""
    groups: dict[tuple, list[int]] = {}
    for i in numbers:
        groups.setdefault((*fits[i].layout.free, fits[i].absorption is None), []).append(i)
    return list(groups.values())


def _join(fits: list[Refined]) -> tuple[Minima, Absorption | None]:
    """Minima of several fits, a row each, and what takes their terms out."""
    minima = Minima(*(torch.cat(parts) for parts in zip(*(fit.minimum for fit in fits), strict=True)))
    absorptions = [fit.absorption for fit in fits if fit.absorption is not None]
    return minima, Absorption.stack(absorptions) if absorptions else None


def _descend(
    setup: Setup, rows: Tensor, fits: list[Refined], group: list[int], progress: search.Progress
) -> None:
    """Find the minima of a group of fits again."""
    minima, absorption = _join([fits[i] for i in group])
    layout = fits[group[0]].layout
    found = search.polish(setup.levels, layout, rows[group], minima, progress, absorption)
    for row, i in enumerate(group):
        fits[i] = replace(fits[i], minimum=Minima(*(t[row : row + 1] for t in found)))


def _find_changes(setup: Setup, rows: Tensor, fits: list[Refined]) -> list[Refined | None]:
    """For fits side by side: each with what it takes up next, None for one to which nothing is to be added."""
    minima, absorption = _join(fits)
    layout, u = fits[0].layout, minima.coordinates
    posterior = setup.levels.posterior(setup.levels.exact, layout, rows, u, absorption)
    templates = None
    if setup.lines is not None:
        templates = build_templates(posterior, u, setup.lines, setup.terms)
    bends = _find_bends(setup, posterior, rows, u)
    found: list[Refined | None] = []
    for i, (fit, (bent, bend_gain)) in enumerate(zip(fits, bends, strict=True)):
        widths, gain = fit.widths, 0.0
        if templates is not None:
            widths, gain = find_widths(templates.select(i), fit.widths)
        if bend_gain > max(gain, _LEAST_GAIN):
            found.append(replace(fit, layout=bent))
        elif templates is None or _is_settled(widths, fit.widths):
            found.append(None)
        else:
            terms = templates.select(i).absorb(widths) if bool((widths > 0).any()) else None
            found.append(replace(fit, widths=widths, absorption=terms))
    return found


def _is_settled(widths: Tensor, before: Tensor) -> bool:
    largest = torch.maximum(widths, before).amax(0)
    return bool(((widths - before).abs() <= _SETTLED * largest).all())


def _find_bends(setup: Setup, posterior: Posterior, rows: Tensor, u: Tensor) -> list[tuple[Layout, float]]:
    """For each fit, the layout with as many amplitude terms free as the evidence asks for, and what that gains.

    To first order about the minimum: the gradient is that of the exact model, the curvature that of the search
    level (Laplace's approximation of the evidence).
    """
    layout = posterior.layout
    wider = [
        other
        for names in setup.bends
        if len((other := layout.with_free(names)).free) > len(layout.free)
    ]
    best = [(layout, 0.0)] * len(rows)
    if not wider:
        return best
    largest = wider[-1]
    gradient = replace(posterior, layout=largest).value_and_gradient(u[:, largest.free])[1]
    metric = setup.levels.metric(largest, rows, u)
    position = {number: i for i, number in enumerate(largest.free)}

    def evidence(some: Layout) -> Tensor:
        """Logarithm of the evidence with these parameters free, up to a constant."""
        kept = [position[i] for i in some.free]
        root = torch.linalg.cholesky(metric[:, kept][:, :, kept])
        whitened = torch.linalg.solve_triangular(root, gradient[:, kept, None], upper=False)[..., 0]
        priors = [p.prior for p in some.parameters if p.free and p.name in largest_names]
        log_prior = sum(math.log(prior) for prior in priors)
        log_root = torch.log(root.diagonal(dim1=-2, dim2=-1)).sum(-1)
        return 0.5 * whitened.square().sum(-1) - log_root - log_prior

    largest_names = set(setup.bends[-1])
    base = evidence(layout)
    for other in wider:
        for i, gain in enumerate((evidence(other) - base).tolist()):
            if gain > best[i][1]:
                best[i] = (other, gain)
    return best
