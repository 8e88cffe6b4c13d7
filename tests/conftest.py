"""What the tests share: golden weights, a tiny SMT, and a bundle of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
sys.path.insert(0, str(Path(__file__).parent))

from weights import golden_parameter  # noqa: E402

TINY = {
    "dims": [8, 16, 24, 32],
    "depths": [1, 1, 2, 1],
    "mlp_ratios": [2, 2, 2, 2],
    "sam_heads": [2, 4, 3],
    "attention_heads": [2, 4],
}


def slow(*values: Any) -> Any:
    """A parameter for `make test-full` alone; one that is much like it is in `make test`."""
    return pytest.param(*values, marks=pytest.mark.slow)


def golden(module: Any) -> Any:
    """`module` with every parameter and buffer made from its official name, in evaluation mode."""
    import torch

    state = {
        name: torch.from_numpy(np.asarray(golden_parameter(name, tuple(value.shape))))
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module.eval()


def cosine(a: Any, b: Any) -> float:
    """Cosine between two arrays as vectors."""
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def rewrite_manifest(bundle: Path, **changes: Any) -> None:
    """Change fields of a bundle's manifest, and the sum beside it as well."""
    from sam_deploy.bundle import MANIFEST, write_manifest

    data = json.loads((bundle / MANIFEST).read_bytes())
    write_manifest(bundle, json.dumps({**data, **changes}).encode())


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """Makes a tiny SMT with golden weights: `tiny_model(num_classes=10, layer_scale=True, ...)`."""
    import msgspec

    from sam_deploy.architecture import Architecture
    from sam_deploy.models import SMT

    def make(**options: Any) -> Any:
        options = {"num_classes": 10, **options}
        return golden(SMT(msgspec.convert(TINY, Architecture), **options))

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tiny_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A safetensors file of the tiny SMT (10 classes, golden weights)."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_file(tiny_model().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tiny_checkpoint: Path) -> Callable[..., Any]:
    """Makes the tiny SMT's recipe: `tiny_recipe(precision="fp16", ...)`."""
    from sam_deploy.recipe import recipe_from_dict

    def make(**options: Any) -> Any:
        data = {
            "model": "tiny",
            "image_size": [64, 64],
            "precision": "fp32",
            "architecture": TINY,
            "weights": str(tiny_checkpoint),
            "plans": {"engines": ["none"]},
            **options,
        }
        return recipe_from_dict(data, "a test's recipe")

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny_recipe: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real FP16 bundle of the tiny SMT. Read only: copy it before changing anything."""
    from sam_deploy.exporter import export_recipe

    out = tmp_path_factory.mktemp("engines")
    return export_recipe(tiny_recipe(precision="fp16"), out=out).bundle
