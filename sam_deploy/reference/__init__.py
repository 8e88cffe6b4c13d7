"""The reference: the eager FP32 model as its user wrote it, never rewritten."""

from sam_deploy.reference.from_recipe import subject_from_recipe
from sam_deploy.reference.own import module_subject
from sam_deploy.reference.subject import Subject

__all__ = ["Subject", "module_subject", "subject_from_recipe"]
