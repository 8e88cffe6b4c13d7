"""A bundle on disk becomes an engine, on the best backend that this machine can run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam_deploy.bundle import read_bundle
from sam_deploy.errors import CheckFailed, InputError, MachineError, nearest
from sam_deploy.example import read_example
from sam_deploy.runtime.backends import BACKENDS, start
from sam_deploy.runtime.chosen import Chosen
from sam_deploy.runtime.engine import Engine
from sam_deploy.runtime.faster import OpenVINORace
from sam_deploy.runtime.onnx_runner import require_onnxruntime
from sam_deploy.runtime.openvino import openvino_lacks


def load(
    path: str | Path,
    require: str | None = None,
    *,
    contexts: int = 1,
    refuse_nan: bool = False,
    threads: int = 0,
) -> Engine:
    """Load the bundle in the folder `path`; every file is verified first.

    The first of "tensorrt", "tensorrt-rtx", "cuda", "openvino" and "cpu" that this machine can run
    runs it, once it has given the outputs that the bundle keeps as its example; the engine's
    `chosen` says which that is and why not those before it. "openvino" is taken where it is faster
    than "cpu", which the first load on a machine measures. With `require` it is that one or none.

    `contexts` is how many threads run at once, others wait; each takes memory of its own. `threads`
    are ONNX Runtime's or OpenVINO's, 0 as many as OMP_NUM_THREADS says, or cores. With `refuse_nan`
    calls with NaN or infinity are refused.

    Raises:
        InputError: an unknown backend; `contexts` is below 1.
        BundleError: not a bundle, damaged, of another schema, or a plan in another's place.
        MachineError: what a backend needs is missing, or no plan fits; says what to do.
        CheckFailed: the engine's outputs are not those that the bundle keeps.
    """
    if require is not None and require not in BACKENDS:
        raise InputError(
            f"unknown backend {require!r}; known are {', '.join(BACKENDS)}."
            + nearest(str(require), BACKENDS)
        )
    if contexts < 1:
        raise InputError(f"contexts is {contexts}; expected 1 or more.")
    folder = Path(path)
    manifest = read_bundle(folder)
    if not manifest.plans and openvino_lacks():
        require_onnxruntime()  # nothing else could run it
    passed_over: dict[str, str] = {}
    failures: list[CheckFailed] = []
    race = OpenVINORace(folder, manifest, threads, contexts)
    for name in [require] if require else BACKENDS:
        if name == "openvino" and not require and (slower := race.known()):
            passed_over[name] = slower
            continue
        try:
            begun = start(name, folder, manifest, contexts=contexts, threads=threads)
            chosen = Chosen(name, begun.runner.backend, begun.artefact, dict(passed_over))
            engine = Engine(
                manifest, begun.runner, chosen, profile=begun.profile, refuse_nan=refuse_nan
            )
            _try_on(engine, folder)
            if name != "openvino" or require or not (slower := race.run(engine.runner)):
                return engine
            engine.close()
            passed_over[name] = slower
        except (MachineError, CheckFailed) as error:
            if require:
                raise
            passed_over[name] = str(error)
            failures += [error] if isinstance(error, CheckFailed) else []
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in passed_over.items())
    kind = CheckFailed if failures else MachineError
    raise kind(f"nothing runs {folder} here:{reasons}")


def _try_on(engine: Engine, folder: Path) -> None:
    """Have `engine` give the outputs that the bundle in `folder` keeps.

    Raises:
        CheckFailed: it gives others.
        BundleError: what the bundle keeps is not of its inputs and outputs.
    """
    example = read_example(folder, engine.manifest)
    rows = max(len(array) for array in example.inputs.values())
    size = max(rows, engine.profile.min) if engine.profile else rows
    filled = {
        spec.name: np.resize(a, (size, *a.shape[1:])) if len(a) == rows else a
        for spec, a in zip(engine.manifest.inputs, example.inputs.values(), strict=True)
    }
    try:
        outputs = engine.run(filled)
    except BaseException:
        engine.close()
        raise
    found = {
        name: array[:rows] if array.ndim and len(array) == size else array
        for name, array in outputs.items()
    }
    problem = example.problem(found, engine.manifest.recipe.tolerances)
    if problem:
        engine.close()
        raise CheckFailed(
            f"{engine.chosen.artefact} on {engine.backend} does not give what the bundle keeps as "
            f"its example: {problem}. It is not used."
        )
