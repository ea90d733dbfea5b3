"""Reader and writer of fit.fits: a `FitResult` as a FITS file, every number exactly.

Primary header
    ======== ==== ===============================================================================
    OOFFIT        layout of this file, 4; read as well are layout 3, which lacks SIGMA_NOISE, SIGMA_MODEL,
                  NOISE_COVARIANCE, APERTURE_ERROR, ORDER_COEFFICIENTS, CAUSES and GAINLAST to COSTNEXT, and
                  has the errors from the noise alone in SIGMA and COVARIANCE;
                  layout 2, which also lacks SURFACE_FOCUS, SCAN_TERMS and AMPORDER; and layout 1, which also
                  lacks BASIS and what follows it here
    ORIGIN        "ooftorch"
    CREATOR       program and version
    INPUT         file of the observation
    TELESCOP      telescope
    OBJECT        source
    DATE-OBS      date, as the observation has it
    WAVELEN  m    wavelength
    LIKELIHD      likelihood
    ILLUM         illumination model
    ORDER         highest order of the surface basis
    CONVERGD      whether the fit converged
    INTERRUP      whether it was interrupted (absent in files of earlier versions: it was not)
    MESSAGE       why it ended
    OBJECTIV      negative log-posterior, natural units
    CHI2RED       chi-squared per degree of freedom
    NDATA         valid samples
    NMISSING      samples never observed
    NFREE         free parameters
    NEVAL         evaluations of value and gradient
    SECONDS  s    wall time of the fit
    RADIUS   m    of the dish
    NMAPS         number of maps
    NNOTES        number of notes
    NOTE1 ...     what was assumed on the way; also in HISTORY
    BASIS         surface basis
    ROBUST        whether the likelihood is robust against outliers
    AMPORDER      highest order of the Zernikes that bend the illumination; 0 for none
    STOPRAD       radius of the illumination's own edge over the dish radius (absent where it has none)
    GAINLAST      gain of the last order of the basis, and its cost: see `OrderEvidence`
    COSTLAST
    GAINNEXT      gain of the next order, and its cost
    COSTNEXT
    GOODRMS  m    rms half-path error that a good solution stays below (absent where none is known)
    PHASERMS rad  rms phase over the dish, piston and tilt removed (not read back)
    SURFRMS  m    rms half-path error (not read back)
    RUZE          Ruze efficiency (not read back)
    ======== ==== ===============================================================================

    A number that is not finite is text: 'nan'. Characters that FITS has not are written as Python escapes.

Extensions
    PARAMETERS
        NAME, VALUE, SIGMA (standard error, with what the residuals show beyond independent noise),
        SIGMA_NOISE (from such noise alone), SIGMA_MODEL (how far a wider model would move it), UNIT (of all
        four), FREE; a row per parameter.
    COVARIANCE, NOISE_COVARIANCE
        Images; of the free parameters, named PAR1, PAR2, ... in the header. The squares of SIGMA and of
        SIGMA_NOISE are on their diagonals.
    ORDERS
        ORDER, OBJECTIV, CHI2RED, NFREE, NEVAL, SECONDS (s); a row per order of the basis. In the image
        ORDER_COEFFICIENTS the coefficients of the surface (rad), a row per order.
    SURFACE_BASIS, SURFACE_GRAM
        Absent for Zernikes. NAME, ORDER and LABEL, a row per term, PISTON, XTILT and YTILT in the header; and
        the image of the matrix of the mean square phase over the dish (`SurfaceBasis.gram`).
    SURFACE_FOCUS
        NAME, and FOCUS (rad/m), a row per term of the basis: the phase that a focus offset makes.
    SCAN_TERMS
        NAME, UNIT, RMS_0, RMS_1, ... (one for each map): errors of scan lines that were integrated out.
        Absent where there are none.
    CAUSES
        NAME, FACTOR (how many times less the maps miss a model with that put right; NaN without a trial),
        TEXT and CHANGE (rad, rms by which the surface then moves): what may be wrong with the observation.
        Absent where nothing was found.
    APERTURE_PHASE, APERTURE_ERROR, APERTURE_AMPLITUDE, APERTURE_OPEN, APERTURE_NORMAL_FACTOR
        Images, x along axis 1 and y along axis 2 with a linear WCS in metres from the centre of the dish.
        Phase in rad, piston and tilt removed, NaN off the dish, and its standard error; amplitude over its
        peak; open fraction of each pixel; surface error along the normal over half-path error (absent where
        not known).
    APERTURE_AXIS
        X (m): the pixel centres exactly; the WCS gives them to rounding.
    MAP_0, MAP_1, ...
        X, Y (rad; DX, DY, telescope minus source), DATA, MODEL, SCANS (what the scan lines' own terms add to
        the model; absent in layouts 1 and 2: none), RESIDUAL (data minus model minus scans); in the units of
        the data, NaN where never observed. In the header DZ_M (m, focus offset), NOISE (standard error of a
        sample) and OFFSET (fitted baseline).
    TRUTH, TRUTH_PHASE, TRUTH_AXIS
        True values of simulated maps: see `io.truth_hdus`. Absent otherwise.
"""

