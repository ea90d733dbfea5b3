"""BeamModel against the plain NumPy reference, its gradients, and the Layout of its parameters."""

import itertools
import math
import tomllib
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import torch

from ooftorch import reference
from ooftorch.errors import InputError
from ooftorch.optics import illumination, telescopes, zernike
from ooftorch.optics.basis import ZernikeBasis
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel
from ooftorch.optics.parameters import Layout, Parameter
from ooftorch.optics.receiver import Receiver

WAVELENGTH = 3e-3
ORDER = 5
DZ = (-6e-3, 1e-3, 5e-3)
ILLUMINATIONS = {
    "gaussian": {"sigma": 0.55, "x0": 0.12, "y0": -0.07, "amp": 1.2, "rho": 0.2, "diff": -0.15},
    "pedestal": {"taper_db": -9.0, "q": 1.3, "x0": 0.12, "y0": -0.07, "amp": 1.2},
    "squashed": {"sigma": 0.6, "x0": 0.12, "y0": -0.07, "amp": 1.2},
    "tophat": {"radius": 0.83, "amp": 1.2},
}


def surface(order=ORDER, seed=0):
    """Coefficients of every mode, piston and tilts too, about 2 rad rms."""
    return 0.4 * np.random.default_rng(seed).standard_normal(zernike.n_terms(order))


def named(z):
    return {zernike.name(k): c for k, c in enumerate(z)}


def specification(name):
    text = (resources.files("ooftorch.optics") / "telescopes" / f"{name}.toml").read_text()
    return tomllib.loads(text)


def map_directions(scope):
    """A regular map and a scattered one, of different sizes."""
    beam = WAVELENGTH / (2 * scope.radius)
    u, v = np.meshgrid(np.linspace(-2.0, 3.0, 6), np.linspace(-2.5, 1.5, 4))
    regular = beam * np.stack([u.ravel(), v.ravel()])
    return regular, beam * np.random.default_rng(1).uniform(-3, 3, (2, 11))


def three_maps(scope):
    """The first and the last map share their samples; the one between them has its own."""
    regular, scattered = map_directions(scope)
    return [MapGeometry(dz, *xy) for dz, xy in zip(DZ, (regular, scattered, regular), strict=True)]


def settings(scope):
    """Gain, offset and pointing (dx, dy) of each map, all different."""
    beam = WAVELENGTH / (2 * scope.radius)
    gains, offsets = (40.0, 37.0, 43.0), (0.5, -0.3, 0.1)
    pointing = beam * np.array([[0.3, -0.2], [-0.15, 0.25], [0.05, 0.4]])
    return gains, offsets, pointing


def per_map(scope):
    gains, offsets, pointing = settings(scope)
    columns = {"gain": gains, "offset": offsets, "dx": pointing[:, 0], "dy": pointing[:, 1]}
    return {f"{name}_{i}": float(c) for name, column in columns.items() for i, c in enumerate(column)}


def smeared(maps, beam):
    """The maps with the samples of the first smeared, and with each of the second smeared its own way."""
    first, second, *others = maps
    angle = np.random.default_rng(2).uniform(0, 2 * np.pi, len(second.x))
    alike = 0.3 * beam * np.outer([1, 0], np.ones(len(first.x)))
    each = 0.4 * beam * np.stack([np.cos(angle), np.sin(angle)])
    return [first._replace(smear=alike), second._replace(smear=each), *others]


def by_reference(
    name, scope, model_name, n, oversample, *, focus_error=0.0, focus_scale=1.0, maps=None, **receiver
):
    out = []
    for m, gain, offset, pointing in zip(maps or three_maps(scope), *settings(scope), strict=True):
        power = reference.beam(
            specification(name),
            WAVELENGTH,
            focus_scale * m.dz + focus_error,
            surface(),
            {"model": model_name, **ILLUMINATIONS[model_name]},
            m.x,
            m.y,
            n=n,
            oversample=oversample,
            pointing=tuple(pointing),
            smear=(0.0, 0.0) if m.smear is None else m.smear,
            **receiver,
        )
        out.append(gain * power + offset)
    return out


def assert_matches(model, expected, tolerance=1e-12):
    with torch.no_grad():
        found = model.split(model())
    for one, other, gain in zip(found, expected, (40.0, 37.0, 43.0), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * gain)


