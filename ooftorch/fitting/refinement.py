"""What a fit takes up beyond the model of its search: terms of scan lines, and an illumination that bends.

At the minimum of the highest order both are tried, and the one that the evidence asks for more is taken up,
or both if it asks for both; the minimum is found again, and so on until nothing more is asked for.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ooftorch.fitting import search
from ooftorch.fitting.absorption import Absorption
from ooftorch.fitting.bends import find_bends
from ooftorch.fitting.posterior import Posterior
from ooftorch.fitting.scan_terms import Templates, build_templates
from ooftorch.fitting.scan_widths import Found, find_terms, renew_widths
from ooftorch.fitting.search import Minima
from ooftorch.fitting.setup import Setup
from ooftorch.optics.parameters import Layout

__all__ = ["Refined", "begin", "finish"]

# Evidence that has to be gained, natural units, and as a share of the first gain; and the most rounds.
_LEAST_GAIN, _LEAST_SHARE, _MAX_ROUNDS = 5.0, 0.05, 5
# Noise over the peak below which residuals are due to the pixels of the model, and nothing is taken up.
_PIXELS = 3e-4
# Share of the largest gain for which two things are taken up at once.
_NEARLY = 0.5


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
        Takes those terms out of all samples; without a first dimension.
    coarse : Absorption or None
        The same for the samples of the coarse level.
    metric : Tensor, (n_free, n_free), or None
        Estimate of the Hessian near the minimum, for these free parameters, with terms or without.
    first_gain : float
        Evidence that was gained by what was taken up first.
    """

    layout: Layout
    minimum: Minima
    widths: Tensor
    absorption: Absorption | None = None
    coarse: Absorption | None = None
    metric: Tensor | None = None
    first_gain: float = 0.0


def begin(setup: Setup, layout: Layout, minima: Minima) -> list[Refined]:
    """Fits of that layout that have taken up nothing yet, one for each row of the minima."""
    n_maps, n_terms = len(setup.observations[0].maps), len(setup.terms)
    nothing = minima.coordinates.new_zeros((n_maps, n_terms))
    rows = zip(*(t.split(1) for t in minima), strict=True)
    return [Refined(layout, Minima(*row), nothing) for row in rows]


def finish(
    setup: Setup, rows: Tensor, minima: Minima, numbers: Tensor, progress: search.Progress
) -> list[Refined]:
    """Find the minima of the exact model from the candidates of a search, and take up what is asked for.

    Candidates of one fit that the objective at the coarse level cannot order are all followed to the end, and
    the lowest wins.

    Parameters
    ----------
    setup : Setup
    rows : int Tensor, (b,)
        Numbers of the observations.
    minima : Minima
        Candidates, of the layout of the setup.
    numbers : int Tensor
        The fit, 0 to b - 1, that each candidate belongs to.
    progress : callable

    Returns
    -------
    list of Refined
        One per observation; `n_eval` includes the evaluations of all its candidates.
    """
    levels, layout = setup.levels, setup.layout
    starts, of, widened = search.widen(levels, layout, rows, minima, numbers, progress)
    fits, kept = _refine(setup, rows[of], starts, widened, progress)
    of, widened = of[kept], [widened[i] for i in kept]
    # The wide noise may have led astray: is a candidate better as it stands?
    found = _join(fits)[1]
    posterior = levels.posterior(levels.coarse, layout, rows[numbers], minima.coordinates)
    before = posterior.value(minima.coordinates, levels.coarse.model(minima.coordinates))
    better = [
        i
        for i, number in enumerate(numbers.tolist())
        if any(w for w, n in zip(widened, of.tolist(), strict=True) if n == number)
        and before[i] < found.objective[of == number].min()
    ]
    if better:
        some = Minima(*(t[better] for t in minima))._replace(n_eval=torch.zeros_like(numbers[better]))
        more, kept = _refine(setup, rows[numbers[better]], some, [False] * len(better), progress)
        fits, of = fits + more, torch.cat([of, numbers[better][kept]])
        found = _join(fits)[1]
    n_eval = torch.zeros_like(rows).index_add(0, of, found.n_eval)
    close = search.find_close(levels, layout, rows, found, of)
    fits, of = [fits[i] for i in close], of[close]
    fits = [replace(f, minimum=f.minimum._replace(n_eval=torch.zeros_like(f.minimum.n_eval))) for f in fits]
    _complete(setup, rows[of], fits, progress)
    found = _join(fits)[1]
    n_eval = n_eval.index_add(0, of, found.n_eval)
    best = [fits[search.sort_lowest_first(found, of, i)[0]] for i in range(len(rows))]
    return [replace(f, minimum=f.minimum._replace(n_eval=n_eval[[i]])) for i, f in enumerate(best)]


