"""Terms of scan lines taken out of residuals: against dense matrices, with padding, batches and outliers."""

import pytest
import torch

from ooftorch.fitting.absorption import Absorption, index_lines
from ooftorch.fitting.likelihood import Cauchy

N, LINES, K = 30, 4, 2


def lines(order="mixed"):
    """Four lines of unequal length, mixed, and three samples of none; or five that tile the samples."""
    if order == "tiled":
        line = torch.arange(N) // 6
        return index_lines(line, line // 3)
    generator = torch.Generator().manual_seed(3)
    line = torch.tensor([0] * 9 + [1] * 5 + [2] * 1 + [3] * 12 + [-1] * 3)
    line = line[torch.randperm(N, generator=generator)]
    return index_lines(line, torch.where(line < 2, 0, 1))


def absorption(seed=0, order="mixed", weights=None):
    index = lines(order)
    generator = torch.Generator().manual_seed(seed)
    templates = torch.randn((*index.samples.shape, K), generator=generator, dtype=torch.float64)
    # Where there is no sample a template is zero, as a whitened one is.
    templates = torch.where((index.samples < N)[..., None], templates, 0.0)
    weights = (
        torch.ones(index.samples.shape, dtype=torch.float64) if weights is None else index.gather(weights)
    )
    return Absorption(index, templates, weights)


def dense(a):
    """The templates times their prior widths, as a matrix (N, n_lines * K)."""
    columns = []
    for line in range(len(a.templates)):
        for k in range(K):
            one = torch.zeros_like(a.templates[..., k])
            one[line] = a.templates[line, :, k]
            columns.append(a.lines.scatter(one))
    return torch.stack(columns, -1)


def residuals(*shape, seed=1):
    return torch.randn((*shape, N), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("order", ["mixed", "tiled"])
def test_samples_are_gathered_by_line_and_put_back(order):
    index, r = lines(order), residuals(2)
    by_line = index.gather(r)
    assert by_line.shape == (2, *index.samples.shape)
    of_a_line = torch.zeros(N, dtype=torch.bool)
    of_a_line[index.samples[index.samples < N]] = True
    torch.testing.assert_close(index.scatter(by_line), torch.where(of_a_line, r, 0.0))
    assert (of_a_line.sum() < N) == (order == "mixed")
    assert index.in_order == (order == "tiled")
    assert index.maps.tolist() == ([0, 0, 1, 1] if order == "mixed" else [0, 0, 0, 1, 1])


@pytest.mark.parametrize("order", ["mixed", "tiled"])
def test_with_equal_weights_the_terms_are_integrated_out(order):
    """Cost and determinant are those of residuals with the covariance 1 + A A'."""
    a, r = absorption(order=order), residuals()
    matrix = dense(a)
    covariance = torch.eye(N, dtype=torch.float64) + matrix @ matrix.mT
    rest, amplitudes = a.remove(r)
    cost = rest.square().sum() + amplitudes.square().sum()
    torch.testing.assert_close(cost, r @ torch.linalg.solve(covariance, r))
    torch.testing.assert_close(a.log_determinant, 0.5 * torch.logdet(covariance))
    torch.testing.assert_close(rest, r - matrix @ amplitudes)
    # Without the prior of the amplitudes it would be least squares: the prior counts.
    least_squares = r - matrix @ torch.linalg.lstsq(matrix, r[:, None]).solution[:, 0]
    assert (rest - least_squares).abs().max() > 0.05


def test_a_gradient_goes_back_through_it():
    a = absorption(weights=torch.linspace(0.2, 2, N, dtype=torch.float64))
    r = residuals(3).requires_grad_()
    rest, amplitudes = a.remove(r)
    by_rest, by_amplitudes = residuals(3, seed=4), torch.randn(amplitudes.shape, dtype=torch.float64)
    (expected,) = torch.autograd.grad((rest * by_rest).sum() + (amplitudes * by_amplitudes).sum(), r)
    torch.testing.assert_close(a.transpose(by_rest, by_amplitudes), expected)


def test_a_batch_is_its_members():
    members = [absorption(seed) for seed in range(3)]
    batch, r = Absorption.stack(members), residuals(2, 3)
    rest, amplitudes = batch.remove(r)
    back = batch.transpose(rest, amplitudes)
    torch.testing.assert_close(batch.log_determinant, torch.stack([a.log_determinant for a in members]))
    for i, a in enumerate(members):
        one, some = a.remove(r[:, i])
        torch.testing.assert_close(rest[:, i], one)
        torch.testing.assert_close(amplitudes[:, i], some)
        torch.testing.assert_close(back[:, i], a.transpose(one, some))
        torch.testing.assert_close(batch.select(i).remove(r[:, i])[0], one)
    two = batch.select(torch.tensor([2, 0]))
    torch.testing.assert_close(two.remove(r[:, [2, 0]])[0], rest[:, [2, 0]])


def test_weights_that_agree_with_the_residuals_give_the_joint_posterior():
    """Then the gradient is the score alone, as if the amplitudes were parameters at their minimum."""
    law, r = Cauchy(), 3 * residuals()
    r[5] += 40  # a glitch
    weights = torch.ones(N, dtype=torch.float64)
    for _ in range(200):
        a = absorption(weights=weights)
        rest, amplitudes = a.remove(r)
        weights = law.weight(rest)
    score = law.score(rest)
    torch.testing.assert_close(a.transpose(score, amplitudes), score, rtol=1e-6, atol=1e-8)
    # The glitch has hardly moved the line; with equal weights it has.
    glitch = torch.zeros(N, dtype=torch.float64)
    glitch[5] = 40
    moved = (a.remove(r - glitch)[1] - amplitudes).abs().max()
    plain = absorption()
    assert moved < 0.1 * (plain.remove(r - glitch)[1] - plain.remove(r)[1]).abs().max()
