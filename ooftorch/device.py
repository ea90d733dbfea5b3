"""Where tensors live and in which precision.

`OO` is the paper's name for the function that offloads arrays to a GPU. There it asked a global
variable; here each `OO` knows its own device, so two models may live on two devices.
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
    """Put arrays onto one device in one floating-point precision.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"} or torch.device
        "auto" takes a CUDA device when there is one.
    dtype : torch.float64 or torch.float32
        float64 by default: the step tests of a minimiser compare nearly equal sums.

    Raises
    ------
    InputError
        A device that torch does not know, or CUDA where there is none.
    """

    def __init__(self, device: str | torch.device = "auto", dtype: torch.dtype = torch.float64) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        # By name first: torch knows more devices than a model can live on.
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
        """Return `array` as a tensor here: floats in this precision, booleans and integers kept."""
        t = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
        return t.to(self.device, self.dtype if t.is_floating_point() else t.dtype)

    def __repr__(self) -> str:
        return f"OO(device={str(self.device)!r}, dtype={self.dtype})"


class Movable:
    """Something that holds tensors beside a `torch.nn.Module`, and moves and changes precision with it.

    Complex tensors follow a change of the real precision, which `torch.nn.Module.to` does not do.
    """

    def move(self, change: Callable[[Tensor], Tensor]) -> None:
        """Apply `change`, as `torch.nn.Module._apply` has it, to every tensor held, directly or below."""
        for name, value in vars(self).items():
            setattr(self, name, _move_value(value, change))

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor held, directly or below."""
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
