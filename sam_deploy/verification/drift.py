"""Whether a bundle is still as good as the receipt of an earlier one says, and what moved."""

from __future__ import annotations

import msgspec

from sam_deploy.bundle import MODEL
from sam_deploy.cpu_info import cpu_name
from sam_deploy.errors import InputError
from sam_deploy.manifest import Manifest
from sam_deploy.parity_report import ParityReport
from sam_deploy.verification.receipt import Receipt, cpu_parity
from sam_deploy.verification.result import Check, ParityResult


def check_its_own(receipt: Receipt, manifest: Manifest) -> None:
    """Refuse a receipt of another bundle, before any work is done.

    Raises:
        InputError: naming both.
    """
    if (receipt.bundle, receipt.precision) != (manifest.name, manifest.recipe.precision):
        raise InputError(
            f"the receipt is of {receipt.bundle} ({receipt.precision}), the bundle is "
            f"{manifest.name} ({manifest.recipe.precision}). Give its own receipt."
        )


def drift_checks(receipt: Receipt, result: ParityResult, manifest: Manifest) -> list[Check]:
    """One check for each thing that may move only as far as the recipe's `drift` allows."""
    now = cpu_parity(result)
    return [
        *_of_samples(receipt.parity, now, manifest),
        _nodes(receipt, manifest),
        _rules(receipt, manifest),
        _size(receipt, manifest),
        _latency(receipt, result, manifest),
    ]


def _check(what: str, passed: bool | None, detail: str) -> Check:
    return Check(name=f"against the receipt: {what}", passed=passed, detail=detail)


def _of_samples(before: ParityReport, now: ParityReport | None, manifest: Manifest) -> list[Check]:
    """Error and accuracy, which are comparable only on as many samples of the same kind."""
    if now is None:
        return [_check("parity", False, f"{MODEL} was not compared")]
    names = ["parity", *(["accuracy"] if before.accuracy is not None else [])]
    if (before.data, before.samples) != (now.data, now.samples):
        detail = (
            f"not compared: the receipt is of {before.samples} {before.data} samples, this run of "
            f"{now.samples} {now.data} ones"
        )
        return [_check(name, None, detail) for name in names]
    found = [_parity(before, now, manifest), *_accuracy(before, now, manifest)]
    if before.data_sha256 == now.data_sha256:
        return found
    return [
        msgspec.structs.replace(check, detail=f"{check.detail} (on other samples: their hash is)")
        for check in found
    ]


def _parity(before: ParityReport, now: ParityReport, manifest: Manifest) -> Check:
    factor = manifest.recipe.drift.parity
    known = {output.name: output.relative_rms for output in before.outputs}
    moved = [
        f"{output.name} {was:.1e} before, {output.relative_rms or 0:.1e} now"
        for output in now.outputs
        if (was := known.get(output.name)) is not None
        and not (output.relative_rms or 0.0) <= factor * was
    ]
    if moved:
        detail = f"relative RMS {'; '.join(moved)}, allowed {factor:g} times as much"
        return _check("parity", False, detail)
    return _check("parity", True, f"no output is farther than {factor:g} times the receipt's")


def _accuracy(before: ParityReport, now: ParityReport, manifest: Manifest) -> list[Check]:
    if before.accuracy is None:
        return []
    if now.accuracy is None:
        return [_check("accuracy", None, "not compared: this run had no labels")]
    was, found, allowed = before.accuracy.top1, now.accuracy.top1, manifest.recipe.drift.accuracy
    detail = f"top-1 {was:.2f} % before, {found:.2f} % now, allowed {allowed:g} points less"
    return [_check("accuracy", found >= was - allowed, detail)]


def _nodes(receipt: Receipt, manifest: Manifest) -> Check:
    was, now, allowed = receipt.nodes, manifest.graph.nodes, manifest.recipe.drift.nodes
    return _check("nodes", now <= was + allowed, f"{was} before, {now} now, allowed {allowed} more")


def _rules(receipt: Receipt, manifest: Manifest) -> Check:
    fired = manifest.rewrites.fired
    lost = [
        f"{rule} fired {was} times before, {fired.get(rule, 0)} now"
        for rule, was in receipt.fired.items()
        if fired.get(rule, 0) < was
    ]
    return _check("rules", not lost, "; ".join(lost) or "every rule fired as often")


def _size(receipt: Receipt, manifest: Manifest) -> Check:
    was = receipt.files[MODEL].bytes if MODEL in receipt.files else 0
    now, allowed = manifest.files[MODEL].bytes, manifest.recipe.drift.size
    detail = f"{was} bytes before, {now} now, allowed {100 * allowed:g} % more"
    return _check("size", now <= was * (1 + allowed), detail)


def _latency(receipt: Receipt, result: ParityResult, manifest: Manifest) -> Check:
    if result.latency is None:
        return _check("latency", None, "not measured")
    was, now, allowed = receipt.latency.ratio, result.latency.ratio, manifest.recipe.drift.latency
    detail = (
        f"{was:.2f} times eager PyTorch before, {now:.2f} now, allowed {100 * allowed:g} % less"
    )
    if receipt.machine.get("cpu") != cpu_name():
        detail += f" (the receipt is of another CPU: {receipt.machine.get('cpu')})"
    return _check("latency", now >= was * (1 - allowed), detail)
