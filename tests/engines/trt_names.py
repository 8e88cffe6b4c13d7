"""Prints every name of a member of the TensorRT family, with its docstring, as JSON.

`python trt_names.py tensorrt_rtx` asks an installed one; `python trt_names.py FOLDER` the bindings
of TensorRT in that folder, whose libraries are not there.
"""

import importlib
import inspect
import json
import shutil
import sys
import tempfile
from pathlib import Path

# All that the bindings want of TensorRT's libraries. Nothing of it is called here.
WANTED = [
    b"createInferBuilder_INTERNAL",
    b"createInferRefitter_INTERNAL",
    b"createInferRuntime_INTERNAL",
    b"createNvOnnxParserRefitter_INTERNAL",
    b"createNvOnnxParser_INTERNAL",
    b"getBuilderPluginRegistry",
    b"getNvOnnxParserVersion",
    b"getPluginRegistry",
    b"initLibNvInferPlugins",
]


def without_libraries(source, folder):
    """The bindings copied to `folder`, asking the mathematical library for what they want."""
    copy = Path(shutil.copytree(source / "tensorrt_bindings", folder / "tensorrt_bindings"))
    library = copy / "tensorrt.so"
    data = library.read_bytes()
    for name in WANTED:
        data = renamed(data, name, b"cos")
    for name in (b"libnvinfer.so.", b"libnvinfer_plugin.so.", b"libnvonnxparser.so."):
        for release in (b"10", b"11"):
            data = renamed(data, name + release, b"libm.so.6")
    library.write_bytes(data)
    return folder


def renamed(data, name, other):
    """Symbols and libraries stand in the file as strings with a zero byte before and after."""
    return data.replace(b"\0" + name + b"\0", b"\0" + other.ljust(len(name), b"\0") + b"\0")


def names(module):
    """{"": {name: docstring} of the module, class: {name: docstring} of each class}."""
    found = {"": module, **dict(inspect.getmembers(module, inspect.isclass))}
    return {
        owner: {name: str(value.__doc__) for name, value in inspect.getmembers(thing)}
        for owner, thing in found.items()
    }


if __name__ == "__main__":
    given = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        if Path(given).is_dir():
            sys.path.insert(0, str(without_libraries(Path(given), Path(folder))))
            given = "tensorrt_bindings"
        json.dump(names(importlib.import_module(given)), sys.stdout)