@pytest.mark.parametrize("model_name", ILLUMINATIONS)
@pytest.mark.parametrize("name", telescopes.names())
def test_reference_for_every_telescope_and_illumination(name, model_name):
    scope = telescopes.load(name)
    model = BeamModel(
        scope,
        WAVELENGTH,
        three_maps(scope),
        order=ORDER,
        illumination=model_name,
        scale=40.0,
        n=36,
        oversample=1.5,
    )
    model.set(**named(surface()), **ILLUMINATIONS[model_name], **per_map(scope), dz=7e-4, dz_scale=1.1)
    assert_matches(model, by_reference(name, scope, model_name, 36, 1.5, focus_error=7e-4, focus_scale=1.1))


@pytest.mark.parametrize(
    "receiver",
    [
        {"chop": (3.0, -1.0), "gain_ratio": 0.8},
        {"disc_radius": 0.7},
        {"chop": (0.0, 2.5), "gain_ratio": 1.3, "disc_radius": 0.4},
    ],
    ids=["chopped", "disc", "chopped disc"],
)
@pytest.mark.parametrize(("name", "model_name"), [("gbt", "gaussian"), ("alma-dv", "squashed")])
def test_reference_with_other_receivers(name, model_name, receiver):
    scope = telescopes.load(name)
    beam = WAVELENGTH / (2 * scope.radius)
    chop = tuple(beam * h for h in receiver.get("chop", (0.0, 0.0)))
    ratio, disc_radius = receiver.get("gain_ratio", 1.0), beam * receiver.get("disc_radius", 0.0)
    model = BeamModel(
        scope,
        WAVELENGTH,
        three_maps(scope),
        order=ORDER,
        illumination=model_name,
        receiver=Receiver(*chop, gain_ratio=ratio, disc_radius=disc_radius),
        scale=40.0,
        n=32,
        oversample=2.0,
    )
    model.set(**named(surface()), **ILLUMINATIONS[model_name], **per_map(scope))
    expected = by_reference(
        name, scope, model_name, 32, 2.0, chop=chop, gain_ratio=ratio, disc_radius=disc_radius
    )
    assert_matches(model, expected)
    if any(chop):  # the ratio of the beams is a parameter, and starts at the receiver's
        assert model.values()["gain_ratio"] == pytest.approx(ratio)
        model.set(gain_ratio=2.0)
        plus = by_reference(
            name, scope, model_name, 32, 2.0, chop=chop, gain_ratio=2.0, disc_radius=disc_radius
        )
        assert_matches(model, plus)


@pytest.mark.parametrize("chop", [(0.0, 0.0), (3.0, -1.0)], ids=["single", "chopped"])
@pytest.mark.parametrize("disc_radius", [0.0, 0.4])
def test_reference_with_smeared_samples(chop, disc_radius):
    """The first map and the last differ in the smearing alone, and must not be taken for one group."""
    scope = telescopes.load("alma")
    beam = WAVELENGTH / (2 * scope.radius)
    maps = smeared(three_maps(scope), beam)
    chop, disc_radius = tuple(beam * h for h in chop), beam * disc_radius
    model = BeamModel(
        scope,
        WAVELENGTH,
        maps,
        order=ORDER,
        illumination="gaussian",
        receiver=Receiver(*chop, disc_radius=disc_radius),
        scale=40.0,
        n=32,
    )
    model.set(**named(surface()), **ILLUMINATIONS["gaussian"], **per_map(scope))
    options = {"chop": chop, "disc_radius": disc_radius}
    # The quadrature of the model has three points, that of the reference 16.
    assert_matches(model, by_reference("alma", scope, "gaussian", 32, 2.0, maps=maps, **options), 1e-5)
    plain = by_reference("alma", scope, "gaussian", 32, 2.0, **options)
    off = [np.abs(a.numpy() - b).max() for a, b in zip(model.split(model().detach()), plain, strict=True)]
    assert min(off[:2]) > 0.01
    assert off[2] < 1e-10


def tiny(model_name="gaussian", receiver=None, name="alma"):
    """Three maps of a few samples on a coarse raster: all the parameters, little work."""
    scope = telescopes.load(name)
    beam = WAVELENGTH / (2 * scope.radius)
    xy = beam * np.random.default_rng(1).uniform(-1.5, 1.5, (2, 5))
    maps = [MapGeometry(-3e-3, *xy), MapGeometry(0.0, *xy[:, :3]), MapGeometry(4e-3, *xy)]
    model = BeamModel(
        scope,
        WAVELENGTH,
        maps,
        order=2,
        illumination=model_name,
        receiver=receiver or Receiver(),
        n=8,
        oversample=1.0,
    )
    model.set(**ILLUMINATIONS[model_name], **named(surface(2)))
    return model


