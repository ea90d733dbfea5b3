"""Pictures of a fit (aperture; data, model and residual of the maps) and of the convergence of minimisers.

The only module that needs matplotlib. Figures are built without pyplot: no global state changes, and no
display is needed. A fit is drawn from its `FitResult` alone, so that one read from its file gives the same
pictures.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ooftorch.errors import InputError
from ooftorch.files import whole_file
from ooftorch.reporting.derived import describe_illumination, find_illumination
from ooftorch.units import ARCSEC, half_path

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

    from ooftorch.result import Aperture, FitResult, MapFit

__all__ = ["plot_aperture", "plot_beams", "plot_convergence", "save"]

# Colour maps that do not rely on red against green. In the signed one white is zero and red positive.
_SIGNED, _POWER, _ERROR = "RdBu_r", "viridis", "magma_r"
_GREY = "0.7"  # blocked, or not observed
_CONTOUR_DB, _FAINTEST_DB = 3.0, -30.0  # steps of the amplitude, and the lower end of its longest scale
_ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)


def save(figure: Figure, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a figure, complete or not at all, in the format that the suffix names (PNG without one).

    Parameters
    ----------
    figure : Figure
    path : str or Path
        .png, .pdf, .svg, ...
    overwrite : bool
        Replace a file that is already there.

    Raises
    ------
    InputError
        If the suffix names no picture format, the file exists and `overwrite` is false, or it cannot be
        written.
    """
    kind = Path(path).suffix[1:].lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"{path}: no picture format {kind!r}; use one of {', '.join(sorted(known))}")
    with whole_file(path, overwrite) as partial:
        figure.savefig(partial, format=kind, dpi=150)


# ---------------------------------------------------------------------------------------- aperture


def plot_aperture(result: "FitResult", axes: Sequence[Axes] | None = None) -> Figure:
    """Draw phase (rad), surface and its error (half path, micrometres) and amplitude (dB) across the dish.

    Piston and tilt are removed. The dish is seen from behind, looking to the sky: x to the right along DX,
    y up along DY. Blocked parts are grey. 99.5 % of the dish are within the colour scales. The amplitude is
    the illumination over its peak, without the blockage. The error is one standard deviation at each point.

    Parameters
    ----------
    result : FitResult
    axes : sequence of Axes, optional
        Where to draw phase, surface, its error and amplitude, as many of them as there are axes; by default a
        new figure with a title. A result without the error, from an older file, is drawn without it.

    Returns
    -------
    Figure
    """
    a = result.aperture
    draw = [_draw_phase, _draw_surface, _draw_error, _draw_amplitude]
    if a.phase_error is None:
        draw.remove(_draw_error)
    bars: list[Axes | None] = [None] * len(draw)
    if axes is None:
        figure = Figure(figsize=(0.65 + 5.45 * len(draw), 5.8))
        lefts = [0.8 + 5.45 * i for i in range(len(draw))]
        axes = [_add_axes(figure, left, 0.9, 4.0, 4.0) for left in lefts]
        bars = [_add_axes(figure, left + 4.15, 1.0, 0.2, 3.8) for left in lefts]
        figure.suptitle(
            f"{_title(result)}\nphase rms {result.phase_rms:.3f} rad, "
            f"surface rms {1e6 * result.surface_rms:.0f} µm half-path, error of the phase "
            f"{result.phase_error:.2g} rad rms, "
            f"Ruze efficiency {result.ruze_efficiency:.2f}"
        )
        caption = (
            "Dish seen from behind, looking to the sky: x along DX, y along DY. "
            "Red (positive) is high, towards the source; grey is blocked."
        )
        if a.normal_factor is not None:
            largest = a.normal_factor[np.isfinite(a.phase)].max()
            caption += f"\nThe error along the normal is up to {largest:.2f} times the half-path error."
        figure.supxlabel(caption, fontsize="small")
    for ax, bar_ax, draw_panel in zip(axes, bars, draw, strict=False):
        draw_panel(ax, bar_ax, result)
        if bar_ax is not None and ax is not axes[0]:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
    return cast(Figure, axes[0].figure)


