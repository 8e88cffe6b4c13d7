"""TensorRT 10, 11 and TensorRT-RTX as Python packages: which are here, and what they say."""

from sam_deploy.tensorrt_family.log import Log, Said, log_of
from sam_deploy.tensorrt_family.member import FULL_NAME, Member, member

__all__ = ["FULL_NAME", "Log", "Member", "Said", "log_of", "member"]
