"""Plain data made into structs, refused in words that a user can act on."""

from __future__ import annotations

import re
import reprlib
from typing import Any, TypeVar

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
        raise InputError(f"{source}: {_worded(str(error), data)}") from None


def is_plain_name(text: str) -> bool:
    """Whether a folder may be called `text` on any system, beside what goes with it."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", text, re.ASCII) is not None


def _worded(message: str, data: Any) -> str:
    """The message of msgspec, path first, with the value that came where it names none."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if not path:
        return text
    value = data
    for key, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        value = value[key] if key and not index else value[int(index)]
    if text.startswith("Expected") and ", got" not in text:
        text += f", got {reprlib.repr(value)}"
    return f"{path}: {text}"


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
