"""`ScipyOptimizer`: whole minimisations behind the interface of a torch optimiser."""

import functools

import pytest
import torch
from torch import nn

import ooftorch
from ooftorch import ScipyOptimizer
from ooftorch.errors import InputError
from ooftorch.optim.scipy_local import local_methods

DOUBLE = torch.float64
HESSIAN = ["newton-cg", "dogleg", "trust-ncg", "trust-exact", "trust-krylov", "trust-constr"]
METHODS = [*local_methods(), "adam", "lbfgs", "metric-bfgs"]
# A strict end for all, so that they may be compared; SciPy names the same thing in many ways.
STRICT = {
    "nelder-mead": {"xatol": 1e-6, "fatol": 1e-10, "maxiter": 2000, "maxfev": 2000},
    "powell": {"xtol": 1e-6, "ftol": 1e-10},
    "l-bfgs-b": {"ftol": 1e-12},
    "tnc": {"ftol": 1e-12, "maxfun": 1000},
    "cobyla": {"rhobeg": 0.3, "tol": 1e-5},
    "slsqp": {"ftol": 1e-10},
    "adam": {"lr": 0.1},
    "lbfgs": {"maxiter": 100},
}
CLOSURES = ["plain", "with backward", "with the module"]
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
)


def cloud(dtype=DOUBLE, device="cpu"):
    """Points of two overlapping kinds; y is 0 or 1."""
    generator = torch.Generator().manual_seed(4)
    y = torch.randint(0, 2, (60,), generator=generator).to(dtype)
    x = torch.randn(60, 2, generator=generator, dtype=DOUBLE).to(dtype)
    x = x + 0.8 * y[:, None] * torch.tensor([1.0, -1.0], dtype=dtype)
    return x.to(device), y.to(device)


def loss_of(logits, y, weight, bias):
    """Logistic regression with a ridge, which makes it strictly convex."""
    fit = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits))
    return fit + 0.01 * ((weight**2).sum() + (bias**2).sum())


def regression(dtype=DOUBLE, device="cpu"):
    """A module of three parameters at a fixed start."""
    module = nn.Linear(2, 1).to(device, dtype)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.5, 0.5]]))
        module.bias.copy_(torch.tensor([-0.2]))
    return module


def closure_of(module, kind, x, y, optimiser=None):
    def loss():
        return loss_of(module(x), y, module.weight, module.bias)

    def with_backward():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    def with_module(call):
        # A ridge on what the module does to the unit vectors and to nothing: its parameters, from outside.
        probe = call(torch.cat([torch.eye(2), torch.zeros(1, 2)]).to(x))
        return loss_of(call(x), y, (probe[:2] - probe[2]).T, probe[2])

    return {"plain": loss, "with backward": with_backward, "with the module": with_module}[kind]


def optimise(kind, method, dtype=DOUBLE, device="cpu", **more):
    module = regression(dtype, device)
    given = module if kind == "with the module" else module.parameters()
    optimiser = ScipyOptimizer(given, method, **{"options": STRICT.get(method), **more})
    value = optimiser.step(closure_of(module, kind, *cloud(dtype, device), optimiser))
    return module, optimiser, value


@pytest.fixture(scope="module")
def best():
    """The minimum by Newton's steps on tensors, without any of our code."""
    x, y = cloud()
    w = torch.zeros(3, dtype=DOUBLE)

    def loss(w):
        return loss_of(x @ w[:2, None] + w[2], y, w[:2], w[2])

    for _ in range(20):
        gradient = torch.func.grad(loss)(w)
        w = w - torch.linalg.solve(torch.func.jacrev(torch.func.grad(loss))(w), gradient)
    assert gradient.abs().max() < 1e-14
    return w, loss(w).item()


# ------------------------------------------------------------------------------------- closures by methods


