"""Which of the rewrites' equal forms is fastest on ONNX Runtime's CPU provider.

    python benchmarks/forms.py [--model smt_t] [--rounds 15] [--out benchmarks/results/FILE.json]

Every form is exported with the same random weights, as are two exports of the untouched model
(TorchScript and dynamo exporter). Each contestant has a process of its own and the same number of
threads; rounds are interleaved; a time counts only if the contestant's output agrees with PyTorch.
The figure is the ratio to the TorchScript export: above 1 is faster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import numpy as np

BASELINE = "untouched, TorchScript"
THREADS = os.cpu_count() or 1


def serve(path: str, batch: int, size: int, connection: Connection) -> None:
    """A contestant: loads `path`, then answers each message with one run's seconds and output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = np.random.RandomState(0).standard_normal((batch, 3, size, size)).astype(np.float32)
    name = session.get_inputs()[0].name
    while connection.recv():
        start = time.perf_counter()
        (output,) = session.run(None, {name: image})
        connection.send((time.perf_counter() - start, output))


def export_all(model_name: str, size: int, folder: Path) -> tuple[dict[str, Path], Any]:
    """Write every contestant's ONNX file; returns them by name, and the eager model."""
    import onnx_ir as ir
    import torch

    from sam_deploy.lowering import check_graph, onnx_from_module
    from sam_deploy.models import create_model
    from sam_deploy.rewrite_options import RewriteOptions
    from sam_deploy.rewrites import rewrite

    torch.manual_seed(0)
    model = create_model(model_name)
    image = torch.randn(1, 3, size, size)
    paths: dict[str, Path] = {}

    def add(name: str) -> Path:
        paths[name] = folder / f"{len(paths)}.onnx"
        return paths[name]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"input": {0: "batch"}}
        torch.onnx.export(
            model, (image,), add(BASELINE), dynamo=False, input_names=["input"], dynamic_axes=axes
        )
    add("untouched, dynamo").write_bytes(b"")
    untouched = onnx_from_module(model, (image,), input_names=["input"], output_names=["logits"])
    ir.save(untouched, paths["untouched, dynamo"])

    choices = {
        field: get_args(RewriteOptions.__annotations__[field]) or _literal(RewriteOptions, field)
        for field in RewriteOptions.__struct_fields__
    }
    for values in itertools.product(*choices.values()):
        try:
            options = RewriteOptions(**dict(zip(choices, values, strict=True)))
        except ValueError:
            continue
        rewritten, _ = rewrite(model, (image,), options)
        graph = onnx_from_module(
            rewritten, (image,), input_names=["input"], output_names=["logits"]
        )
        check_graph(graph)
        name = " ".join(values)
        ir.save(graph, add(name))
        print(f"exported {name}: {len(graph.graph)} nodes", file=sys.stderr)
    return paths, model


def _literal(struct: type, field: str) -> tuple[str, ...]:
    import typing

    return get_args(typing.get_type_hints(struct)[field])


def race(paths: dict[str, Path], model: Any, batch: int, size: int, rounds: int) -> dict[str, Any]:
    """Interleaved rounds over all contestants at one batch size: median ms and ratio for each."""
    import torch

    image = np.random.RandomState(0).standard_normal((batch, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        reference = model(torch.from_numpy(image)).numpy()
    context = multiprocessing.get_context("spawn")
    connections: dict[str, Connection] = {}
    processes = []
    for name, path in paths.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(str(path), batch, size, theirs), daemon=True)
        process.start()
        processes.append(process)
        connections[name] = ours
    times: dict[str, list[float]] = {name: [] for name in paths}
    for round_index in range(-2, rounds):  # two rounds of warm-up
        for name, connection in connections.items():
            connection.send(True)
            seconds, output = connection.recv()
            error = float(np.sqrt(np.mean((output - reference) ** 2)) / reference.std())
            if not error < 1e-4:
                raise SystemExit(f"{name} disagrees with PyTorch: relative RMS {error:.1e}")
            if round_index >= 0:
                times[name].append(seconds * 1e3)
    for connection in connections.values():
        connection.send(False)
    for process in processes:
        process.join()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        name: {
            "median_ms": round(median, 2),
            "spread_ms": round(max(times[name]) - min(times[name]), 2),
            "ratio": round(medians[BASELINE] / median, 3),
        }
        for name, median in medians.items()
    }


def main() -> None:
    """Export, race, print the table, and write it with `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smt_t")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    import onnxruntime
    import torch

    with tempfile.TemporaryDirectory() as folder:
        paths, model = export_all(arguments.model, arguments.size, Path(folder))
        results = {
            batch: race(paths, model, batch, arguments.size, arguments.rounds) for batch in (1, 8)
        }
    order = sorted(paths, key=lambda name: -min(r[name]["ratio"] for r in results.values()))
    print(f"{'heads aggregation projections linear':44} {'batch 1':>9} {'batch 8':>9}")
    for name in order:
        print(f"{name:44} {results[1][name]['ratio']:9.2f} {results[8][name]['ratio']:9.2f}")
    if arguments.out:
        record = {
            "command": " ".join(["python", "benchmarks/forms.py", *sys.argv[1:]]),
            "machine": f"{platform.machine()}, {THREADS} cores",
            "versions": {
                "torch": torch.__version__,
                "onnxruntime": onnxruntime.__version__,
                "python": platform.python_version(),
            },
            "ratio": "to the TorchScript export of the untouched model; above 1 is faster",
            "results": results,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
