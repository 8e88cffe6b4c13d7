"""Where the time goes: a bundle's graph and the untouched model's, by PyTorch module, on ONNX
Runtime's CPU provider.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir
from torch import nn

from sam_deploy.bench.peers import export_dynamo
from sam_deploy.bench.result import Measured, check_numbers, versions
from sam_deploy.bench.samples import batch_of
from sam_deploy.bundle import MODEL, read_bundle
from sam_deploy.cpu_info import machine
from sam_deploy.errors import InputError
from sam_deploy.lowering.names import name_by_module
from sam_deploy.progress import Progress
from sam_deploy.runner import Arrays
from sam_deploy.runtime import OnnxRunner
from sam_deploy.runtime.onnx_runner import CPU
from sam_deploy.verification import Asked
from sam_deploy.verification.bundle_reference import bundle_reference

_WARM_UP = 3
_TIME = "_kernel_time"


class ModuleTime(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes of a PyTorch module, per run: in the untouched model's graph and in the bundle's.

    `module` is "" for what has no name: much of what ONNX Runtime inserts and fuses.
    """

    module: str
    kind: str
    before_ms: float
    after_ms: float


class Profile(Measured, frozen=True, kw_only=True):
    """The modules of a bundle at one batch size, and the sums over them."""

    provider: str
    batch: int
    before_ms: float
    after_ms: float
    modules: list[ModuleTime]


def profile(
    bundle: Path,
    asked: Asked,
    *,
    batch: int,
    rounds: int,
    threads: int,
    command: str,
    progress: Progress,
) -> Profile:
    """Time every node of the graph in `bundle` and of the untouched model's dynamo export.

    Raises:
        BundleError: it is damaged, or ONNX Runtime refuses it.
        InputError: a bad number, the weights or samples cannot be used, or PyTorch cannot export
            the untouched model.
        MachineError: onnxruntime is not installed.
    """
    check_numbers([batch], rounds, threads)
    manifest = read_bundle(bundle)
    with progress.stage("reference"):
        subject = bundle_reference(manifest, asked)
        x = batch_of(subject, asked, batch)
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "untouched.onnx"
        with progress.stage("exports"):
            try:
                export_dynamo(subject, before)
            except Exception as error:  # a stock exporter fails in every way
                raise InputError(
                    "PyTorch's own exporter cannot export the untouched model, so there is nothing "
                    f"to compare with: {type(error).__name__}: {str(error)[:200]}"
                ) from None
            named = ir.load(before)
            name_by_module(named.graph)
            ir.save(named, before)
        times = []
        for path in (before, bundle / MODEL):
            with progress.stage("time", rounds) as advance:
                times.append(_node_times(path, x, rounds, threads, advance))
    units = {name: unit_of(subject.module, name) for found in times for name in found}
    kinds = {name: type(module).__name__ for name, module in subject.module.named_modules()}
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for place, found in enumerate(times):
        for name, ms in found.items():
            sums[units[name]][place] += ms
    return Profile(
        command=command,
        machine=machine(),
        versions=versions(),
        provider=CPU,
        threads=threads,
        batch=batch,
        rounds=rounds,
        before_ms=round(sum(times[0].values()), 4),
        after_ms=round(sum(times[1].values()), 4),
        modules=[
            ModuleTime(
                module=unit,
                kind=kinds.get(unit, "") if unit else "",
                before_ms=round(before_ms, 4),
                after_ms=round(after_ms, 4),
            )
            for unit, (before_ms, after_ms) in sums.items()
        ],
    )


def _node_times(
    path: Path,
    x: Arrays,
    rounds: int,
    threads: int,
    advance: Callable[[int], None],
) -> dict[str, float]:
    """The median ms of every node over `rounds` runs, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        traces = Path(folder) / "trace"
        runner = OnnxRunner(path, CPU, spinning=False, threads=threads, profile=traces)
        given = {spec.name: x[spec.name].astype(spec.dtype) for spec in runner.inputs}
        for round_ in range(_WARM_UP + rounds):
            runner.run(given)
            if round_ >= _WARM_UP:
                advance(1)
        events = json.loads(runner.end_profile().read_bytes())
    return node_medians(events)


def node_medians(events: list[dict[str, Any]]) -> dict[str, float]:
    """The median ms of every node in a trace, without its first runs, by the node's name."""
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_TIME):
            found[name.removesuffix(_TIME)].append(event["dur"] / 1e3)
    return {name: statistics.median(times[_WARM_UP:] or times) for name, times in found.items()}


def unit_of(module: nn.Module, node: str) -> str:
    """The module that a node's time is counted for: a child of the network, or of a block where
    that is one of a list; "" where none is named. ONNX Runtime names what it makes of a node
    after it: "InsertedPrecisionFreeCast_block1.0.mlp.fc1/Conv:0_nchwc".
    """
    before = node.partition("/")[0]
    children = dict(module.named_children())
    for name in sorted(children, key=len, reverse=True):  # out_proj before proj
        found = re.search(rf"(?:^|_)({re.escape(name)}(?:\.[\w.]+)?)$", before)
        if found is not None:
            parts = found[1].split(".")
            return ".".join(parts[: 3 if isinstance(children[name], nn.ModuleList) else 1])
    return ""
