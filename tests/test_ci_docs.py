"""What docs/ci.md and action.yml show is run, in a folder that looks like a reader's repository."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import msgspec
import onnx
import pytest
import yaml
from ci_servers import ACTION, OURS, ROOT, GitHub, bash, gitlab
from conftest import rewrite_manifest
from junitparser import JUnitXml
from onnx import numpy_helper

import sam_deploy
from sam_deploy.bundle import MANIFEST, MODEL, file_infos
from sam_deploy.recipe import Drift

PAGE = (ROOT / "docs/ci.md").read_text()
IMAGES = 20
runs = pytest.mark.export

RECIPE = """
model = "smt_digits"
image_size = [32, 32]
precision = "fp16"
weights = "weights/release.pth"
class_names = "classes.txt"
architecture = { dims = [32, 64, 96, 128], depths = [1, 1, 2, 1], mlp_ratios = [2, 2, 2, 2], \
sam_heads = [4, 4, 4], attention_heads = [4, 8] }
tolerances = { top1_accuracy = 90.0 }
drift = { latency = 1.0 }
plans = { profile = { min = 1, opt = 2, max = 4 } }
[preprocessing]
size_px = [32, 32]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""
NETWORK = '''
import torch
from torch import nn


def make():
    """A network of the reader's, not SMT."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return network, torch.randn(4, 3, 8, 8)
'''


def shown(what):
    """The blocks of the page that are marked as `what`."""
    return re.findall(rf"<!-- ci: {re.escape(what)} -->\n```\w+\n(.*?)```", PAGE, flags=re.S)


(WORKFLOW,) = [yaml.safe_load(text) for text in shown("workflow")]
(BY_ACTION,) = [yaml.safe_load(text) for text in shown("action")]
(GITLAB,) = [yaml.safe_load(text)["parity"] for text in shown("gitlab")]
STEPS = WORKFLOW["jobs"]["parity"]["steps"]
NAMES = [step.get("name") for step in STEPS]
ACTION_STEPS = [*STEPS[: NAMES.index("Parity")], *BY_ACTION]


