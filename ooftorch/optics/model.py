"""The forward model: parameters to beam maps.

`BeamModel` converts the coordinates described by a `Layout` into the power of every sample of every map. The
computation itself and its derivatives are in `Prediction`, what it is made of in `Parts`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.optics import basis as bases
from ooftorch.optics import illumination as illuminations
from ooftorch.optics.basis import SurfaceBasis
from ooftorch.optics.effect import Context
from ooftorch.optics.illumination.base import Illumination
from ooftorch.optics.instrument import Instrument, MapGeometry
from ooftorch.optics.parameters import Layout
from ooftorch.optics.parts import Parts, declare_layout
from ooftorch.optics.pixels import Pixels, Shape
from ooftorch.optics.prediction import Prediction
from ooftorch.optics.receiver import Receiver
from ooftorch.optics.telescope import Telescope

__all__ = ["BeamModel"]


class BeamModel(nn.Module):
    """Beam maps of a telescope as a differentiable function of its parameters.

    The module has one torch parameter, `coordinates`, described by `layout`; entries that the layout holds
    fixed get no gradient. The power of a map is gain * P + offset, with P the received power pattern
    normalised to the peak of the perfect telescope in focus. A gain is therefore that peak in the units of
    the data. `to` moves the model to another device or precision; `state_dict` has the coordinates.

    Parameters
    ----------
    telescope : Telescope
    wavelength : float
        Metres.
    maps : sequence of MapGeometry
        One per focus position, each with its own samples.
    order : int, optional
        Highest order of the basis; 5 for Zernikes by default.
    basis : str or SurfaceBasis
        A name of `basis.BASES`, or a basis.
    illumination : str or Illumination
        A name of `illumination.NAMES`, or a model.
    receiver : Receiver
    scale : float
        Typical power of the data: start value of the gains, and scale of the gains and offsets.
    n, oversample : int, float
        Aperture raster: see `Pixels`.
    shape : callable, optional
        Fixed phase (rad) added to that of the basis, a function of x, y (m): panels, a bump, a measured map.
    amplitude_order : int
        Highest radial order of the Zernike polynomials that bend the illumination; 0 for none.
    layout : Layout, optional
        The parameters: those of `declare_layout`, possibly with others free or fixed and more added.
    oo : OO, optional
        Device and precision; the CPU and float64 by default.

    Attributes
    ----------
    instrument : Instrument
    pixels : Pixels
    layout : Layout
    parts : Parts
        What it is computed with.

    Raises
    ------
    InputError
        If the wavelength is not positive, a name is unknown, the order is out of range, or the maps are too
        wide for the raster.
    """

    def __init__(
        self,
        telescope: Telescope,
        wavelength: float,
        maps: Sequence[MapGeometry],
        *,
        order: int | None = None,
        basis: str | SurfaceBasis = "zernike",
        illumination: str | Illumination = "gaussian",
        receiver: Receiver = Receiver(),  # noqa: B008  (frozen)
        scale: float = 1.0,
        n: int = 256,
        oversample: float = 2.0,
        shape: Shape | None = None,
        amplitude_order: int = 0,
        layout: Layout | None = None,
        oo: OO | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(wavelength) and wavelength > 0):
            raise InputError(f"wavelength {wavelength} m; expected a positive number of metres")
        self.instrument = instrument = Instrument(
            telescope,
            wavelength,
            receiver,
            illuminations.choose(illumination),
            bases.choose(basis, order),
            len(maps),
            scale,
            amplitude_order,
        )
        oo = oo or OO("cpu")
        self.telescope, self.wavelength, self.receiver = telescope, wavelength, receiver
        self.order = instrument.basis.order
        self._raster, self._shape = (n, oversample), shape
        self.maps = tuple(maps)
        self.dz = np.array([m.dz for m in maps], float)
        self.sizes = [len(m.x) for m in maps]
        self.pixels = pixels = Pixels(telescope, n, oversample)
        pixels.check_reach(((m.x, m.y) for m in maps), wavelength, n)
        self.layout = declare_layout(instrument) if layout is None else layout
        self.coordinates = nn.Parameter(oo(self.layout.coordinates()))
        self.parts = Parts(Context(instrument, self.layout, pixels, self.dz, shape, oo), self.maps)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BeamModel":
        super()._apply(fn, recurse)
        self.parts.move(fn)
        return self

    def nbytes(self) -> int:
        """Memory that the model holds, bytes."""
        return sum(t.nbytes for t in (*self.parameters(), *self.parts.tensors()))

    def with_layout(self, layout: Layout) -> "BeamModel":
        """Return the same model for another layout, with the parameters at their start values."""
        n, oversample = self._raster
        return BeamModel(
            self.telescope,
            self.wavelength,
            self.maps,
            basis=self.instrument.basis,
            illumination=self.instrument.illumination,
            receiver=self.receiver,
            scale=self.instrument.peak,
            n=n,
            oversample=oversample,
            shape=self._shape,
            amplitude_order=self.instrument.amplitude_order,
            layout=layout,
            oo=OO(self.coordinates.device, self.coordinates.dtype),
        )

    def aperture(self, coordinates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Amplitude and phase on the dish pixels, without defocus.

        Parameters
        ----------
        coordinates : Tensor, (..., n_parameters), optional
            The module's own when not given.

        Returns
        -------
        amplitude, phase : Tensor, (..., n_pixels)
            Phase in radians; at the positions `pixels.x`, `pixels.y`.
        """
        at = self.at(coordinates)
        return at.amplitude, at.phase

    def forward(self, coordinates: Tensor | None = None) -> Tensor:
        """Power of every sample of every map.

        Parameters
        ----------
        coordinates : Tensor, (..., n_parameters), optional
            The module's own when not given.

        Returns
        -------
        Tensor, (..., n_samples)
            All maps, one after the other, in the units of the data; `split` separates them.
        """
        return self.at(coordinates).samples

    def at(self, coordinates: Tensor | None = None) -> Prediction:
        """Predict the maps at the coordinates (..., n_parameters); the result also gives the derivatives."""
        return Prediction(self.parts, self._free_coordinates() if coordinates is None else coordinates)

    def split(self, samples: Tensor | np.ndarray) -> list:
        """Split an array along its last dimension, the samples of all maps, into one array per map."""
        return self.parts.groups.split(samples)

    def values(self) -> dict[str, float]:
        """Values of all parameters by name, in their units."""
        return self.layout.values(self.coordinates.detach().cpu().numpy())

    def set(self, **values: float) -> None:
        """Set parameters by name, in their units; InputError for a value that is absurd."""
        with torch.no_grad():
            for name, value in values.items():
                i = self.layout.index(name)
                self.layout.parameters[i].check(value)
                self.coordinates[i] = self.layout.parameters[i].coordinate(value)

    def reset(self) -> None:
        """Set every parameter to its start value."""
        with torch.no_grad():
            self.coordinates.copy_(torch.as_tensor(self.layout.coordinates()))

    def _free_coordinates(self) -> Tensor:
        free = torch.zeros_like(self.coordinates, dtype=torch.bool)
        free[self.layout.free] = True
        return torch.where(free, self.coordinates, self.coordinates.detach())
