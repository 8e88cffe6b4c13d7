"""The result of a benchmark as a table of text."""

from __future__ import annotations

from sam_deploy.bench.result import BatchTiming, BenchResult, Entry
from sam_deploy.cli._run import printable

_HEAD = ("", "precision", "batch", "ms", "spread", "samples/s", "error", "load s", "peak MB")


def bench_table(result: BenchResult) -> str:
    """A row for each contestant and batch, the fastest first; then what was left out, and why."""
    batches = [timing.batch for timing in result.entries[0].timings] if result.entries else []
    rows: list[tuple[str, ...]] = [_HEAD]
    for number, batch in enumerate(batches):
        timed = [(entry.timings[number], entry) for entry in result.entries]
        rows += [_row(*one) for one in sorted(timed, key=lambda one: one[0].median_ms)]
        assert all(timing.batch == batch for timing, _ in timed)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        f"{row[0]:{widths[0]}}  "
        + "  ".join(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    lines += _best(result.entries)
    lines += [f"left out: {one.name}: {one.reason}" for one in result.left_out]
    return "".join(f"{printable(line).rstrip()}\n" for line in lines)


def _row(timing: BatchTiming, entry: Entry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.precision,
        str(timing.batch),
        f"{timing.median_ms:.2f}",
        f"{timing.spread_ms:.2f}",
        f"{timing.samples_per_s:.1f}",
        f"{timing.relative_rms:.0e}",
        f"{entry.load_s:.1f}",
        f"{entry.peak_bytes / 1e6:.0f}",
    )


def _best(entries: list[Entry]) -> list[str]:
    """The best of ours over the best peer, at each batch."""
    lines = []
    for number, timing in enumerate(entries[0].timings if entries else []):
        best = {
            side: min(
                (entry for entry in entries if entry.side == side),
                key=lambda entry: entry.timings[number].median_ms,
                default=None,
            )
            for side in ("ours", "peer")
        }
        ours, peer = best["ours"], best["peer"]
        if ours is not None and peer is not None:
            ratio = peer.timings[number].median_ms / ours.timings[number].median_ms
            lines.append(
                f"batch {timing.batch}: {ours.name} is {ratio:.2f} times as fast as the best peer, "
                f"{peer.name}"
            )
    return lines