# ---- the machine


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Everything that the tests' environment has, but for sam-deploy itself and TensorRT."""
    folder = tmp_path_factory.mktemp("packages")
    for distribution in metadata.distributions():
        name = (distribution.name or "").lower()
        if name.startswith(("sam-deploy", "sam_deploy", "tensorrt")):
            continue
        for file in distribution.files or []:
            top = file.parts[0]
            here = folder / top
            if top not in ("..", "__pycache__") and not top.endswith(".pth") and not here.exists():
                here.symlink_to(distribution.locate_file(top))
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-build-isolation", "--no-deps"]
    flags = ["--no-index", "--quiet", "--disable-pip-version-check", "-w", str(folder)]
    subprocess.run([*command, *flags], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def machine(packages, wheels, tmp_path_factory):
    """Makes a fresh machine: the environment of a shell where pip installs without a network."""

    def make():
        folder = tmp_path_factory.mktemp("machine")
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        (site,) = venv.glob("lib/python3*/site-packages")
        (site / "tests-packages.pth").write_text(f"{packages}\n")
        # Where in the network an error comes from takes long to find, and is no concern here.
        quick = folder / "quick/sam-parity"
        _written(quick, f'#!/bin/sh\nexec "{venv}/bin/sam-parity" --no-layers "$@"\n')
        quick.chmod(0o755)
        return {
            "PATH": f"{folder}/quick:{venv}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the flag's value: off
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_QUIET": "1",
        }

    return make


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """What ci/fetch.sh brings: checkpoints, and images that were not trained on."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("store")
    for name in ("weights", "data"):
        (folder / name).mkdir()
    torch.save(load_file(ROOT / "export/smt_digits.safetensors"), folder / "weights/release.pth")
    network = runpy.run_path(_written(folder.parent / "networks.py", NETWORK))["make"]()[0]
    torch.save(network.state_dict(), folder / "weights/own.pth")
    rows = np.random.default_rng(0).standard_normal((6, 3, 8, 8), np.float32)
    np.savez(folder / "data/own.npz", input=rows)
    digits = [sys.executable, ROOT / "examples/digits_data.py", "digits", "--limit", str(IMAGES)]
    subprocess.run(digits, cwd=folder.parent, check=True, capture_output=True)
    (folder.parent / "digits/test").rename(folder / "data/val")
    return folder


def _written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def repository(folder, store):
    """A reader's repository, before anything is fetched or built."""
    one = next(store.glob("data/val/1/*.png"))
    files = {
        "requirements.txt": "sam-deploy[cpu,export]\npytest\n",
        "release.toml": RECIPE,
        "classes.txt": "".join(f"{digit}\n" for digit in range(10)),
        "my_package/__init__.py": "",
        "my_package/networks.py": NETWORK,
        "ci/fetch.sh": f"cp -r '{store}/.' .\ncp '{one}' ci/one.png\n",
        "tests/test_release.py": shown("tests/test_release.py")[0],
        "tests/test_own_release.py": shown("tests/test_own_release.py")[0],
    }
    for name, text in files.items():
        _written(folder / name, text)
    return folder


def break_weight(bundle):
    """Another weight in the graph, and every hash as it should be."""
    model = onnx.load(bundle / MODEL)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(model, bundle / MODEL)
    rewrite_manifest(bundle, files=msgspec.to_builtins(file_infos(bundle)))


# ---- what is shown has the form that the servers take


def test_every_step_runs_something_or_uses_an_action():
    assert set(WORKFLOW) == {"name", True, "permissions", "defaults", "jobs"}  # `on` is YAML's true
    assert WORKFLOW["defaults"] == {"run": {"shell": "bash"}}
    for job in WORKFLOW["jobs"].values():
        assert job["runs-on"]
        assert job["steps"]
    for step in [*STEPS, *BY_ACTION]:
        assert ("run" in step) != ("uses" in step)
        assert step.keys() <= {"name", "id", "if", "run", "uses", "with", "env"}
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@\w+", step["uses"])
    assert GITLAB.keys() == {
        *("image", "variables", "cache", "before_script", "script", "artifacts"),
    }
    for line in [*GITLAB["before_script"], *GITLAB["script"]]:
        assert isinstance(line, str)
    kept = GITLAB["artifacts"]
    assert any(kept["reports"]["junit"].startswith(path) for path in kept["paths"])


def test_the_action_is_one_and_runs_no_input_as_a_script():
    assert ACTION.keys() == {"name", "description", "inputs", "outputs", "runs"}
    assert ACTION["runs"]["using"] == "composite"
    used = set()
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"  # which a composite action has to say
        assert "${{" not in step["run"]
        said = f"{step.get('if', '')} {step['env'].values()}"
        used |= set(re.findall(r"\$\{\{ inputs\.([\w-]+)", said))
    assert used == set(ACTION["inputs"])
    for spec in ACTION["inputs"].values():
        assert spec["description"]
        assert spec.get("required", False) != ("default" in spec)
    # those that are written, by the paths that are written
    assert [spec["value"] for spec in ACTION["outputs"].values()] == [
        f"${{{{ steps.parity.outputs.{name} }}}}" for name in ACTION["outputs"]
    ]


def test_what_the_page_gives_to_the_action_and_takes_from_it_is_there():
    for step in BY_ACTION:
        if step["uses"] == OURS:
            assert step["with"].keys() <= ACTION["inputs"].keys()
            assert {n for n, spec in ACTION["inputs"].items() if spec.get("required")} <= set(
                step["with"]
            )
    taken = re.findall(r"steps\.parity\.outputs\.(\w+)", shown("action")[0])
    assert taken
    assert set(taken) <= ACTION["outputs"].keys()
    for name in ACTION["outputs"]:
        assert f"`{name}`" in PAGE


def test_the_table_of_drift_has_the_defaults():
    said = dict(re.findall(r"\| `(\w+) = ([\d.]+)` \|", PAGE))
    assert msgspec.convert(said, Drift, strict=False) == Drift()
    assert said.keys() == set(Drift.__struct_fields__)
    (text,) = shown("drift")
    msgspec.convert(tomllib.loads(text)["drift"], Drift)


# ---- and does what the page says


@pytest.fixture(scope="module")
def released(machine, store, tmp_path_factory):
    """The workflow, run as it is shown in a fresh repository; the receipt is written in between."""
    folder = repository(tmp_path_factory.mktemp("github") / "repository", store)
    env = machine()
    (receipt,) = shown("sh receipt")

    def write_receipt():
        assert bash(receipt, folder, env, "-e") == 0
        assert not (folder / "reports").exists()

    return folder, env, GitHub(folder, env).job(STEPS, before={"Parity": write_receipt})


@pytest.fixture
def copy(released, tmp_path):
    """The repository after a passing job, without its reports, to break; and its machine."""
    folder, env, _ = released
    copy = Path(shutil.copytree(folder, tmp_path / "repository"))
    shutil.rmtree(copy / "reports", ignore_errors=True)
    return copy, env


def verdict(ran):
    """What the job's summary begins with."""
    (name, said) = re.match(r"## Parity of (\w+): (\w+)\n", ran.summary).groups()
    assert name == "release"
    return said.lower()


def failures(junit):
    return sum(suite.failures + suite.errors for suite in JUnitXml.fromfile(str(junit)))


BEFORE = ("Install", "Fetch the checkpoint and the images", "Export")


@runs
def test_the_workflow_releases_what_passes(released):
    folder, env, ran = released
    assert list(ran.codes) == [step.get("name", step.get("uses")) for step in STEPS]
    assert not ran.failed
    assert list(Path(env["HOME"]).glob("venv/lib/python3*/site-packages/sam_deploy/cli/parity.py"))
    assert verdict(ran) == "passed"
    assert ran.artifacts["parity"] == ["parity.html", "parity.xml"]
    assert ran.artifacts["bundle"] == [
        "example.npz",
        "manifest.json",
        "manifest.json.sha256",
        MODEL,
        "parity.json",
    ]
    assert failures(folder / "reports/parity.xml") == 0
    junit = (folder / "reports/parity.xml").read_text()
    assert "against the receipt: parity" in junit
    assert "accuracy: top-1 drop" in junit
    assert f"{IMAGES} samples" in junit


@runs
def test_a_wrong_bundle_fails_the_workflow_and_leaves_its_reports(copy):
    folder, env = copy
    break_weight(folder / "engines/release")
    unhurried = {**env, "PATH": env["PATH"].partition(":")[2]}  # says where it broke too
    ran = GitHub(folder, unhurried).job(STEPS, skip=BEFORE)
    assert ran.codes["Parity"] == 1
    assert verdict(ran) == "failed"
    assert ran.artifacts == {"parity": ["parity.html", "parity.xml"]}  # and no bundle
    assert failures(folder / "reports/parity.xml") > 0


@runs
def test_the_action_installs_itself_and_passes(copy, machine):
    folder, _ = copy
    steps = [*ACTION_STEPS]
    place = next(i for i, step in enumerate(steps) if step.get("uses") == OURS)
    steps[place] = {**steps[place], "with": {**steps[place]["with"], "install": "cpu,export"}}
    ran = GitHub(folder, machine()).job(steps, skip=BEFORE)
    assert not ran.failed
    assert ran.outputs["parity"] == {
        "passed": "true",
        "junit": "reports/parity.xml",
        "html": "reports/parity.html",
        "markdown": "reports/parity.md",
    }
    assert verdict(ran) == "passed"
    assert ran.artifacts["parity"] == ["parity.html", "parity.md", "parity.xml"]
    assert MODEL in ran.artifacts["bundle"]
    assert "against the receipt" in (folder / "reports/parity.xml").read_text()


@runs
def test_the_action_fails_after_its_reports_are_written(copy):
    folder, env = copy
    break_weight(folder / "engines/release")
    ran = GitHub(folder, env).job(ACTION_STEPS, skip=BEFORE)
    assert ran.codes["Parity"] == 1
    assert ran.outputs["parity"]["passed"] == "false"
    assert verdict(ran) == "failed"
    assert ran.artifacts == {"parity": ["parity.html", "parity.md", "parity.xml"]}
    assert failures(folder / "reports/parity.xml") > 0


@runs
def test_the_actions_inputs_are_no_scripts(copy):
    folder, env = copy
    reports = folder / "reports ; touch folder"
    reports.mkdir()
    (reports / "parity.md").write_text("of an earlier run")
    (step,) = [step for step in BY_ACTION if step.get("uses") == OURS]
    (keep, *_) = [step for step in BY_ACTION if step.get("name") == "Keep the reports"]
    keep = {**keep, "with": {**keep["with"], "path": reports.name}}
    hostile = {
        "bundle": "--help; touch bundle",
        "weights": "$(touch weights-file)",
        "data": '" ; touch data-file ; "',
        "args": "--limit 3 ; touch args-file $(touch args-file) `touch args-file` *",
        "report-folder": reports.name,
    }
    ran = GitHub(folder, env).job([{**step, "with": hostile}, keep])
    # bad input: no reports, which is no failure of its own
    assert ran.codes == {"Parity": 2, "Keep the reports": 0}
    assert ran.artifacts == {"parity": []}
    assert ran.outputs["parity"]["passed"] == "false"
    assert ran.summary == "sam-parity gave no verdict (exit code 2): its log says why.\n"
    made = {"bundle", "weights-file", "data-file", "args-file", "folder"}
    assert not made & {path.name for path in folder.iterdir()}


@runs
def test_the_action_says_that_it_installs_nothing(copy, machine):
    ran = GitHub(copy[0], machine()).job(ACTION_STEPS, skip=BEFORE)
    assert ran.codes["Parity"] == 127
    assert ran.outputs["parity"]["passed"] == "false"


@runs
@pytest.mark.slow
def test_the_gitlab_job_fails_a_wrong_bundle_and_keeps_its_reports(released, store, tmp_path):
    github, env, _ = released
    folder = repository(tmp_path / "repository", store)
    shutil.copytree(github / "receipts", folder / "receipts")

    def sabotage():
        # another process and folder: the same bytes
        bundles = [place / "engines/release" / MODEL for place in (github, folder)]
        assert bundles[0].read_bytes() == bundles[1].read_bytes()
        break_weight(folder / "engines/release")

    code, files, junit = gitlab(GITLAB, folder, env, before_parity=sabotage)
    assert code == 1
    assert {"parity.html", "parity.xml", MODEL, MANIFEST} <= files
    assert failures(junit) > 0


@runs
def test_the_tests_that_are_shown_hold_a_bundle(released):
    folder, env, _ = released
    network, inputs = runpy.run_path(str(folder / "my_package/networks.py"))["make"]()
    sam_deploy.export(network, inputs, out=folder / "engines/own")
    for script in shown("sh"):
        assert bash(script, folder, env, "-e") == 0


@runs
def test_without_a_gpu_what_needs_one_is_exit_code_3(released):
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU")
    folder, env, _ = released
    scripts = shown("sh needs a GPU")
    assert len(scripts) == 2
    for script in scripts:
        assert bash(script, folder, env, "-e") == 3


def test_every_shell_line_of_the_page_is_one_that_is_run_here():
    marked = [*shown("sh"), *shown("sh receipt"), *shown("sh needs a GPU")]
    assert len(re.findall(r"^```sh$", PAGE, flags=re.M)) == len(marked)
    assert len(re.findall(r"^```yaml$", PAGE, flags=re.M)) == 3
    assert len(re.findall(r"^```python$", PAGE, flags=re.M)) == 2
