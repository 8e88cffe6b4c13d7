"""Where the time goes, as tables of text: by kind of module, then by module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sam_deploy.bench.profile import Profile
from sam_deploy.cli._run import printable

_NO_MODULE = "(without a name)"
_Row = tuple[str, str, float, float]


def profile_table(result: Profile) -> str:
    """Ms of one batch before and after rewriting, the costliest before first."""
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in result.modules:
        kinds[one.kind or _NO_MODULE][0] += one.before_ms
        kinds[one.kind or _NO_MODULE][1] += one.after_ms
    by_kind: list[_Row] = [(kind, "", *both) for kind, both in _by_cost(kinds)]
    modules = [
        (one.module, one.kind, one.before_ms, one.after_ms)
        for one in sorted(result.modules, key=lambda one: -one.before_ms)
        if one.module
    ]
    lines = [
        f"ms on {result.provider}, batch {result.batch}: the untouched model's nodes (before) and "
        "the bundle's (after)",
        "",
        *_rows([*by_kind, ("all", "", result.before_ms, result.after_ms)]),
        "",
        *_rows(modules),
    ]
    return "".join(f"{printable(line).rstrip()}\n" for line in lines)


def _by_cost(kinds: dict[str, list[float]]) -> Iterable[tuple[str, tuple[float, float]]]:
    for kind in sorted(kinds, key=lambda kind: -kinds[kind][0]):
        yield kind, (kinds[kind][0], kinds[kind][1])


def _rows(rows: Iterable[_Row]) -> Iterable[str]:
    rows = list(rows)
    names = max((len(row[0]) for row in rows), default=0)
    kinds = max((len(row[1]) for row in rows), default=0)
    yield f"{'':{names}}  {'':{kinds}}  {'before':>9}  {'after':>9}  {'times':>6}"
    for name, kind, before, after in rows:
        times = f"{before / after:.2f}" if after else "gone"
        yield f"{name:{names}}  {kind:{kinds}}  {before:9.2f}  {after:9.2f}  {times:>6}"