@pytest.mark.parametrize("kind", CLOSURES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_with_every_closure(method, kind, best):
    if kind == "with backward" and method in HESSIAN:
        with pytest.raises(InputError, match="calls backward, which uses up the graph") as refusal:
            optimise(kind, method)
        assert "\n" not in str(refusal.value)
        return
    module, optimiser, value = optimise(kind, method)
    w, lowest = best
    found = torch.cat([module.weight[0], module.bias]).detach()
    assert value.item() == pytest.approx(lowest, abs=1e-7)
    torch.testing.assert_close(found, w, atol=1e-3, rtol=0)
    # What it says is what it did.
    assert not value.requires_grad
    assert optimiser.result.fun == value.item()
    assert optimiser.result.method == method
    torch.testing.assert_close(torch.cat([v.reshape(-1) for v in optimiser.result.x]), found, atol=0, rtol=0)
    assert [p.grad for p in module.parameters()] == [None, None]
    assert all(p.requires_grad and p.is_leaf for p in module.parameters())


def not_refused(*names):
    """Methods and kinds of closures, those pairs that the test above has seen refused left out."""
    return [(m, k) for m in names for k in CLOSURES if not (k == "with backward" and m in HESSIAN)]


@pytest.mark.parametrize(
    ("method", "kind"), not_refused("bfgs", "l-bfgs-b", "newton-cg", "trust-exact", "nelder-mead")
)
def test_it_is_minimize(method, kind):
    """The same path, evaluation by evaluation, as the same function of tensors."""
    x, y = cloud()
    start = regression()
    direct = ooftorch.minimize(
        lambda p: loss_of(x @ p[0].T + p[1], y, *p),
        (start.weight.detach(), start.bias.detach()),
        method=method,
        options=STRICT.get(method),
    )
    _, optimiser, value = optimise(kind, method)
    assert value.item() == pytest.approx(direct.fun, abs=1e-5)
    if method != "nelder-mead":  # whose comparisons feel the last digit
        assert (optimiser.result.nfev, optimiser.result.nhev) == (direct.nfev, direct.nhev)
        torch.testing.assert_close(optimiser.result.x, direct.x, atol=1e-6, rtol=0)
    # A closure that calls backward brings a gradient with every value.
    if kind != "with backward":
        assert optimiser.result.njev == direct.njev


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("kind", CLOSURES)
def test_parameters_stay_on_their_device(kind, device, best):
    module, optimiser, _ = optimise(kind, "bfgs", device=device)
    assert module.weight.device.type == device
    assert optimiser.result.x[0].device.type == device
    torch.testing.assert_close(module.weight[0].detach().cpu(), best[0][:2], atol=1e-4, rtol=0)


def test_a_second_step_begins_where_the_first_ended():
    module = regression()
    optimiser = ScipyOptimizer(module, "bfgs")
    assert optimiser.result is None
    closure = closure_of(module, "plain", *cloud())
    first = optimiser.step(closure)
    steps = optimiser.result.nfev
    second = optimiser.step(closure)
    assert second <= first
    assert optimiser.result.nfev < steps / 2


# ------------------------------------------------------------------------------------- precision and devices


def largest_gradient(module):
    """Largest component of the gradient of the loss at a module's parameters, in doubles."""
    exact = regression()
    exact.load_state_dict({k: v.double() for k, v in module.state_dict().items()})
    closure_of(exact, "plain", *(t.double() for t in cloud(torch.float32)))().backward()
    return max(p.grad.abs().max().item() for p in exact.parameters())


def test_a_module_in_single_precision_is_minimised_in_double():
    """To a gradient far below what the plain closure can reach; parameters keep their precision."""
    tight = {"gtol": 1e-8}
    module, optimiser, value = optimise("with the module", "bfgs", torch.float32, options=tight)
    assert optimiser.result.x[0].dtype == DOUBLE
    assert optimiser.result.success
    assert abs(optimiser.result.jac).max() < 1e-8
    exact = regression()
    exact.load_state_dict(dict(zip(("weight", "bias"), optimiser.result.x, strict=True)))
    assert largest_gradient(exact) < 2e-8
    assert value.dtype == DOUBLE
    assert module.weight.dtype == torch.float32
    assert largest_gradient(module) < 1e-7
    # The plain closure works in single precision and ends at its rounding.
    _, plain, _ = optimise("plain", "bfgs", torch.float32, options=tight)
    assert not plain.result.success
    assert abs(plain.result.jac).max() > 10 * tight["gtol"]
    assert plain.result.x[0].dtype == torch.float32


class Mixed(nn.Module):
    """Parameters of three precisions, one frozen; minimum at a = 1, b = 2, c = 3, and the frozen -1 in it."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(2, dtype=torch.float32))
        self.b = nn.Parameter(torch.zeros(3, dtype=DOUBLE))
        self.c = nn.Parameter(torch.zeros((), dtype=torch.float16))
        self.frozen = nn.Parameter(torch.tensor(-1.0), requires_grad=False)

    def forward(self):
        parts = [self.a - 1, self.b + 2 * self.frozen, self.c + 3 * self.frozen]
        return sum((part.double() ** 2).sum() for part in parts)


@pytest.mark.parametrize("method", ["bfgs", "newton-cg", "trust-exact"])
@pytest.mark.parametrize("kind", ["plain", "with the module"])
def test_mixed_precisions_and_frozen_parameters(method, kind):
    module = Mixed()
    optimiser = ScipyOptimizer(module, method)
    optimiser.step(module.forward if kind == "plain" else lambda call: call())
    kinds = [p.dtype for p in module.parameters()]
    assert kinds == [torch.float32, DOUBLE, torch.float16, torch.float32]
    for p, right in zip(module.parameters(), (1, 2, 3, -1), strict=True):
        torch.testing.assert_close(
            p.detach().double(), torch.full_like(p, right, dtype=DOUBLE), atol=1e-3, rtol=0
        )
    assert module.frozen.item() == -1
    assert len(optimiser.result.x) == 3


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_parameters_on_two_devices(device):
    here, there = nn.Parameter(torch.zeros(2, dtype=DOUBLE)), nn.Parameter(torch.zeros(2, device=device))
    for method in ("bfgs", "trust-exact"):
        optimiser = ScipyOptimizer([here, there], method)
        optimiser.step(lambda: ((here - 1) ** 2).sum() + ((there.cpu() - 2) ** 2).sum())
        torch.testing.assert_close(here.detach(), torch.ones(2, dtype=DOUBLE), atol=1e-5, rtol=0)
        torch.testing.assert_close(there.detach().cpu(), 2 * torch.ones(2), atol=1e-3, rtol=0)


# ------------------------------------------------------------------------------------- the module itself


@pytest.mark.parametrize("kind", CLOSURES)
def test_buffers_are_used_and_left(kind):
    """Batch normalisation in eval mode: y = (x - mean)/sqrt(var) w + b, with mean 5 and variance 4 kept."""
    norm = nn.BatchNorm1d(1, eps=0.0).double().eval()
    norm.running_mean.fill_(5.0)
    norm.running_var.fill_(4.0)
    t = torch.linspace(0, 1, 9, dtype=DOUBLE)[:, None]
    optimiser = ScipyOptimizer(norm, "bfgs", options={"gtol": 1e-9})

    def loss(call=norm):
        return ((call(t) - (3 * t + 1)) ** 2).sum()

    def plain():
        return loss()

    def with_backward():
        value = loss()
        value.backward()
        return value

    optimiser.step(
        {"plain": plain, "with backward": with_backward, "with the module": lambda f: loss(f)}[kind]
    )
    # (t - 5)/2 w + b = 3 t + 1
    assert norm.weight.item() == pytest.approx(6, abs=1e-6)
    assert norm.bias.item() == pytest.approx(16, abs=1e-6)
    assert (norm.running_mean.item(), norm.running_var.item()) == (5, 4)


@pytest.mark.parametrize(("method", "kind"), not_refused("bfgs", "trust-exact", "nelder-mead"))
def test_the_module_is_not_copied(method, kind, monkeypatch):
    monkeypatch.setattr("copy.deepcopy", lambda *a: pytest.fail("a deep copy"))
    module = regression()
    before = [(id(p), p.data_ptr()) for p in module.parameters()]
    seen = set()
    module.register_forward_hook(lambda m, *_: seen.add(id(m)))
    optimiser = ScipyOptimizer(module, method)
    optimiser.step(closure_of(module, kind, *cloud(), optimiser))
    assert [(id(p), p.data_ptr()) for p in module.parameters()] == before
    assert seen == {id(module)}
    assert [id(p) for p in optimiser.param_groups[0]["params"]] == [i for i, _ in before]


def test_a_closure_whose_arguments_have_defaults_is_a_plain_one():
    """As closures written in a loop are."""
    module, (x, y) = regression(), cloud()
    optimiser = ScipyOptimizer(module.parameters(), "bfgs")

    def closure(x=x, y=y):
        return loss_of(module(x), y, module.weight, module.bias)

    assert optimiser.step(closure).item() == pytest.approx(0.627015108, abs=1e-8)


def test_shared_parameters_count_once():
    """Two layers with one weight w and f = (w w - 4)^2."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    for kind in ("plain", "with the module"):
        module = Tied().double()
        with torch.no_grad():
            module.first.weight.fill_(1.0)
        optimiser = ScipyOptimizer(module, "bfgs", options={"gtol": 1e-9})
        one = torch.ones(1, 1, dtype=DOUBLE)

        def loss(call, one=one):
            return ((call(one) - 4) ** 2).sum()

        optimiser.step(loss if kind == "with the module" else functools.partial(loss, module))
        assert abs(module.first.weight.item()) == pytest.approx(2)


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_are_left_as_they_were(enabled):
    with torch.set_grad_enabled(enabled):
        module, *_ = optimise("plain", "bfgs")
        assert torch.is_grad_enabled() == enabled
    assert module.weight.requires_grad


# --------------------------------------------------------------------- what is passed on, and what is refused


def test_bounds_constraints_and_callbacks_are_tensors_in_the_order_of_the_parameters():
    a, b = nn.Parameter(torch.zeros(2, dtype=DOUBLE)), nn.Parameter(torch.zeros((), dtype=DOUBLE))
    seen = []

    def loss():
        return ((a - 1) ** 2).sum() + (b - 1) ** 2

    optimiser = ScipyOptimizer(
        [a, b],
        "slsqp",
        options={"ftol": 1e-12},
        bounds=[(None, 0.5), (None, None), (None, None)],
        callback=seen.append,
    )
    optimiser.step(loss)
    torch.testing.assert_close(a.detach(), torch.tensor([0.5, 1.0], dtype=DOUBLE), atol=1e-5, rtol=0)
    assert [tuple(v.shape) for v in seen[0]] == [(2,), ()]
    plane = {"type": "ineq", "fun": lambda p: 1.5 - p[0].sum() - p[1]}
    optimiser = ScipyOptimizer([a, b], "slsqp", constraints=plane, options={"ftol": 1e-12})
    optimiser.step(loss)
    assert a.sum().item() + b.item() == pytest.approx(1.5, abs=1e-6)
    torch.testing.assert_close(a.detach(), torch.full((2,), 0.5, dtype=DOUBLE), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", CLOSURES)
def test_ctrl_c_leaves_the_best_parameters(kind):
    module = regression()
    optimiser = ScipyOptimizer(module, "bfgs")
    calls, closure = [], closure_of(module, kind, *cloud(), optimiser)

    def interrupted(*call):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return closure(*call)

    optimiser.step((lambda f: interrupted(f)) if kind == "with the module" else lambda: interrupted())
    assert optimiser.result.interrupted
    assert optimiser.result.nfev == 4
    now = closure_of(module, "plain", *cloud())().item()
    assert now == pytest.approx(optimiser.result.history[:, 1].min(), rel=1e-12)


def refused(match, make):
    with pytest.raises(InputError, match=match) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_what_cannot_be_optimised_is_refused():
    module = regression()
    groups = [{"params": [module.weight]}, {"params": [module.bias]}]
    refused("parameters come in groups", lambda: ScipyOptimizer(groups))
    refused("unknown method 'sgdm'", lambda: ScipyOptimizer(module, "sgdm"))
    refused("cannot keep bounds", lambda: ScipyOptimizer(module, "bfgs", bounds=[(0, 1)] * 3))
    refused("nothing to optimise", lambda: ScipyOptimizer([]))
    refused("nothing to optimise", lambda: ScipyOptimizer(module.requires_grad_(False)))
    spin = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    refused("complex", lambda: ScipyOptimizer([spin]).step(lambda: spin.abs().sum()))


def test_closures_that_cannot_be_used_are_refused():
    module = regression()
    closure = closure_of(module, "with the module", *cloud())
    refused("needs the module", lambda: ScipyOptimizer(module.parameters()).step(closure))
    refused("returned None", lambda: ScipyOptimizer(module).step(lambda: None))
    x, _ = cloud()
    refused("with one number", lambda: ScipyOptimizer(module).step(lambda: module(x)))
    refused("no gradient", lambda: ScipyOptimizer(module).step(lambda: module(x).detach().sum()))
    # A failure leaves the parameters where they were.
    for p, start in zip(module.parameters(), regression().parameters(), strict=True):
        torch.testing.assert_close(p, start, atol=0, rtol=0)


def test_options_of_the_method_one_by_one():
    steps = []
    for more in ({"options": {"maxiter": 3}}, {"maxiter": 3}, {}):
        module = nn.Linear(2, 1).double()
        with torch.no_grad():
            module.weight.fill_(1.0), module.bias.fill_(1.0)
        inputs = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
        optimiser = ScipyOptimizer(module.parameters(), method="CG", **more)
        optimiser.step(lambda module=module, inputs=inputs: (module(inputs) ** 4 + module(inputs)).sum())
        steps.append(optimiser.result.nit)
    assert steps[0] == steps[1] == 3 < steps[2]
