"""Nuisance terms of scan lines, and their templates.

A scan line has errors of its own: a level and a slope in time, a gain, and a pointing error that drifts. Each
term has a template, the change of the samples by one unit of it, and a normal prior whose width is common to
the lines of a map. `scan_widths` finds the widths, `absorption` integrates the terms out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ooftorch.errors import InputError
from ooftorch.fitting.absorption import Absorption, LineIndex, index_lines
from ooftorch.fitting.posterior import Posterior

__all__ = ["TERMS", "Templates", "Term", "build_templates", "choose_terms"]


class Term(NamedTuple):
    """One kind of nuisance term.

    Attributes
    ----------
    name : str
    unit : str
        Of its width: "peak" is the highest power, "beam" wavelength over diameter.
    group : str
        Word of the option that switches it on.
    n_templates : int
        Templates that share the width of the prior.
    limit : float
        Largest width, in the unit of the templates: beyond it the lines are not what is wrong with the maps.
    """

    name: str
    unit: str
    group: str
    n_templates: int
    limit: float


TERMS = (
    Term("level", "peak", "level", 1, 0.05),
    Term("slope", "peak", "slope", 1, 0.05),
    Term("gain", "", "gain", 1, 0.1),
    Term("pointing", "beam", "pointing", 2, 0.1),
    Term("pointing_drift", "beam", "pointing", 2, 0.1),
)
"""The terms of a scan line, in the order of their templates."""

_GROUPS = tuple(dict.fromkeys(term.group for term in TERMS))


def choose_terms(nuisance: str | Iterable[str]) -> tuple[Term, ...]:
    """Return the terms that an option allows: "auto", "none", or words such as "level,slope".

    Raises
    ------
    InputError
        If a word is unknown.
    """
    words = nuisance.split(",") if isinstance(nuisance, str) else list(nuisance)
    if words == ["auto"]:
        return TERMS
    if words == ["none"]:
        return ()
    for word in words:
        if word not in _GROUPS:
            raise InputError(
                f"nuisance {word!r}; expected auto, none, or some of {', '.join(_GROUPS)} with commas between"
            )
    return tuple(term for term in TERMS if term.group in words)


class Templates(NamedTuple):
    """Templates of the terms of one observation, or of b of them, at one set of parameters.

    Attributes
    ----------
    lines : LineIndex
    terms : tuple of Term
    values : Tensor, ([b,] n_lines, length, k)
        Change of the whitened samples by one unit of each term: the typical peak for levels and slopes, one
        for relative gains, wavelength over diameter for pointing.
    residuals : Tensor, ([b,] n)
        Whitened residuals, model minus data, with the terms still in them.
    weights : Tensor, ([b,] n_lines, length)
        Weight of each sample: its score over its residual, without the terms found so far.
    """

    lines: LineIndex
    terms: tuple[Term, ...]
    values: Tensor
    residuals: Tensor
    weights: Tensor

    def select(self, row: int) -> "Templates":
        """Return those of one of b observations."""
        return Templates(self.lines, self.terms, self.values[row], self.residuals[row], self.weights[row])

    def rescale(self, factor: float) -> "Templates":
        """Return those for a scale of the noise that is larger by this factor."""
        return self._replace(values=self.values / factor, residuals=self.residuals / factor)

    def absorb(self, widths: Tensor) -> Absorption:
        """Return the operator that takes the terms out, for widths ([b,] n_maps, n_terms) of their priors."""
        return Absorption(self.lines, self.values * self.spread(widths).unsqueeze(-2), self.weights)

    def spread(self, widths: Tensor) -> Tensor:
        """Width of every template of every line, ([b,] n_lines, k)."""
        counts = torch.tensor([term.n_templates for term in self.terms], device=widths.device)
        return widths[..., self.lines.maps, :].repeat_interleave(counts, -1)


def build_templates(posterior: Posterior, u: Tensor, terms: Sequence[Term]) -> Templates:
    """Build the templates at the coordinates u (b, n_parameters).

    Those of gain and pointing are derivatives of the beam there; the weights are those of the residuals
    there, after the terms that the posterior takes out already.
    """
    model, samples, names = posterior.model, posterior.samples, [term.name for term in terms]
    if samples.line is None or samples.map is None or samples.phase is None:
        raise ValueError("the samples have no scan lines")
    at, lines = model.at(u), index_lines(samples.line, samples.map)

    def differentiate(kind: str) -> Tensor:
        """Change of all samples with one coordinate of their map."""
        rows = [i for i, p in enumerate(model.layout.parameters) if p.map is not None and p.kind == kind]
        return at.jacobian(rows).sum(-2)

    with torch.no_grad():
        level = torch.full_like(at.samples, model.instrument.peak)
        columns = {"level": [level], "slope": [level * samples.phase]}
        if "gain" in names:
            columns["gain"] = [differentiate("gain")]
        if "pointing" in names:
            columns["pointing"] = [differentiate("dx"), differentiate("dy")]
            columns["pointing_drift"] = [samples.phase * column for column in columns["pointing"]]
        whitened = [
            lines.gather(posterior.whiten(at, column.clone())) for name in names for column in columns[name]
        ]
        r = posterior.whiten_residuals(at)
        rest = r if posterior.absorption is None else posterior.absorption.remove(r)[0]
        weights = lines.gather(posterior.law(at.values).weight(rest))
        return Templates(lines, tuple(terms), torch.stack(whitened, -1), r, weights)
