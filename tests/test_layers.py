"""Who may import whom, read from the source: imports inside functions and for types count too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sam_deploy

PACKAGE = Path(sam_deploy.__file__).parent
NOUNS = {
    "errors", "architecture", "validation", "recipe", "rewrite_options", "report", "tuning",
    "manifest",
    "bundle", "agreement", "preprocess", "images", "synthetic", "class_names", "progress", "runner",
    "quantization", "plans", "cache_folder", "island_names", "gpu_info", "tensorrt_family",
    "parity_report", "cpu_info", "example", "latency",
}  # fmt: skip
EXPORT = [
    "models",
    "rewrites",
    "reference",
    "lowering",
    "precision",
    "engines",
    "parity",
    "exporter",
    "verification",
    "bench",
    "testing",
    "cli",
]
HEAVY = {"torch", "onnx", "onnx_ir", "onnxscript", "safetensors"}
ALLOWED = {
    "runtime": NOUNS,
    "serving": NOUNS | {"runtime", ""},
    **{part: NOUNS | set(EXPORT[:place]) for place, part in enumerate(EXPORT)},
}
for later in ("parity", "exporter", "verification", "bench", "testing", "cli"):
    ALLOWED[later] = ALLOWED[later] | {"runtime"}
ALLOWED["cli"] = ALLOWED["cli"] | {"", "serving"}  # the package itself: its version and `load`

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """'recipe' for recipe.py, 'models' for all below models/, '' for the package's own file."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path):
    """Every module that the file names in an import, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(path):
    known = {part_of(file) for file in FILES}
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first == "sam_deploy":
            part = rest.partition(".")[0]
            yield part if part in known else ""


def test_every_part_has_its_place():
    assert {part_of(path) for path in FILES} <= {"", "runtime", "serving", *NOUNS, *EXPORT}


@pytest.mark.parametrize("part", ["runtime", "serving", *EXPORT])
def test_a_part_imports_only_what_stands_before_it(part):
    for path in FILES:
        if part_of(path) == part:
            assert set(parts_imported(path)) <= ALLOWED[part] | {part}, path


def test_the_first_layer_imports_nothing_of_an_export():
    for path in FILES:
        if part_of(path) in NOUNS:
            assert set(parts_imported(path)) <= NOUNS, path
        if part_of(path) in {"", "runtime", "serving", *NOUNS}:
            assert not {name.partition(".")[0] for name in imports(path)} & HEAVY, path


def test_the_nouns_import_each_other_in_one_direction():
    needs = {noun: set() for noun in NOUNS}
    for path in FILES:
        if part_of(path) in NOUNS:
            needs[part_of(path)] |= {*parts_imported(path)} - {part_of(path)}
    while ready := [noun for noun, wanted in needs.items() if not wanted & needs.keys()]:
        for noun in ready:
            del needs[noun]
    assert not needs, "a ring"


def test_no_file_is_a_god():
    long = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: lines for path, lines in long.items() if lines > 500} == {}


def test_a_service_imports_neither_torch_nor_onnx(tiny_bundle):
    code = (
        "import sys, sam_deploy\n"
        f"lean = set(sys.modules) & {HEAVY | {'onnxruntime'}}\n"
        f"engine = sam_deploy.load({str(tiny_bundle)!r})\n"
        f"print(lean, set(sys.modules) & {HEAVY})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set() set()\n", "")
