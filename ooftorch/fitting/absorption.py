"""Nuisance terms of scan lines, taken out of whitened residuals by a linear operator.

Each line has a few templates (a level, a slope, ...), whose amplitudes c have a normal prior. For residuals r
with weights W the amplitudes that minimise half of (r - A c)' W (r - A c) plus half of c' c, A being the
templates times their prior widths, are c = (A' W A + 1)**-1 A' W r: k numbers for each line (Woodbury). With
weights of one that integrates the terms out of a Gaussian likelihood exactly. For a robust likelihood the
weights are those of its score at the latest residuals, score(r)/r: at the minimum, where they are consistent
with the residuals, the gradient is that of the joint posterior of parameters and amplitudes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Absorption", "LineIndex", "index_lines"]


@dataclass(frozen=True, eq=False)
class LineIndex:
    """Where the samples of each scan line are.

    Attributes
    ----------
    samples : int Tensor, (n_lines, length)
        Numbers of the samples of each line, padded with n.
    places : int Tensor, (n,)
        Place of each sample in `samples`, flat; n_lines * length for a sample of no line.
    maps : int Tensor, (n_lines,)
        Map of each line.
    in_order : bool
        Whether the lines follow each other without a gap, all of one length: no sorting is needed.
    """

    samples: Tensor
    places: Tensor
    maps: Tensor
    in_order: bool = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.places)
        in_order = self.samples.numel() == n and torch.equal(
            self.places, torch.arange(n, device=self.places.device)
        )
        object.__setattr__(self, "in_order", in_order)

    def gather(self, values: Tensor) -> Tensor:
        """Values (..., n) by line, (..., n_lines, length); zero where there is no sample."""
        if self.in_order:
            return values.unflatten(-1, self.samples.shape)
        padded = torch.cat([values, values.new_zeros((*values.shape[:-1], 1))], -1)
        return padded[..., self.samples]

    def scatter(self, by_line: Tensor) -> Tensor:
        """Inverse of `gather`: (..., n_lines, length) to (..., n); zero for samples of no line."""
        flat = by_line.flatten(-2)
        if self.in_order:
            return flat
        return torch.cat([flat, flat.new_zeros((*flat.shape[:-1], 1))], -1)[..., self.places]


def index_lines(line: Tensor, map_: Tensor) -> LineIndex:
    """Index the samples of each scan line.

    Parameters
    ----------
    line : int Tensor, (n,)
        Number of the line of each sample, from 0; -1 for none.
    map_ : int Tensor, (n,)
        Number of the map of each sample.
    """
    n, n_lines = len(line), int(line.max()) + 1
    order = torch.argsort(line, stable=True)
    order = order[line[order] >= 0]
    counts = torch.bincount(line[order], minlength=n_lines)
    length = int(counts.max())
    first = torch.cumsum(counts, 0) - counts
    within = torch.arange(len(order), device=line.device) - first[line[order]]
    place = line[order] * length + within
    samples = torch.full((n_lines * length,), n, device=line.device)
    samples[place] = order
    places = torch.full((n,), n_lines * length, device=line.device)
    places[order] = place
    maps = torch.zeros(n_lines, dtype=torch.long, device=line.device)
    maps[line[order]] = map_[order]
    return LineIndex(samples.reshape(n_lines, length), places, maps)


@dataclass(frozen=True, eq=False)
class Absorption:
    """Removal of the nuisance terms of scan lines from whitened residuals.

    Parameters
    ----------
    lines : LineIndex
    templates : Tensor, ([b,] n_lines, length, k)
        Whitened templates times the widths of their priors.
    weights : Tensor, ([b,] n_lines, length)
        Weight of each sample.

    Attributes
    ----------
    log_determinant : Tensor, ([b])
        Half the log-determinant of the covariance of the samples with these terms over that without.
    """

    lines: LineIndex
    templates: Tensor
    weights: Tensor
    log_determinant: Tensor = field(init=False)
    _solver: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weighted = self.templates.mT * self.weights.unsqueeze(-2)
        matrix = weighted @ self.templates
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        root = torch.linalg.cholesky(matrix)
        object.__setattr__(self, "_solver", torch.cholesky_solve(weighted, root))
        log_diagonal = torch.log(root.diagonal(dim1=-2, dim2=-1))
        object.__setattr__(self, "log_determinant", log_diagonal.sum((-1, -2)))

    @classmethod
    def stack(cls, one_by_one: Sequence["Absorption"]) -> "Absorption":
        """Join those of single observations, with the same lines, along a first dimension."""
        templates, weights = (
            torch.stack([getattr(a, name) for a in one_by_one]) for name in ("templates", "weights")
        )
        return cls(one_by_one[0].lines, templates, weights)

    def select(self, rows: Tensor | int) -> "Absorption":
        """Return that of the observations with these numbers; of one, without the first dimension."""
        selected = object.__new__(Absorption)
        for name, value in vars(self).items():
            object.__setattr__(selected, name, value if name == "lines" else value[rows])
        return selected

    def remove(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Take the terms out of whitened residuals.

        Parameters
        ----------
        r : Tensor, (..., [b,] n)

        Returns
        -------
        rest : Tensor, (..., [b,] n)
        amplitudes : Tensor, (..., [b,] n_lines * k)
            In units of the prior widths.
        """
        by_line = self.lines.gather(r)
        # Several vectors are the columns of a matrix: many small products are slower than a few large ones.
        batch = self.templates.dim() - 1
        leading = by_line.shape[: by_line.dim() - batch]
        columns = by_line.reshape(-1, *by_line.shape[len(leading) :]).movedim(0, -1)
        amplitudes = self._solver @ columns
        taken = self.templates @ amplitudes

        def restore(columns: Tensor) -> Tensor:
            return columns.movedim(-1, 0).unflatten(0, leading) if leading else columns[..., 0]

        return r - self.lines.scatter(restore(taken)), restore(amplitudes).flatten(-2)

    def transpose(self, by_rest: Tensor, by_amplitudes: Tensor) -> Tensor:
        """Gradient by the whitened residuals (..., n), from those by the two results of `remove`."""
        back = self.templates.mT @ self.lines.gather(by_rest).unsqueeze(-1)
        by_amplitudes = by_amplitudes.unflatten(-1, back.shape[-3:-1]).unsqueeze(-1)
        change = self._solver.mT @ (by_amplitudes - back)
        return by_rest + self.lines.scatter(change[..., 0])
