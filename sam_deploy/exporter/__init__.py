"""The orchestration: a recipe, or any module, in; a bundle out."""

from sam_deploy.exporter.export_module import export
from sam_deploy.exporter.request import Request
from sam_deploy.exporter.stages import Export, export_recipe

__all__ = ["Export", "Request", "export", "export_recipe"]
