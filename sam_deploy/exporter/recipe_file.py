"""A recipe written to a TOML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from sam_deploy.quantization import SYNTHETIC
from sam_deploy.recipe import Recipe


def write_recipe(recipe: Recipe, path: Path, comments: Sequence[str] = ()) -> None:
    """Write `recipe` to `path`, whole or not at all; `comments` are lines at the top.

    Paths become relative to the file; lines with default values are left out.
    """
    lines = _plain(recipe)
    for key in ("weights", "class_names", "calibration"):
        if key in lines and lines[key] != SYNTHETIC:
            lines[key] = os.path.relpath(lines[key], path.parent)
    top = "".join(f"# {comment}\n" for comment in comments)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(top + tomli_w.dumps(lines), encoding="utf-8")
    partial.replace(path)


def _plain(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields that are not their defaults, as TOML has them."""
    data = {}
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if value is not None and value != default:
            data[field.name] = (
                _plain(value) if isinstance(value, msgspec.Struct) else msgspec.to_builtins(value)
            )
    return data