import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ooftorch import __version__
from ooftorch.errors import InputError, shorten
from ooftorch.files import whole_file
from ooftorch.inputs import POWER, RADIUS, WAVELENGTH, parsing
from ooftorch.io.fits_tools import (
    check_aperture,
    copy_native,
    escape,
    is_fits,
    make_aperture_axis,
    make_aperture_image,
    make_card,
    make_table,
    make_text_column,
    open_fits,
    read_header_number,
    unescape,
)
from ooftorch.io.truth_hdus import make_truth_hdus, read_truth
from ooftorch.optics import telescopes
from ooftorch.optics.basis import BASES, MAX_ORDER, RecordedBasis, SurfaceBasis
from ooftorch.result import Aperture, Cause, Estimate, FitResult, MapFit, OrderEvidence, OrderFit, ScanTerm
from ooftorch.truth import Truth

__all__ = ["read_fit", "write_fit"]

# Layout number (OOFFIT) of the files written, and those that can be read.
_LAYOUT = 4
_READABLE = (1, 2, 3, 4)
# Larger than any count in a result.
_MOST = 10**15

# Header keys of the fields that are a text or a number, by type; numbers also have a comment. A text may need
# the whole card.
_TEXT = {
    "input": "INPUT",
    "telescope": "TELESCOP",
    "object": "OBJECT",
    "date_obs": "DATE-OBS",
    "likelihood": "LIKELIHD",
    "illumination": "ILLUM",
    "message": "MESSAGE",
}
_FLOAT = {
    "wavelength": ("WAVELEN", "[m] wavelength"),
    "objective": ("OBJECTIV", "negative log-posterior"),
    "chi2_reduced": ("CHI2RED", "chi-squared per degree of freedom"),
    "seconds": ("SECONDS", "[s] wall time of the fit"),
}
_INT = {
    "order": ("ORDER", "highest order of the surface basis"),
    "n_data": ("NDATA", "valid samples"),
    "n_missing": ("NMISSING", "samples never observed"),
    "n_free": ("NFREE", "free parameters"),
    "n_eval": ("NEVAL", "evaluations of value and gradient"),
}
_EVIDENCE = {
    "gain_last": ("GAINLAST", "gain of the last order of the basis"),
    "cost_last": ("COSTLAST", "least gain that asks for it"),
    "gain_next": ("GAINNEXT", "gain of the next order"),
    "cost_next": ("COSTNEXT", "least gain that asks for it"),
}
_DERIVED = {
    "phase_rms": ("PHASERMS", "[rad] rms phase, piston and tilt removed"),
    "surface_rms": ("SURFRMS", "[m] rms half-path error"),
    "ruze_efficiency": ("RUZE", "Ruze efficiency"),
}
# Table column and its FITS format of each field of `OrderFit`.
_ORDERS = {
    "order": ("ORDER", "K"),
    "objective": ("OBJECTIV", "D"),
    "chi2_reduced": ("CHI2RED", "D"),
    "n_free": ("NFREE", "K"),
    "n_eval": ("NEVAL", "K"),
    "seconds": ("SECONDS", "D"),
}
# Header keys of the names of the terms that are piston and tilts.
_TILTS = {"piston": "PISTON", "x_tilt": "XTILT", "y_tilt": "YTILT"}
# Image name, unit and comment of each field of `Aperture`.
_IMAGES = {
    "phase": ("APERTURE_PHASE", "rad", "phase, piston and tilt removed"),
    "phase_error": ("APERTURE_ERROR", "rad", "standard error of the phase"),
    "amplitude": ("APERTURE_AMPLITUDE", "", "illumination over its peak"),
    "open": ("APERTURE_OPEN", "", "open fraction of each pixel"),
    "normal_factor": ("APERTURE_NORMAL_FACTOR", "", "normal error over half-path error"),
}


