"""Pictures, looked at as rendered: which colour is where."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import OptimizeResult

from ooftorch.errors import InputError
from ooftorch.optics.basis import ZernikeBasis
from ooftorch.reporting.plot import plot_aperture, plot_beams, plot_convergence, save
from ooftorch.result import Aperture, Estimate, FitResult, MapFit, OrderFit, ScanTerm

RADIUS, WAVELENGTH = 10.0, 4e-3 * np.pi  # 1000 um of half-path per radian
ARCSEC = np.deg2rad(1 / 3600)
GREY = (0.7, 0.7, 0.7)


def fit_result(maps=(), aperture=None, **changes):
    parameters = {f"z{k}": Estimate(0.1, 0.01, "rad", k > 0) for k in range(6)}
    parameters |= {f"offset_{i}": Estimate(5.0, 0.1, "data", True) for i in range(len(maps))}
    result = FitResult(
        input="maps.fits",
        telescope="bigdish",
        likelihood="gaussian",
        illumination="gaussian",
        object="3C 84",
        date_obs="2021-01-02",
        wavelength=WAVELENGTH,
        order=2,
        converged=True,
        message="",
        objective=1.0,
        chi2_reduced=1.25,
        n_data=1,
        n_missing=0,
        n_free=5,
        n_eval=1,
        parameters=parameters,
        covariance=np.eye(5),
        maps=tuple(maps),
        orders=(OrderFit(1, 2.0, 2.0, 5, 1, 0.1), OrderFit(2, 1.0, 1.25, 5, 1, 0.1)),
        aperture=aperture,
        notes=(),
        seconds=1.0,
        basis=ZernikeBasis(2),
    )
    return replace(result, **changes)


def dish(phase, blocked=lambda x, y: False, n=41, taper_db=lambda x, y: 0.0):
    """Aperture with phase and illumination (dB) given as functions of x and y."""
    axis = np.linspace(-1.01, 1.01, n) * RADIUS
    x, y = np.meshgrid(axis, axis)
    pitch = axis[1] - axis[0]
    # Open fraction of a pixel at the rim, near enough.
    share = np.clip((RADIUS - np.hypot(x, y)) / pitch + 0.5, 0, 1)
    share = np.where(blocked(x, y), 0.25, share)
    values = np.where(share > 0, phase(x, y), np.nan)
    amplitude = share * 10 ** (taper_db(x, y) / 20)
    return Aperture(axis, values, amplitude, share, RADIUS, np.hypot(1, np.hypot(x, y) / 20))


class Picture:
    """A figure as it comes out, and the colour at places of its axes."""

    def __init__(self, figure):
        self.figure = figure
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        self.pixels = np.asarray(canvas.buffer_rgba())[..., :3] / 255

    def at(self, ax, x, y):
        column, row = ax.transData.transform((x, y))
        return self.pixels[self.pixels.shape[0] - 1 - int(row), int(column)]


# ---------------------------------------------------------------------------------------- aperture


@pytest.fixture(scope="module")
def aperture_picture():
    def phase(x, y):
        # High in the quadrant +x, +y only, and one mad pixel.
        p = np.where((x > 0) & (y > 0), 1.2, -0.7)
        p[25, 8] = 1e3
        return p

    a = dish(
        phase,
        lambda x, y: (np.abs(x) < 0.6) & (y < -1) & (y > -9),
        # At the rim 4 dB down at +y, and 5.5 dB at -y.
        taper_db=lambda x, y: -np.where(y > 0, 4.0, 5.5) * np.hypot(x, y) / RADIUS,
    )
    return Picture(plot_aperture(fit_result(aperture=a, amplitude_order=6)))


def panels(figure):
    return [ax for ax in figure.axes if ax.images]


@pytest.mark.parametrize("number", [0, 1])
def test_aperture_is_the_right_way_round(aperture_picture, number):
    ax = panels(aperture_picture.figure)[number]
    red, _, blue = aperture_picture.at(ax, 4.1, 5.1)
    assert red > blue + 0.2
    for x, y in ((-4.1, 5.1), (4.1, -5.1), (-4.1, -5.1)):
        red, _, blue = aperture_picture.at(ax, x, y)
        assert blue > red + 0.2


@pytest.mark.parametrize("number", [0, 1, 2])
def test_blockage_is_grey_and_what_is_off_the_dish_white(aperture_picture, number):
    ax = panels(aperture_picture.figure)[number]
    # The leg points to -y, and not to +y or +x.
    assert aperture_picture.at(ax, 0.0, -5.1) == pytest.approx(GREY, abs=0.01)
    assert aperture_picture.at(ax, 0.4, 5.1) != pytest.approx(GREY, abs=0.1)
    assert aperture_picture.at(ax, 5.1, 0.4) != pytest.approx(GREY, abs=0.1)
    assert aperture_picture.at(ax, 7.4, 7.4) == pytest.approx((1, 1, 1))
    # A pixel of which the rim cuts off more than half belongs to the dish.
    rim = aperture_picture.at(ax, -9.88, 0.05)
    if number == 2:  # the amplitude has colours of its own, here that of 5.5 dB down
        image = ax.images[0]
        assert rim == pytest.approx(image.cmap(image.norm(-5.5))[:3], abs=0.1)
    else:
        red, _, blue = rim
        assert blue > red + 0.2


def test_aperture_pixels_reach_half_a_pixel_beyond_their_centres(aperture_picture):
    image = panels(aperture_picture.figure)[0].images[0]
    half = 0.5 * 2.02 * RADIUS / 40
    assert image.get_extent() == pytest.approx([-1.01 * RADIUS - half, 1.01 * RADIUS + half] * 2)


def test_aperture_scale_is_symmetric_and_ignores_a_mad_pixel(aperture_picture):
    phase, surface, _ = (ax.images[0] for ax in panels(aperture_picture.figure))
    assert (phase.norm.vmin, phase.norm.vmax) == (-1.2, 1.2)
    assert (surface.norm.vmin, surface.norm.vmax) == pytest.approx((-1200, 1200))
    ratio = surface.get_array() / phase.get_array()
    assert ratio.compressed() == pytest.approx(1000)  # lambda/(4 pi)


def test_amplitude_is_in_db_the_right_way_round_without_the_blockage(aperture_picture):
    ax = panels(aperture_picture.figure)[2]
    image = ax.images[0]
    assert (image.norm.vmin, image.norm.vmax) == (-6, 0)
    contours = next(c for c in ax.collections if hasattr(c, "levels"))
    assert contours.levels.tolist() == [-6, -3, 0]
    up, down = (aperture_picture.at(ax, 4.1, y).sum() for y in (6.1, -6.1))
    assert up > down + 0.05
    # The contour of -3 dB; it crosses the leg, where a quarter of the amplitude is left.
    points = contours.get_paths()[1].vertices
    above, below = points[points[:, 1] > 1], points[points[:, 1] < -1]
    assert np.hypot(*above.T) == pytest.approx(10 * 3 / 4, rel=0.03)
    assert np.hypot(*below.T) == pytest.approx(10 * 3 / 5.5, rel=0.03)


def test_an_even_illumination_and_one_that_ends_in_darkness_can_be_drawn():
    even = panels(plot_aperture(fit_result(aperture=dish(lambda x, y: 0.1 * x))))[2].images[0]
    assert (even.norm.vmin, even.norm.vmax) == (-3, 0)
    dark = dish(lambda x, y: 0.1 * x, taper_db=lambda x, y: -0.9 * (x**2 + y**2))
    image = panels(plot_aperture(fit_result(aperture=dark)))[2].images[0]
    assert (image.norm.vmin, image.norm.vmax) == (-30, 0)


def test_aperture_says_what_it_shows(aperture_picture):
    figure = aperture_picture.figure
    title = figure.get_suptitle()
    for phrase in (
        "bigdish",
        "3C 84",
        "2021-01-02",
        "order 2",
        "half-path",
        "12.57 mm",
        "gaussian likelihood",
    ):
        assert phrase in title
    assert "gaussian illumination bent by Zernikes to order 6" in title
    assert "bent" not in plot_aperture(fit_result(aperture=dish(lambda x, y: 0.1 * x))).get_suptitle()
    assert "half-path" in panels(figure)[1].get_title()
    assert "1.12 times" in figure.get_supxlabel()  # sqrt(1 + (10/20)^2)
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert "rad, contours every 0.5" in labels
    assert all(ax.get_aspect() == 1 and ax.get_xlabel() == "x (m)" for ax in panels(figure))


def test_contours_follow_the_phase():
    # A ramp along x of 0.1 rad/m: the contour of +0.5 rad is the line x = 5.
    figure = plot_aperture(fit_result(aperture=dish(lambda x, y: 0.1 * x)))
    ax = panels(figure)[0]
    contours = next(c for c in ax.collections if hasattr(c, "levels"))
    level = list(np.round(contours.levels, 9)).index(0.5)
    points = contours.get_paths()[level].vertices
    assert points[:, 0] == pytest.approx(5.0)
    assert np.ptp(points[:, 1]) > 15


@pytest.mark.slow
def test_a_perfect_dish_and_an_awful_one_can_be_drawn():
    for scale in (0.0, 1e-4, 50.0):
        a = dish(lambda x, y, s=scale: s * x / RADIUS)
        Picture(plot_aperture(fit_result(aperture=a)))


def test_aperture_in_the_users_own_axes():
    figure = Figure()
    *some, other = figure.subplots(1, 4)
    for axes in (some, [other]):
        assert plot_aperture(fit_result(aperture=dish(lambda x, y: 0.1 * x)), axes=axes) is figure
        assert all(ax.images for ax in axes)
    assert other.get_title() == some[0].get_title()
    assert figure.get_suptitle() == ""


# ------------------------------------------------------------------------------------------- beams

PEAK, NOISE, OFFSET = 2000.0, 2.0, 5.0
# The beam stands at (+60, +100) arcsec, a faint blob of 10 times the noise at (-120, +40).
BEAM, BLOB = (60.0, 100.0), (-120.0, 40.0)


def sky(x, y):
    def spot(where, width):
        return np.exp(-0.5 * ((x - where[0]) ** 2 + (y - where[1]) ** 2) / width**2)

    return OFFSET + PEAK * spot(BEAM, 20) + 10 * NOISE * spot(BLOB, 20)


def beam_map(dz, x, y, shuffle=False, missing=(), level=0.0):
    """Map whose residual is +20 times the noise around (+120, -60) and nothing elsewhere.

    The lower half was taken with another level, which is known.
    """
    if shuffle:
        order = np.random.default_rng(0).permutation(x.size)
        x, y = x[order], y[order]
    model = sky(x, y)
    scans = np.where(y < 0, level, 0.0)
    data = model + scans + 20 * NOISE * (np.hypot(x - 120, y + 60) < 30)
    for place in missing:
        i = np.argmin(np.hypot(x - place[0], y - place[1]))
        data[i] = np.nan
        model[i] = 1e9  # anything may stand there
    return MapFit(dz, x * ARCSEC, y * ARCSEC, data, model, NOISE, OFFSET, scans)


def column_by_column():
    """Slow in x, both falling, and wider than it is high."""
    x, y = np.meshgrid(np.arange(200, -201, -10.0), np.arange(150, -151, -10.0), indexing="ij")
    return x.ravel(), y.ravel()


def scan():
    """Along a Lissajous curve, as an on-the-fly map."""
    t = np.linspace(0, 2 * np.pi, 4000)
    return 200 * np.sin(31 * t), 150 * np.sin(30 * t + 0.3)


HOLE = (-50.0, -50.0)
MAPS = {
    "raster": lambda: beam_map(-2e-3, *column_by_column()),
    "raster with holes in any order": lambda: beam_map(
        0.0, *column_by_column(), shuffle=True, missing=[HOLE]
    ),
    "scan": lambda: beam_map(3e-3, *scan(), missing=[HOLE]),
}


@pytest.fixture(scope="module")
def beams_picture():
    return Picture(plot_beams(fit_result([make() for make in MAPS.values()])))


def rows(figure):
    """Data, model and residual axes of every row."""
    axes = [ax for ax in figure.axes if ax.get_title()]
    return [axes[i : i + 3] for i in range(0, len(axes), 3)]


def drawn(ax):
    return ax.collections[-1]


def at_sample(picture, ax, name, place):
    """Colour at the sample nearest to a place (dots leave gaps)."""
    m = MAPS[name]()
    x, y = m.x / ARCSEC, m.y / ARCSEC
    i = np.argmin(np.hypot(x - place[0], y - place[1]))
    return picture.at(ax, x[i], y[i])


@pytest.mark.parametrize("row", range(3), ids=list(MAPS))
def test_beams_are_the_right_way_round(beams_picture, row):
    name = list(MAPS)[row]
    data, model, residual = rows(beams_picture.figure)[row]
    for ax in (data, model):
        bright, *mirrored = (
            at_sample(beams_picture, ax, name, (sx * BEAM[0], sy * BEAM[1])).sum()
            for sx, sy in ((1, 1), (-1, 1), (1, -1), (-1, -1))
        )
        swapped = at_sample(beams_picture, ax, name, BEAM[::-1]).sum()
        assert bright > 1.5 * max(*mirrored, swapped)
    for (x, y), high in {(120, -60): True, (-120, -60): False, (120, 60): False, (-120, 60): False}.items():
        red, _, blue = at_sample(beams_picture, residual, name, (x, y))
        assert bool(red > blue + 0.2) == high


@pytest.mark.parametrize("row", range(3), ids=list(MAPS))
def test_data_and_model_share_a_stretch_that_shows_what_is_faint(beams_picture, row):
    name = list(MAPS)[row]
    data, model, residual = rows(beams_picture.figure)[row]
    norm = drawn(data).norm
    assert drawn(model).norm is norm
    # Neither a sample nobody took nor the offset count for the scale.
    assert norm.vmax == pytest.approx(PEAK, rel=0.03)
    faint, nothing = (norm([v])[0] for v in (10 * NOISE, 0.0))
    assert faint - nothing > 0.25
    for ax in (data, model):
        blob = at_sample(beams_picture, ax, name, BLOB)
        empty = at_sample(beams_picture, ax, name, (BLOB[0], -BLOB[1]))
        assert np.abs(blob - empty).max() > 0.2
    limits = drawn(residual).norm
    assert limits.vmin == -limits.vmax
    assert limits.vmax == pytest.approx(20)


def test_missing_samples_are_grey(beams_picture):
    for ax in rows(beams_picture.figure)[1]:
        assert beams_picture.at(ax, *HOLE) == pytest.approx(GREY, abs=0.01)
        assert beams_picture.at(ax, -HOLE[0], HOLE[1]) != pytest.approx(GREY, abs=0.01)
    assert rows(beams_picture.figure)[1][0].get_title() == "data (1 missing)"


def test_beams_say_what_they_show(beams_picture):
    figure = beams_picture.figure
    for (data, _, residual), dz in zip(rows(figure), ("-2", "+0", "+3"), strict=True):
        assert data.get_ylabel() == f"dz = {dz} mm\nDY (arcsec)"
        assert "× noise" in residual.get_title()
    assert {ax.get_xlabel() for ax in rows(figure)[-1]} == {"DX (arcsec)"}
    assert "chi²/dof 1.25" in figure.get_suptitle()
    assert "residual / noise" in [ax.get_ylabel() for ax in figure.axes]
    assert all(ax.get_aspect() == 1 for row in rows(figure) for ax in row)


def test_errors_of_scan_lines_are_in_neither_model_nor_residual():
    m = beam_map(0.0, *column_by_column(), level=50 * NOISE)
    term = ScanTerm("level", "peak", (50 * NOISE / PEAK,))
    figure = plot_beams(fit_result([m], scan_terms=(term,)))
    _, model, residual = rows(figure)[0]
    y = np.round(m.y / ARCSEC)
    for ax, values in ((model, m.model - OFFSET), (residual, (m.data - m.model) / NOISE - 50 * (y < 0))):
        shown = drawn(ax).get_array().compressed()
        assert np.sort(shown) == pytest.approx(np.sort(values))
    assert "minus the errors of scan lines" in figure.get_supxlabel()
    assert plot_beams(fit_result([m])).get_supxlabel() == ""


def test_raster_cells_are_centred_on_their_samples(beams_picture):
    # 10 arcsec of pitch: the cell of the hole reaches 5 arcsec to each side.
    ax = rows(beams_picture.figure)[1][0]
    for step in ((4, 0), (-4, 0), (0, 4), (0, -4)):
        assert beams_picture.at(ax, HOLE[0] + step[0], HOLE[1] + step[1]) == pytest.approx(GREY, abs=0.01)
    for step in ((7, 0), (-7, 0), (0, 7), (0, -7)):
        assert beams_picture.at(ax, HOLE[0] + step[0], HOLE[1] + step[1]) != pytest.approx(GREY, abs=0.01)


def test_a_negative_beam_is_within_the_scale():
    m = beam_map(0.0, *column_by_column())
    turned = replace(m, data=2 * OFFSET - m.data, model=2 * OFFSET - m.model)
    data, _, _ = rows(plot_beams(fit_result([turned])))[0]
    assert drawn(data).norm.vmin == pytest.approx(-PEAK, rel=0.03)


def test_maps_without_noise_and_wide_ones():
    m = beam_map(0.0, *column_by_column())
    wide = replace(m, x=100 * m.x, y=100 * m.y, noise=0.0)
    wide.x[5] = wide.data[5] = np.nan  # a sample without a place
    figure = plot_beams(fit_result([wide]))
    Picture(figure)
    data, _, residual = rows(figure)[0]
    assert data.get_ylabel().endswith("DY (mrad)")
    assert data.get_xlim()[1] == pytest.approx(1e3 * 205 * 100 * ARCSEC)
    assert "residual, % of peak" in [ax.get_ylabel() for ax in figure.axes]
    assert drawn(residual).norm.vmax == pytest.approx(100 * 20 * NOISE / PEAK, rel=0.1)


# ------------------------------------------------------------------------------------------ layout


def spike(factor):
    """A map whose numbers at the colour bars are long ones."""
    m = beam_map(-12.5e-3, *column_by_column())
    scaled = {name: factor * getattr(m, name) for name in ("data", "model", "noise", "offset")}
    return replace(m, **scaled)


def stretched(x, y):
    m = beam_map(0.0, *column_by_column())
    return replace(m, x=x * m.x, y=y * m.y)


LAYOUTS = {
    "aperture": lambda: plot_aperture(fit_result(aperture=dish(lambda x, y: 0.1 * x))),
    "aperture, large phase": lambda: plot_aperture(fit_result(aperture=dish(lambda x, y: 3 * x))),
    "aperture, small phase": lambda: plot_aperture(fit_result(aperture=dish(lambda x, y: 2e-4 * x))),
    "aperture, steep taper": lambda: plot_aperture(
        fit_result(
            aperture=dish(lambda x, y: 0.1 * x, taper_db=lambda x, y: -3 * np.hypot(x, y)), amplitude_order=8
        )
    ),
    "beams": lambda: plot_beams(fit_result([make() for make in MAPS.values()])),
    "beams with errors of scan lines": lambda: plot_beams(
        fit_result([spike(1)] * 2, scan_terms=(ScanTerm("level", "peak", (0.1, 0.1)),))
    ),
    "beams, one map": lambda: plot_beams(fit_result([spike(1)])),
    "beams, seven maps": lambda: plot_beams(fit_result([spike(1)] * 7)),
    "beams, large numbers": lambda: plot_beams(fit_result([spike(1e3), spike(1e6)])),
    "beams, small numbers": lambda: plot_beams(fit_result([spike(1e-4), spike(1e-9)])),
    "beams, a wide map": lambda: plot_beams(fit_result([stretched(1, 0.3)])),
    "beams, a tall map": lambda: plot_beams(fit_result([stretched(0.2, 1)] * 2)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_nothing_overlaps_or_is_cut(name):
    figure = LAYOUTS[name]()
    renderer = Picture(figure).figure.canvas.get_renderer()
    texts = [text for text in (figure._suptitle, figure._supxlabel) if text is not None]
    # An equal aspect may leave a part of a panel's place empty, which get_tightbbox knows.
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in texts]
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert box.x0 >= 0, i
        assert box.y0 >= 0, i
        assert box.x1 <= width, i
        assert box.y1 <= height, i
        for other in boxes[:i]:
            assert not box.overlaps(other), (i, box, other)


# ------------------------------------------------------------------------------------- convergence


def run(*values, method="BFGS"):
    """A result whose evaluations gave these values, in seconds that are no matter."""
    seconds = 0.1 * np.arange(len(values))
    return OptimizeResult(x=0.0, method=method, history=np.stack([seconds, np.array(values, float)], 1))


def curves(figure):
    return {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}


def test_convergence_is_the_best_so_far_above_the_lowest():
    figure = plot_convergence(run(105.0, 7.0, 50.0, 5.5, 6.0, 5.0, 9.0))
    (curve,) = curves(figure).values()
    assert curve[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert curve[:, 1] == pytest.approx([100, 2, 2, 0.5, 0.5, 0, 0])
    ax = figure.axes[0]
    assert (ax.get_yscale(), ax.get_xscale()) == ("log", "linear")
    assert (ax.get_xlabel(), ax.get_title()) == ("evaluations", "BFGS")
    assert ax.get_ylabel().endswith("lowest, 5")
    assert ax.get_legend() is None


def test_several_share_the_lowest_of_all():
    figure = plot_convergence({"one": run(11.0, 2.0, 1.5), "two": run(11.0, 5.0, 1.0)})
    found = curves(figure)
    assert found["one"][:, 1] == pytest.approx([10, 1, 0.5])
    assert found["two"][:, 1] == pytest.approx([10, 4, 0])
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    assert ax.get_title() == ""
    assert ax.get_xscale() == "linear"
    # One of very many evaluations would leave the others no room.
    long = plot_convergence({"one": run(11.0, 2.0, 1.5), "two": run(*np.linspace(11, 1, 30))})
    assert long.axes[0].get_xscale() == "log"


def test_the_curve_that_finds_the_lowest_leaves_at_the_bottom():
    # Newton's method on a parabola: 100, and there.
    figure = plot_convergence({"newton": run(100.0, 0.0), "descent": run(100.0, 10.0, 1.0, 0.1)})
    picture = Picture(figure)
    ax = figure.axes[0]
    low, high = ax.get_ylim()
    assert 0.001 < low < 0.1
    assert 100 < high < 1000
    # Straight down, in the first colour.
    column, top = ax.transData.transform((2, 9.0))  # below it the other curve is elsewhere
    _, bottom = ax.transData.transform((2, low * 1.05))
    rows = picture.pixels.shape[0] - 1 - np.linspace(bottom, top, 50).astype(int)
    near = picture.pixels[rows, int(column) - 1 : int(column) + 2]
    assert (np.abs(near - matplotlib.colors.to_rgb("C0")).max(-1).min(-1) < 0.2).mean() > 0.9


def test_values_that_are_not_finite_are_left_out():
    figure = plot_convergence(run(np.nan, np.inf, 8.0, np.nan, 3.0, np.inf, 2.0))
    ((_, gap),) = [c.T for c in curves(figure).values()]
    assert np.isnan(gap[0])
    assert gap[1:] == pytest.approx([np.inf, 6, 6, 1, 1, 0])
    assert figure.axes[0].get_ylim()[1] < 100
    Picture(figure)


def test_convergence_in_the_users_own_axes():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_convergence(run(2.0, 1.0), right) is figure
    assert len(right.lines) == 1
    assert not left.lines


def test_the_histories_of_the_package_are_drawn():
    import torch

    from ooftorch import least_squares, minimize

    start = torch.tensor([1.0, 2.0], dtype=torch.float64)
    one = minimize(lambda x: x.square().sum(), start, method="CG")
    other = least_squares(lambda x: x.sum(), start)
    assert plot_convergence(one).axes[0].get_title() == "cg"
    found = curves(plot_convergence({"cg": one, "trf": other}))
    assert len(found["cg"]) == one.nfev
    assert (found["cg"][0, 1], found["trf"][0, 1]) == pytest.approx((5.0, 4.5))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (OptimizeResult(x=1.0, fun=2.0), "the result has no history"),
        ({"mine": OptimizeResult(x=1.0, fun=2.0)}, "mine has no history"),
        (run(), "BFGS has no history"),
        (run(np.nan, np.inf), "no finite value"),
        ({}, "nothing to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused(result, said):
    with pytest.raises(InputError, match=said):
        plot_convergence(result)


# -------------------------------------------------------------------------------------------- files


@pytest.mark.slow
def test_a_picture_is_saved_in_the_format_of_its_suffix(tmp_path):
    figure = plot_aperture(fit_result(aperture=dish(lambda x, y: 0.1 * x, n=11)))
    for name, start in (("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml"), ("a", b"\x89PNG")):
        save(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_picture_that_cannot_be_saved_leaves_nothing(tmp_path):
    figure = Figure()
    with pytest.raises(InputError, match=r"no picture format 'fits'; use one of .*png"):
        save(figure, tmp_path / "a.fits")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(InputError, match="exists"):
        save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "old"
    save(figure, tmp_path / "a.png", overwrite=True)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_global_is_touched():
    before = dict(matplotlib.rcParams)
    plot_aperture(fit_result(aperture=dish(lambda x, y: 0.1 * x, n=11)))
    plot_beams(fit_result([beam_map(0.0, *column_by_column())]))
    plot_convergence(run(2.0, 1.0))
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
