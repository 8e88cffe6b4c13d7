import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import onnx_graphs
import pytest
from onnx_graphs import RTX

from sam_deploy.bundle import read_bundle, staged
from sam_deploy.engines import rebuild
from sam_deploy.errors import BundleError, InputError, MachineError
from sam_deploy.plans import BatchProfile, PlanOptions

pytestmark = pytest.mark.long


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "tiny")


def test_the_missing_plan_is_added_and_the_rest_stays(bundle):
    before = read_bundle(bundle)
    done = rebuild(bundle)  # its recipe says "none"; who rebuilds wants plans
    after = read_bundle(bundle)  # every hash is right
    assert after == done.manifest
    [plan] = done.built
    assert after.plans == [plan]
    assert after.files.keys() - before.files.keys() == {plan.file}
    assert all(after.files[file] == info for file, info in before.files.items())
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]
    assert ("tensorrt" in done.skipped) == (find_spec("tensorrt") is None)


def test_a_plan_that_is_there_is_kept(bundle):
    first = rebuild(bundle, RTX)
    stamp = bundle.stat().st_ino
    again = rebuild(bundle, RTX)
    assert (again.built, again.kept) == ([], first.built)
    assert bundle.stat().st_ino == stamp  # nothing was written


def test_plans_for_other_gpus_stay_beside_it(bundle):
    [first] = rebuild(bundle, RTX).built
    options = PlanOptions(engines=["tensorrt-rtx"], compute_capabilities=["8.9"])
    [second] = rebuild(bundle, options).built
    assert read_bundle(bundle).plans == [first, second]


def test_a_plan_of_another_profile_or_another_onnx_is_replaced(bundle):
    [first] = rebuild(bundle, RTX).built
    other = msgspec.structs.replace(RTX, profile=BatchProfile(min=1, opt=2, max=4))
    [second] = rebuild(bundle, other).built
    assert second.file == first.file
    assert read_bundle(bundle).plans == [second]


def test_a_damaged_bundle_is_not_rebuilt(bundle):
    with (bundle / "model.onnx").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="SHA-256"):
        rebuild(bundle)


def test_a_bundle_that_another_writes_to_is_not_rebuilt(bundle):
    before = read_bundle(bundle)
    with staged(bundle) as folder:
        (folder / "model.onnx").write_text("the first one's")
        with pytest.raises(InputError, match="another export is writing to"):
            rebuild(bundle, RTX)
        assert (folder / "model.onnx").read_text() == "the first one's"
    assert read_bundle(bundle) == before
    assert len(rebuild(bundle, RTX).built) == 1


def test_a_bundle_that_changes_while_it_is_copied_is_not_mixed(bundle, monkeypatch):
    copied = shutil.copyfile

    def changed(source, target):
        copied(source, target)
        if source.name == "parity.json":
            target.write_text("{}")

    monkeypatch.setattr(shutil, "copyfile", changed)
    before = read_bundle(bundle)
    with pytest.raises(BundleError, match=r"changed while it was copied\. Nothing was rebuilt"):
        rebuild(bundle, RTX)
    assert read_bundle(bundle) == before


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root mounts")
def test_a_disk_without_room_for_the_plan_leaves_the_bundle(bundle, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    needed = sum(path.stat().st_size for path in bundle.iterdir())
    room = 2 * needed + 128 * 1024  # for the bundle and its copy; the plan takes more
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        full = Path(shutil.copytree(bundle, disk / bundle.name))
        with pytest.raises(MachineError, match=r"cannot write to .*No space left.* Free some"):
            rebuild(full, RTX)
        assert read_bundle(full) == read_bundle(bundle)
        assert [path.name for path in disk.iterdir()] == [full.name]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_refusal_leaves_the_bundle_as_it_was(bundle):
    before = read_bundle(bundle)
    options = PlanOptions(engines=["tensorrt-rtx"], compute_capabilities=["9.9"])
    with pytest.raises(InputError, match=r"compute capability 9\.9"):
        rebuild(bundle, options)
    if find_spec("tensorrt") is None:
        with pytest.raises(MachineError, match="is not installed"):
            rebuild(bundle, PlanOptions(engines=["tensorrt"]))
    assert read_bundle(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_it_needs_no_torch(bundle):
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'onnx_ir', 'onnxscript', 'onnxruntime']))\n"
        "from pathlib import Path\n"
        "from sam_deploy.engines import rebuild\n"
        f"print(len(rebuild(Path({str(bundle)!r})).built))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_bundle_that_is_not_what_its_manifest_says_fails_the_audit(bundle):
    """A manifest that calls an FP32 graph FP16: the network is looked at, not the name."""
    import json

    import numpy as np
    from conftest import rewrite_manifest

    from sam_deploy.bundle import file_infos
    from sam_deploy.errors import PrecisionError

    onnx_graphs.conv(bundle / "model.onnx", np.float32)
    rewrite_manifest(bundle, files=json.loads(msgspec.json.encode(file_infos(bundle))))
    with pytest.raises(PrecisionError, match="computes in FLOAT, expected HALF"):
        rebuild(bundle, RTX)
