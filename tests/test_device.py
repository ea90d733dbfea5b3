"""OO: where tensors go and what becomes of their numbers."""

import numpy as np
import pytest
import torch

from ooftorch.device import OO
from ooftorch.errors import InputError
from ooftorch.optics import telescopes
from ooftorch.optics.instrument import MapGeometry
from ooftorch.optics.model import BeamModel

HAS_CUDA = torch.cuda.is_available()
NEEDS_CUDA = pytest.mark.skipif(not HAS_CUDA, reason="torch sees no CUDA device here")
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_floats_take_the_precision_and_the_rest_is_kept(device, dtype):
    oo = OO(device, dtype)
    kept = {np.bool_: torch.bool, np.int64: torch.int64, np.int32: torch.int32}
    floats = [np.float64, np.float32, np.float16]
    for given, expected in kept.items() | {(f, dtype) for f in floats}:
        for array in (np.ones((2, 3), given), torch.ones(2, 3).to(getattr(torch, np.dtype(given).name))):
            found = oo(array)
            assert found.dtype == expected
            assert found.device.type == device
            assert found.shape == (2, 3)
    third = oo(1 / 3)
    assert (float(third) == 1 / 3) == (dtype == torch.float64)
    assert oo([1.0, 2.0]).dtype == dtype


def test_double_on_the_cpu_is_exact_and_the_default_precision():
    values = np.random.default_rng(0).standard_normal(50)
    assert OO().dtype == torch.float64
    np.testing.assert_array_equal(OO("cpu")(values).numpy(), values)


def test_the_callers_array_is_copied():
    array = np.arange(4.0)
    tensor = OO("cpu")(array)
    array[0] = 9
    tensor[1] = 7
    assert tensor.tolist() == [0, 7, 2, 3]
    assert array.tolist() == [9, 1, 2, 3]
    array.setflags(write=False)  # and one that is read-only gives no warning
    assert OO("cpu")(array).tolist() == array.tolist()


def test_gradients_pass_through():
    leaf = torch.ones(3, dtype=torch.float32, requires_grad=True)
    OO("cpu")(leaf).square().sum().backward()
    assert leaf.grad.tolist() == [2, 2, 2]


def test_two_of_them_share_nothing():
    default = torch.get_default_dtype()
    single, double = OO("cpu", torch.float32), OO("cpu")
    assert (single(1.0).dtype, double(1.0).dtype, single(1.0).dtype) == (
        torch.float32,
        torch.float64,
        torch.float32,
    )
    assert torch.get_default_dtype() == default
    assert torch.ones(1).dtype == default


def test_auto_takes_cuda_where_there_is_one():
    assert OO("auto").device.type == ("cuda" if HAS_CUDA else "cpu")
    assert repr(OO("cpu")) == "OO(device='cpu', dtype=torch.float64)"
    assert OO(torch.device("cpu")).device.type == "cpu"


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x"])
def test_unknown_device(device):
    with pytest.raises(InputError, match=r"unknown device .*; use auto, cpu or cuda") as caught:
        OO(device)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(HAS_CUDA, reason="torch has a CUDA device here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_is_refused_where_there_is_none(device):
    with pytest.raises(InputError, match=f"device '{device}' asked for, but .* use cpu") as caught:
        OO(device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
def test_the_beam_is_the_same_everywhere(device, dtype, tolerance):
    rng = np.random.default_rng(2)
    wavelength = 3e-3
    x, y = rng.uniform(-3, 3, (2, 40)) * wavelength / 12
    beams, gradients = [], []
    for oo in (OO("cpu"), OO(device, dtype)):
        maps = [MapGeometry(dz, x, y) for dz in (-2e-3, 2e-3)]
        model = BeamModel(telescopes.load("alma"), wavelength, maps, order=3, n=32, oo=oo)
        model.set(z3=0.7, z5=-0.4, z7=0.5, z8=0.2)
        power = model()
        power.sum().backward()
        assert power.device.type == oo.device.type
        assert power.dtype == oo.dtype
        assert model.coordinates.dtype == oo.dtype
        beams.append(power.detach().cpu().double())
        gradients.append(model.coordinates.grad.cpu().double())
    torch.testing.assert_close(beams[1], beams[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=100 * tolerance)
