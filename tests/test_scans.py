"""Scan lines: what is one line, whatever the order, the gaps and the orientation, and what is none."""

from dataclasses import replace

import numpy as np
import pytest
from places import SHARED, needs_shared

import ooftorch
from ooftorch.errors import InputError
from ooftorch.fitting.samples import collect_samples
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics.receiver import Receiver
from ooftorch.scans import find_axis, find_lines, find_smear, name_scans
from ooftorch.simulation.scan import PATTERNS

STEP = 1e-5


def scanned(pattern, half=6.0, high=None, **changed):
    """A map of a pattern of the simulator, and the line of each sample."""
    scan = PATTERNS[pattern](half, high or half, 0.4)
    power = np.exp(-(scan.x**2) - scan.y**2)
    return BeamMap(0.0, STEP * scan.x, STEP * scan.y, power, **({"time": scan.time} | changed)), scan.line


def select(m, numbers):
    columns = {name: getattr(m, name)[numbers] for name in ("x", "y", "power", "valid")}
    return replace(m, time=None if m.time is None else m.time[numbers], **columns)


def assert_lines(m, line):
    """The lines of the map are those of `line`, in any numbering; -1: none."""
    found = find_lines(m).number
    assert np.array_equal(found < 0, line < 0)
    pairs = set(zip(found.tolist(), line.tolist(), strict=True))
    assert len(pairs) == len(set(found.tolist())) == len(set(line.tolist()))


def assert_nearly_lines(m, line):
    """The same, but for the sample next to a tip, which may go with either side."""
    found = find_lines(m).number
    assert found.max() == line.max()
    wrong = np.flatnonzero(found != line)
    assert np.isin(wrong, np.flatnonzero(np.diff(line)) + 1).all()


# ---------------------------------------------------------------------------------------- real observations


@needs_shared
@pytest.mark.parametrize(
    ("file", "axis", "n"),
    [("srt_20190426/observation.toml", "y", 100), ("pyoof_example/example0.fits", "x", 97)],
)
def test_rasters_without_time_have_the_lines_that_the_file_goes_along(file, axis, n):
    for m in ooftorch.read(SHARED / file).maps:
        lines = find_lines(m)
        assert np.bincount(lines.number).tolist() == [n] * n
        assert find_axis(m, lines) == axis
        across = m.x if axis == "y" else m.y
        assert all(np.ptp(across[lines.number == i]) < 1e-9 for i in range(n))
        by_name = replace(m, scans="columns" if axis == "y" else "rows")
        assert_lines(by_name, lines.number)


# -------------------------------------------------------------------------------- patterns of the simulator


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("high", [6.0, 8.5])
@pytest.mark.parametrize("pattern", ["map", "otf"])
def test_rows_are_lines(pattern, high, timed):
    m, line = scanned(pattern, high=high)
    m = m if timed else replace(m, time=None)
    assert_lines(m, line)
    for changed in ({"scans": "rows"}, {"x": m.y, "y": m.x}, {"x": m.y, "y": m.x, "scans": "columns"}):
        assert_lines(replace(m, **changed), line)
    phase = find_lines(m).phase
    for i in range(line.max() + 1):
        n = np.count_nonzero(line == i)
        assert phase[line == i] == pytest.approx(np.linspace(-1, 1, n))


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("half", [4.0, 6.0, 7.3])
def test_sweeps_of_a_daisy_are_lines(half, timed):
    m, line = scanned("daisy", half)
    m = m if timed else replace(m, time=None)
    assert_nearly_lines(m, line)
    lines = find_lines(m)
    assert find_axis(m, lines) is None
    some = lines.number == 7
    ends = np.flatnonzero(some)[[0, -1]]
    assert lines.phase[ends].tolist() == [-1, 1]
    assert np.hypot(m.x, m.y)[ends].min() > 0.9 * STEP * half


