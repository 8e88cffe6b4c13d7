"""For the tests of whoever ships a bundle; importing it imports neither torch nor onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from sam_deploy.verification import ParityResult


def assert_parity(
    bundle: str | Path,
    *,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    module: nn.Module | None = None,
    example_inputs: Any = None,
    labels: bool = True,
    limit: int | None = None,
    require: tuple[str, ...] = (),
    against: str | Path | None = None,
    allow_looser: bool = False,
    **tolerances: float,
) -> ParityResult:
    """Hold the bundle against the PyTorch model that it was made from, as `sam-parity` does.

    Args:
        bundle: Its folder.
        weights: The checkpoint that was exported; none for seeded random weights.
        data: A folder of images (in a folder for each class where classes are known) or an .npz.
        module: A network of your own in place of a checkpoint, with its `example_inputs`.
        example_inputs: As they were given to `sam_deploy.export`.
        labels: Whether folders are classes.
        limit: So many of the samples, spread over all.
        require: Backends that must run here: "onnxruntime", "tensorrt", "tensorrt-rtx".
        against: The receipt of an earlier bundle that this one must be as good as.
        allow_looser: Whether `tolerances` may loosen the recipe's.
        tolerances: Tighter ones than the recipe's, by the names they have there.

    Returns what was found.

    Raises:
        AssertionError: it did not pass; the message says why.
        BundleError: not a bundle, or damaged.
        InputError: weights or data that do not fit.
        MachineError: something that is required is missing here.
    """
    __tracebackhide__ = True
    from sam_deploy.verification import Asked, verify

    result = verify(
        Path(bundle),
        Asked(
            weights=None if weights is None else Path(weights),
            data=None if data is None else Path(data),
            module=module,
            example_inputs=example_inputs,
            labels="required to fit" if labels else "none",
            limit=limit,
            require=require,
            against=None if against is None else Path(against),
            allow_looser=allow_looser,
            tolerances=tolerances,
        ),
    )
    if not result.passed:
        reasons = "\n  ".join(result.failures)
        raise AssertionError(f"{bundle} is not the model it was made from:\n  {reasons}")
    return result
