"""Artefacts of small networks, made as an export makes them, but for the bundle around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from torch import nn

from sam_deploy.exporter.calibration_data import Data
from sam_deploy.exporter.lowered import lowered
from sam_deploy.exporter.typed import measure, write_typed
from sam_deploy.parity import Samples, synthetic_samples
from sam_deploy.preprocess import Preprocessing
from sam_deploy.progress import Progress
from sam_deploy.recipe import QUANTIZED, Recipe
from sam_deploy.reference import Subject, subject_from_recipe
from sam_deploy.verification.layers import measure_layers
from sam_deploy.verification.result import LayersReport

SIZE = Preprocessing.for_size(64, 64)
VALIDATION = synthetic_samples("input", 8, SIZE)
CALIBRATION = synthetic_samples("input", 22, SIZE, seed=7)


@dataclass(frozen=True)
class Made:
    """An ONNX file, and what it was made of."""

    path: Path
    graph: ir.Model
    subject: Subject
    recipe: Recipe
    data: Data

    def layers(self, path: Path | None = None, **options) -> LayersReport:
        """The report of the file, or of the one at `path` in its place."""
        return measure_layers(
            path or self.path,
            self.graph,
            self.subject,
            self.recipe,
            self.data.validation,
            artefact="model.onnx",
            work=self.path.parent,
            progress=Progress(),
            **options,
        )

    def broken(self, name: str, change) -> Path:
        """The file with the initializer `name` changed."""
        model = onnx.load(self.path)
        weight = next(w for w in model.graph.initializer if w.name == name)
        array = numpy_helper.to_array(weight)
        changed = np.asarray(change(array), array.dtype)
        weight.CopyFrom(numpy_helper.from_array(changed, name))
        path = self.path.with_name("broken.onnx")
        onnx.save(model, path)
        return path


def make(
    recipe: Recipe,
    folder: Path,
    *,
    subject: Subject | None = None,
    graph=None,
    validation: Samples = VALIDATION,
    calibration: Samples = CALIBRATION,
) -> Made:
    """`graph` is the FP32 graph, where it was lowered before."""
    subject = subject or subject_from_recipe(recipe)
    graph = graph or lowered(subject, recipe, Progress()).graph
    data = Data(validation, calibration if recipe.precision in QUANTIZED else None)
    variant, path = graph.clone(), folder / "model.onnx"
    measured = measure(variant, recipe, subject.islands, data, folder, Progress())
    write_typed(variant, recipe, measured, path)
    return Made(path, graph, subject, recipe, data)


class Part(nn.Module):
    """A residual of two layers behind a norm, as every block of a network has them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1, self.act, self.fc2 = nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)

    def forward(self, x):
        return x + self.fc2(self.act(self.fc1(self.norm(x))))


class Residuals(nn.Module):
    """Some parts one after the other, then a head."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.parts = nn.Sequential(*(Part(dim) for _ in range(4)))
        self.head = nn.Linear(dim, 6)

    def forward(self, x):
        return self.head(self.parts(x))


def outlier():
    """A factory: one channel that the layer behind `parts.1.norm` reads is 128 times as large."""
    torch.manual_seed(0)
    net = Residuals()
    part = net.parts[1]
    with torch.no_grad():
        part.norm.weight[3] *= 128
        part.fc1.weight[:, 3] /= 128
    return net, torch.randn(24, 16)


def cancelling():
    """A factory: what `parts.2` computes is small beside what it adds on the way and takes away."""
    torch.manual_seed(0)
    net = Residuals()
    part = net.parts[2]
    with torch.no_grad():
        part.fc1.bias += 500
        part.fc2.bias -= part.fc2.weight.sum(1) * 500
    return net, torch.randn(24, 16)
