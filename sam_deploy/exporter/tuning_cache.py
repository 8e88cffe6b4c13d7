"""What searches over forms found, kept for the next export of the same graph on this machine."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import onnx_ir as ir

from sam_deploy.cache_folder import cache_folder
from sam_deploy.cpu_info import machine
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.runtime import require_onnxruntime
from sam_deploy.runtime.threads import usual_threads
from sam_deploy.tuning import TuningReport

_FORM = 1  # of what is kept: another number is another file


class TuningCache:
    """The file of one search; where it cannot be read or written, the search is made again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(
        cls, graph: ir.Model, target: str, batches: Sequence[int], start: RewriteOptions
    ) -> TuningCache:
        """The one for `graph`, without its weights' values, on this runtime and machine."""
        known = [
            _FORM, target, str(require_onnxruntime().__version__), machine(), usual_threads(),
            list(batches), msgspec.to_builtins(start), msgspec.json.schema(RewriteOptions),
            [
                (node.op_type, [str(value.shape) for value in node.outputs],
                 [str(value and value.shape) for value in node.inputs],
                 sorted(f"{a.name}={a.value}" for a in node.attributes.values()))
                for node in graph.graph
            ],
        ]  # fmt: skip
        digest = hashlib.sha256(msgspec.json.encode(known, order="deterministic")).hexdigest()
        return cls(cache_folder() / f"forms-{digest[:32]}.json")

    def read(self) -> TuningReport | None:
        """What was found, if it was."""
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(self._path.read_bytes(), type=TuningReport)
        return None

    def write(self, report: TuningReport) -> None:
        """Keep what was found: whole or not at all."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(
                dir=self._path.parent, prefix=self._path.name, delete=False
            ) as file:
                file.write(msgspec.json.encode(report))
            Path(file.name).replace(self._path)
