"""The result of a benchmark as a table of text."""

from __future__ import annotations

from sam_deploy.bench.result import BatchTiming, BenchResult, Entry, best_and_its_peer, by_batch
from sam_deploy.cli._run import printable

_HEAD = ("", "precision", "batch", "ms", "spread", "samples/s", "error", "load s", "peak MB")


def bench_table(result: BenchResult) -> str:
    """A row for each contestant and batch, the fastest first; then what was left out, and why."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for timed in by_batch(result.entries):
        rows += [_row(*one) for one in timed]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        f"{row[0]:{widths[0]}}  "
        + "  ".join(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    lines += _best(result.entries)
    lines += _most(result.entries)
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
    """At each batch the fastest of ours over the fastest peer that is as close to PyTorch."""
    lines = []
    for timed in by_batch(entries):
        ours, peer = best_and_its_peer(timed)
        if ours is not None and peer is not None:
            lines.append(
                f"batch {ours[0].batch}: {ours[1].name} is "
                f"{peer[0].median_ms / ours[0].median_ms:.2f} times as fast as the best peer "
                f"that is as close to PyTorch, {peer[1].name}"
            )
    return lines


def _most(entries: list[Entry]) -> list[str]:
    """The most samples a second of ours and of the peers, at whichever batch that is."""
    found = []
    for side, whose in (("ours", "bundles"), ("peer", "peers")):
        timed = [(t, entry) for entry in entries if entry.side == side for t in entry.timings]
        if timed:
            timing, entry = max(timed, key=lambda pair: pair[0].samples_per_s)
            found.append(
                f"of the {whose} {entry.name} makes the most, {timing.samples_per_s:.1f} samples/s "
                f"at batch {timing.batch}"
            )
    return found
