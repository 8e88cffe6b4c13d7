"""ONNX to TensorRT plans, for TensorRT 10, 11 and TensorRT-RTX. Nothing here runs a plan."""

from sam_deploy.engines.audit import audit_network
from sam_deploy.engines.choosing import chosen
from sam_deploy.engines.family import Member, installed, member, require_builder
from sam_deploy.engines.plan_from_onnx import plan_from_onnx
from sam_deploy.engines.rebuild import Rebuilt, rebuild
from sam_deploy.engines.targets import target_capabilities

__all__ = [
    "Member",
    "Rebuilt",
    "audit_network",
    "chosen",
    "installed",
    "member",
    "plan_from_onnx",
    "rebuild",
    "require_builder",
    "target_capabilities",
]
