"""What the fuzz tests share: bytes and JSON changed at random, and what a command may end with."""

from __future__ import annotations

import contextlib
import copy
import io
import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


def fuzz(examples):
    """Settings of a fuzz test: the same examples every time, and no more than `examples`."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def ended(main, *argv):
    """The exit code of a command and its JSON, having ended as a command may end."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*map(str, argv), "--json"])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert code in (0, 1, 2, 3)
    answer = json.loads(out.getvalue())
    if code:
        assert answer["exit_code"] == code
        assert answer["error"]
        assert f"error: {answer['error']}" in err.getvalue()
    return code, answer


@st.composite
def mutated(draw, originals):
    """One of `originals` (bytes) with a few places changed, cut short, or spliced with another."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        until = draw(st.integers(at, min(at + 8, len(content))))
        kind = draw(st.sampled_from(["flip", "replace", "insert", "cut", "repeat", "splice"]))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "replace":
            content[at:until] = draw(st.binary(min_size=until - at, max_size=until - at))
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        elif kind == "cut":
            del content[at:]
        elif kind == "repeat":
            content[at:at] = content[at:until] * draw(st.integers(1, 50))
        elif kind == "splice":
            other = draw(st.sampled_from(originals))
            content[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(content)


WORDS = [
    *("", "\x1b[2J", "a\nb", "/", "..", "\U0001f40d", "fp16", "fp32", "sam", "smt_t", "input"),
    *("batch", "float16", "int64", "classifier", "backbone", "module", "folder", "npz"),
]
NUMBERS = (
    st.integers(-3, 300)
    | st.integers()
    | st.sampled_from([2**31, 2**53, 2**63, -(2**63), 2**64, 10**30])
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(WORDS),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """The path to every value in a JSON value, its own last."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))
    yield path


def _altered(value):
    """Values of the kind of `value`, which a check of types lets pass."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int):
        return NUMBERS
    if isinstance(value, float):
        return st.floats(0, 1) | st.floats(allow_nan=False, allow_infinity=False)
    if isinstance(value, str):
        return st.sampled_from(WORDS) | st.text(max_size=6)
    if isinstance(value, list):
        return st.sampled_from([[], value[:1], value[:-1], value + value, value[::-1]])
    return st.just(value)


@st.composite
def restructured(draw, original):
    """`original` (JSON) with up to three values replaced, removed, added or swapped."""
    whole = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        paths = [path for path in places(whole) if path]
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        holder = whole
        for key in path[:-1]:
            holder = holder[key]
        kind = draw(
            st.sampled_from(["alter", "alter", "alter", "replace", "remove", "add", "swap"])
        )
        if kind == "remove":
            del holder[path[-1]]
        elif kind == "alter":
            holder[path[-1]] = draw(_altered(holder[path[-1]]))
        elif kind == "swap":
            value = whole
            for key in draw(st.sampled_from(paths)):
                value = value[key]
            holder[path[-1]] = copy.deepcopy(value)
        elif kind == "add" and isinstance(holder, list):
            holder.append(draw(VALUES))
        elif kind == "add":
            holder[draw(st.text(max_size=5))] = draw(VALUES)
        else:
            holder[path[-1]] = draw(VALUES)
    return whole