def _refine(
    setup: Setup, rows: Tensor, starts: Minima, widened: list[bool], progress: search.Progress
) -> tuple[list[Refined], list[int]]:
    """Find minima of the coarse level, and take up what the evidence asks for on the way.

    From a minimum of a wide noise something is taken up first: there all parts of the beam still count.

    Returns
    -------
    fits : list of Refined
        From starts that lead to the same minimum only one.
    kept : list of int
        The starts that these come from.
    """
    levels, layout = setup.levels, setup.layout
    u = search.estimate_noise(levels, levels.coarse, layout, rows, starts.coordinates)
    fits = begin(setup, layout, starts._replace(coordinates=u))
    everything = list(range(len(fits)))
    trying = setup.terms or setup.bends
    if trying:
        for group in _group(fits, [i for i in everything if widened[i]]):
            _take_up(setup, rows, fits, group)
    active = kept = everything
    for i in range(_MAX_ROUNDS):
        for group in _group(fits, active):
            _settle(setup, rows, fits, group, progress)
        if i == 0:
            active = kept = _drop_same(rows, fits)
        if not trying or i == _MAX_ROUNDS - 1:
            break
        active = [i for group in _group(fits, active) for i in _take_up(setup, rows, fits, group)]
        if not active:
            break
    return [fits[i] for i in kept], kept


def _drop_same(rows: Tensor, fits: list[Refined]) -> list[int]:
    """Numbers of the fits that are not at the minimum of another one, which gets their evaluations."""
    kept: list[int] = []
    for i in sorted(range(len(fits)), key=lambda i: float(fits[i].minimum.objective[0])):
        same = [j for j in kept if rows[j] == rows[i] and _is_same(fits[j], fits[i])]
        if same:
            lowest = fits[same[0]].minimum
            joined = lowest._replace(n_eval=lowest.n_eval + fits[i].minimum.n_eval)
            fits[same[0]] = replace(fits[same[0]], minimum=joined)
        else:
            kept.append(i)
    return sorted(kept)


def _is_same(fit: Refined, other: Refined) -> bool:
    """Whether another fit is at the same minimum."""
    if fit.layout.free != other.layout.free or fit.metric is None:
        return False
    away = (fit.minimum.coordinates - other.minimum.coordinates)[0, fit.layout.free]
    return bool(away @ fit.metric @ away < search.SAME_PLACE**2)


def _complete(setup: Setup, rows: Tensor, fits: list[Refined], progress: search.Progress) -> None:
    """Find the minima of the exact model from those of the coarse level."""
    for group in _group(fits, list(range(len(fits)))):
        if fits[group[0]].coarse is not None:
            # The templates are those of the beam, and the weights those of the residuals, near the minimum.
            _find_all_terms(setup, rows, fits, group)
            _polish(setup, rows, fits, group, progress, nearly=True)
            _find_all_terms(setup, rows, fits, group)
        _polish(setup, rows, fits, group, progress)


def _group(fits: list[Refined], numbers: list[int]) -> list[list[int]]:
    """Numbers of the fits that can go on side by side: the same parameters free, and terms in all or none."""
    groups: dict[tuple, list[int]] = {}
    for i in numbers:
        groups.setdefault((*fits[i].layout.free, fits[i].coarse is None), []).append(i)
    return list(groups.values())


def _join(fits: list[Refined]) -> tuple[Layout, Minima]:
    """Layout and minima, a row each, of several fits that are side by side."""
    return fits[0].layout, Minima(
        *(torch.cat(parts) for parts in zip(*(fit.minimum for fit in fits), strict=True))
    )


def _stack(absorptions: list[Absorption | None]) -> Absorption | None:
    """Join those of several fits, all of which have terms or none."""
    some = [absorption for absorption in absorptions if absorption is not None]
    return Absorption.stack(some) if some else None


def _take_up(setup: Setup, rows: Tensor, fits: list[Refined], group: list[int]) -> list[int]:
    """Let each fit of a group take up what the evidence asks for most; return those that did."""
    level = setup.levels.coarse
    layout, minima = _join([fits[i] for i in group])
    absorption = _stack([fits[i].coarse for i in group])
    posterior = setup.levels.posterior(level, layout, rows[group], minima.coordinates, absorption)
    clear = _find_clear(posterior, minima.coordinates)
    if not any(clear):
        return []
    found: list[Found | None] = [None] * len(group)
    if setup.terms:
        _, found = _find_terms(setup, posterior, fits, group)
    bends = find_bends(setup, posterior, rows[group], minima.coordinates)
    changed = []
    for i, is_clear, terms, bend in zip(group, clear, found, bends, strict=True):
        if not is_clear:
            continue
        layout, bend_gain, metric = bend
        gain = 0.0 if terms is None else terms.gain
        fit, most = fits[i], max(gain, bend_gain)
        least = max(_LEAST_GAIN, _LEAST_SHARE * fit.first_gain)
        if most < least:
            continue
        changed.append(i)
        fit = replace(fit, first_gain=fit.first_gain or most)
        if bend_gain >= max(least, _NEARLY * most):
            fit = replace(fit, layout=layout, metric=metric)
        if terms is not None and gain >= max(least, _NEARLY * most):
            # The first terms take a large part of the information away.
            metric = None if fit.coarse is None else fit.metric
            fit = replace(_adopt(setup, fit, terms), coarse=terms.absorption, metric=metric)
        fits[i] = fit
    return changed


