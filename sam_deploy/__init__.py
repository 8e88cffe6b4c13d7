"""sam-deploy: SMT out of PyTorch and into production, fast and provably the same model.

`load` a bundle here; importing this package imports neither torch nor onnx.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_deploy.runtime import Engine, load

__version__ = version("sam-deploy")
__all__ = ["Engine", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sam_deploy import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
