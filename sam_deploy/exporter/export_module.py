"""`sam_deploy.export`: a bundle of any module, by the same stages as a model that we know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from sam_deploy.bundle import bundle_path
from sam_deploy.errors import InputError
from sam_deploy.exporter.request import Request
from sam_deploy.exporter.stages import Export, export_subject
from sam_deploy.plans import PlanOptions
from sam_deploy.preprocess import Preprocessing
from sam_deploy.progress import Progress
from sam_deploy.quantization import Quantization
from sam_deploy.recipe import (
    MAX_ISLAND_MACS,
    FloatPrecision,
    Island,
    Precision,
    Tolerances,
    recipe_from_dict,
)
from sam_deploy.reference.own import module_subject
from sam_deploy.rewrites import RewriteOptions, Rule


def export(
    module: nn.Module,
    example_inputs: Any,
    *,
    out: str | Path,
    precision: Precision = "fp32",
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
    tolerances: Tolerances | None = None,
    data: str | Path | None = None,
    batch: int | None = None,
    io_dtype: FloatPrecision = "fp32",
    rewrites: RewriteOptions | None = None,
    pipeline: Sequence[Rule[Any]] | None = None,
    islands: Sequence[Island] = (),
    allow_islands: float = MAX_ISLAND_MACS,
    calibration: str | Path | Iterable[Any] | None = None,
    quantization: Quantization | None = None,
    sensitivity: bool = False,
    max_drop: float | None = None,
    ship_best: bool = False,
    tune_s: float | None = None,
    plans: PlanOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Export `module` into the bundle `out`, which appears complete or not at all.

    `module` is left untouched; a copy on the CPU, in FP32 and evaluation mode, is the reference.
    SAM, SMT's attention, MLP and blocks inside it are rewritten to static graphs; the rest of the
    network goes through PyTorch's ONNX exporter as it is.

    Args:
        module: Any network whose inputs and outputs are tensors (outputs also tuples, lists or
            dicts of them).
        example_inputs: Its positional arguments as a tuple, or the only one. Tensors have the
            batch in dimension 0; every other size is that of the bundle.
        out: The bundle's folder; with `force` a bundle that is there is replaced.
        precision: "fp32", "fp16", "int8" or "fp8"; of the last two FP16 is what stays in floats.
        input_names: Of the tensors; default "input" for one, forward's parameter names for more.
        output_names: In order; default "output" for one, else from keys and positions.
        preprocessing: How an image becomes the input, for networks with one of (B, 3, H, W); then
            parity may be measured on images, and is on built-in ones where there is no `data`.
        class_names: Makes a classifier of a network whose output is (B, classes) of logits.
        tolerances: What parity is held to; default `DEFAULT_TOLERANCES[precision]`.
        data: A folder of images (with `preprocessing`) or an .npz of arrays by input name with
            samples in dimension 0. Default the example inputs.
        batch: A fixed batch size; without it the batch is dynamic.
        io_dtype: "fp16" gives inputs and outputs that type too.
        rewrites: Which of the rules' equal forms.
        pipeline: The rules, if not `sam_deploy.rewrites.PIPELINE`: with one of your own in it.
        islands: Modules that stay in FP32; what FP16 cannot hold is added by itself.
        allow_islands: The part of all multiply-adds that may stay in FP32.
        calibration: What INT8 and FP8 find their ranges on: a folder of images, an .npz,
            "synthetic", or any iterable of batches: arrays or tensors (B, ...), tuples that begin
            with one for each input, or dicts by input name. Default three in four of `data`.
        quantization: Which layers become INT8 or FP8, and how.
        sensitivity: Measure what each group of layers costs in INT8 or FP8, for the report.
        max_drop: Keep the costliest groups in FP16 until top-1 agreement with FP32 drops by no more
            points than this (of a model without classes: until its relative RMS is as many %).
        ship_best: Export in floats where INT8 or FP8 is not faster on what runs here.
        tune_s: How many seconds to look for the fastest of the rewrites' equal forms on ONNX
            Runtime's CPU provider; None takes `rewrites`.
        plans: Which TensorRT plans are built; default every flavour that is installed.
        force: Whether to replace a bundle at `out`.
        progress: Told of every stage.

    Raises:
        InputError: something given cannot be used, or the network cannot become a static graph:
            then with the Python file and line.
        MachineError: onnxruntime, which parity needs, is not installed.
        CheckFailed: a rule, the graph, its precision or parity failed; nothing is at `out`.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"got a {type(module).__name__}; expected a torch.nn.Module.")
    kind = type(module)
    named = isinstance(calibration, str | Path)
    recipe = recipe_from_dict(
        {
            "model": f"{kind.__module__}:{kind.__qualname__}",
            "precision": precision,
            "input_names": list(input_names),
            "output_names": list(output_names),
            "batch": batch,
            "io_dtype": io_dtype,
            "islands": msgspec.to_builtins(list(islands)),
            "allow_islands": allow_islands,
            **({"rewrites": msgspec.to_builtins(rewrites)} if rewrites else {}),
            **({"tolerances": msgspec.to_builtins(tolerances)} if tolerances else {}),
            **({"preprocessing": msgspec.to_builtins(preprocessing)} if preprocessing else {}),
            **({"quantization": msgspec.to_builtins(quantization)} if quantization else {}),
            **({"plans": msgspec.to_builtins(plans)} if plans else {}),
            **({"calibration": str(calibration)} if named else {}),
        },
        "sam_deploy.export",
    )
    path = Path(out)
    return export_subject(
        lambda: module_subject(module, example_inputs, recipe, preprocessing, class_names),
        recipe,
        bundle_path(path.parent, path.name),
        request=Request(
            force=force,
            data=None if data is None else Path(data),
            calibration=None if isinstance(calibration, str | Path) else calibration,
            sensitivity=sensitivity,
            max_drop=max_drop,
            ship_best=ship_best,
            tune_s=tune_s,
        ),
        progress=progress,
        pipeline=pipeline,
    )
