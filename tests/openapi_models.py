"""KServe's and Kubernetes' schemas, as their Python clients have them: made of the real ones.

Read from the sources of the packages (`make setup` puts them beside the environment): to import
them would take all that they depend on.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

HOME = Path(sys.prefix) / "kserve"
FOLDERS = ("kserve/models", "kubernetes/client/models")
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
# What Kubernetes takes as a number or a text; the clients say `object` or one of both.
EITHER = {"port": (int, str)}


def installed():
    return all((HOME / folder).is_dir() for folder in FOLDERS)


@functools.cache
def files():
    """The file of each class, whose name it has but for case and underscores."""
    listed = (path for folder in FOLDERS for path in (HOME / folder).glob("*.py"))
    return {path.stem.replace("_", ""): path for path in listed}


@functools.cache
def model(name):
    """Attribute types by JSON key, and the keys that must be there."""
    text = files()[name.lower()].read_text()
    found = {}
    for node in ast.walk(ast.parse(text)):
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        for wanted in names & {"openapi_types", "attribute_map"}:
            found[wanted] = ast.literal_eval(node.value)
    keys = found["attribute_map"]
    required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", text))
    types = {keys[attribute]: kind for attribute, kind in found["openapi_types"].items()}
    return types, {keys[attribute] for attribute in required}


def problems(data, kind, at="$"):
    """What in `data` is not as the schema `kind` has it."""
    if kind in PLAIN:
        wanted = EITHER.get(at.rpartition(".")[2], PLAIN[kind])
        right = isinstance(data, wanted) and not (isinstance(data, bool) and wanted is int)
        return [] if right else [f"{at} is {type(data).__name__}, expected {kind}"]
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(data, list):
            return [f"{at} is {type(data).__name__}, expected a list"]
        return [p for i, one in enumerate(data) for p in problems(one, listed[1], f"{at}[{i}]")]
    if mapped := re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind):
        if not isinstance(data, dict):
            return [f"{at} is {type(data).__name__}, expected a mapping"]
        return [p for key, one in data.items() for p in problems(one, mapped[1], f"{at}[{key!r}]")]
    types, required = model(kind)
    if not isinstance(data, dict):
        return [f"{at} is {type(data).__name__}, expected {kind}"]
    unknown = [f"{at}.{key} is unknown to {kind}" for key in data.keys() - types.keys()]
    missing = [f"{at}.{key} is missing" for key in required - data.keys()]
    inner = [
        p for k in data.keys() & types.keys() for p in problems(data[k], types[k], f"{at}.{k}")
    ]
    return [*unknown, *missing, *inner]
