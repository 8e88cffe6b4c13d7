"""PyTorch to PyTorch: the same function as a static graph, one proven rule at a time."""

from sam_deploy.report import RewriteReport
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Refused, Rule
from sam_deploy.rewrites._run import evaluation_copy
from sam_deploy.rewrites.pipeline import PIPELINE, rewrite
from sam_deploy.rewrites.static import static_paths

__all__ = [
    "PIPELINE",
    "Refused",
    "RewriteOptions",
    "RewriteReport",
    "Rule",
    "evaluation_copy",
    "rewrite",
    "static_paths",
]
