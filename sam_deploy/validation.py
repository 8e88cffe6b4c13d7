"""Plain data made into structs, refused in words that a user can act on."""

from __future__ import annotations

import re
import reprlib
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from sam_deploy.errors import InputError, nearest

S = TypeVar("S", bound=msgspec.Struct)


def struct_from_dict(data: Any, struct: type[S], source: str) -> S:
    """`data` as a `struct`; `source` names it in errors.

    Raises:
        InputError: an unknown key (with the nearest known one), a missing one, a value that does
            not fit: with the key's path, what was expected and what came.
    """
    _refuse_unknown_keys(data, struct, source, "")
    try:
        return msgspec.convert(data, struct)
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {_worded(str(error), data, struct)}") from None


def is_plain_name(text: str) -> bool:
    """Whether a folder may be called `text` on any system, beside what goes with it."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", text, re.ASCII) is not None


def _worded(message: str, data: Any, struct: type[msgspec.Struct]) -> str:
    """The message of msgspec, path first, with what came and what is allowed where it says not."""
    found = re.fullmatch(r"(.*) - at `\$\.?([\w.\[\]]+)`", message, re.DOTALL)
    if found is None:
        return message
    text, path = found.groups()
    steps = [step or int(index) for step, index in re.findall(r"(\w+)|\[(\d+)\]", path)]
    allowed = _allowed(struct, steps)
    if allowed:
        expected = ", ".join(map(repr, allowed))
        text = f"expected one of {expected}, got {_shown(data, steps)}"
    elif text.startswith("Expected") and ", got" not in text:
        text += f", got {_shown(data, steps)}"
    return f"{path}: {text}"


def _shown(data: Any, steps: list[str | int]) -> str:
    for step in steps:
        data = data[step]
    return reprlib.repr(data)


def _allowed(annotation: Any, steps: list[str | int]) -> tuple[Any, ...]:
    """The values of the `Literal` that a path into `annotation` ends at; () if it is none."""
    for step in steps:
        if isinstance(step, int):  # into a list
            annotation = next(iter(get_args(annotation)), None)
            continue
        struct = _struct_in(annotation)
        if struct is None:
            return ()
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        annotation = fields[step].type
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((get_args(each) for each in candidates if get_origin(each) is Literal), ())


def _refuse_unknown_keys(data: Any, struct: Any, source: str, where: str) -> None:
    """Refuse keys that no field has: msgspec does so too, but knows no nearest name."""
    if not isinstance(data, dict):
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for key, value in data.items():
        if key not in fields:
            raise InputError(f"{source}: unknown key {where}{key}.{nearest(str(key), fields)}")
        inner = _struct_in(fields[key].type)
        if inner is not None:
            for item in value if isinstance(value, list) else [value]:
                _refuse_unknown_keys(item, inner, source, f"{where}{key}.")


def _struct_in(annotation: Any) -> Any:
    """The struct type in an annotation such as `Preprocessing | None` or `list[Island]`."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type(msgspec.Struct))), None)
