"""What can be told of arrays on a GPU without one, and that failures of CUDA are told in words."""

import numpy as np
import pytest
import torch

from sam_deploy.errors import InputError, MachineError
from sam_deploy.runtime import find_machine
from sam_deploy.runtime.gpu import Gpu, _contiguous, is_on_gpu, told

without_gpu = pytest.mark.skipif(find_machine([]).gpu is not None, reason="this machine has a GPU")


class Says:
    def __init__(self, kind):
        self.kind = kind

    def __dlpack_device__(self):
        if self.kind is None:
            raise BufferError("it will not say")
        return self.kind, 0


class CudaArray:
    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros(3), False),
        (torch.zeros(3), False),
        (torch.zeros(3, device="meta"), False),
        ([1.0], False),
        (None, False),
        (Says(1), False),
        (Says(2), True),
        (Says(3), False),  # page-locked host memory
        (Says(13), True),
        (Says(None), False),
        (CudaArray(), True),
    ],
)
def test_what_is_on_a_gpu(x, expected):
    assert is_on_gpu(x) is expected


@pytest.mark.parametrize(
    "x", [np.zeros((2, 3, 4)), np.zeros((2, 1, 4))[:, :, ::1], np.zeros((1, 5))[::3], np.zeros(())]
)
def test_contiguous_is_what_numpy_calls_it(x):
    for form in (x, x.T, x[..., :1] if x.ndim else x):
        strides = tuple(stride // form.itemsize for stride in form.strides)
        assert _contiguous(form.shape, strides) == form.flags.c_contiguous


class FakeStream:
    handle = -1  # DLPack's word for: do not wait


def test_a_view_is_an_address_and_not_a_copy():
    """With an array on the CPU, which is refused for its device alone."""
    with pytest.raises(InputError, match=r"the input is on GPU -1 as float32; expected numbers on"):
        GpuHere().view(np.zeros((2, 3), np.float32), FakeStream())


class GpuHere(Gpu):
    """Its device is where numpy's arrays are, so that views can be taken of them."""

    number = 0

    @property
    def _device(self):
        return self

    @property
    def device_id(self):
        return self.number


def test_views_of_what_is_there(monkeypatch):
    monkeypatch.setattr(GpuHere, "number", -1)
    x = np.arange(6, dtype=np.float16).reshape(2, 3)
    for form in (x, torch.from_numpy(x)):
        view = GpuHere().view(form, FakeStream())
        assert (view.address, view.shape, view.dtype) == (x.ctypes.data, (2, 3), np.float16)
    with pytest.raises(InputError, match=r"strides \(1, 3\); expected it contiguous"):
        GpuHere().view(x.T, FakeStream())
    for wrong in (object(), torch.zeros(2, requires_grad=True), torch.zeros(2, device="meta")):
        with pytest.raises(InputError, match="cannot be taken from the GPU"):
            GpuHere().view(wrong, FakeStream())


def test_cuda_errors_are_told():
    said = "the GPU failed at allocating: out of memory"
    with pytest.raises(MachineError, match=said), told("allocating"):
        raise RuntimeError("out of memory")
    with pytest.raises(InputError, match=r"^as it is$"), told("allocating"):
        raise InputError("as it is")


@without_gpu
def test_without_a_gpu_it_says_so():
    machine = find_machine([])
    assert machine.gpu is None
    assert machine.no_gpu.startswith("this machine has no NVIDIA GPU or no driver: ")
    assert "\n" not in machine.no_gpu
    with pytest.raises(MachineError, match="the GPU failed at its start"), Gpu().current():
        raise AssertionError
