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
    """Geometry of one map.

    Attributes
    ----------
    dz : float
        Focus offset, metres.
    x, y : ndarray, (n,)
        Directions, radians, telescope minus source.
    smear : ndarray (2, n) or None
        Vector along x and y, radians, from where the telescope points at the begin of each sample to where at
        its end, with the direction in the middle; None if it stands still.
    """

    dz: float
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    smear: NDArray[np.float64] | None = None

    def select(self, samples: NDArray[np.int64] | slice) -> "MapGeometry":
        """Return the geometry of some of the samples."""
        smear = None if self.smear is None else self.smear[:, samples]
        return MapGeometry(self.dz, self.x[samples], self.y[samples], smear)

    def has_directions_of(self, other: "MapGeometry") -> bool:
        """Whether the samples of two maps have the same directions, and are smeared alike."""
        if (self.smear is None) != (other.smear is None):
            return False
        return all(
            np.array_equal(a, b)
            for a, b in ((self.x, other.x), (self.y, other.y), (self.smear, other.smear))
            if a is not None and b is not None
        )


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
