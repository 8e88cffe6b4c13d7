"""OpenVINO's own conversion of the untouched model, as contestants: FP32, BF16 and NNCF's INT8."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import msgspec

from sam_deploy.bench.contestant import Contestant, Run
from sam_deploy.bench.openvino_graph import make_openvino_graph
from sam_deploy.bench.result import LeftOut
from sam_deploy.recipe import DEFAULT_TOLERANCES, Tolerances
from sam_deploy.runner import Arrays

# Of its eight bits of mantissa: several times as far from FP32 as FP16 is.
_BF16 = msgspec.structs.replace(DEFAULT_TOLERANCES["fp16"], relative_rms=0.03)


def openvino_contestants(
    export: Path, calibration: Iterable[Arrays], output_names: list[str], folder: Path
) -> tuple[list[Contestant], list[LeftOut]]:
    """OpenVINO on the ONNX file `export` of the untouched model, on its CPU device.

    NNCF calibrates on the batches `calibration`, by its defaults for transformers but without
    smoothing; what it makes goes to `folder`.
    """
    if any(find_spec(name) is None for name in ("openvino", "nncf")):
        reason = "openvino or nncf is not installed. Run: pip install 'sam-deploy[bench-openvino]'"
        return [], [LeftOut(name="OpenVINO", side="peer", reason=reason)]

    def peer(precision: str, path: Path, tolerances: Tolerances) -> Contestant:
        bf16 = precision == "bf16"
        make: partial[Run] = partial(make_openvino_graph, str(path), output_names, bf16=bf16)
        return Contestant(f"OpenVINO {precision.upper()}", "peer", precision, tolerances, make)

    found = [
        peer("fp32", export, DEFAULT_TOLERANCES["fp32"]),
        peer("bf16", export, _BF16),
    ]
    try:
        quantized = _quantized(export, calibration, folder)
    except Exception as error:  # NNCF fails in many ways
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        return found, [LeftOut(name="OpenVINO INT8", side="peer", reason=reason)]
    return [*found, peer("int8", quantized, DEFAULT_TOLERANCES["int8"])], []


def _quantized(export: Path, calibration: Iterable[Arrays], folder: Path) -> Path:
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model, samples = openvino.Core().read_model(export), list(calibration)

    def given(batch: Mapping[str, object]) -> list[object]:
        return list(batch.values())

    # OpenVINO's CPU device computes something else of NNCF's smoothed graphs (2026.4, smt_t).
    unsmoothed = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    # Its bars, stdout being the result's, and its arithmetic with layers that are all 0.
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        quantized = nncf.quantize(
            model,
            nncf.Dataset(samples, given),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
            advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=unsmoothed),
        )
    path = folder / "openvino-int8.xml"
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return path
