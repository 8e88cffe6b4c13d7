"""Which of the rewrites' equal forms is fastest on ONNX Runtime's CPU provider.

    python benchmarks/forms.py [--model smt_t] [--rounds 21] [--out benchmarks/results/FILE.json]

Every form is exported with the same random weights, and so is the untouched model: by the
TorchScript and the dynamo exporter, and the latter's graph through onnxslim and onnxsim. The figure
is the ratio to the best of these four in the same run: above 1 is faster.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import typing
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
import onnxslim
import torch
from _race import onnx_contestant, race
from torch import nn

from sam_deploy.cpu_info import machine
from sam_deploy.lowering import check_graph, onnx_from_module
from sam_deploy.models import create_model
from sam_deploy.rewrites import RewriteOptions, rewrite

UNTOUCHED = "untouched, "
DEFAULT = RewriteOptions().text
BATCHES = (1, 8)
PACKAGES = ("torch", "onnxruntime", "onnxslim", "onnxsim")


def forms() -> list[RewriteOptions]:
    """Every combination of forms that there is."""
    hints = typing.get_type_hints(RewriteOptions)
    choices = {name: typing.get_args(hints[name]) for name in RewriteOptions.__struct_fields__}
    found = []
    for values in itertools.product(*choices.values()):
        try:
            found.append(RewriteOptions(**dict(zip(choices, values, strict=True))))
        except ValueError:
            continue  # a combination that the options refuse
    return found


def export_all(model: nn.Module, size: int, folder: Path) -> dict[str, tuple[Path, int]]:
    """Write every contestant's ONNX file; returns it and its number of nodes by name."""
    image = torch.randn(1, 3, size, size)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    written: dict[str, tuple[Path, int]] = {}

    def write(name: str, graph: ir.Model) -> Path:
        path = folder / f"{len(written)}.onnx"
        ir.save(graph, path)
        written[name] = (path, len(graph.graph))
        print(f"{name}: {len(graph.graph)} nodes", file=sys.stderr)
        return path

    stock = folder / "stock.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"input": {0: "batch"}}
        torch.onnx.export(model, (image,), stock, dynamo=False, dynamic_axes=axes, **names)
        write(f"{UNTOUCHED}TorchScript", ir.load(stock))
        two = image.expand(2, -1, -1, -1)  # a batch of 1 would be taken for a constant
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(model, (two,), stock, dynamo=True, dynamic_shapes=shapes, **names)
    dynamo = write(f"{UNTOUCHED}dynamo", ir.load(stock))
    proto = onnx.load(dynamo)
    write(f"{UNTOUCHED}dynamo, onnxslim", ir.from_proto(onnxslim.slim(proto)))
    simplified, agrees = onnxsim.simplify(onnx.load(dynamo))
    assert agrees
    write(f"{UNTOUCHED}dynamo, onnxsim", ir.from_proto(simplified))
    for options in forms():
        rewritten, _ = rewrite(model, (image,), options)
        graph = onnx_from_module(rewritten, (image,), **names)
        check_graph(graph)
        write(options.text, graph)
    return written


def main() -> None:
    """Export, race, print the table, and write it with `--out`."""
    parser = argparse.ArgumentParser(description="time the rewrites' forms")
    parser.add_argument("--model", default="smt_t")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = create_model(arguments.model)
    ratios: dict[str, dict[str, float]] = {}
    spreads_ms: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        written = export_all(model, arguments.size, Path(folder))
        contestants = {name: onnx_contestant(path) for name, (path, _) in written.items()}
        for batch in BATCHES:
            shape = (batch, 3, arguments.size, arguments.size)
            x = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
            with torch.no_grad():
                reference = model(torch.from_numpy(x)).numpy()
            times = race(contestants, x, reference, rounds=arguments.rounds, tolerance=1e-4)
            best_ms = min(t.median_ms for n, t in times.items() if n.startswith(UNTOUCHED))
            for name, timing in times.items():
                ratio = best_ms / timing.median_ms
                spreads_ms.setdefault(name, {})[f"batch {batch}"] = timing.spread_ms
                ratios.setdefault(name, {})[f"batch {batch}"] = round(ratio, 3)
    order = sorted(ratios, key=lambda name: -min(ratios[name].values()))
    head = " ".join(RewriteOptions.__struct_fields__)
    print(f"{head:40} {'nodes':>5} " + " ".join(f"{f'batch {b}':>8}" for b in BATCHES))
    for name in order:
        figures = " ".join(f"{ratio:8.2f}" for ratio in ratios[name].values())
        print(f"{name:40} {written[name][1]:5} {figures}")
    found = " and ".join(f"{ratio:.2f} at {batch}" for batch, ratio in ratios[DEFAULT].items())
    print(f"the default, {DEFAULT}: {found} times the best untouched graph")
    if arguments.out:
        record = {
            "command": " ".join(["python", "benchmarks/forms.py", *sys.argv[1:]]),
            "machine": machine(),
            "versions": {name: version(name) for name in PACKAGES},
            "figure": "speed relative to the best untouched graph in the run; above 1 is faster",
            "default": DEFAULT,
            "nodes": {name: nodes for name, (_, nodes) in written.items()},
            "ratios": ratios,
            "spreads_ms": spreads_ms,
        }
        arguments.out.write_bytes(
            msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
        )


if __name__ == "__main__":
    main()