CHOPPED = Receiver(chop_x=1e-4, chop_y=-5e-5, gain_ratio=0.8)


@pytest.mark.parametrize(
    ("model_name", "receiver", "name"),
    [
        ("gaussian", None, "alma"),
        ("pedestal", CHOPPED, "alma-dv"),
        ("squashed", Receiver(disc_radius=1e-4), "alma"),
        ("tophat", None, "srt-shaped"),  # whose path has powers of dz
    ],
)
def test_gradient_through_all_parameters(model_name, receiver, name):
    model = tiny(model_name, receiver, name)
    u = model.coordinates.detach().clone()
    u += 0.1 * torch.as_tensor(np.random.default_rng(2).standard_normal(len(u)))
    u.requires_grad_()
    assert torch.autograd.gradcheck(model, u, atol=1e-6)
    # Every parameter but piston and the scale of the amplitude has an effect.
    model(u).square().sum().backward()
    idle = {n for n, g in zip(model.layout.names, u.grad.tolist(), strict=True) if abs(g) < 1e-12}
    assert idle == {"z0", "amp"}


@pytest.mark.parametrize("receiver", [None, CHOPPED, Receiver(disc_radius=1e-4)])
def test_a_stack_of_coordinates_is_a_loop(receiver):
    model = tiny(receiver=receiver)
    rng = np.random.default_rng(3)
    u = model.coordinates.detach() + 0.2 * torch.as_tensor(
        rng.standard_normal((2, 3, len(model.coordinates)))
    )
    found, (amplitude, phase) = model(u), model.aperture(u)
    assert found.shape == (2, 3, 13)
    assert amplitude.shape == phase.shape == (2, 3, len(model.pixels.x))
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(found[i, j], model(u[i, j]), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(amplitude[i, j], model.aperture(u[i, j])[0], rtol=1e-13, atol=0)
        torch.testing.assert_close(phase[i, j], model.aperture(u[i, j])[1], rtol=1e-13, atol=1e-13)


def test_without_argument_the_modules_own_coordinates_count():
    model = tiny()
    assert torch.equal(model(), model(model.coordinates.detach().clone()))
    for own, given in zip(model.aperture(), model.aperture(model.coordinates), strict=True):
        assert torch.equal(own, given)
    assert [len(piece) for piece in model.split(model())] == [5, 3, 5]
    assert torch.equal(torch.cat(model.split(model())), model())


def test_the_perfect_telescope_in_focus_has_its_gain_as_its_peak():
    scope = telescopes.load("effelsberg")
    geometry = MapGeometry(0.0, np.array([0.0, 1e-6]), np.zeros(2))
    model = BeamModel(scope, WAVELENGTH, [geometry], order=1, n=48, scale=12.0)
    model.set(gain_0=30.0, offset_0=2.0, amp=5.0, x0=0.1)
    assert float(model().detach()[0]) == pytest.approx(32.0, rel=1e-13)
    assert float(model().detach()[1]) < 32.0


def test_usual_illumination_of_the_telescope_is_the_start():
    geometry = [MapGeometry(0.0, np.zeros(1), np.zeros(1))]

    def start(name, model_name):
        model = BeamModel(telescopes.load(name), WAVELENGTH, geometry, order=1, illumination=model_name, n=32)
        return model.values()

    assert start("effelsberg", "pedestal")["taper_db"] == -14.5
    assert 20 * math.log10(math.exp(-0.5 / start("effelsberg", "gaussian")["sigma"] ** 2)) == pytest.approx(
        -14.5
    )
    assert start("paper", "gaussian")["sigma"] == pytest.approx(0.72, abs=1e-3)
    assert start("gbt", "tophat")["radius"] == pytest.approx(0.9)
    assert start("gbt90", "tophat")["radius"] >= 1


def test_maps_too_wide_for_the_raster_are_refused_with_one_that_will_do():
    scope = telescopes.load("alma")
    wide = 1.7e-3

    def build(n):
        geometry = MapGeometry(0.0, np.zeros(2), np.array([0.0, -wide]))
        return BeamModel(scope, WAVELENGTH, [geometry], order=1, n=n)

    with pytest.raises(InputError, match=r"0.0017 rad from the source.*use n >= (\d+)") as caught:
        build(16)
    assert "\n" not in str(caught.value)
    needed = int(str(caught.value).rsplit(" ", 1)[1])
    build(needed)
    with pytest.raises(InputError):
        build(needed - 4)


@pytest.mark.parametrize("wavelength", [0.0, -3e-3, math.nan, math.inf])
def test_bad_wavelength_is_refused(wavelength):
    geometry = MapGeometry(0.0, np.zeros(1), np.zeros(1))
    with pytest.raises(InputError, match=r"wavelength .* expected a positive number"):
        BeamModel(telescopes.load("alma"), wavelength, [geometry], order=1)


def test_an_order_without_parameters_and_an_unknown_illumination_are_refused():
    geometry = [MapGeometry(0.0, np.zeros(1), np.zeros(1))]
    with pytest.raises(InputError, match="order 0"):
        BeamModel(telescopes.load("alma"), WAVELENGTH, geometry, order=0)
    with pytest.raises(InputError, match="known are gaussian"):
        BeamModel(telescopes.load("alma"), WAVELENGTH, geometry, order=1, illumination="airy")


# ------------------------------------------------------------------------------- written-out derivatives


# Angles of the receivers in beams.
COMBINATIONS = {
    "gaussian": ("gaussian", Receiver(), "alma"),
    "pedestal, chopped": ("pedestal", Receiver(1.3, -0.4, gain_ratio=0.8), "gbt"),
    "squashed, disc": ("squashed", Receiver(disc_radius=0.4), "alma-dv"),
    "gaussian, chopped disc": ("gaussian", Receiver(1.1, 0.0, gain_ratio=1.3, disc_radius=0.3), "alma"),
    "pedestal, legs with shadows": ("pedestal", Receiver(), "effelsberg"),
    # A path with powers of dz, and a disc that ends on the dish.
    "tophat, shaped": ("tophat", Receiver(0.0, 1.2, gain_ratio=0.9), "srt-shaped"),
}


def everything_free(combination, alike):
    """A model with all that can be freed free, and coordinates (2, 3, n_parameters) around its own.

    The samples of the maps: all alike, or in other places and smeared, the last not.
    """
    model_name, receiver, name = COMBINATIONS[combination]
    scope = telescopes.load(name)
    beam = WAVELENGTH / (2 * scope.radius)
    regular, scattered = map_directions(scope)
    angles = {name: beam * getattr(receiver, name) for name in ("chop_x", "chop_y", "disc_radius")}
    places = (regular,) * 3 if alike else (regular, scattered, regular)
    maps = [MapGeometry(dz, *xy) for dz, xy in zip(DZ, places, strict=True)]
    if not alike:  # nor smeared alike
        maps = smeared(maps, beam)
    model = BeamModel(
        scope,
        WAVELENGTH,
        maps,
        order=3,
        illumination=model_name,
        receiver=replace(receiver, **angles),
        scale=40.0,
        amplitude_order=3,
        n=24,
        oversample=1.5,
    )
    wanted = {"x0", "y0", "sigma", "rho", "diff", "taper_db", "q", "radius"} & set(model.layout.names)
    model = model.with_layout(model.layout.with_free([*wanted, "dx", "dy", "dz"]))
    # An exponent below 2 has a kink at the rim, over which no difference tells the slope.
    smooth = {"q": 2.5} if model_name == "pedestal" else {}
    model.set(**named(surface(3)), **(ILLUMINATIONS[model_name] | smooth), **per_map(scope))
    rng = np.random.default_rng(4)
    u = model.coordinates.detach() + 0.05 * torch.as_tensor(
        rng.standard_normal((2, 3, len(model.layout.names)))
    )
    return model, u


def differences(model, u, wanted, step=1e-5):
    """Central differences of the samples by some coordinates, (..., len(wanted), n_samples)."""
    unit = step * torch.eye(u.shape[-1], dtype=u.dtype)[wanted]
    with torch.no_grad():
        return torch.stack([(model(u + e) - model(u - e)) / (2 * step) for e in unit], -2)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_vjp_is_the_gradient(combination, alike):
    model, u = everything_free(combination, alike)
    free = model.layout.free
    held = [i for i in range(u.shape[-1]) if i not in free]
    weights = torch.as_tensor(np.random.default_rng(5).standard_normal((2, 3, sum(model.sizes))))
    for batch in ((), (1,), (0, 2)):
        at, w = (t[batch].clone() for t in (u, weights))
        at.requires_grad_()
        (expected,) = torch.autograd.grad((model(at) * w).sum(), at)
        with torch.no_grad():
            prediction = model.at(at)
            torch.testing.assert_close(prediction.samples, model(at))
            found = prediction.vjp(w)
        assert found.shape == at.shape
        torch.testing.assert_close(found[..., free], expected[..., free], rtol=1e-9, atol=1e-9)
        # What is held, piston and the scale of the amplitude, has no effect.
        torch.testing.assert_close(found[..., held], expected[..., held], rtol=0, atol=1e-9)
        assert (found[..., free].abs() > 1e-9).all()


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_jacobian_against_differences(combination, alike):
    model, u = everything_free(combination, alike)
    free = model.layout.free
    for at in (u, u[1], u[0, 2]):
        with torch.no_grad():
            found = model.at(at).jacobian(free)
        expected = differences(model, at, free)
        assert found.shape == expected.shape == (*at.shape[:-1], len(free), sum(model.sizes))
        size = expected.abs().amax(-1, keepdim=True)
        assert (size > 1e-6).all()
        assert float(((found - expected) / size).abs().max()) < 3e-7


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_columns_of_the_jacobian_come_as_they_are_asked_for(combination):
    model, u = everything_free(combination, alike=False)
    with torch.no_grad():
        at = model.at(u)
        # Order 3 has more columns than are computed together.
        whole = at.jacobian(model.layout.free)
        order = np.random.default_rng(6).permutation(len(model.layout.free)).tolist()
        for chosen in (order, order[:1], order[3:7]):
            some = at.jacobian([model.layout.free[i] for i in chosen])
            torch.testing.assert_close(some, whole[..., chosen, :], rtol=1e-12, atol=1e-12)
        w = torch.as_tensor(np.random.default_rng(5).standard_normal((2, 3, sum(model.sizes))))
        by_column = (whole * w.unsqueeze(-2)).sum(-1)
        torch.testing.assert_close(at.vjp(w)[..., model.layout.free], by_column, rtol=1e-9, atol=1e-9)


def test_gradient_of_what_is_held_is_zero():
    """The layout says which of illumination, focus and pointing are wanted; the others cost nothing."""
    model, u = everything_free("pedestal, chopped", alike=False)
    w = torch.as_tensor(np.random.default_rng(5).standard_normal((2, 3, sum(model.sizes))))

    def gradient(model):
        with torch.no_grad():
            at = model.at(u)
            assert at.samples.shape == w.shape
            return at.vjp(w)

    before = gradient(model)
    moving = [f"{n}_{i}" for n in ("dx", "dy") for i in range(3)] + ["dz", "dz_scale"]
    layout = model.layout.with_held([*moving, "q"])
    after, free = gradient(model.with_layout(layout)), layout.free
    torch.testing.assert_close(after[..., free], before[..., free], rtol=1e-12, atol=1e-12)
    nothing = {name for i, name in enumerate(layout.names) if not after[..., i].any()}
    assert nothing - {"z0"} == {"amp", "q", *moving}
    assert before[..., [layout.index(name) for name in (*moving, "q")]].all()


# --------------------------------------------------------------------------------------- optimisers


def test_any_optimiser_moves_the_free_parameters_and_no_other():
    truth = tiny()
    data = truth().detach()
    model = tiny()
    model = model.with_layout(model.layout.with_fixed({"sigma": 0.5, "offset": 0.0, "dy": 0.0}))
    model.set(**ILLUMINATIONS["gaussian"] | named(0.5 * surface(2)))
    before = model.values()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = 0.5 * ((model() - data) / 0.05).square().sum()
        loss.backward()
        losses.append(float(loss.detach()))
        held = [not p.free for p in model.layout.parameters]
        assert not model.coordinates.grad[held].any()
        optimiser.step()
    assert losses[-1] < 0.2 * losses[0]
    moved = {name for name, value in model.values().items() if value != before[name]}
    assert moved == {p.name for p in model.layout.parameters if p.free}
    one = {"z1", "z2", "z3", "z4", "z5", "x0", "y0", "dz_scale"}
    assert moved == one | {f"{n}_{i}" for n in ("gain", "dx") for i in range(3)}


# ------------------------------------------------------------------------------------------- layout


def layout():
    return tiny(receiver=CHOPPED).layout


def test_names_and_which_are_free():
    names = layout().names
    gains, offsets, *pointing = ([f"{n}_{i}" for i in range(3)] for n in ("gain", "offset", "dx", "dy"))
    shape = ["sigma", "x0", "y0", "amp", "rho", "diff"]
    assert names == [f"z{k}" for k in range(6)] + shape + gains + offsets + [
        "dz",
        "dz_scale",
        *pointing[0],
        *pointing[1],
        "gain_ratio",
    ]
    assert [layout().index(name) for name in names] == list(range(len(names)))
    free = [names[i] for i in layout().free]
    assert free == [
        *(f"z{k}" for k in range(1, 6)),
        "sigma",
        "x0",
        "y0",
        *gains,
        *offsets,
        "dz_scale",
        *pointing[0],
        *pointing[1],
        "gain_ratio",
    ]
    assert "gain_ratio" not in tiny().layout.names


def test_a_name_stands_for_itself_or_one_per_map():
    assert layout().expand("dx") == ["dx_0", "dx_1", "dx_2"]
    assert layout().expand("gain") == ["gain_0", "gain_1", "gain_2"]  # and not gain_ratio
    assert layout().expand("dz") == ["dz"]
    assert layout().expand("dy_1") == ["dy_1"]
    wide = Layout(tuple(Parameter(f"z{k}", "rad", 0.0) for k in range(12)))
    assert wide.expand("z1") == ["z1"]  # and not z10
    odd = Layout((Parameter("a_1", "", 0.0), Parameter("a_0", "", 0.0, map=0)))
    assert odd.expand("a") == ["a_0"]  # the other is not of a map


def test_freeing_and_fixing():
    base = layout()
    freed = base.with_held(["dy_0", "dy_1", "dy_2"]).with_free(["dy", "rho", "dz"])
    assert {freed.names[i] for i in set(freed.free) - set(base.free)} == {"rho", "dz"}
    fixed = freed.with_fixed({"sigma": 0.7, "gain": 2.0, "z3": 0.25})
    assert {fixed.names[i] for i in set(freed.free) - set(fixed.free)} == {
        "sigma",
        "z3",
        "gain_0",
        "gain_1",
        "gain_2",
    }
    held = fixed.values(fixed.coordinates())
    assert [held[n] for n in ("sigma", "gain_1", "z3")] == pytest.approx([0.7, 2.0, 0.25])
    assert fixed.parameters[fixed.index("sigma")].prior is None
    assert base == layout()  # nothing was written into it
    with pytest.raises(InputError, match="sigma is positive by nature, not -1"):
        base.with_fixed({"sigma": -1.0})


def test_parameters_declared_together_stand_together():
    lay = layout()
    gains = [lay[f"gain_{i}"] for i in range(3)]
    assert lay.names[lay.span(gains)] == ["gain_0", "gain_1", "gain_2"]
    assert lay.span([]) == slice(0, 0)
    with pytest.raises(ValueError, match="one after the other"):
        lay.span(gains[::2])


def test_holding_and_adding():
    held = layout().with_held(["z3", "gain_1"])
    assert set(layout().free) - set(held.free) == {3, layout().index("gain_1")}
    assert held["z3"].start == layout()["z3"].start
    with pytest.raises(InputError, match="no parameter 'zz'"):
        layout().with_held(["zz"])
    noise = Parameter("noise", "", 2.0, free=True, log=True)
    more = layout().with_added(noise)
    assert more.names == [*layout().names, "noise"]
    assert more.free == [*layout().free, len(layout().names)]

    # A model is made with it at its start values; the parameter that is not its own changes no beam.
    before = tiny()().detach()
    model = tiny().with_layout(tiny().layout.with_fixed({"z4": 0.8}).with_added(noise))
    assert model.values()["noise"] == pytest.approx(2.0)
    assert model.values()["z4"] == pytest.approx(0.8)
    model.set(**ILLUMINATIONS["gaussian"] | named(surface(2)), noise=5.0)
    torch.testing.assert_close(model().detach(), before)
    model().sum().backward()
    assert model.coordinates.grad[-1] == 0
    with pytest.raises(InputError, match="no parameter 'sigma'"):
        tiny().with_layout(tiny("pedestal").layout)


@pytest.mark.parametrize(
    "use",
    [
        lambda lay: lay.index("sigmma"),
        lambda lay: lay.expand("sigmma"),
        lambda lay: lay.with_free(["sigmma"]),
        lambda lay: lay.with_fixed({"sigmma": 1.0}),
        lambda lay: lay.coordinates({"sigmma": 1.0}),
    ],
    ids=["index", "expand", "freed", "fixed", "coordinates"],
)
def test_unknown_names_are_refused_with_the_nearest(use):
    with pytest.raises(InputError, match="no parameter 'sigmma'; did you mean sigma") as caught:
        use(layout())
    assert "\n" not in str(caught.value)


def test_unknown_names_are_refused_by_the_model_as_well():
    with pytest.raises(InputError, match="no parameter 'z7'; did you mean z"):
        tiny().set(z7=1.0)


def test_coordinates_and_values_are_inverse():
    given = {
        "z2": -0.3,
        "sigma": 0.45,
        "gain_1": 0.2,
        "offset_0": -0.7,
        "dx_2": 1e-5,
        "dz": -2e-3,
        "gain_ratio": 3.0,
    }
    u = layout().coordinates(given)
    assert len(u) == len(layout().names)
    values = layout().values(u)
    starts = {p.name: p.start for p in layout().parameters}
    assert values == pytest.approx(starts | given, rel=1e-14, abs=0)
    np.testing.assert_allclose(layout().coordinates(values), u, rtol=1e-14, atol=1e-15)
    with pytest.raises(ValueError, match="shorter"):
        layout().values(u[:-1])
    # The module agrees with its layout.
    model = tiny(receiver=CHOPPED)
    model.set(**given)
    assert model.values() == pytest.approx(values | ILLUMINATIONS["gaussian"] | named(surface(2)) | given)


def test_derivatives_of_the_values():
    u = layout().coordinates() + 0.1
    step = 1e-6
    for i, slope in enumerate(layout().derivatives(u)):
        up, down = (list(layout().values(u + s * step * (np.arange(len(u)) == i)).values()) for s in (1, -1))
        assert (up[i] - down[i]) / (2 * step) == pytest.approx(slope, rel=1e-8)
        assert sum(a != b for a, b in zip(up, down, strict=True)) == 1


def test_coordinates_have_the_size_of_the_data_and_of_the_beam():
    scope = telescopes.load("alma")
    geometry = [MapGeometry(0.0, np.zeros(1), np.zeros(1))]
    lay = BeamModel(scope, WAVELENGTH, geometry, order=1, n=32, scale=250.0).layout
    one = np.ones(len(lay.names))
    beam = WAVELENGTH / 12
    assert lay.values(lay.coordinates())["gain_0"] == pytest.approx(250.0)
    assert lay.values(one)["offset_0"] == pytest.approx(250.0)
    assert lay.values(one)["dx_0"] == pytest.approx(beam)
    assert lay.values(one)["gain_0"] == pytest.approx(250.0 * math.e)
    assert lay.values(one)["z1"] == 1.0


def prior_cost(lay, u):
    rows, target = lay.prior()
    return 0.5 * np.sum((rows @ u - target) ** 2)


def test_prior_is_its_formula():
    lay = layout().with_free(["dz"]).with_held(["dy_1"])
    u = lay.coordinates() + 0.1 * np.random.default_rng(5).standard_normal(len(lay.names))

    def formula(vector):
        cost, values = 0.0, lay.values(vector)
        for p in lay.parameters:
            if p.free and p.prior is not None:
                away = math.log(values[p.name] / p.start) if p.log else values[p.name] - p.start
                cost += 0.5 * (away / p.prior) ** 2
        beam = WAVELENGTH / 12
        gains = np.log([values[f"gain_{i}"] for i in range(3)])
        dx, dy = (np.array([values[f"{kind}_{i}"] / beam for i in range(3)]) for kind in ("dx", "dy"))
        for tied, width in ((gains, 0.03), (dx, 0.25), (dy, 0.25)):
            cost += 0.5 * np.sum((tied - tied.mean()) ** 2) / width**2
        # The tilts stand for the mean; it is free where one of the maps is held.
        return cost + 0.5 * (dx.mean() / (1e-4 * 0.25)) ** 2

    assert prior_cost(lay, u) == pytest.approx(formula(u), rel=1e-12)
    rows, target = lay.prior()
    gradient = rows.T @ (rows @ u - target)
    for i in range(len(u)):
        step = 1e-5 * (np.arange(len(u)) == i)
        slope = (formula(u + step) - formula(u - step)) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-12 * formula(u) / 1e-5)
    with_prior = {lay.names[i] for i in np.flatnonzero(gradient)}
    gains = {f"gain_{i}" for i in range(3)}
    pointing = {f"{kind}_{i}" for kind in ("dx", "dy") for i in range(3)}
    assert with_prior == gains | pointing | {"sigma", "x0", "y0", "dz", "dz_scale", "gain_ratio"}


