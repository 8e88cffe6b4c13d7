"""What can run a bundle on a GPU, each made and measured in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from sam_deploy.errors import CheckFailed, SamDeployError
from sam_deploy.parity_report import ParityReport
from sam_deploy.recipe import Recipe

Array = npt.NDArray[Any]
T = TypeVar("T")

ENGINES = {
    "ONNX Runtime CUDA": "cuda",
    "TensorRT": "tensorrt",
    "TensorRT-RTX": "tensorrt-rtx",
}
"""What a receipt calls an engine, and the backend that `sam_deploy.load` knows it by."""


def _loaded(bundle: Path, backend: str) -> Any:
    from sam_deploy.runtime import load

    return load(bundle, require=backend)


def measured_parity(bundle: Path, backend: str, recipe: Recipe) -> tuple[str, ParityReport]:
    """What ran the bundle, and how far it is from the eager FP32 model on the CPU."""
    from sam_deploy.parity.of_subject import subject_parity
    from sam_deploy.parity.validation_data import samples_for
    from sam_deploy.reference import subject_from_recipe

    engine = _loaded(bundle, backend)
    subject = subject_from_recipe(recipe)
    specs = (engine.manifest.inputs, engine.manifest.outputs)
    samples = samples_for(subject, None)
    report = subject_parity(bundle.name, engine.runner, subject, recipe, samples, specs)
    return engine.backend, report


def alone(function: Callable[..., T], *arguments: Any) -> T:
    """`function` in a process of its own: one that crashes takes nothing else with it.

    Raises:
        CheckFailed: as it did.
        RuntimeError: it raised another error, or its process ended.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        try:
            return executor.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise RuntimeError("its process crashed") from None
        except CheckFailed:
            raise
        except SamDeployError as error:
            raise RuntimeError(str(error)) from None
        except Exception as error:  # of whatever ran there
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
