"""PyTorch to PyTorch: the same function as a static graph, one proven rule at a time."""

from sam_deploy.report import RewriteReport
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites.pipeline import PIPELINE, rewrite

__all__ = ["PIPELINE", "RewriteOptions", "RewriteReport", "rewrite"]
