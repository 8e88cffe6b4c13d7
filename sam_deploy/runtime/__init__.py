"""Loads a bundle and runs it: what a service needs, without torch and without onnx."""

from sam_deploy.runtime.engine import Engine, Prediction, load
from sam_deploy.runtime.onnx_runner import OnnxRunner, require_onnxruntime

__all__ = ["Engine", "OnnxRunner", "Prediction", "load", "require_onnxruntime"]