def test_slanted_lines_are_lines():
    m, line = scanned("otf")
    c, s = np.cos(0.4), np.sin(0.4)
    turned = replace(m, x=c * m.x - s * m.y, y=s * m.x + c * m.y, time=None)
    assert_lines(turned, line)
    assert find_axis(turned, find_lines(turned)) is None
    assert name_scans(turned) == "auto"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_mirrored_observation_has_the_same_lines(pattern):
    m, _ = scanned(pattern, smear=STEP)
    by_name = [{}] if pattern == "daisy" else [{}, {"scans": "rows"}, {"time": None, "scans": "rows"}]
    for changed in by_name:
        one = replace(m, **changed)
        maps = (replace(one, dz=0.01), replace(one, dz=-0.01))
        mirror = Observation(maps, 3e-3, "alma", Receiver()).mirrored().maps[0]
        assert (mirror.scans, mirror.smear) == (one.scans, STEP)
        assert_lines(mirror, find_lines(one).number)
        np.testing.assert_array_equal(find_smear(mirror), find_smear(one))


# ----------------------------------------------------------------------------- order, gaps, jitter, missing


@pytest.mark.parametrize("pattern", PATTERNS)
def test_order_comes_from_the_times_where_there_are_any(pattern):
    m, _ = scanned(pattern)
    mixed = np.random.default_rng(0).permutation(m.x.size)
    lines = find_lines(m)
    assert_lines(select(m, mixed), lines.number[mixed])
    np.testing.assert_array_equal(find_lines(select(m, mixed)).phase, lines.phase[mixed])
    assert find_lines(select(replace(m, time=None), mixed)) is None, "no order, no scan"


def test_a_raster_in_another_order_has_its_rows_by_name_only():
    m, line = scanned("map", time=None)
    mixed = np.random.default_rng(0).permutation(m.x.size)
    assert_lines(replace(select(m, mixed), scans="rows"), line[mixed])
    assert find_lines(replace(m, scans="none")) is None


@pytest.mark.parametrize("scans", ["auto", "rows"])
@pytest.mark.parametrize("pattern", ["map", "otf"])
def test_missing_samples_do_not_break_a_line(pattern, scans):
    m, line = scanned(pattern, scans=scans)
    missing = np.random.default_rng(0).uniform(size=m.x.size) < 0.2
    missing[line == 4] |= np.arange(np.count_nonzero(line == 4)) % 31 > 10
    assert_lines(replace(m, valid=~missing), line)
    lost = replace(m, valid=~missing, x=np.where(missing, np.nan, m.x), y=np.where(missing, 99.0, m.y))
    assert_lines(lost, np.where(missing, -1, line))
    # Without times the sample after a turn may go with the row before, where that row has lost its last.
    found, known = find_lines(replace(lost, time=None)).number, ~missing
    assert np.mean(found[known] != line[known]) < (0.005 if (pattern, scans) == ("otf", "auto") else 1e-9)


@pytest.mark.parametrize("pattern", ["map", "otf"])
def test_jitter_of_the_recorded_pointing_does_not_break_a_line(pattern):
    m, line = scanned(pattern)
    size = 0.2 * np.abs(m.x[1] - m.x[0])
    dx, dy = np.random.default_rng(0).normal(scale=size, size=(2, m.x.size))
    for scans in ("auto", "rows"):
        moved = replace(m, x=m.x + dx, y=m.y + 0.5 * dy, scans=scans)
        assert_lines(moved, line)
        assert find_axis(moved, find_lines(moved)) == "x"


def test_times_in_another_unit_or_all_alike_or_rounded():
    m, line = scanned("otf")
    for time in (58000 + m.time / 864000, np.zeros(m.x.size), np.floor(m.time / 5), m.time + 1e9):
        assert_lines(replace(m, time=time), line)


