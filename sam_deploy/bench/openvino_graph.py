"""A graph on OpenVINO's CPU device, by its own runtime."""

from __future__ import annotations

from collections.abc import Mapping

from sam_deploy.bench.contestant import Run
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.threads import usual_threads


def make_openvino_graph(path: str, precision: str, outputs: list[str]) -> Run:
    """The file, computed in `precision` ("f32" or "bf16") where it is not quantized; its outputs
    are called `outputs`, in their order.
    """
    import openvino

    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": usual_threads(),  # 0 is its own default: all cores
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def run(inputs: Mapping[str, Array]) -> Arrays:
        found = request.infer(dict(inputs), share_inputs=True)
        return {name: found[index].copy() for index, name in enumerate(outputs)}

    return run
