import ctypes
import subprocess
import sys

import pytest

from sam_deploy.errors import MachineError
from sam_deploy.gpu_info import find_gpu


class Driver:
    """The functions of libcuda that are asked; `errors` are what they answer with."""

    def __init__(self, **errors):
        self.errors = errors

    def cuInit(self, flags):
        return self.errors.get("cuInit", 0)

    def cuDeviceGet(self, device, number):
        return self.errors.get("cuDeviceGet", 0)

    def cuDeviceGetName(self, name, size, device):
        name.value = b"NVIDIA L4"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 9}[attribute]
        return self.errors.get("cuDeviceGetAttribute", 0)

    def cuGetErrorString(self, error, text):
        text._obj.value = {100: b"no CUDA-capable device is detected"}.get(error)
        return 0


def with_driver(monkeypatch, driver):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)


def test_its_name_and_capability(monkeypatch):
    with_driver(monkeypatch, Driver())
    assert find_gpu() == ("NVIDIA L4", "8.9")


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (Driver(cuInit=100), "no CUDA-capable device is detected"),
        (Driver(cuDeviceGet=101), "CUDA error 101"),
        (Driver(cuDeviceGetAttribute=1), "CUDA error 1"),
        (object(), "'object' object has no attribute 'cuInit'"),  # a stand-in for a driver
    ],
)
def test_a_driver_that_refuses_is_quoted(monkeypatch, driver, said):
    with_driver(monkeypatch, driver)
    with pytest.raises(MachineError) as caught:
        find_gpu()
    assert str(caught.value) == f"this machine has no NVIDIA GPU or no driver: {said}"
    assert caught.value.exit_code == 3


def test_it_needs_no_cuda_package():
    code = (
        "import sys\nsys.modules['cuda'] = None\nfrom sam_deploy import gpu_info\n"
        "try: print(gpu_info.find_gpu())\nexcept gpu_info.MachineError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
