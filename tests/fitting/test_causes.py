"""Named causes: each mistake is found and called by its name, and what no data can tell is never named."""

import math
from dataclasses import replace

import numpy as np
import pytest

import ooftorch
from ooftorch.fitting import causes
from ooftorch.fitting.alternatives import KINDS
from ooftorch.fitting.setup import FitOptions, set_up
from ooftorch.optics import telescopes
from ooftorch.optics.receiver import Receiver
from ooftorch.simulation import surfaces
from ooftorch.units import ARCSEC

WAVELENGTH, ORDER = 3e-3, 4
BEAM = WAVELENGTH / 12.0


def simulate(telescope="alma", wavelength=WAVELENGTH, seed=3, rms=0.7, noise=None, receiver=None, **values):
    simulator = ooftorch.Simulator(
        telescope,
        wavelength=wavelength,
        noise=noise or ooftorch.Noise(snr=250),
        receiver=receiver or Receiver(),
        reach=5.0,
        step=0.4,
    )
    return simulator.observe({**surfaces.random(ORDER, rms, seed=seed), **values}, seed=seed)


@pytest.fixture(scope="module")
def clean():
    return simulate()


def change_all(numbers=(0, 1, 2), **changes):
    """Function that changes some maps of an observation, all at once: they are sorted by dz."""

    def apply(observation):
        maps = list(observation.maps)
        for i in numbers:
            maps[i] = replace(maps[i], **{key: f(maps[i]) for key, f in changes.items()})
        return replace(observation, maps=tuple(maps))

    return apply


def change(number, **changes):
    return change_all((number,), **changes)


def fit(observation, **options):
    return ooftorch.fit(observation, order=ORDER, n=128, device="cpu", **options)


def exchange(observation):
    first, second, third = observation.maps
    return replace(observation, maps=(replace(first, dz=0.0), replace(second, dz=first.dz), third))


def saturate(m):
    return np.minimum(m.power, 0.6 * np.max(m.power))


# ------------------------------------------------------------------------------------- what is named


MISTAKES = {
    "dz_sign": (change(2, dz=lambda m: -m.dz), "the sign of dz"),
    "dz_scale": (change_all(dz=lambda m: 10 * m.dz), "all dz 0.09"),
    "beam_size": (lambda o: replace(o, wavelength=1.5 * o.wavelength), "a wavelength 0.6"),
    "flipped": (change(0, x=lambda m: -m.x), "mirrored in DX"),
    "swapped": (exchange, "+0 mm exchanged"),
    "dz_of_one_map": (change(0, dz=lambda m: 1.4 * m.dz), "changed by"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_called_by_its_name(clean, name):
    mistake, words = MISTAKES[name]
    result = fit(mistake(clean))
    first = result.causes[0]
    assert first.name == name
    assert words in first.text
    assert first.factor > 1.25
    verdict, *reasons = ooftorch.verdict(result)
    # Where the fit has found the surface all the same, it may be used.
    near = first.change < max(0.15, 0.3 * result.phase_rms)
    assert verdict == ("usable with care" if near else "do not apply")
    assert near == (name == "dz_of_one_map")
    assert first.text in reasons
    assert ooftorch.summary(result)["causes"][0] == first._asdict()


@pytest.mark.slow
def test_the_size_of_what_is_wrong_is_found(clean):
    extended = replace(simulate(receiver=Receiver(disc_radius=1.0 * BEAM)), receiver=Receiver())
    (cause,) = (c for c in fit(extended).causes if c.name == "extended")
    found = float(cause.text.split("a source of ")[1].split(" arcsec")[0]) * ARCSEC
    assert found == pytest.approx(1.0 * BEAM, rel=0.15)
    (cause,) = (c for c in fit(MISTAKES["beam_size"][0](clean)).causes if c.name == "beam_size")
    found = float(cause.text.split("a wavelength ")[1].split(" times")[0])
    assert found == pytest.approx(1 / 1.5, rel=0.05)


def move(sign):
    """Coefficients of the surface of the clean maps with another one added or subtracted."""
    change = surfaces.random(ORDER, 0.5, seed=9)
    return {name: z + sign * change.get(name, 0.0) for name, z in surfaces.random(ORDER, 0.7, seed=3).items()}


@pytest.mark.slow
def test_a_surface_that_changes_is_none_of_the_others(clean):
    moved = [simulate(**move(sign)) for sign in (-1, 1)]
    maps = (moved[0].maps[0], clean.maps[1], moved[1].maps[2])
    assert fit(replace(clean, maps=maps)).causes[0].name == "changed"


SYMPTOMS = {
    "saturated": change_all(power=saturate),
    "clipped": change_all(power=lambda m: np.where(m.x < 0.7 * BEAM, m.power, np.nan)),
    "displaced": change(0, x=lambda m: m.x + 0.6 * BEAM),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYMPTOMS)
def test_what_shows_in_the_samples_is_said(clean, name):
    names = [cause.name for cause in fit(SYMPTOMS[name](clean)).causes]
    assert name in names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("glitches", ooftorch.Noise(snr=250, glitches=0.05)),
        ("drift", ooftorch.Noise(snr=250, baseline=0.02)),
    ],
)
def test_noise_of_a_kind_is_said_and_changes_no_verdict_by_itself(name, noise):
    result = fit(simulate(noise=noise))
    assert [cause.name for cause in result.causes] == [name]
    assert math.isnan(result.causes[0].factor)
    assert ooftorch.verdict(replace(result, causes=()))[0] == ooftorch.verdict(result)[0]


