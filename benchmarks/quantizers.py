"""How far INT8 is from FP32: ours and ModelOpt's recipes, on the same weights and inputs, one run.

    python benchmarks/quantizers.py [--python OTHER/bin/python] [--out benchmarks/results/FILE.json]

smt_t with the golden weights, calibrated on 32 standard-normal inputs and judged on 16 others. The
figure is relative RMS against FP32. ModelOpt pins packages that exclude ours: it is installed into
an environment of its own (a gigabyte), unless --python names one that has it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

import sam_deploy
from sam_deploy.agreement import relative_rms
from sam_deploy.bundle import MODEL
from sam_deploy.cpu_info import machine
from sam_deploy.lowering import onnx_from_module
from sam_deploy.models import create_model
from sam_deploy.plans import PlanOptions
from sam_deploy.quantization import Quantization
from sam_deploy.recipe import Tolerances
from sam_deploy.rewrites import rewrite

ROOT = Path(__file__).parent.parent
MODELOPT = "nvidia-modelopt[onnx]==0.47.0"
LAYERS = {"op_types_to_quantize": ["Conv", "MatMul", "Gemm"], "disable_mha_qdq": True}
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "no attention, no depthwise, entropy": {**LAYERS, "calibration_method": "entropy"},
    "no attention, no depthwise, max": {**LAYERS, "calibration_method": "max"},
}
ANY = Tolerances(
    relative_rms=0.1, max_error=0.5, cosine=0.9, top1_agreement=0.0, top1_drop=5, top5_drop=5
)
Array = np.ndarray[Any, Any]


def golden_smt_t() -> torch.nn.Module:
    """smt_t with the weights of tests/golden."""
    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    from weights import golden_parameter  # type: ignore[import-not-found]

    module = create_model("smt_t")
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    state = {n: torch.from_numpy(np.asarray(golden_parameter(n, s))) for n, s in shapes.items()}
    module.load_state_dict(state)
    return module.eval()


def normal(seed: int, count: int) -> Array:
    """`count` standard-normal inputs."""
    drawn = np.random.RandomState(seed).standard_normal((count, 3, 224, 224))
    return drawn.astype(np.float32)


def modelopt_python(folder: Path) -> Path:
    """The Python of a new environment in `folder` that has ModelOpt."""
    print(f"installing {MODELOPT} ...", file=sys.stderr)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    torch_version = torch.__version__.partition("+")[0]
    wanted = [MODELOPT, f"torch=={torch_version}"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def with_modelopt(python: Path, graph: Path, options: dict[str, Any], folder: Path) -> Path:
    """`graph` quantized by ModelOpt with `options`; depthwise convolutions stay as they are, where
    layers are named at all.
    """
    if options:
        options = {**options, "nodes_to_exclude": _depthwise(graph)}
    job, out = folder / "job.json", folder / "modelopt.onnx"
    content = {"onnx": str(graph), "calibration": str(folder / "calibration.npz")}
    job.write_text(json.dumps({**content, "out": str(out), "options": options}))
    script = Path(__file__).with_name("_modelopt.py")
    subprocess.run([python, script, job], check=True, stdout=sys.stderr)
    return out


def _depthwise(path: Path) -> list[str]:
    names = []
    for node in onnx.load(path).graph.node:
        groups = {a.name: a.i for a in node.attribute}.get("group", 1)
        if node.op_type == "Conv" and groups > 1:
            names.append(re.escape(node.name))
    return names


def run(path: Path, x: Array) -> Array:
    """The logits of `path` on ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return np.concatenate([session.run(None, {given.name: row[None]})[0] for row in x])


def write_graphs(module: torch.nn.Module, folder: Path) -> dict[str, Path]:
    """The untouched model's export, and ours in FP32."""
    image = torch.from_numpy(normal(0, 1))
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    untouched, rewritten = folder / "untouched.onnx", folder / "rewritten.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (image,), untouched, external_data=False, **names)
    static, _ = rewrite(module, (image,))
    ir.save(onnx_from_module(static, (image,), **names, batch=1), rewritten)
    return {"untouched": untouched, "rewritten": rewritten}


def main() -> int:
    """Measure, print, and write the results; 1 where ours is not the closest."""
    parser = argparse.ArgumentParser(description="INT8 by sam-deploy and by ModelOpt")
    parser.add_argument("--python", type=Path, help="of an environment that has ModelOpt")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    module = golden_smt_t()
    calibration, x = normal(1, 32), normal(0, 16)
    with torch.no_grad():
        expected = np.concatenate([module(torch.from_numpy(row[None])).numpy() for row in x])
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        np.savez(folder / "calibration.npz", input=calibration)
        np.savez(folder / "data.npz", input=x)
        for method in ("mse", "entropy", "percentile", "minmax"):
            done = sam_deploy.export(
                module,
                torch.from_numpy(calibration[:1]),
                out=folder / method,
                precision="int8",
                calibration=[calibration],
                quantization=Quantization(method=method),
                data=folder / "data.npz",
                tolerances=ANY,
                plans=PlanOptions(engines=["none"]),
            )
            figures[f"sam-deploy, {method}"] = relative_rms(run(done.bundle / MODEL, x), expected)
        python = arguments.python or modelopt_python(folder / "modelopt")
        for graph, path in write_graphs(module, folder).items():
            for name, options in RECIPES.items():
                quantized = with_modelopt(python, path, options, folder)
                figures[f"ModelOpt, {graph}, {name}"] = relative_rms(run(quantized, x), expected)
    for name, figure in sorted(figures.items(), key=lambda item: item[1]):
        print(f"{figure:.4f}  {name}")
    if arguments.out:
        versions = {name: version(name) for name in ("torch", "onnxruntime", "sam-deploy")}
        content = {
            "command": "python benchmarks/quantizers.py",
            "machine": machine(),
            "versions": {**versions, "nvidia-modelopt": MODELOPT.rpartition("=")[2]},
            "relative RMS": {name: round(figure, 4) for name, figure in figures.items()},
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    theirs = min(figure for name, figure in figures.items() if name.startswith("ModelOpt"))
    return int(figures["sam-deploy, mse"] >= theirs)


if __name__ == "__main__":
    sys.exit(main())