def test_prior_widths_are_in_the_units_of_the_values():
    lay = layout().with_free(["dz"])
    start = lay.coordinates()

    def cost(**values):
        return prior_cost(lay, lay.coordinates(values))

    assert prior_cost(lay, start) == 0
    beam = WAVELENGTH / 12
    # A quarter of a beam from the mean: two maps at one standard deviation each.
    assert cost(dx_1=0.25 * beam, dx_2=-0.25 * beam) == pytest.approx(1.0)
    shift = 0.2 * WAVELENGTH / (math.pi * telescopes.load("alma").depth())
    assert cost(dz=-shift) == pytest.approx(0.5)
    assert cost(dz_scale=math.exp(0.03)) == pytest.approx(0.5)
    assert cost(y0=0.05) == pytest.approx(0.5)
    sigma = lay.values(start)["sigma"]
    assert cost(sigma=sigma * math.exp(0.1)) == pytest.approx(0.5)
    # Held parameters have no prior, wherever they are.
    assert cost(rho=0.5, z4=3.0, offset_1=9.0) == 0
    assert prior_cost(lay.with_fixed({"dx": 0.0}), lay.coordinates({"dx_1": beam})) == 0


def test_the_tie_of_the_gains_leaves_a_common_gain_alone():
    lay = layout()
    uneven = {"gain_0": 1.02, "gain_1": 0.97, "gain_2": 1.01}
    expected = prior_cost(lay, lay.coordinates(uneven))
    assert expected > 0.1
    for factor in (0.1, 5.0):
        common = {name: factor * gain for name, gain in uneven.items()}
        assert prior_cost(lay, lay.coordinates(common)) == pytest.approx(expected, rel=1e-9)
    # One gain that is 3 % off: its distance from the mean is two thirds of that.
    one = prior_cost(lay, lay.coordinates({"gain_0": math.exp(0.03)}))
    assert one == pytest.approx(0.5 * (4 / 9 + 1 / 9 + 1 / 9))