def _find_clear(posterior: Posterior, u: Tensor) -> list[bool]:
    """For each fit, whether its noise is above what the pixels of the model leave out."""
    values, samples = posterior.model.parts.units.values(u), posterior.samples
    errors = torch.where(samples.valid, samples.errors, math.nan).nanmedian(-1).values
    noise = values[..., posterior.model.layout.index("noise")] * errors
    return (noise > _PIXELS * posterior.model.instrument.peak).tolist()


def _find_terms(
    setup: Setup, posterior: Posterior, fits: list[Refined], group: list[int]
) -> tuple[Templates, list[Found | None]]:
    """Find the terms of scan lines of each fit of a group, whose posterior this is; and their templates."""
    u = _join([fits[i] for i in group])[1].coordinates
    templates = build_templates(posterior, u, setup.terms)
    values, n_maps = posterior.model.parts.units.values(u), len(fits[group[0]].widths)
    before, samples = posterior.absorption, posterior.samples
    return templates, [
        find_terms(
            templates.select(row),
            posterior.law(values[row]),
            None if before is None else before.select(row),
            n_maps,
            samples.valid[row],
            posterior.layout["noise"].free,
        )
        for row in range(len(group))
    ]


def _adopt(setup: Setup, fit: Refined, terms: Found) -> Refined:
    """Return the fit with the widths of these terms, and the scale of the noise that they leave."""
    coordinates, layout = fit.minimum.coordinates.clone(), fit.layout
    i = layout.index("noise")
    if layout["noise"].free:
        scale = layout["noise"].value(float(coordinates[0, i]))
        coordinates[:, i] = layout["noise"].coordinate(scale * terms.rescaling)
    for p, value in zip(setup.levels.likelihood.declare(), terms.shape, strict=True):
        if layout[p.name].free:
            coordinates[:, layout.index(p.name)] = layout[p.name].coordinate(value)
    return replace(fit, widths=terms.widths, minimum=fit.minimum._replace(coordinates=coordinates))


def _settle(
    setup: Setup, rows: Tensor, fits: list[Refined], group: list[int], progress: search.Progress
) -> None:
    """Find the minima of a group of fits at the coarse level."""
    if any(fits[i].metric is None for i in group):
        _find_metric(setup, rows, fits, group)
    layout, minima = _join([fits[i] for i in group])
    absorption, metric = _stack([fits[i].coarse for i in group]), _stack_metrics([fits[i] for i in group])
    _record(
        fits, group, *search.settle(setup.levels, layout, rows[group], minima, progress, absorption, metric)
    )


def _find_metric(setup: Setup, rows: Tensor, fits: list[Refined], group: list[int]) -> None:
    layout, minima = _join([fits[i] for i in group])
    absorption = _stack([fits[i].coarse for i in group])
    found = setup.levels.metric(layout, rows[group], minima.coordinates, absorption)
    for row, i in enumerate(group):
        fits[i] = replace(fits[i], metric=found[row])


def _stack_metrics(fits: list[Refined]) -> Tensor | None:
    metrics = [fit.metric for fit in fits if fit.metric is not None]
    return torch.stack(metrics) if len(metrics) == len(fits) else None


def _find_all_terms(setup: Setup, rows: Tensor, fits: list[Refined], group: list[int]) -> None:
    """Find the terms of a group of fits in all samples; later adjust their widths to the latest minimum."""
    layout, minima = _join([fits[i] for i in group])
    absorption = _stack([fits[i].absorption for i in group])
    posterior = setup.levels.posterior(
        setup.levels.exact, layout, rows[group], minima.coordinates, absorption
    )
    if absorption is None:
        templates, found = _find_terms(setup, posterior, fits, group)
        for row, (i, terms) in enumerate(zip(group, found, strict=True)):
            if terms is None:
                # All samples do not ask for what those of the coarse level asked for.
                widths = torch.zeros_like(fits[i].widths)
                fits[i] = replace(fits[i], widths=widths, absorption=templates.select(row).absorb(widths))
            else:
                fits[i] = replace(_adopt(setup, fits[i], terms), absorption=terms.absorption)
        return
    templates = build_templates(posterior, minima.coordinates, setup.terms)
    for row, i in enumerate(group):
        widths = renew_widths(templates.select(row), fits[i].widths)
        fits[i] = replace(fits[i], widths=widths, absorption=templates.select(row).absorb(widths))


def _polish(
    setup: Setup,
    rows: Tensor,
    fits: list[Refined],
    group: list[int],
    progress: search.Progress,
    nearly: bool = False,
) -> None:
    """Find the minima of a group of fits on the exact model."""
    layout, minima = _join([fits[i] for i in group])
    absorption, metric = _stack([fits[i].absorption for i in group]), _stack_metrics([fits[i] for i in group])
    found = search.polish(setup.levels, layout, rows[group], minima, progress, absorption, metric, nearly)
    _record(fits, group, *found)


def _record(fits: list[Refined], group: list[int], minima: Minima, metric: Tensor) -> None:
    for row, i in enumerate(group):
        fits[i] = replace(fits[i], minimum=Minima(*(t[row : row + 1] for t in minima)), metric=metric[row])