def test_a_pause_begins_a_line():
    x = STEP * np.arange(40)
    m = BeamMap(0.0, x, 0 * x, x, time=np.arange(40) + 10.0 * (np.arange(40) >= 15))
    assert_lines(m, (np.arange(40) >= 15).astype(int))
    assert find_lines(replace(m, time=None)).n == 1


def test_what_is_no_scan_has_no_lines():
    rng = np.random.default_rng(1)
    x, y = STEP * rng.uniform(-1, 1, (2, 500))
    still = np.zeros(500)
    for a, b in ((x, y), (np.sort(x), y), (still, still)):
        for scans in ("auto", "rows", "columns"):
            if scans == "columns" and a is still:
                continue
            assert find_lines(BeamMap(0.0, a, b, np.arange(500), scans=scans)) is None
    m, _ = scanned("map", half=0.4)
    assert find_lines(m) is None, "three samples are no line"
    assert find_lines(replace(m, valid=np.zeros(m.x.size, bool))) is None


# ------------------------------------------------------------------------------------------------- smearing


@pytest.mark.parametrize("pattern", ["map", "otf"])
def test_all_samples_of_a_raster_are_smeared_alike(pattern):
    m, _ = scanned(pattern, smear=0.3 * STEP)
    assert np.unique(find_smear(m), axis=1).T.tolist() == [[0.3 * STEP, 0.0]]
    turned = replace(m, x=m.y, y=m.x)
    assert np.unique(find_smear(turned), axis=1).T.tolist() == [[0.0, 0.3 * STEP]]
    assert find_smear(replace(m, smear=0.0)) is None


def test_samples_of_a_daisy_are_smeared_along_their_way():
    m, _ = scanned("daisy", smear=STEP)
    vector = find_smear(m)
    assert np.hypot(*vector) == pytest.approx(STEP, rel=1e-8)
    way = np.gradient(np.stack([m.x, m.y]), axis=1)
    cosine = np.abs(np.sum(vector * way, axis=0)) / (STEP * np.hypot(*way))
    fast = np.hypot(m.x, m.y) < 5.5 * STEP  # off the tips, where it turns
    assert cosine[fast].min() > 0.999


def observation(*maps):
    return Observation(maps, 3e-3, "alma", Receiver())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"smear": STEP, "scans": "none"}, "smeared, but along which lines is not known"),
        ({"scans": "rows"}, "scans is 'rows', but the samples are in no rows of five or more"),
        ({"scans": "lines"}, "scans is 'lines'; expected one of auto, rows, columns, none"),
        ({"smear": -1.0}, "smear is -1 rad"),
        ({"smear": np.nan}, "smear is nan rad"),
    ],
)
def test_refusals(changed, message):
    x, y = STEP * np.random.default_rng(1).uniform(-1, 1, (2, 200))
    with pytest.raises(InputError, match=message) as caught:
        observation(*(BeamMap(dz, x, y, np.arange(200), **changed) for dz in (-0.01, 0.01))).check()
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------- samples of a fit


def test_lines_are_counted_through_the_maps_of_a_fit():
    m, line = scanned("otf")
    bare = replace(m, scans="none", dz=0.005)
    seen = observation(replace(m, dz=-0.01), bare, replace(m, dz=0.01))
    samples = collect_samples([seen, seen], ooftorch.OO("cpu"))
    n = line.max() + 1
    first, none, last = samples.line.split(m.x.size)
    assert first.tolist() == line.tolist()
    assert set(none.tolist()) == {-1}
    assert last.tolist() == (line + n).tolist()
    assert samples.phase[: m.x.size].numpy() == pytest.approx(find_lines(m).phase)
    some = samples.select_samples(samples.line.new_tensor([0, 5, -1]))
    assert some.line.tolist() == [0, line[5], n + line[-1]]
    assert some.phase.shape == (3,)
    assert samples.select_observations(1).line is samples.line
    alone = collect_samples([observation(bare, replace(bare, dz=0.0))], ooftorch.OO("cpu"))
    assert (alone.line, alone.phase) == (None, None)