def test_the_tilts_stand_for_the_common_pointing():
    """Held at zero in the maps where the basis has a tilt along that axis, free where it has not."""

    class NoTilt(ZernikeBasis):
        x_tilt = None

    geometry = three_maps(telescopes.load("alma"))
    lay = BeamModel(telescopes.load("alma"), WAVELENGTH, geometry, basis=NoTilt(2), n=24).layout
    common = lay.coordinates({f"dx_{i}": 3e-4 for i in range(3)})
    assert prior_cost(lay, common) == pytest.approx(0, abs=1e-20)
    assert prior_cost(lay, lay.coordinates({f"dy_{i}": 3e-4 for i in range(3)})) > 1e6
    # A map at a pointing that is known: the others follow it.
    known = lay.with_fixed({"dy_1": 3e-4})
    assert prior_cost(known, known.coordinates({"dy_0": 3e-4, "dy_2": 3e-4})) == pytest.approx(0, abs=1e-20)
    assert prior_cost(known, known.coordinates()) > 0.1


def test_every_illumination_has_its_case_here():
    assert set(ILLUMINATIONS) == set(illumination.NAMES)
    for name, values in ILLUMINATIONS.items():
        assert values.keys() == {p.name for p in tiny(name).parts.illumination.parameters}


# ------------------------------------------------------------------------------------------- the module


