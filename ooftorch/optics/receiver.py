"""How a receiver records power: a single beam, a chopped pair, an extended source."""

from dataclasses import dataclass

__all__ = ["Receiver"]


@dataclass(frozen=True)
class Receiver:
    """A receiver: a single beam or a differenced pair, and the size of the source.

    Attributes
    ----------
    chop_x, chop_y : float
        Separation of the two beams of a differencing receiver, radians; the positive beam sits at plus
        half of it, the negative one at minus half (original OOF software, `hchop`, `vchop`). Zero: a
        single beam.
    gain_ratio : float
        Power of the negative beam over that of the positive one (`beamgainf`).
    disc_radius : float
        Angular radius of a uniform source, radians. Zero: a point.
    """

    chop_x: float = 0.0
    chop_y: float = 0.0
    gain_ratio: float = 1.0
    disc_radius: float = 0.0

    @property
    def chopped(self) -> bool:
        """Whether two beams are differenced."""
        return self.chop_x != 0.0 or self.chop_y != 0.0
