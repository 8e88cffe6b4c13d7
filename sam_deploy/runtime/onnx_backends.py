"""What runs an ONNX file here: ONNX Runtime's providers, and OpenVINO."""

from __future__ import annotations

from pathlib import Path

from sam_deploy.recipe import Recipe
from sam_deploy.runtime.onnx_runner import CPU, OnnxRunner, require_onnxruntime
from sam_deploy.runtime.openvino import OPENVINO, OpenVINORunner, openvino_lacks

AnyOnnxRunner = OnnxRunner | OpenVINORunner
_OTHERS = {"AzureExecutionProvider", "OpenVINOExecutionProvider"}  # ONNX Runtime lists them
_BF16_ERROR = 2e-2  # relative RMS, as large as smt_t's at most


def installed_providers() -> list[str]:
    """ONNX Runtime's providers as they are installed, the CPU's first, and OpenVINO; not all may
    start.

    Raises:
        MachineError: onnxruntime is not installed.
    """
    available = require_onnxruntime().get_available_providers()
    found = [CPU, *(name for name in available if name != CPU and name not in _OTHERS)]
    return found if openvino_lacks() else [*found, OPENVINO]


def start_onnx(
    path: Path,
    provider: str,
    *,
    spinning: bool = True,
    threads: int = 0,
    streams: int = 1,
    bf16: bool = False,
) -> AnyOnnxRunner:
    """The file `path` on one of ONNX Runtime's providers or on OPENVINO, which alone takes `bf16`
    and `streams`, and whose threads never spin.

    Raises:
        MachineError, BundleError: as the runners.
    """
    if provider == OPENVINO:
        return OpenVINORunner(path, threads=threads, streams=streams, bf16=bf16)
    return OnnxRunner(path, provider, spinning=spinning, threads=threads)


def allows_bf16(recipe: Recipe) -> bool:
    """Whether what `recipe` makes may be computed in BF16: no FP32 model, nor one that is held to
    less than what BF16 errs by.
    """
    return recipe.precision != "fp32" and recipe.tolerances.relative_rms >= _BF16_ERROR
