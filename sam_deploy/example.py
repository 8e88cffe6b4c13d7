"""A bundle's example: a few inputs with the reference's outputs, for an engine to be tried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam_deploy.agreement import relative_rms
from sam_deploy.bundle import EXAMPLE
from sam_deploy.errors import BundleError
from sam_deploy.manifest import Manifest
from sam_deploy.recipe import Tolerances
from sam_deploy.runner import Array, Arrays

ROWS = 2
"""Of a free batch: one row alone could not tell a model that ignores its input."""
_SLACK = 3  # tolerances are of many samples in all; a few may be so much further off
_INPUT, _OUTPUT = "inputs/", "outputs/"


@dataclass(frozen=True)
class Example:
    """Inputs by name as the reference got them, and what it gave, batch first in each."""

    inputs: Arrays
    outputs: Arrays

    def problem(
        self, outputs: Mapping[str, Array], tolerances: Tolerances, slack: float = _SLACK
    ) -> str | None:
        """Why `outputs`, by an engine for the inputs, are not the reference's; None where they are.

        Floats may be `slack` times the tolerance's relative RMS away, by default 3 times: it is one
        of all samples. Of others as many elements are equal as the tolerance of top-1 says, or all
        but one.
        """
        if outputs.keys() != self.outputs.keys():
            return f"it has the outputs {', '.join(outputs)}, not {', '.join(self.outputs)}"
        for name, expected in self.outputs.items():
            found = outputs[name]
            if found.shape != expected.shape:
                return f"{name} has shape {found.shape}, the reference's is {expected.shape}"
            if expected.dtype.kind == "f":
                far, limit = distance(found, expected), slack * tolerances.relative_rms
                if not far <= limit:
                    return f"{name} is off by a relative RMS of {far:.2g}, at most {limit:.2g}"
            else:
                wrong = int(np.count_nonzero(found != expected))
                if wrong > max(1, (1 - tolerances.top1_agreement) * expected.size):
                    return f"{wrong} of {expected.size} elements of {name} are not the reference's"
        return None


def distance(found: Array, expected: Array) -> float:
    """The relative RMS; of an output that is one number, or constant, over its size."""
    if np.ptp(expected) > 0:
        return relative_rms(found, expected)
    return relative_rms(np.append(found, 0.0), np.append(expected, 0.0)) / 2


def write_example(folder: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Write them into the bundle's `folder`; the same arrays give the same bytes."""
    arrays = {_INPUT + name: array for name, array in inputs.items()}
    arrays |= {_OUTPUT + name: array for name, array in outputs.items()}
    with (folder / EXAMPLE).open("wb") as file:
        # mypy takes the names for savez_compressed's own option
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_example(folder: Path, manifest: Manifest) -> Example:
    """The example of the bundle in `folder`, whose files were checked against `manifest`.

    Raises:
        BundleError: it is not one, or not of the manifest's inputs and outputs.
    """
    path = folder / EXAMPLE
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # of zipfile, zlib and numpy, of many kinds
        raise BundleError(f"{path} cannot be read: {error}. Export the bundle again.") from None
    wanted = {_INPUT + spec.name for spec in manifest.inputs}
    wanted |= {_OUTPUT + spec.name for spec in manifest.outputs}
    if arrays.keys() != wanted:
        raise BundleError(
            f"{path} holds {', '.join(sorted(arrays))}; expected {', '.join(sorted(wanted))}. "
            "Export the bundle again."
        )
    return Example(
        {spec.name: arrays[_INPUT + spec.name] for spec in manifest.inputs},
        {spec.name: arrays[_OUTPUT + spec.name] for spec in manifest.outputs},
    )