@pytest.mark.parametrize("receiver", [None, CHOPPED, Receiver(disc_radius=1e-4)])
def test_the_module_moves_to_another_precision(receiver):
    """Operators, effects and indices with it: nothing of the old precision is left behind."""
    model = tiny(receiver=receiver)
    u = model.coordinates.detach() + 0.1
    expected, gradient = model(u).detach(), model.at(u).vjp(torch.ones(13, dtype=torch.float64))
    size = model.nbytes()
    single = model.to(torch.float32)
    assert single is model
    assert single.nbytes() < 0.7 * size
    found = single(u.float())
    assert found.dtype == single.at(u.float()).vjp(torch.ones(13)).dtype == torch.float32
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-4, atol=1e-5)
    assert single.at(u.float()).jacobian(single.layout.free).dtype == torch.float32
    again = single.double().at(u)
    torch.testing.assert_close(
        again.vjp(torch.ones(13, dtype=torch.float64)).detach(), gradient.detach(), rtol=1e-3, atol=1e-4
    )


def test_the_state_of_the_module_is_its_coordinates():
    model, other = tiny(), tiny()
    model.set(z3=0.7, gain_1=2.0)
    assert list(model.state_dict()) == ["coordinates"]
    other.load_state_dict(model.state_dict())
    assert other.values() == model.values()
    other.reset()
    assert other.values() == {p.name: p.start for p in other.layout.parameters}
