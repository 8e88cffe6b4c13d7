"""ONNX to ONNX: which node computes in which type, and the audit that it is so."""

from sam_deploy.precision.audit import audit_precision
from sam_deploy.precision.fp16 import to_fp16
from sam_deploy.precision.ranges import check_ranges, largest_values, write_instrumented

__all__ = [
    "audit_precision",
    "check_ranges",
    "largest_values",
    "to_fp16",
    "write_instrumented",
]
