"""sam-deploy: SMT out of PyTorch and into production, fast and provably the same model.

`export` any module and `load` its bundle here; importing this package imports neither torch nor
onnx.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_deploy.exporter import Export, export
    from sam_deploy.plans import BatchProfile, PlanOptions
    from sam_deploy.preprocess import Preprocessing
    from sam_deploy.quantization import Quantization
    from sam_deploy.recipe import Island, Tolerances
    from sam_deploy.rewrite_options import RewriteOptions
    from sam_deploy.runtime import Engine, load
    from sam_deploy.testing import assert_parity

__version__ = version("sam-deploy")
__all__ = [
    "BatchProfile",
    "Engine",
    "Export",
    "Island",
    "PlanOptions",
    "Preprocessing",
    "Quantization",
    "RewriteOptions",
    "Tolerances",
    "assert_parity",
    "export",
    "load",
]
_HOMES = {
    "BatchProfile": "plans",
    "Engine": "runtime",
    "Export": "exporter",
    "Island": "recipe",
    "PlanOptions": "plans",
    "Preprocessing": "preprocess",
    "Quantization": "quantization",
    "RewriteOptions": "rewrite_options",
    "Tolerances": "recipe",
    "assert_parity": "testing",
    "export": "exporter",
    "load": "runtime",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sam_deploy.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
