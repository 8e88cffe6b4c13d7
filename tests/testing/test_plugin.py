"""The pytest plugin and `assert_parity`, as the tests of whoever ships a bundle use them."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import msgspec
import onnx
import pytest
import torch
from conftest import rewrite_manifest
from onnx import numpy_helper
from packaging.requirements import Requirement
from torch import nn

import sam_deploy
from sam_deploy.bundle import MODEL, file_infos
from sam_deploy.errors import BundleError, InputError
from sam_deploy.testing import assert_parity

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "numpy", "PIL", "msgspec"}
# What nobody has who installed sam-deploy[cpu] and torch. (Torch says that it needs filelock, and
# imports it only to compile.)
ABSENT = {"onnx", "onnx_ir", "onnxscript", "safetensors", "filelock", "tomli_w"}


@pytest.fixture
def inner(pytester):
    """Runs tests in a pytest of their own: `inner(source, *options)`."""

    def run(source, *options):
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *map(str, options))

    return run


@pytest.fixture
def wrong(tiny_bundle, tmp_path):
    """A bundle that is whole, and in which one weight is not the model's."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "wrong"))
    model = onnx.load(bundle / MODEL)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(model, bundle / MODEL)
    rewrite_manifest(bundle, files=msgspec.to_builtins(file_infos(bundle)))
    return bundle


# ---- the fixtures

NAMED = "def test_name(sam_bundle): print(f'got {sam_bundle}')"


def test_a_test_gets_the_bundle_that_is_given(inner, tiny_bundle):
    done = inner(NAMED, "--sam-bundle", tiny_bundle, "-s")
    done.assert_outcomes(passed=1)
    assert f"got {tiny_bundle}" in done.stdout.str()


def test_each_of_several_bundles_is_a_test(inner, tmp_path):
    for path in ("old/release", "new/release", "other"):
        (tmp_path / path).mkdir(parents=True)
    source = """
        import pytest

        @pytest.fixture
        def opened(sam_bundle):
            return sam_bundle.parent.name, sam_bundle.name

        def test_through_a_fixture_of_ones_own(opened): print("got", *opened)
        def test_without(): pass
        """
    given = [f"--sam-bundle={tmp_path / p}" for p in ("old/release", "new/release", "other")]
    done = inner(source, *given, "-s", "-v")
    done.assert_outcomes(passed=4)
    for found in ("old release", "new release", f"{tmp_path.name} other"):
        assert f"got {found}" in done.stdout.str()
    assert "[other]" in done.stdout.str()


def test_without_a_bundle_it_fails_and_is_not_skipped(inner):
    done = inner(NAMED)
    done.assert_outcomes(errors=1)
    assert done.ret == 1
    assert "no bundle: give --sam-bundle PATH" in done.stdout.str()


def test_a_path_that_leads_nowhere_fails_by_its_name(inner, tiny_bundle):
    done = inner(NAMED, "--sam-bundle", "engines/gone", "--sam-bundle", tiny_bundle)
    done.assert_outcomes(passed=1, errors=1)
    assert "--sam-bundle engines/gone: there is no such folder" in done.stdout.str()


ENGINE = """
    import numpy as np

    seen = []

    def test_it_runs(sam_engine):
        assert sam_engine(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 10)
        seen.append(sam_engine)

    def test_it_is_loaded_once(sam_engine):
        assert seen == [sam_engine]
    """


def test_an_engine_is_loaded_as_a_service_loads_it(inner, tiny_bundle, tmp_path):
    inner(ENGINE, "--sam-bundle", tiny_bundle).assert_outcomes(passed=2)
    damaged = Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
    with (damaged / MODEL).open("ab") as file:
        file.write(b"x")
    done = inner(ENGINE, "--sam-bundle", damaged)
    done.assert_outcomes(errors=2)
    assert "is damaged" in done.stdout.str()


def test_who_does_not_use_it_pays_nothing(pytester):
    """It is in every pytest run of the environment, whatever that tests."""
    pytester.makeconftest(
        """
        import sys

        def pytest_sessionfinish():
            ours = {name for name in sys.modules if name.startswith("sam_deploy")}
            print("\\nloaded", *sorted(ours))
            print("heavy", *sorted({name.partition(".")[0] for name in sys.modules} & HEAVY))
        """.replace("HEAVY", repr(HEAVY))
    )
    pytester.makepyfile(
        test_unused="def test_unused(): pass",
        test_used="""
            from sam_deploy.testing import assert_parity

            def test_used(sam_bundle, sam_engine): assert_parity(sam_bundle)
            """,
    )
    quiet = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    done = [
        subprocess.run([*quiet, *argv], cwd=pytester.path, capture_output=True, text=True)
        for argv in (["test_unused.py"], ["--collect-only", "--sam-bundle", "engines/any"])
    ]
    for ran in done:
        assert ran.returncode == 0, ran.stdout
        loaded = re.search(r"^loaded (.*)$", ran.stdout, flags=re.M)[1].split()
        assert loaded == ["sam_deploy", "sam_deploy.testing", "sam_deploy.testing.plugin"]
        assert re.search(r"^heavy *$", ran.stdout, flags=re.M), ran.stdout
    assert "test_used[any]" in done[1].stdout


# ---- assert_parity


def test_it_passes_and_returns_what_it_found(tiny_bundle, tiny_checkpoint):
    result = assert_parity(tiny_bundle, weights=tiny_checkpoint, limit=4, cosine=0.9999)
    assert result.passed
    assert (result.name, result.samples) == ("tiny-fp16-64", 4)
    assert result.artefacts[0].parity.outputs[0].relative_rms < 3e-3


