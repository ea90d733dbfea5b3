"""The instrument: telescope, receiver, illumination and surface basis, which decide the parameters."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ooftorch.errors import InputError
from ooftorch.optics.basis import MAX_ORDER, SurfaceBasis
from ooftorch.optics.illumination.base import Illumination
from ooftorch.optics.receiver import Receiver
from ooftorch.optics.telescope import Telescope

__all__ = ["Instrument", "MapGeometry"]


class MapGeometry(NamedTuple):
    """Geometry of one map: focus offset dz (m) and directions x, y (n,), radians, telescope minus source."""

    dz: float
    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Instrument:
    """Everything that determines which parameters a model has.

    Attributes
    ----------
    telescope : Telescope
    wavelength : float
        Metres.
    receiver : Receiver
    illumination : Illumination
    basis : SurfaceBasis
    n_maps : int
    peak : float
        Typical power of the data: start value of the gains, and scale of the gains and offsets.
    amplitude_order : int
        Highest radial order of the Zernike polynomials that bend the illumination; 0 for none.

    Raises
    ------
    InputError
        If the amplitude order is out of range.
    """

    telescope: Telescope
    wavelength: float
    receiver: Receiver
    illumination: Illumination
    basis: SurfaceBasis
    n_maps: int
    peak: float
    amplitude_order: int = 0

    def __post_init__(self) -> None:
        if self.amplitude_order != 0 and not 2 <= self.amplitude_order <= MAX_ORDER:
            raise InputError(
                f"amplitude order {self.amplitude_order}; expected 2 to {MAX_ORDER}, or 0 for an "
                "illumination that does not bend"
            )

    @property
    def beam(self) -> float:
        """Wavelength over diameter, radians."""
        return self.wavelength / (2 * self.telescope.radius)
