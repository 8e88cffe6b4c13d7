"""Whether a module works at any batch size: run on tensors without values, their batch a symbol."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
    StatelessSymbolicContext,
)

from sam_deploy.lowering.batch import any_batch, quiet, with_batch
from sam_deploy.lowering.traps import BATCH_FIXED, BRANCH, Traps
from sam_deploy.reference.user_code import asked_directly, line_of

_BATCH = 3  # what the symbol stands for: neither 0 nor 1, which torch takes for constants


def find_fixed_batch(module: nn.Module, inputs: tuple[Any, ...], traps: Traps) -> None:
    """Add to `traps` the lines that make the batch a number, or decide by a value.

    torch.export would say neither the line nor, of several, all. It has the last word all the
    same: what it takes is no trap.
    """
    found = Traps(__file__)
    fake = FakeTensorMode(shape_env=_Sizes(found), allow_non_fake_inputs=True)

    def symbolic(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        static = [DimDynamic.STATIC] * (x.ndim - 1)
        context: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DUCK, *static])
        return fake.from_tensor(x, symbolic_context=context)

    given = tuple(symbolic(x) for x in with_batch(inputs, _BATCH))
    try:
        with enable_python_dispatcher(), fake, torch.no_grad():  # as torch.export does
            module(*given)
    except GuardOnDataDependentSymNode as error:
        traps.add(BRANCH, fatal=True, line=line_of(error))
        return
    except Exception:  # noqa: S110  # an operator without a fake form: the exporter will tell
        pass
    if found.fatal and not _is_exported(module, inputs):
        for trap in found.found.values():
            traps.add(trap.what, fatal=trap.fatal, line=trap.line)


class _Sizes(ShapeEnv):
    """Notices where user code makes the symbolic batch a number or compares it."""

    def __init__(self, traps: Traps) -> None:
        super().__init__()
        self._traps = traps

    def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
        """See ShapeEnv."""
        guards, fixed = len(self.guards), len(self.replacements)
        result = super().evaluate_expr(*args, **kwargs)
        # torch's own questions are about layouts, and hold for every batch
        asked = len(self.guards) > guards and asked_directly(__file__)
        if asked or len(self.replacements) > fixed:
            self._traps.add(BATCH_FIXED, fatal=True)
        return result


def _is_exported(module: nn.Module, inputs: tuple[Any, ...]) -> bool:
    given = with_batch(inputs, _BATCH)
    try:
        with quiet(), torch.no_grad():
            torch.export.export(module, given, dynamic_shapes=any_batch(given), strict=False)
    except Exception:  # it raises nearly anything
        return False
    return True