def test_it_fails_with_every_reason(inner, wrong, tiny_checkpoint):
    source = f"""
        from sam_deploy.testing import assert_parity

        def test_release(sam_bundle):
            assert_parity(sam_bundle, weights={str(tiny_checkpoint)!r}, limit=4)
        """
    done = inner(source, "--sam-bundle", wrong)
    done.assert_outcomes(failed=1)
    said = done.stdout.str()
    assert f"AssertionError: {wrong} is not the model it was made from:" in said
    for reason in ("relative RMS", "cosine", "batch of 8"):
        assert re.search(rf"^E +model.onnx on onnxruntime \w+: .*{reason}", said, flags=re.M), said
    assert "verify(" not in said  # the traceback ends in the user's test


def test_what_cannot_be_judged_is_no_failure_of_the_bundle(tiny_bundle, tiny_checkpoint, tmp_path):
    given = {"weights": tiny_checkpoint, "limit": 4}
    with pytest.raises(BundleError, match="is not a bundle"):
        assert_parity(tmp_path, **given)
    with pytest.raises(InputError, match="give that checkpoint"):
        assert_parity(tiny_bundle)
    with pytest.raises(InputError, match=r"relative_rms 0\.01 is looser than the recipe's 0\.003"):
        assert_parity(tiny_bundle, **given, relative_rms=0.01)
    with pytest.raises(InputError, match="relativ_rms"):
        assert_parity(tiny_bundle, **given, relativ_rms=0.001)
    with pytest.raises(InputError, match="unknown backend 'tensorflow'"):
        assert_parity(tiny_bundle, **given, require=("tensorflow",))
    assert assert_parity(tiny_bundle, **given, relative_rms=0.01, allow_looser=True).passed


class Own(nn.Module):
    """A network of the user's own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).relu()


@pytest.mark.export
def test_a_module_of_ones_own(tmp_path):
    torch.manual_seed(0)
    module, inputs = Own(), torch.randn(4, 3, 8, 8)
    bundle = sam_deploy.export(module, inputs, out=tmp_path / "own").bundle
    assert assert_parity(bundle, module=module, example_inputs=inputs).passed
    with torch.no_grad():
        module.conv.bias += 1
    with pytest.raises(InputError, match="the module holds other weights"):
        assert_parity(bundle, module=module, example_inputs=inputs)
    with pytest.raises(InputError, match="in Python give the module and its example inputs"):
        assert_parity(bundle)


# ---- with what a service and torch need, and no more


def needed(*names):
    """The distributions that pip would bring with these."""
    found, wanted = {}, list(names)
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        required = map(Requirement, found[name].requires or [])
        wanted += [r.name for r in required if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def few_packages(tmp_path):
    """A folder of packages: the wheel, torch, onnxruntime, pytest and what these need."""
    site = tmp_path / "site"
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    build = ["wheel", str(ROOT), "--no-build-isolation", "-w", str(tmp_path)]
    for argv in (build, ["install", "--target", str(site)]):
        wheels = map(str, tmp_path.glob("*.whl"))
        command = [sys.executable, "-m", "pip", *argv, *wheels, *quiet]
        subprocess.run(command, check=True, capture_output=True)
    for distribution in needed("torch", "onnxruntime", "sam-deploy", "pytest").values():
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            name = top.partition(".")[0].partition("-")[0]
            if name not in ABSENT and not top.endswith(".pth") and not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    return site


FEW = """
import importlib.util

import pytest
from sam_deploy.cli.parity import main
from sam_deploy.errors import MachineError
from sam_deploy.testing import assert_parity


def test_release(sam_bundle):
    assert not [name for name in ABSENT if importlib.util.find_spec(name)]
    result = assert_parity(sam_bundle, weights="tiny.pth", limit=4)
    assert result.passed
    found = {check.name: (check.passed, check.detail) for check in result.checks}
    assert found["inputs and outputs"][0] is True
    for name in ("precision", "graph", "FP16 range"):
        passed, detail = found[name]
        assert passed is None
        assert detail.startswith("not looked at: onnx")
        assert "is not installed (pip install 'sam-deploy[export]')" in detail


def test_the_command_and_its_pages(sam_bundle, capsys):
    pages = [f"--{kind}={kind}" for kind in ("junit", "html", "markdown")]
    assert main([str(sam_bundle), "--weights", "tiny.pth", "--limit", "4", *pages]) == 0
    out, err = capsys.readouterr()
    assert "precision: NOT LOOKED AT" in out
    for kind in ("junit", "html", "markdown"):
        with open(kind) as page:
            assert "onnx is not installed" in page.read().replace("\\\\", "")


def test_what_is_missing_is_named(sam_bundle):
    with pytest.raises(MachineError, match="safetensors is not installed"):
        assert_parity(sam_bundle, weights="tiny.safetensors", limit=4)
"""


@pytest.mark.long
def test_the_wheel_torch_and_onnxruntime_are_enough(
    few_packages, tiny_bundle, tiny_checkpoint, tiny_model, tmp_path
):
    user = tmp_path / "user"
    user.mkdir()
    torch.save(tiny_model().state_dict(), user / "tiny.pth")
    shutil.copy(tiny_checkpoint, user / "tiny.safetensors")
    (user / "test_release.py").write_text(FEW.replace("ABSENT", repr(ABSENT)))
    command = [sys.executable, "-S", "-m", "pytest", "-q", "--sam-bundle", str(tiny_bundle)]
    done = subprocess.run(
        command,
        cwd=user,
        env={**os.environ, "PYTHONPATH": str(few_packages), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
