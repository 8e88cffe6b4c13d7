import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
from conftest import rewrite_manifest

from sam_deploy.bundle import read_bundle
from sam_deploy.cli.inspect import main


def test_what_is_in_a_bundle(capsys, tiny_bundle):
    assert main([str(tiny_bundle)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [name for name, _ in rows if name != "refused"] == [
        *("bundle", "model", "weights", "input", "output", "graph", "rewrites", "precision"),
        *("parity", "parity", "load", "file", "file", "file", "made"),
    ]
    assert "tiny, classifier, 10 classes" in out
    assert "input float32 (batch, 3, 64, 64)" in out
    assert "PASSED: model.onnx" in out
    assert read_bundle(tiny_bundle).files["model.onnx"].sha256[:16] in out


def test_what_runs_it_here(capsys, tiny_bundle):
    assert main([str(tiny_bundle), "--here"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split(maxsplit=1)[1].endswith("CPUExecutionProvider (cpu)")
    assert "\nnot tensorrt" in out
    assert main([str(tiny_bundle), "--here", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["artefact"]) == ("cpu", "model.onnx")
    assert list(found["passed_over"]) == ["tensorrt", "tensorrt-rtx", "cuda", "openvino"]


def test_json_is_the_manifest(capsys, tiny_bundle):
    assert main([str(tiny_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (tiny_bundle / "manifest.json").read_bytes()
    )


def test_a_manifest_without_rules(capsys, tiny_bundle, tmp_path):
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    rewrites = msgspec.to_builtins(read_bundle(bundle).rewrites)
    rewrite_manifest(bundle, rewrites={**rewrites, "rules": []})
    assert main([str(bundle)]) == 0
    assert "none fired" in capsys.readouterr().out


def test_not_a_bundle(capsys, tmp_path, tiny_bundle):
    for path in (tmp_path, tmp_path / "gone", tiny_bundle / "model.onnx"):
        assert main([str(path), "--json"]) == 2
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert answer["exit_code"] == 2
        assert "is not a bundle" in answer["error"]
        assert err == f"error: {answer['error']}\n"


def test_the_installed_command(tiny_bundle):
    command = Path(sys.executable).with_name("sam-inspect")
    done = subprocess.run([command, tiny_bundle, "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["name"] == "tiny-fp16-64"
