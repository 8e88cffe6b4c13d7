"""ONNX to ONNX: which node computes in which type, and the audit that it is so."""

from sam_deploy.precision.audit import audit_precision
from sam_deploy.precision.fp16 import to_fp16

__all__ = ["audit_precision", "to_fp16"]
