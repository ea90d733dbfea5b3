"""Base class of the illumination models, and the parameters that several of them share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ooftorch.optics.parameters import Parameter
from ooftorch.optics.telescope import UsualIllumination

__all__ = ["Illumination", "LogDerivatives", "declare_amplitude", "declare_centre"]

LogDerivatives = Mapping[str, Callable[[], Tensor]]
"""Derivatives of the log amplitude by parameter name; each is a function, called only if it is needed."""

# Standard deviation of the prior on the centre of the illumination, in dish radii.
_CENTRE_PRIOR = 0.05


class Illumination(ABC):
    """Amplitude of the aperture field as a function of the aperture coordinates and of named parameters.

    Attributes
    ----------
    name : str
        Name on the command line and in files.
    has_edge : bool
        Whether the amplitude ends at a sharp edge, the parameter `radius` (in dish radii), instead of falling
        off towards the rim.
    amplitude : method (x, y, pitch, *, its parameters by name) to Tensor, (..., n)
        Amplitude (field) at the points x, y (n,) of the aperture, over the dish radius, for pixels of size
        `pitch` over the dish radius. Parameters are numbers, or tensors (..., 1) for a batch.
    log_derivatives : method (the same arguments) to LogDerivatives
        Derivatives of the logarithm of the amplitude with respect to each parameter.
    """

    name: str
    has_edge: bool = False
    amplitude: Callable[..., Tensor]
    log_derivatives: Callable[..., LogDerivatives]

    @abstractmethod
    def declare(self, usual: UsualIllumination, dish_radius: float) -> Sequence[Parameter]:
        """Parameters of the model, with start values for a telescope.

        Parameters
        ----------
        usual : UsualIllumination
            The usual illumination of the telescope.
        dish_radius : float
            Metres.
        """


def declare_centre() -> list[Parameter]:
    """Centre of the illumination, x0 and y0."""
    return [Parameter(name, "R", 0.0, free=True, prior=_CENTRE_PRIOR) for name in ("x0", "y0")]


def declare_amplitude() -> Parameter:
    """Peak amplitude; not observable, because it is degenerate with the gains of the maps."""
    return Parameter("amp", "", 1.0, log=True, unobservable="the maps' gains stand for it")
