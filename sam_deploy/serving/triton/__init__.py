"""Bundles as a model repository for NVIDIA's Triton Inference Server."""

from sam_deploy.serving.triton.repository import Written, write_repository

__all__ = ["Written", "write_repository"]