def _draw_phase(ax: Axes, bar_ax: Axes | None, result: "FitResult") -> None:
    _draw_signed(ax, bar_ax, result.aperture, result.aperture.phase, "rad", usual_step=0.5)
    ax.set_title("phase, piston and tilt removed")


def _draw_surface(ax: Axes, bar_ax: Axes | None, result: "FitResult") -> None:
    a = result.aperture
    _draw_signed(ax, bar_ax, a, 1e6 * half_path(a.phase, result.wavelength), "µm")
    ax.set_title("surface, half-path error")


def _draw_error(ax: Axes, bar_ax: Axes | None, result: "FitResult") -> None:
    a = result.aperture
    assert a.phase_error is not None
    error = 1e6 * half_path(a.phase_error, result.wavelength)
    shown = _find_shown(a, error)
    limit = _round_up(float(np.percentile(error[shown], 99.5))) if shown.any() else 1.0
    step = _round_up(limit / 6)
    levels = step * np.arange(math.ceil(error[shown].max(initial=0.0) / step) + 1)
    label = f"µm, contours every {step:g}"
    _draw_dish(ax, bar_ax, a, error, label, levels, _ERROR, Normalize(0.0, limit))
    ax.set_title("error of the surface, 1 sigma")


def _draw_amplitude(ax: Axes, bar_ax: Axes | None, result: "FitResult") -> None:
    a = result.aperture
    level = 20 * np.log10(find_illumination(a))
    shown = _find_shown(a, level)
    low = float(np.percentile(level[shown], 0.5)) if shown.any() else 0.0
    low = max(_CONTOUR_DB * math.floor(min(low / _CONTOUR_DB, -1.0)), _FAINTEST_DB)
    levels = np.arange(low, _CONTOUR_DB, _CONTOUR_DB)
    label = f"dB, contours every {_CONTOUR_DB:g}"
    bar = _draw_dish(ax, bar_ax, a, level, label, levels, _POWER, Normalize(low, 0.0))
    bar.set_ticks(levels.tolist())
    ax.set_title("amplitude, blockage taken out")


def _draw_signed(
    ax: Axes,
    bar_ax: Axes | None,
    a: "Aperture",
    values: np.ndarray,
    unit: str,
    usual_step: float | None = None,
) -> None:
    """Draw what may be positive or negative, on a scale that is symmetric about zero."""
    shown = _find_shown(a, values)
    limit = _round_up(float(np.percentile(np.abs(values[shown]), 99.5))) if shown.any() else 1.0
    step = usual_step if usual_step and 1 <= limit <= 5 else _round_up(limit / 6)
    count = math.ceil(np.abs(values[shown]).max(initial=0.0) / step)
    levels = step * np.arange(-count, count + 1)
    label = f"{unit}, contours every {step:g}"
    _draw_dish(ax, bar_ax, a, values, label, levels, _SIGNED, Normalize(-limit, limit))


def _find_shown(a: "Aperture", values: np.ndarray) -> np.ndarray:
    """Return which pixels are drawn, (n, n): those that are open by half.

    A pixel at the rim is partly off the dish, but not blocked: it is drawn, and cut at the outline.
    """
    rim = np.hypot(a.axis, a.axis[:, None]) > a.radius - (a.axis[1] - a.axis[0])
    return np.isfinite(values) & ((a.open >= 0.5) | rim & (a.open > 0))


