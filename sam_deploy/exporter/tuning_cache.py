"""What searches over forms found, kept for the next export of the same graph on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from sam_deploy.cache_folder import cache_folder, keep
from sam_deploy.cpu_info import machine
from sam_deploy.exporter.lowered import Lowered
from sam_deploy.recipe import Recipe
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.runtime import require_onnxruntime
from sam_deploy.runtime.onnx_backends import allows_bf16
from sam_deploy.runtime.openvino import openvino_version
from sam_deploy.runtime.threads import usable_cores, usual_threads
from sam_deploy.tuning import TuningReport

_FORM = 3  # of what is kept: another number is another file


class TuningCache:
    """The file of one search; where it cannot be read or written, the search is made again."""

    def __init__(self, name: str) -> None:
        self._name = name

    @classmethod
    def of(
        cls, lowered: Lowered, recipe: Recipe, batches: Sequence[int], providers: Sequence[str]
    ) -> TuningCache:
        """The one for this graph, without its weights' values, in the recipe's precision on these
        runtimes and this machine.
        """
        known = [
            _FORM, str(require_onnxruntime().__version__), openvino_version(), list(providers),
            machine(), usual_threads(), usable_cores(), list(batches), recipe.precision,
            allows_bf16(recipe),
            *map(msgspec.to_builtins, (recipe.rewrites, recipe.quantization, recipe.islands)),
            msgspec.to_builtins(recipe.tolerances),
            msgspec.json.schema(RewriteOptions), [rule.rule for rule in lowered.rewrites.rules],
            [
                (node.op_type, [str(value.shape) for value in node.outputs],
                 [str(value and value.shape) for value in node.inputs],
                 sorted(f"{a.name}={a.value}" for a in node.attributes.values()))
                for node in lowered.graph.graph
            ],
        ]  # fmt: skip
        digest = hashlib.sha256(msgspec.json.encode(known, order="deterministic")).hexdigest()
        return cls(f"forms-{digest[:32]}.json")

    def read(self) -> TuningReport | None:
        """What was found, if it was."""
        with suppress(OSError, RuntimeError, msgspec.DecodeError):  # RuntimeError: without a home
            return msgspec.json.decode(
                (cache_folder() / self._name).read_bytes(), type=TuningReport
            )
        return None

    def write(self, report: TuningReport) -> None:
        """Keep what was found: whole or not at all."""
        with suppress(OSError, RuntimeError):
            keep(cache_folder() / self._name, msgspec.json.encode(report))
