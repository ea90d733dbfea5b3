"""Descriptions of an observation and of a telescope: what `ooftorch info` and `ooftorch telescopes` print."""

import math

import numpy as np

from ooftorch.errors import InputError
from ooftorch.observation import BeamMap, Observation
from ooftorch.optics import telescopes
from ooftorch.optics.blockage import Blockage
from ooftorch.optics.telescope import Telescope
from ooftorch.scans import find_axis, find_lines
from ooftorch.units import ARCSEC

__all__ = ["describe_observation", "describe_telescope"]


def describe_observation(observation: Observation) -> str:
    """Describe an observation: a line for each property, a row for each map.

    Parameters
    ----------
    observation : Observation
        Its telescope need not be known.

    Returns
    -------
    str
        Lines in ASCII without a newline at the end.
    """
    o = observation
    telescope, name = None, o.telescope or "not named; give --telescope"
    if o.telescope is not None:
        try:
            telescope = telescopes.load(o.telescope)
        except InputError as error:  # still describe the rest of the file
            name = f"{o.telescope} ({error})"
    elevation = "unknown" if o.mean_el_deg is None else f"{o.mean_el_deg:.1f} deg"
    lines = [
        f"{o.source} ({o.format})",
        f"  telescope  {name}",
        f"  frequency  {o.frequency / 1e9:.6g} GHz (wavelength {o.wavelength * 1e3:.6g} mm)",
        f"  source     {o.object or 'not named'}, date {o.date_obs or 'unknown'}, elevation {elevation}",
        f"  receiver   {_receiver(o)}",
        f"  {'map':>3s} {'dz/mm':>8s} {'samples':>8s} {'missing':>8s} {'raster':>9s} "
        f"{'DX/arcsec':>17s} {'DY/arcsec':>17s} {'peak':>10s} {'errors':>8s}  scans",
    ]
    lines += [f"  {i:3d} {_map_row(m)}" for i, m in enumerate(o.maps)]
    if telescope is not None:
        beam = o.wavelength / (2 * telescope.radius)
        lines.append(f"  wavelength/diameter {beam / ARCSEC:.2f} arcsec")
    if o.truth is not None:
        rms = o.truth.rms_error(np.zeros(3))  # error of a perfect dish
        lines.append(f"  truth      known: phase {rms:.3g} rad rms over the dish, piston and tilt removed")
    lines += [f"  note: {note}" for note in o.notes]
    return "\n".join(lines)


def _receiver(o: Observation) -> str:
    words = []
    if o.receiver.chopped:
        x, y = o.receiver.chop_x / ARCSEC, o.receiver.chop_y / ARCSEC
        words.append(f"two beams differenced, the positive at ({x:+.1f}, {y:+.1f}) arcsec from the negative")
        words.append(f"gain ratio {o.receiver.gain_ratio:g}")
    if o.receiver.disc_radius:
        words.append(f"source a disc of radius {o.receiver.disc_radius / ARCSEC:.1f} arcsec")
    words.append(f"illumination {o.illumination}" if o.illumination else "")
    return ", ".join(w for w in words if w) or "single beam"


def _map_row(m: BeamMap) -> str:
    x, y = m.x[m.valid] / ARCSEC, m.y[m.valid] / ARCSEC
    nx, ny = np.unique(m.x[m.valid]).size, np.unique(m.y[m.valid]).size
    raster = f"{nx} x {ny}" if nx * ny <= 4 * m.n_valid else "scattered"
    errors = "none" if m.sigma is None else f"{np.median(m.sigma[m.valid]):.3g}"
    return (
        f"{m.dz * 1e3:+8.2f} {m.n_valid:8d} {m.n_missing:8d} {raster:>9s} "
        f"{x.min():+8.1f} {x.max():+8.1f} {y.min():+8.1f} {y.max():+8.1f} "
        f"{m.power[m.valid].max():10.4g} {errors:>8s}  {_scans(m)}"
    )


def _scans(m: BeamMap) -> str:
    lines = find_lines(m)
    if lines is None:
        return "no scan lines"
    axis = find_axis(m, lines)
    smeared = f", smeared over {m.smear / ARCSEC:.3g} arcsec" if m.smear else ""
    return f"{lines.n} scan lines{'' if axis is None else f' along D{axis.upper()}'}{smeared}"


def describe_telescope(telescope: Telescope) -> str:
    """Describe a telescope, with what a move of the focus does to the path across its dish.

    Parameters
    ----------
    telescope : Telescope

    Returns
    -------
    str
        Lines in ASCII without a newline at the end.
    """
    r = telescope.radius
    axis = np.linspace(-r, r, 201)
    pitch = axis[1] - axis[0]
    x, y = np.meshgrid(axis, axis)
    area = telescope.coverage(x, y, pitch).sum() * pitch**2
    on_dish = np.hypot(x, y) <= r
    path = telescope.path(x, y, 1e-3)[on_dish]
    illumination = telescope.illumination
    taper = "" if illumination.taper_db is None else f", edge taper {illumination.taper_db:g} dB"
    stop = "" if illumination.radius is None else f", cold stop {illumination.radius:g} m"
    focal = "unknown" if telescope.focal_length is None else f"{telescope.focal_length:g} m"
    errors = telescope.focus_errors
    simulated = "no usual frequency"
    shift = "its shift is not known" if errors.shift is None else f"shift to {1e3 * errors.shift:g} mm"
    if telescope.frequency is not None:
        dz = telescope.usual_defocus(telescope.usual_wavelength())
        simulated = f"{1e-9 * telescope.frequency:g} GHz, {1e3 * dz:g} mm out of focus, by default"
    return "\n".join(
        [
            f"{telescope.name}: {telescope.description}",
            f"  numbers from   {telescope.source}",
            f"  radius         {r:g} m, primary focal length {focal}",
            f"  optics         {telescope.optics.kind}",
            f"  blockage       {_blockage(telescope.blockage)}",
            f"  open aperture  {100 * area / (math.pi * r**2):.1f} % of the disc",
            f"  illumination   {illumination.model}{taper}{stop}",
            f"  focus          1 mm changes the path by {np.ptp(path) * 1e6:.0f} um across the dish",
            f"  focus errors   travel to {errors.scale:.2g} of itself, {shift}",
            f"  simulated at   {simulated}",
        ]
    )


def _blockage(b: Blockage) -> str:
    words = [f"centre to {b.inner_radius:g} m"] if b.inner_radius else []
    if b.legs is not None:
        shadow = "" if b.legs.shadow is None else f" with shadows of {math.degrees(b.legs.shadow):g} deg"
        words.append(f"four legs as {b.legs.shape!r}{shadow}")
    if b.holes:
        words.append(f"holes: {len(b.holes)}")
    return ", ".join(words) or "none"