def test_stripes_are_told_by_their_period(clean):
    period = 2.5 * BEAM
    peak = max(np.max(m.power) for m in clean.maps)
    wave = lambda m: m.power + 0.04 * peak * np.sin(2 * math.pi * (0.6 * m.x + 0.8 * m.y) / period)  # noqa: E731
    (cause,) = (c for c in fit(change_all(power=wave)(clean)).causes if c.name == "stripes")
    found = float(cause.text.split("stripes of ")[1].split(" lambda")[0])
    assert found == pytest.approx(2.5, rel=0.1)


# --------------------------------------------------------------------------------- what is not named


def test_nothing_is_named_where_nothing_is_wrong_and_nothing_is_tried(clean, monkeypatch):
    def fail(*_):
        raise AssertionError("a trial")

    monkeypatch.setattr(causes, "_Trials", fail)
    assert fit(clean).causes == ()


@pytest.mark.slow
def test_what_no_data_can_tell_is_not_named(clean):
    """A telescope of full symmetry: the fit of the wrong observation is as good, and nobody can say."""
    reversed_ = change_all(dz=lambda m: -m.dz)(clean)
    mirrored = change_all(x=lambda m: -m.x)(clean)
    transposed = change_all(x=lambda m: m.y, y=lambda m: m.x)(clean)
    for observation in (reversed_, mirrored, transposed):
        result = fit(observation)
        assert result.causes == ()
        assert result.chi2_reduced < 1.2
        assert any("no data can tell: with dz reversed or the sky turned" in note for note in result.notes)


def list_changed(observation, telescope, symmetries):
    """Names of alternatives and the changed observations."""
    scope = telescopes.load(telescope)
    return [
        (kind.name, alternative.change(observation))
        for kind in KINDS
        for alternative in kind.propose(observation, scope, symmetries)
    ]


def test_no_alternative_is_one_that_no_data_can_tell(clean):
    """Compared as observations: dz and directions of all maps against those of the forbidden ones."""
    symmetries = set_up([clean], "alma", FitOptions(order=2)).symmetries
    forbidden = [
        change_all(dz=lambda m: -m.dz)(clean),
        change_all(x=lambda m: -m.x)(clean),
        change_all(y=lambda m: -m.y)(clean),
        change_all(x=lambda m: -m.x, y=lambda m: -m.y)(clean),
        change_all(x=lambda m: m.y, y=lambda m: m.x)(clean),
    ]

    def is_same(a, b):
        return a.wavelength == b.wavelength and all(
            m.dz == pytest.approx(n.dz, abs=1e-12)
            and all(np.array_equal(getattr(m, key), getattr(n, key)) for key in ("x", "y", "power"))
            for m, n in zip(a.maps, b.maps, strict=True)
        )

    for silent in (symmetries, frozenset()):
        changed = list_changed(clean, "alma", silent)
        same = [name for name, o in changed if any(is_same(o, f) for f in forbidden)]
        assert bool(same) == (silent != symmetries)


def test_symmetries_are_those_of_the_telescope():
    def find(telescope, wavelength, receiver=None):
        observation = simulate(telescope, wavelength)
        if receiver is not None:
            observation = replace(observation, receiver=receiver)
        return set_up([observation], telescope, FitOptions(order=2)).symmetries

    everything = {"reversed", "turned", "mirrored in DX", "mirrored in DY", "transposed"}
    assert find("alma", 3e-3) == everything
    assert find("effelsberg", 9.37e-3) == everything
    # An offset dish is symmetric left and right alone.
    assert find("gbt", 3.3e-3) == {"mirrored in DX"}
    # Of two beams beside each other, one negative, only their mirror image up and down is the same.
    assert find("alma", 3e-3, Receiver(chop_x=3e-4)) == {"reversed", "mirrored in DY"}


@pytest.mark.slow
def test_dz_reversed_is_told_by_an_offset_telescope():
    observation = simulate("gbt", 3.3e-3)
    result = fit(change_all(dz=lambda m: -m.dz)(observation))
    assert not any("the sign of dz" in note for note in result.notes)
    if result.causes:
        assert result.causes[0].name == "dz_sign"


def test_two_maps_of_opposite_dz_exchanged_are_all_reversed(clean):
    symmetries = frozenset({"reversed"})
    swaps = next(kind for kind in KINDS if kind.name == "swapped")
    words = [a.words for a in swaps.propose(clean, telescopes.load("alma"), symmetries)]
    ends = f"{1e3 * clean.maps[0].dz:+.4g} and {1e3 * clean.maps[2].dz:+.4g}"
    assert len(words) == 2
    assert not any(ends in each for each in words)


# ------------------------------------------------------------------------------------- how it is said


@pytest.mark.slow
def test_a_mistake_is_told_without_errors_in_the_file(clean):
    mistake, _ = MISTAKES["flipped"]
    bare = replace(clean, maps=tuple(replace(m, sigma=None) for m in clean.maps))
    assert fit(mistake(bare)).causes[0].name == "flipped"


@pytest.mark.slow
def test_options_of_the_fit_are_kept_in_the_trials(clean):
    mistake, _ = MISTAKES["flipped"]
    result = fit(mistake(clean), fixed={"dz_scale": 1.0, "excess_degrees": 3.0}, free=["dz"])
    assert result.causes[0].name == "flipped"


def test_observations_side_by_side_are_not_tried(clean):
    """A batch takes no more time for maps that fit badly."""
    spoiled = change(2, dz=lambda m: -m.dz)(clean)
    (in_batch,) = ooftorch.fit_many([spoiled], order=ORDER, n=128, device="cpu")
    tried = [[c.name for c in r.causes if math.isfinite(c.factor)] for r in (in_batch, fit(spoiled))]
    assert tried == [[], ["dz_sign"]]
