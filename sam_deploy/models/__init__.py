"""Eager PyTorch SMT under its official names: the reference every artefact is held against."""

from sam_deploy.architecture import list_models
from sam_deploy.models.registry import create_model
from sam_deploy.models.sam import SAM
from sam_deploy.models.smt import SMT

__all__ = ["SAM", "SMT", "create_model", "list_models"]