def _draw_dish(
    ax: Axes,
    bar_ax: Axes | None,
    a: "Aperture",
    values: np.ndarray,
    label: str,
    levels: np.ndarray,
    cmap: str,
    norm: Normalize,
) -> Colorbar:
    """Draw one map of the dish with contours, outline, blockage and colour bar (beside `ax` by default).

    On a scale that ends at zero there is nothing beyond it, and contours need no dashes to tell the sign.
    """
    extend = {0.0: "max", 1.0: "min"}.get(float(norm(0.0)), "both")
    dashes = None if extend == "both" else "solid"
    shown = _find_shown(a, values)
    ax.add_patch(Circle((0, 0), a.radius, facecolor=_GREY, edgecolor="none", zorder=0))
    image = ax.imshow(
        np.ma.masked_where(~shown, values),
        cmap=cmap,
        norm=norm,
        origin="lower",
        extent=_extent(a.axis),
        interpolation="nearest",
        zorder=1,
    )
    outline = Circle((0, 0), a.radius, fill=False, linewidth=1.2, zorder=3)
    ax.add_patch(outline)
    image.set_clip_path(outline)
    if np.ptp(values[shown]) > 0:
        lines = ax.contour(
            a.axis, a.axis, values, levels, colors="k", linewidths=0.5, linestyles=dashes, zorder=2
        )
        lines.set_clip_path(outline)
    ax.set_aspect("equal")
    view = 1.05 * a.radius
    ax.set(xlim=(-view, view), ylim=(-view, view), xlabel="x (m)", ylabel="y (m)")
    if bar_ax is None:
        bar = ax.figure.colorbar(image, ax=ax, extend=extend, shrink=0.85)
    else:
        bar = ax.figure.colorbar(image, cax=bar_ax, extend=extend)
    bar.set_label(label)
    return bar


# ------------------------------------------------------------------------------------------- beams


def plot_beams(result: "FitResult") -> Figure:
    """Draw data, model and residual of every map, one row for each focus position.

    Data and model of a row share one stretch of the power above the fitted offset: linear within the
    noise, logarithmic beyond (asinh), which shows faint arcs. The residual is linear, in units of the
    noise, or of the map's peak where the noise is not known; 99.5 % of it are within the scale. What the fit
    took for errors of scan lines is in neither model nor residual. DX is to the right and DY up. Missing
    samples are grey. A raster is drawn as an image, other samples as dots.

    Parameters
    ----------
    result : FitResult

    Returns
    -------
    Figure
    """
    angle, unit = _sky_unit(result.maps)
    figure, panels, bars = _beam_axes(len(result.maps), _height_over_width(result.maps))
    chi2 = f", chi²/dof {result.chi2_reduced:.3g}" if math.isfinite(result.chi2_reduced) else ""
    figure.suptitle(_title(result) + chi2, y=1 - 0.15 / figure.get_figheight())
    for row, row_bars, m in zip(panels, bars, result.maps, strict=True):
        seen = np.isfinite(m.data)
        offset, peak = m.offset, m.peak
        # The linear part: the noise, or five decades below the peak if a simulation has none.
        knee = max(m.noise, 1e-5 * peak)
        model = np.where(seen, m.model, np.nan) - offset
        floor = min(-3 * knee, float(np.nanmin(model)))
        stretch = AsinhNorm(knee, floor, peak)
        data_ax, model_ax, residual_ax = row
        image = _sky(data_ax, m, m.data - offset, angle, _POWER, stretch)
        _sky(model_ax, m, model, angle, _POWER, stretch)
        bar = figure.colorbar(image, cax=row_bars[0], ticks=_decades(knee, floor, peak), format="%g")
        bar.minorticks_off()
        bar.set_label(f"power − offset ({offset:.3g})")

        of_noise = m.noise > 0
        residual = m.residual / (m.noise if of_noise else 0.01 * peak)
        limit = _round_up(float(np.percentile(np.abs(residual[seen]), 99.5)))
        if of_noise:
            limit = max(limit, 3.0)
        image = _sky(residual_ax, m, residual, angle, _SIGNED, Normalize(-limit, limit))
        bar = figure.colorbar(image, cax=row_bars[1], extend="both")
        bar.set_label("residual / noise" if of_noise else "residual, % of peak")

        missing = np.count_nonzero(~seen)
        data_ax.set_title("data" + (f" ({missing} missing)" if missing else ""))
        model_ax.set_title("model")
        rms = float(np.sqrt(np.mean(residual[seen] ** 2)))
        residual_ax.set_title(
            f"residual, rms {rms:.2g} × noise, {m.residual_rms_over_peak:.2%} of peak"
            if of_noise
            else f"residual, rms {m.residual_rms_over_peak:.2g} of peak"
        )
        data_ax.set_ylabel(f"dz = {1e3 * m.dz:+.4g} mm\nDY ({unit})")
    for ax in panels[-1]:
        ax.set_xlabel(f"DX ({unit})")
    if result.scan_terms:
        caption = (
            "Residual: data minus model minus the errors of scan lines, which are not in the model shown."
        )
        figure.supxlabel(caption, fontsize="small")
    return figure