def write_fit(result: FitResult, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a result as a FITS file, complete or not at all; the same result gives the same bytes.

    Parameters
    ----------
    result : FitResult
    path : str or Path
    overwrite : bool
        Replace a file that is already there.

    Raises
    ------
    InputError
        If the file exists and `overwrite` is false, or it cannot be written.
    """
    parameters = result.parameters
    hdus = [
        fits.PrimaryHDU(header=_make_header(result)),
        make_table(
            "PARAMETERS",
            [
                make_text_column("NAME", [escape(name) for name in parameters]),
                fits.Column("VALUE", "D", array=np.array([p.value for p in parameters.values()])),
                fits.Column("SIGMA", "D", array=np.array([p.sigma for p in parameters.values()])),
                fits.Column("SIGMA_NOISE", "D", array=np.array([p.sigma_noise for p in parameters.values()])),
                fits.Column("SIGMA_MODEL", "D", array=np.array([p.sigma_model for p in parameters.values()])),
                make_text_column("UNIT", [escape(p.unit) for p in parameters.values()]),
                fits.Column("FREE", "L", array=np.array([p.free for p in parameters.values()])),
            ],
        ),
        *_make_covariances(result),
        make_table(
            "ORDERS",
            [
                fits.Column(name, form, array=np.array([getattr(o, field) for o in result.orders]))
                for field, (name, form) in _ORDERS.items()
            ],
        ),
        *_make_order_coefficients(result),
        *_make_basis(result),
        *_make_focus(result),
        *_make_scan_terms(result),
        *_make_causes(result),
        *_make_aperture(result.aperture),
        *(_make_map(m, i) for i, m in enumerate(result.maps)),
        *([] if result.truth is None else make_truth_hdus(result.truth)),
    ]
    with whole_file(path, overwrite) as partial:
        fits.HDUList(hdus).writeto(partial, output_verify="exception")


def read_fit(path: str | os.PathLike[str]) -> FitResult:
    """Read a result written by `write_fit`.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    FitResult
        Equal to the one written in every field.

    Raises
    ------
    InputError
        If the file does not exist, is not FITS or damaged, or is not the result of a fit.
    """
    path = Path(path)
    if not is_fits(path):
        raise InputError(f"{path}: not a FITS file; expected the fit.fits of a fit")
    hdus = open_fits(path)
    header = hdus[0].header
    if "OOFFIT" not in header:
        raise InputError(f"{path}: not the result of a fit (no OOFFIT in its header); expected a fit.fits")
    if header["OOFFIT"] not in _READABLE:
        raise InputError(
            f"{path}: written by {header.get('CREATOR', 'another version')} in layout "
            f"{shorten(header['OOFFIT'])}, and this version reads {_READABLE[0]} to {_READABLE[-1]}; use the "
            "version that wrote it"
        )
    truth = read_truth(hdus, path)
    with parsing(f"{path}: damaged result of a fit", "fit again"):
        try:
            result = _build_result(header, {hdu.name: hdu for hdu in hdus[1:]}, truth)
        except KeyError as error:
            raise InputError(f"{path}: incomplete result of a fit ({error.args[0]}); fit again") from None
        _check(result)
    return result


def _check(result: FitResult) -> None:
    """Raise ValueError for a result that no fit gives: its numbers are absurd or do not belong together."""
    if not (WAVELENGTH.holds(result.wavelength) and RADIUS.holds(result.aperture.radius)):
        raise ValueError(f"WAVELEN {result.wavelength:g} m, RADIUS {result.aperture.radius:g} m")
    a, n_free = result.aperture, len(result.free_names)
    more = [image for image in (a.normal_factor, a.phase_error) if image is not None]
    check_aperture(a.axis, a.radius, a.phase, a.amplitude, a.open, *more)
    if not ((a.amplitude >= 0).all() and (a.open >= 0).all() and ((a.amplitude > 0) & (a.open > 0)).any()):
        raise ValueError("an amplitude that is not positive")
    if not all(0 <= getattr(result, name) < _MOST for name in _INT):
        raise ValueError("a number of samples, parameters or evaluations")
    if not (isinstance(result.converged, bool) and isinstance(result.robust, bool) and result.maps):
        raise ValueError("CONVERGD, ROBUST or NMAPS")
    noise = result.covariance if result.noise_covariance is None else result.noise_covariance
    for covariance in (result.covariance, noise):
        if covariance.shape != (n_free, n_free):
            raise ValueError(f"{n_free} free parameters and a covariance of {covariance.shape}")
    n_terms = len(result.coefficients)
    of_orders = [o.coefficients for o in result.orders if o.coefficients]
    if any(len(coefficients) != n_terms for coefficients in of_orders):
        raise ValueError("orders of other coefficients")
    focus = np.zeros(n_terms) if result.focus is None else result.focus
    if result.gram.shape != (n_terms, n_terms) or focus.shape != (n_terms,):
        raise ValueError(f"matrices that are not of {n_terms} coefficients")
    if not np.isfinite(focus).all():
        raise ValueError("a phase of the focus that is not finite")
    of_maps = [f"{kind}_{i}" for kind in ("gain", "offset", "dx", "dy") for i in range(len(result.maps))]
    if not set(of_maps) <= set(result.parameters):
        raise ValueError(f"no parameter {min(set(of_maps) - set(result.parameters))}")
    if any(len(term.rms) != len(result.maps) for term in result.scan_terms):
        raise ValueError("scan terms of other maps")
    for m in result.maps:
        columns = np.stack([m.x, m.y, m.data, m.model, m.scan_terms])  # raises if they are of several lengths
        seen = np.isfinite(m.data)
        placed = np.isfinite(columns[:, seen]).all() and (np.abs(columns[:2, seen]) < 1).all()
        known = np.isfinite([m.noise, m.offset]).all() and not np.isinf(m.data).any()
        if columns.ndim != 2 or not (seen.any() and placed and known and abs(m.dz) < 1 and m.peak > 0):
            raise ValueError(f"the map at dz {m.dz:g} m")
        _check_sizes(columns, [m.noise, m.offset])
    _check_sizes(
        [(p.value, p.sigma, p.sigma_noise, p.sigma_model) for p in result.parameters.values()],
        result.covariance,
        noise,
        of_orders,
        result.order_evidence,
        [(o.objective, o.chi2_reduced, o.seconds, o.order, o.n_free, o.n_eval) for o in result.orders],
        [result.objective, result.chi2_reduced, result.seconds],
        [term.rms for term in result.scan_terms],
        focus,
    )


def _check_sizes(*numbers: Any) -> None:
    """Raise ValueError for a number that is finite, but so large that its square is not."""
    for some in numbers:
        values = np.asarray(some, dtype=np.float64)
        largest = np.max(np.abs(values), where=np.isfinite(values), initial=0.0)
        if largest > POWER.largest:
            raise ValueError(f"a value of {largest:g}")


def _build_result(header: fits.Header, hdus: dict[str, Any], truth: Truth | None) -> FitResult:
    fields: dict[str, Any] = {name: unescape(header[key]) for name, key in _TEXT.items()}
    fields |= {name: float(header[key]) for name, (key, _) in _FLOAT.items()}
    fields |= {name: header[key] for name, (key, _) in _INT.items()}
    rows, orders = hdus["PARAMETERS"].data, hdus["ORDERS"].data
    names = ["NAME", "VALUE", "SIGMA", "UNIT", "FREE"] + ["SIGMA_NOISE", "SIGMA_MODEL"] * (
        header["OOFFIT"] >= 4
    )
    columns = (rows[name].tolist() for name in names)
    order_columns = {field: orders[name].tolist() for field, (name, _) in _ORDERS.items()}
    of_orders: list[tuple[float, ...]] = [()] * len(orders)
    if "ORDER_COEFFICIENTS" in hdus:
        of_orders = [tuple(row) for row in hdus["ORDER_COEFFICIENTS"].data.tolist()]
    optional = {name: hdus.get(_IMAGES[name][0]) for name in ("normal_factor", "phase_error")}
    return FitResult(
        **fields,
        converged=header["CONVERGD"],
        interrupted=header.get("INTERRUP", False),
        parameters={
            unescape(name): Estimate(value, sigma, unescape(unit), *rest)
            for name, value, sigma, unit, *rest in zip(*columns, strict=True)
        },
        covariance=copy_native(hdus["COVARIANCE"].data),
        maps=tuple(_read_map(hdus[f"MAP_{i}"]) for i in range(header["NMAPS"])),
        orders=tuple(
            OrderFit(**dict(zip(order_columns, row, strict=True)), coefficients=coefficients)
            for *row, coefficients in zip(*order_columns.values(), of_orders, strict=True)
        ),
        aperture=Aperture(
            axis=copy_native(hdus["APERTURE_AXIS"].data["X"]),
            phase=copy_native(hdus["APERTURE_PHASE"].data),
            amplitude=copy_native(hdus["APERTURE_AMPLITUDE"].data),
            open=copy_native(hdus["APERTURE_OPEN"].data),
            radius=float(header["RADIUS"]),
            **{name: None if hdu is None else copy_native(hdu.data) for name, hdu in optional.items()},
        ),
        notes=tuple(unescape(header[f"NOTE{i}"]) for i in range(1, header["NNOTES"] + 1)),
        truth=truth,
        focus=copy_native(hdus["SURFACE_FOCUS"].data["FOCUS"]) if "SURFACE_FOCUS" in hdus else None,
        noise_covariance=copy_native(hdus["NOISE_COVARIANCE"].data) if "NOISE_COVARIANCE" in hdus else None,
        order_evidence=OrderEvidence(*(float(header.get(card, "nan")) for card, _ in _EVIDENCE.values())),
        amplitude_order=header.get("AMPORDER", 0),
        scan_terms=_read_scan_terms(hdus),
        causes=_read_causes(hdus),
        **(_read_layout_2(header, hdus) if header["OOFFIT"] >= 2 else _infer_layout_1(header, rows)),
    )


def _read_scan_terms(hdus: dict[str, Any]) -> tuple[ScanTerm, ...]:
    if "SCAN_TERMS" not in hdus:
        return ()
    rows = hdus["SCAN_TERMS"].data
    columns = [name for name in rows.names if name.startswith("RMS_")]
    widths = zip(*(rows[name].tolist() for name in columns), strict=True)
    names = zip(rows["NAME"].tolist(), rows["UNIT"].tolist(), strict=True)
    return tuple(ScanTerm(name, unit, rms) for (name, unit), rms in zip(names, widths, strict=True))


def _read_causes(hdus: dict[str, Any]) -> tuple[Cause, ...]:
    if "CAUSES" not in hdus:
        return ()
    rows = hdus["CAUSES"].data
    columns = (rows[name].tolist() for name in ("NAME", "FACTOR", "TEXT", "CHANGE"))
    return tuple(
        Cause(unescape(name), factor, unescape(text), change)
        for name, factor, text, change in zip(*columns, strict=True)
    )


def _read_layout_2(header: fits.Header, hdus: dict[str, Any]) -> dict[str, Any]:
    name = unescape(header["BASIS"])
    return {
        "basis": _build_basis(name, header["ORDER"]) if name in BASES else _read_basis(name, hdus),
        "robust": header["ROBUST"],
        "stop_radius": read_header_number(header, "STOPRAD", ""),
        "good_surface_rms": read_header_number(header, "GOODRMS", ""),
    }


def _infer_layout_1(header: fits.Header, rows: Any) -> dict[str, Any]:
    """Infer the fields that layout 1 does not have; it was only written for Zernikes and named models."""
    values = dict(zip(rows["NAME"].tolist(), rows["VALUE"].tolist(), strict=True))
    telescope = unescape(header["TELESCOP"])
    known = telescopes.load(telescope) if telescope in telescopes.names() else None
    return {
        "basis": _build_basis("zernike", header["ORDER"]),
        "robust": header["LIKELIHD"] == "cauchy",
        "stop_radius": values["radius"] if header["ILLUM"] == "tophat" else None,
        "good_surface_rms": None if known is None else known.good_surface_rms,
    }


def _build_basis(name: str, order: int) -> SurfaceBasis:
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"ORDER {order}")
    return BASES[name](order)


def _read_basis(name: str, hdus: dict[str, Any]) -> RecordedBasis:
    hdu = hdus["SURFACE_BASIS"]
    named = {key: unescape(hdu.header[card]) or None for key, card in _TILTS.items()}
    names, labels = (tuple(map(unescape, hdu.data[column].tolist())) for column in ("NAME", "LABEL"))
    orders = tuple(hdu.data["ORDER"].tolist())
    return RecordedBasis(name, names, orders, labels, copy_native(hdus["SURFACE_GRAM"].data), **named)


def _read_map(hdu: Any) -> MapFit:
    x, y, data, model = (copy_native(hdu.data[name]) for name in ("X", "Y", "DATA", "MODEL"))
    dz, noise, offset = (float(hdu.header[key]) for key in ("DZ_M", "NOISE", "OFFSET"))
    names = hdu.columns.names
    terms = copy_native(hdu.data["SCANS"]) if "SCANS" in names else np.zeros(x.shape)
    return MapFit(dz, x, y, data, model, noise, offset, terms)


# ------------------------------------------------------------------------------------------- parts


def _make_header(result: FitResult) -> fits.Header:
    header = fits.Header()
    header["OOFFIT"] = (_LAYOUT, "layout of this file: result of a fit")
    header["ORIGIN"] = "ooftorch"
    header["CREATOR"] = f"ooftorch {__version__}"
    for name, key in _TEXT.items():
        header[key] = escape(getattr(result, name))
    for name, (key, comment) in (_FLOAT | _DERIVED).items():
        header.append(make_card(key, getattr(result, name), comment))
    for name, (key, comment) in _INT.items():
        header[key] = (getattr(result, name), comment)
    for name, (key, comment) in _EVIDENCE.items():
        header.append(make_card(key, getattr(result.order_evidence, name), comment))
    header["BASIS"] = escape(result.basis.name)
    header["AMPORDER"] = (result.amplitude_order, "highest order of the illumination's bend")
    header["ROBUST"] = (result.robust, "likelihood robust against outliers")
    if result.stop_radius is not None:
        header.append(make_card("STOPRAD", result.stop_radius, "illumination's edge over dish radius"))
    if result.good_surface_rms is not None:
        header.append(make_card("GOODRMS", result.good_surface_rms, "[m] good solutions stay below"))
    header["CONVERGD"] = (result.converged, "whether the fit converged")
    header["INTERRUP"] = (result.interrupted, "whether it was interrupted")
    header.append(make_card("RADIUS", result.aperture.radius, "[m] of the dish"))
    header["NMAPS"] = (len(result.maps), "number of maps")
    header["NNOTES"] = (len(result.notes), "number of notes")
    for i, note in enumerate(result.notes, 1):
        header[f"NOTE{i}"] = escape(note)
    offsets = ", ".join(f"{1e3 * m.dz:+g}" for m in result.maps)
    for line in (
        f"ooftorch {__version__}: fit of {result.input}",
        f"{len(result.maps)} maps, dz {offsets} mm",
        f"{result.basis.name} orders 1 to {result.order} in turn, {result.likelihood} likelihood, "
        f"{result.illumination} illumination",
        f"{'converged' if result.converged else 'not converged'}: {result.message}",
        *(f"note: {note}" for note in result.notes),
    ):
        for piece in textwrap.wrap(escape(line), 72):
            header.add_history(piece)
    return header


def _make_covariances(result: FitResult) -> list[Any]:
    images = {"COVARIANCE": result.covariance, "NOISE_COVARIANCE": result.noise_covariance}
    hdus = [fits.ImageHDU(image, name=name) for name, image in images.items() if image is not None]
    for hdu in hdus:
        for i, name in enumerate(result.free_names, 1):
            hdu.header[f"PAR{i}"] = (escape(name), f"parameter of row and column {i}")
    return hdus


def _make_order_coefficients(result: FitResult) -> list[Any]:
    rows = [o.coefficients for o in result.orders]
    return [fits.ImageHDU(np.array(rows), name="ORDER_COEFFICIENTS")] if all(rows) else []


def _make_basis(result: FitResult) -> list[Any]:
    """Make the HDUs that describe the basis; none for a basis of the package, given by name and order."""
    basis = result.basis
    if basis.name in BASES:
        return []
    terms = make_table(
        "SURFACE_BASIS",
        [
            make_text_column("NAME", [escape(name) for name in basis.names]),
            fits.Column("ORDER", "K", array=np.array(basis.orders)),
            make_text_column("LABEL", [escape(basis.label(name)) for name in basis.names]),
        ],
    )
    for attribute, card in _TILTS.items():
        terms.header[card] = escape(getattr(basis, attribute) or "")
    return [terms, fits.ImageHDU(result.gram, name="SURFACE_GRAM")]


def _make_focus(result: FitResult) -> list[Any]:
    if result.focus is None:
        return []
    names = [escape(name) for name in result.basis.names]
    columns = [make_text_column("NAME", names), fits.Column("FOCUS", "D", unit="rad/m", array=result.focus)]
    return [make_table("SURFACE_FOCUS", columns)]


def _make_scan_terms(result: FitResult) -> list[Any]:
    terms = result.scan_terms
    if not terms:
        return []
    columns = [
        make_text_column("NAME", [term.name for term in terms]),
        make_text_column("UNIT", [term.unit for term in terms]),
        *(
            fits.Column(f"RMS_{i}", "D", array=np.array([term.rms[i] for term in terms]))
            for i in range(len(result.maps))
        ),
    ]
    return [make_table("SCAN_TERMS", columns)]


def _make_causes(result: FitResult) -> list[Any]:
    causes = result.causes
    if not causes:
        return []
    columns = [
        make_text_column("NAME", [escape(cause.name) for cause in causes]),
        fits.Column("FACTOR", "D", array=np.array([cause.factor for cause in causes])),
        make_text_column("TEXT", [escape(cause.text) for cause in causes]),
        fits.Column("CHANGE", "D", unit="rad", array=np.array([cause.change for cause in causes])),
    ]
    return [make_table("CAUSES", columns)]


def _make_aperture(a: Aperture) -> list[Any]:
    images = [
        make_aperture_image(name, values, a.axis, unit, meaning)
        for field, (name, unit, meaning) in _IMAGES.items()
        if (values := getattr(a, field)) is not None
    ]
    return [*images, make_aperture_axis("APERTURE_AXIS", a.axis)]


def _make_map(m: MapFit, number: int) -> Any:
    columns = {
        "X": m.x,
        "Y": m.y,
        "DATA": m.data,
        "MODEL": m.model,
        "SCANS": m.scan_terms,
        "RESIDUAL": m.residual,
    }
    hdu = make_table(
        f"MAP_{number}",
        [fits.Column(n, "D", unit="rad" if n in "XY" else None, array=v) for n, v in columns.items()],
    )
    hdu.header.append(make_card("DZ_M", m.dz, "[m] focus offset"))
    hdu.header.append(make_card("NOISE", m.noise, "standard error of a sample"))
    hdu.header.append(make_card("OFFSET", m.offset, "fitted baseline"))
    return hdu
