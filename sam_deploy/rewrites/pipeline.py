"""The rewriting pass: the ordered list of rules, and the gate behind each of them."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sam_deploy.errors import InputError, RewriteError
from sam_deploy.report import Refusal, RewriteReport, RuleReport
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._probe import FLOAT64_TOLERANCE, tensors, worst_difference
from sam_deploy.rewrites._rule import Rule, RuleLog, apply_rule
from sam_deploy.rewrites.rules import (
    dense_aggregation,
    fold_attention_scale,
    fold_batch_norm,
    fold_head_shuffle,
    fold_layer_scale,
    fold_mlp_residual,
    inference_only,
    join_projections,
    linear_form,
    merge_heads,
    static_shapes,
)

# Order matters: folds into linear maps come before those are joined or change their form.
PIPELINE: list[Rule[Any]] = [
    inference_only.RULE,
    static_shapes.RULE,
    fold_batch_norm.RULE,
    fold_layer_scale.RULE,
    fold_attention_scale.RULE,
    fold_mlp_residual.RULE,
    merge_heads.RULE,
    dense_aggregation.RULE,
    fold_head_shuffle.RULE,
    join_projections.RULE,
    linear_form.RULE,
]


def rewrite(
    module: nn.Module, example_inputs: tuple[Any, ...], options: RewriteOptions | None = None
) -> tuple[nn.Module, RewriteReport]:
    """`module` as a static graph, still a plain PyTorch module, and what was done to it.

    `module` is left untouched and is taken in evaluation mode. `example_inputs` are its positional
    arguments; the image size they have is the one the result is for, the batch size stays free.
    Rules are applied in float64; after each that fired, the whole module is compared with the
    untouched one on `example_inputs`.

    Raises:
        RewriteError: a rule changed the function: relative RMS above 1e-10 in float64.
        InputError: `module` does not run on `example_inputs`, or gives constants on them.
    """
    options = options or RewriteOptions()
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    working = _float64_copy(module)
    inputs = pytree.tree_map_only(Tensor, _to_float64, example_inputs)
    try:
        reference = _run(working, inputs)
    except Exception as error:
        raise InputError(
            f"the module does not run in float64 on the example inputs: {type(error).__name__}: "
            f"{error}. Check the inputs' shapes, and that forward makes no tensor of a fixed dtype."
        ) from error
    if all(output.numel() < 2 or output.std() == 0 for output in reference.outputs):
        raise InputError(
            "the module's outputs on the example inputs are constant (or there are none), so "
            "comparing them would prove nothing. Give random example inputs."
        )
    inference_only.forget_stored(working)

    before = count = reference.operators
    logs: list[RuleLog] = []
    counts: list[int] = []
    for rule in PIPELINE:
        working, log = apply_rule(working, rule, options)
        logs.append(log)
        if log.fired:
            count = _held(working, inputs, reference, logs)
        counts.append(count)
    return working.to(dtype).eval(), _report(before, logs, counts)


class _Run(NamedTuple):
    """What one forward pass gave, and how many operators it ran."""

    outputs: list[Tensor]
    operators: int


class _OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that PyTorch dispatches."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        return func(*args, **(kwargs or {}))


def _run(module: nn.Module, inputs: tuple[Any, ...]) -> _Run:
    with torch.no_grad(), _OperatorCount() as count:
        outputs = module(*inputs)
    return _Run(tensors(outputs), count.operators)


def _held(module: nn.Module, inputs: tuple[Any, ...], reference: _Run, logs: list[RuleLog]) -> int:
    """Hold the module against the untouched one; the operators that it ran."""
    run = _run(module, inputs)
    difference = worst_difference(run.outputs, reference.outputs)
    if not difference <= FLOAT64_TOLERANCE:
        *earlier, last = logs
        before = ", ".join(log.rule for log in earlier if log.fired) or "none"
        raise RewriteError(
            f"rule {last.rule} changed what the module computes: relative RMS {difference:.1e} in "
            f"float64, allowed {FLOAT64_TOLERANCE:.0e}. It fired at {', '.join(last.fired[:5])}; "
            f"rules before it: {before}. This is a bug in the rule: please report it."
        )
    return run.operators


def _float64_copy(module: nn.Module) -> nn.Module:
    # Tensors that a forward stored carry a graph and refuse to be copied: let the copy share them.
    stored = (v for m in module.modules() for v in vars(m).values() if isinstance(v, Tensor))
    memo: dict[int, Any] = {id(tensor): tensor.detach() for tensor in stored}
    return copy.deepcopy(module, memo).double().eval()


def _to_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _report(before: int, logs: list[RuleLog], counts: list[int]) -> RewriteReport:
    return RewriteReport(
        operators_before=before,
        rules=[
            RuleReport(
                rule=log.rule,
                fired=len(log.fired),
                operators_after=count,
                refused=[Refusal(module=path, reason=reason) for path, reason in log.refused],
            )
            for log, count in zip(logs, counts, strict=True)
        ],
    )
