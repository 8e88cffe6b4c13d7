"""Loads a bundle and runs it: what a service needs, without torch and without onnx."""

from sam_deploy.gpu_info import GpuInfo
from sam_deploy.runtime.backends import BACKENDS
from sam_deploy.runtime.chosen import Chosen
from sam_deploy.runtime.classes import Prediction
from sam_deploy.runtime.device_array import DeviceArray
from sam_deploy.runtime.engine import Engine
from sam_deploy.runtime.loading import load
from sam_deploy.runtime.machine import Machine, find_machine
from sam_deploy.runtime.onnx_runner import OnnxRunner, require_onnxruntime
from sam_deploy.runtime.passport import misfit
from sam_deploy.runtime.tensorrt_runner import TensorRTRunner

__all__ = [
    "BACKENDS",
    "Chosen",
    "DeviceArray",
    "Engine",
    "GpuInfo",
    "Machine",
    "OnnxRunner",
    "Prediction",
    "TensorRTRunner",
    "find_machine",
    "load",
    "misfit",
    "require_onnxruntime",
]