def _beam_axes(n_maps: int, height_over_width: float) -> tuple[Figure, list[list[Axes]], list[list[Axes]]]:
    """Return a figure, its panels (a row of data, model and residual per map) and colour bars (two per row).

    Lengths are in inches. All panels share their axes, with numbers at the left and at the bottom only.
    """
    width, gap, bar_gap = 3.45, 0.32, 0.12
    height = width * height_over_width
    lefts = (0.95, 0.95 + width + gap, 0.95 + 2 * (width + gap) + 1.25)
    bar_lefts = (lefts[1] + width + bar_gap, lefts[2] + width + bar_gap)
    top, bottom, between = 0.75, 0.85, 0.4
    total = top + bottom + n_maps * height + (n_maps - 1) * between
    figure = Figure(figsize=(bar_lefts[1] + 1.0, total))
    panels, bars = [], []
    first: Axes | None = None
    for i in range(n_maps):
        y = total - top - height - i * (height + between)
        row = []
        for x in lefts:
            ax = _add_axes(figure, x, y, width, height, sharex=first, sharey=first)
            ax.tick_params(labelleft=x == lefts[0], labelbottom=i == n_maps - 1)
            row.append(ax)
            first = first or ax
        panels.append(row)
        bars.append([_add_axes(figure, x, y, 0.16, height) for x in bar_lefts])
    return figure, panels, bars


def _height_over_width(maps: "Sequence[MapFit]") -> float:
    """Return the shape of the panels: that of the area the maps cover, within 0.5 and 1.5."""
    x, y = (np.concatenate([getattr(m, name) for m in maps]) for name in "xy")
    width, height = (float(np.nanmax(v) - np.nanmin(v)) for v in (x, y))
    return min(max(height / width, 0.5), 1.5) if width > 0 else 1.0


def _sky(ax: Axes, m: "MapFit", values: np.ndarray, angle: float, cmap: str, norm: Normalize) -> Any:
    """Draw one panel of `plot_beams`; return what its colour bar refers to."""
    placed = np.isfinite(m.x) & np.isfinite(m.y)
    x, y, v = m.x[placed] / angle, m.y[placed] / angle, values[placed]
    ax.set_aspect("equal")
    grid = _grid(x, y)
    if grid is not None:
        square = np.full((len(grid.y), len(grid.x)), np.nan)
        square[grid.row, grid.column] = v
        ax.set_facecolor(_GREY)
        return ax.pcolormesh(
            grid.x,
            grid.y,
            np.ma.masked_invalid(square),
            cmap=cmap,
            norm=norm,
            shading="nearest",
            rasterized=True,
        )
    seen = np.isfinite(v)
    # Dots that would tile the panel, some 3 inches wide, if they were spread evenly.
    size = 2 * (3 * 72) ** 2 / len(x)
    ax.scatter(x[~seen], y[~seen], s=size, color=_GREY, marker="x", rasterized=True)
    return ax.scatter(
        x[seen], y[seen], c=v[seen], s=size, cmap=cmap, norm=norm, linewidths=0, rasterized=True
    )


def _decades(knee: float, low: float, high: float) -> list[float]:
    """Return the ticks of an asinh stretch: zero, and the powers of ten in its logarithmic part."""
    first, last = math.log10(2 * knee), math.log10(max(high, -low))
    powers = [10.0**k for k in range(math.ceil(first), math.floor(last) + 1)]
    return [0.0, *(t for power in powers for t in (-power, power) if low <= t <= high)]


class _Grid(NamedTuple):
    """A raster: its coordinates, increasing, and the column and row of each sample."""

    x: np.ndarray
    y: np.ndarray
    column: np.ndarray
    row: np.ndarray


def _grid(x: np.ndarray, y: np.ndarray) -> _Grid | None:
    """Return the raster of the samples, whatever their order and with some missing; None if there is none."""
    xs, column = _steps(x)
    ys, row = _steps(y)
    cells = len(xs) * len(ys)
    distinct = len(np.unique(row * len(xs) + column))
    if min(len(xs), len(ys)) < 2 or distinct < len(x) or cells > 2 * len(x):
        return None
    return _Grid(xs, ys, column, row)


