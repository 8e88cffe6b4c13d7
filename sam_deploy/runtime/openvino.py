"""OpenVINO as ONNX Runtime has it: a provider in a package of its own, plugged in when wanted."""

from __future__ import annotations

import json
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sam_deploy.errors import MachineError

OPENVINO = "OpenVINOExecutionProvider"
_PACKAGE = "onnxruntime_ep_openvino"
# On CPUs with AMX its default is BF16, in silence: FP32 is FP32.
_LOAD_CONFIG = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "f32"}})
_once = threading.Lock()


def openvino_lacks() -> str | None:
    """Why OpenVINO's provider cannot be tried here; None where its package is installed."""
    if find_spec(_PACKAGE) is None:
        return "OpenVINO's provider is not installed. Run: pip install 'sam-deploy[openvino]'"
    return None


def add_openvino(onnxruntime: Any, options: Any) -> None:
    """Have a session made with `options` run on OpenVINO's CPU device, in FP32.

    Raises:
        MachineError: the package is not installed, does not load, or takes no device of this
            machine (it knows Intel's alone).
    """
    if lacking := openvino_lacks():
        raise MachineError(lacking)
    devices = [
        device for device in _devices(onnxruntime) if "CPU" in str(device.device.type).upper()
    ]
    if not devices:
        vendor = _cpu_vendor(onnxruntime)
        raise MachineError(
            f"OpenVINO's provider takes no device of this machine{vendor}; it runs on Intel's."
        )
    options.add_provider_for_devices(devices, {"load_config": _LOAD_CONFIG})


def _devices(onnxruntime: Any) -> list[Any]:
    """Its devices; the library is registered at the first time, for the whole process."""

    def known() -> list[Any]:
        return [d for d in onnxruntime.get_ep_devices() if d.ep_name == OPENVINO]

    with _once:
        if found := known():
            return found
        try:
            package = import_module(_PACKAGE)
            onnxruntime.register_execution_provider_library(OPENVINO, package.get_library_path())
        except Exception as error:  # its exception classes are not public
            if "already registered" not in str(error):
                raise MachineError(f"OpenVINO's provider does not load: {error}") from None
        return known()


def _cpu_vendor(onnxruntime: Any) -> str:
    vendors = {
        d.device.vendor for d in onnxruntime.get_ep_devices() if "CPU" in str(d.device.type).upper()
    }
    return f" (CPU: {', '.join(sorted(map(str, vendors)))})" if vendors else ""
