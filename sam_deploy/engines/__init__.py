"""ONNX to TensorRT plans, for TensorRT 10, 11 and TensorRT-RTX. Nothing here runs a plan."""

from sam_deploy.engines.choosing import chosen
from sam_deploy.engines.plan_from_onnx import plan_from_onnx
from sam_deploy.engines.rebuild import Rebuilt, rebuild

__all__ = ["Rebuilt", "chosen", "plan_from_onnx", "rebuild"]
