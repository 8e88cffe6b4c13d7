"""ONNX to ONNX: which node computes in which type, and the audit that it is so."""

from sam_deploy.precision.audit import audit_precision
from sam_deploy.precision.automatic import check_share, fp32_only_islands, overflow_islands
from sam_deploy.precision.fp16 import to_fp16
from sam_deploy.precision.ranges import largest_in_fp16, largest_values, write_instrumented

__all__ = [
    "audit_precision",
    "check_share",
    "fp32_only_islands",
    "largest_in_fp16",
    "largest_values",
    "overflow_islands",
    "to_fp16",
    "write_instrumented",
]
