"""The orchestration: recipe in, bundle out."""

from sam_deploy.exporter.export import Export, export_recipe
from sam_deploy.exporter.subject import Subject, subject_from_recipe

__all__ = ["Export", "Subject", "export_recipe", "subject_from_recipe"]
