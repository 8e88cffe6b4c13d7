"""What is kept of a verified bundle: an engine is not portable, its receipt is."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sam_deploy.bundle import MODEL
from sam_deploy.cpu_info import machine
from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.manifest import FileInfo, Manifest, WeightsInfo
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import PlanInfo
from sam_deploy.recipe import Precision
from sam_deploy.verification.result import Latency, ParityResult


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Which bundle, made with what, measured where and by which command, and how good it was.

    `parity` and `latency` are of its ONNX on ONNX Runtime's CPU provider, `fired` says how often
    each rewrite did.
    """

    bundle: str
    precision: Precision
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    weights: WeightsInfo
    nodes: int
    fired: dict[str, int]
    plans: list[PlanInfo]
    files: dict[str, FileInfo]
    parity: ParityReport
    passed: bool
    latency: Latency = msgspec.field(name="batch 1")


def receipt_of(result: ParityResult, manifest: Manifest, command: str) -> Receipt:
    """The receipt of a verification that measured latency.

    Raises:
        CheckFailed: it did not pass, or the ONNX did not run.
    """
    parity = cpu_parity(result)
    if not result.passed or parity is None or result.latency is None:
        reason = result.failures[0] if result.failures else f"{MODEL} did not run on the CPU"
        raise CheckFailed(f"no receipt was written, since the bundle did not pass: {reason}")
    return Receipt(
        bundle=manifest.name,
        precision=manifest.recipe.precision,
        command=command,
        machine=machine(),
        versions=manifest.versions,
        weights=manifest.weights,
        nodes=manifest.graph.nodes,
        fired=manifest.rewrites.fired,
        plans=manifest.plans,
        files=manifest.files,
        parity=parity,
        passed=True,
        latency=result.latency,
    )


def cpu_parity(result: ParityResult) -> ParityReport | None:
    """The report of the ONNX on ONNX Runtime's CPU provider, which runs everywhere."""
    reports = [a.parity for a in result.artefacts if a.artefact == MODEL and a.parity is not None]
    return reports[0] if reports else None


def read_receipt(path: Path) -> Receipt:
    """The receipt in the JSON file `path`.

    Raises:
        InputError: no file, or no receipt of a CPU.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Receipt)
    except OSError as error:
        raise InputError(f"cannot read the receipt {path}: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a receipt of this sam-deploy: {error}. Write one with sam-parity "
            "--receipt."
        ) from None


def receipt_to_json(receipt: Receipt) -> str:
    """The receipt as indented JSON with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(receipt), indent=1).decode() + "\n"
