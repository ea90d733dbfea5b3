import numpy as np
import pytest
import scipy.stats

from ooftorch.errors import InputError
from ooftorch.simulation.noise import KINDS, Noise, Streams, draw_glitches, draw_pink


def slope(draw, n=4096, draws=40):
    """Slope of the mean periodogram against frequency, log on log."""
    rng = np.random.default_rng(0)
    window = np.hanning(n)
    power = np.mean([np.abs(np.fft.rfft(window * draw(n, rng))) ** 2 for _ in range(draws)], axis=0)
    f = np.fft.rfftfreq(n)
    some = (f > 10 / n) & (f < 0.4)
    return np.polyfit(np.log(f[some]), np.log(power[some]), 1)[0]


def test_pink_noise_falls_as_one_over_f():
    assert slope(draw_pink) == pytest.approx(-1, abs=0.05)
    assert abs(slope(lambda n, rng: rng.normal(size=n))) < 0.05  # the test can tell


@pytest.mark.parametrize("n", [2, 3, 1000])
def test_pink_noise_has_rms_1_and_mean_0(n):
    series = draw_pink(n, np.random.default_rng(0))
    assert series.size == n
    assert series.mean() == pytest.approx(0, abs=1e-12)
    assert np.mean(series**2) == pytest.approx(1)


def test_pink_noise_does_not_close_on_itself():
    rng = np.random.default_rng(0)
    ends = [abs(s[-1] - s[0]) for s in (draw_pink(1000, rng) for _ in range(50))]
    steps = [abs(s[1] - s[0]) for s in (draw_pink(1000, rng) for _ in range(50))]
    assert np.mean(ends) > 2 * np.mean(steps)


def test_glitches_have_a_heavy_tail_up_to_1():
    sizes = draw_glitches((4000,), np.random.default_rng(0))
    uniform = scipy.stats.uniform(-2, 2).cdf
    assert scipy.stats.kstest(np.log10(np.abs(sizes)), uniform).pvalue > 0.01
    assert abs(np.sum(sizes > 0) - 2000) < 4 * np.sqrt(1000)
    normal = np.abs(np.random.default_rng(0).normal(size=4000))
    assert scipy.stats.kstest(np.log10(normal / normal.max()), uniform).pvalue < 1e-6


def test_every_kind_has_its_own_stream():
    one, other = Streams(3), Streams(3, {"drift": 4})
    draws = {kind: (one[kind].normal(), other[kind].normal()) for kind in KINDS}
    assert {kind for kind, (a, b) in draws.items() if a != b} == {"drift"}
    assert len({a for a, _ in draws.values()}) == len(KINDS)
    assert Streams(4)["drift"].normal() == draws["drift"][1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"snr": -1}, "snr is -1"),
        ({"snr": 0}, "snr is 0"),
        ({"snr_per_beam": np.nan}, "snr_per_beam is nan"),
        ({"snr": 1, "snr_per_beam": 1}, "one of them"),
        ({"drift": -0.1}, "drift is -0.1"),
        ({"jitter": np.inf}, "jitter is inf"),
        ({"glitches": 1.5}, "fraction"),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(InputError, match=message):
        Noise(**wrong)


def test_seeds_that_are_none():
    with pytest.raises(InputError, match="'weather'"):
        Streams(0, {"weather": 1})
    with pytest.raises(InputError, match="seed -1"):
        Streams(-1)