def _steps(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values, increasing, and the index of each sample; 0.05 pixels apart is the same."""
    order = np.argsort(v)
    tolerance = 0.05 * np.ptp(v) / math.sqrt(len(v))
    number = np.empty(len(v), dtype=np.int64)
    number[order] = np.concatenate([[0], np.cumsum(np.diff(v[order]) > tolerance)])
    return np.bincount(number, v) / np.bincount(number), number


def _sky_unit(maps: "Sequence[MapFit]") -> tuple[float, str]:
    widest = max(float(np.nanmax(np.abs([m.x, m.y]))) for m in maps)
    return (ARCSEC, "arcsec") if widest < 3600 * ARCSEC else (1e-3, "mrad")


# ------------------------------------------------------------------------------------- convergence


def plot_convergence(
    result: "OptimizeResult | Mapping[str, OptimizeResult]", ax: Axes | None = None
) -> Figure:
    """Draw how far above the lowest value found a minimiser was, against evaluations, on a log axis.

    The best value so far is drawn, for line searches and global methods also try what is worse. Several
    results share the lowest value of all, so they should be of the same function; where the longest took ten
    times as many evaluations as the shortest, evaluations are on a log axis, too. A line that leaves the
    picture at the bottom has found that lowest value.

    Parameters
    ----------
    result : OptimizeResult, or mapping of str to OptimizeResult
        Of `ooftorch.minimize` or `least_squares`; several by the names to be shown.
    ax : Axes, optional
        Where to draw; a new figure when not given.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If there is no result, one has no history, or no value is finite.
    """
    alone = hasattr(result, "x")
    results: dict[str, Any] = {getattr(result, "method", ""): result} if alone else dict(result)
    for name, one in results.items():
        if not len(getattr(one, "history", ())):
            raise InputError(f"{name or 'the result'} has no history; results of ooftorch.minimize have one")
    best = {name: np.fmin.accumulate(one.history[:, 1]) for name, one in results.items()}
    finite = [values[np.isfinite(values)] for values in best.values()]
    if not any(map(len, finite)):
        raise InputError("nothing to draw: there is no finite value")
    lowest = min(values.min() for values in finite if len(values))
    if ax is None:
        ax = Figure(figsize=(7.5, 5.0), layout="constrained").subplots()
    for name, values in best.items():
        ax.step(np.arange(1, len(values) + 1), values - lowest, where="post", label=name)
    # The lowest value itself is zero: its line ends at the lower edge.
    ax.set_yscale("log", nonpositive="clip")
    lengths = [len(values) for values in best.values()]
    if max(lengths) >= 10 * min(lengths):
        ax.set_xscale("log")
    ax.set(xlabel="evaluations", ylabel=f"best value so far, above the lowest, {lowest:.7g}")
    ax.grid(alpha=0.3)
    if alone:
        ax.set_title(next(iter(best)))
    else:
        ax.legend()
    return cast(Figure, ax.figure)


# ------------------------------------------------------------------------------------------ common


def _add_axes(
    figure: Figure, left: float, bottom: float, width: float, height: float, **options: Any
) -> Axes:
    """Add axes at a place given in inches.

    A layout solver costs as much as all the drawing.
    """
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h), **options)


def _title(result: "FitResult") -> str:
    parts = [result.telescope, result.object, result.date_obs, f"{1e3 * result.wavelength:.4g} mm"]
    parts += [f"order {result.order}", describe_illumination(result), f"{result.likelihood} likelihood"]
    return ", ".join(filter(None, parts))


def _extent(axis: np.ndarray) -> tuple[float, float, float, float]:
    """Return the outer edges (left, right, bottom, top) of a square image with pixel centres `axis`."""
    half = 0.5 * (axis[1] - axis[0])
    low, high = axis[0] - half, axis[-1] + half
    return low, high, low, high


def _round_up(value: float) -> float:
    """Round up to one of `_ROUND` times a power of ten; 1 for zero."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return power * next((m for m in _ROUND if m * power >= value * (1 - 1e-9)), 10.0)
