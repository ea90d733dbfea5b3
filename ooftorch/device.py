"""Device and precision of tensors.

`OO` is the name in the paper (Nikolic 2018) of the function that offloads arrays to a GPU. There the device
is a global variable; here each `OO` object has its own, so two models can be on two devices.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ooftorch.errors import InputError

__all__ = ["OO", "Movable"]


class OO:
    """Convert arrays to tensors on one device in one floating-point precision.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"} or torch.device
        "auto" is CUDA if it is available, else the CPU.
    dtype : torch.float64 or torch.float32
        float64 by default: a minimiser compares nearly equal sums of squares.

    Raises
    ------
    InputError
        If the device is not one of these, or CUDA is not available.
    """

    def __init__(self, device: str | torch.device = "auto", dtype: torch.dtype = torch.float64) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        # Check the name first: torch accepts devices on which the model does not run.
        if str(device).partition(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"unknown device {device!r}; use auto, cpu or cuda")
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise InputError(f"unknown device {device!r}; use auto, cpu or cuda") from None
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device {device!r} asked for, but torch sees no CUDA device here; use cpu")
        self.dtype = dtype

    def __call__(self, array: ArrayLike | Tensor) -> Tensor:
        """Return `array` as a tensor on this device; floats in this precision, other types unchanged."""
        t = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
        return t.to(self.device, self.dtype if t.is_floating_point() else t.dtype)

    def __repr__(self) -> str:
        return f"OO(device={str(self.device)!r}, dtype={self.dtype})"


class Movable:
    """Base of objects with tensors that are not modules, but change device and precision with a module.

    Unlike in `torch.nn.Module.to`, complex tensors follow a change of the real precision.
    """

    def move(self, change: Callable[[Tensor], Tensor]) -> None:
        """Apply `change`, the function passed to `torch.nn.Module._apply`, to every tensor in the attributes.

        Lists and other `Movable` objects among the attributes are included.
        """
        for name, value in vars(self).items():
            setattr(self, name, _move_value(value, change))

    def tensors(self) -> Iterator[Tensor]:
        """Iterate over every tensor in the attributes, lists and `Movable` objects included."""
        yield from _find_tensors(list(vars(self).values()))


def _find_tensors(values: list[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Movable):
            yield from value.tensors()
        elif isinstance(value, list):
            yield from _find_tensors(value)


def _move_value(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        if value.is_complex():
            return torch.view_as_complex(change(torch.view_as_real(value)))
        return change(value)
    if isinstance(value, Movable):
        value.move(change)
    elif isinstance(value, list):
        return [_move_value(v, change) for v in value]
    return value
