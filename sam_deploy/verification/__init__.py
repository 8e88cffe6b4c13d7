"""A bundle against its PyTorch model: what `sam-parity` does, and what it finds."""

from sam_deploy.verification.asked import Asked
from sam_deploy.verification.result import ParityResult
from sam_deploy.verification.verify import verify

__all__ = ["Asked", "ParityResult", "verify"]
