"""`sam-parity` as CI and people call it: exit codes, JSON, odd paths and files, signals."""

import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sam_deploy.bundle import MANIFEST
from sam_deploy.cli.parity import main
from sam_deploy.synthetic import synthetic_images

TIGHT = ("--relative-rms", "1e-9")  # no FP16 keeps it


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "parity"


@pytest.fixture
def parity(capsys, tiny_bundle, tiny_checkpoint):
    """Runs the command on the tiny bundle, or another: exit code, stdout, stderr."""

    def run(*argv, bundle=tiny_bundle):
        code = main([str(a) for a in (bundle, "--weights", tiny_checkpoint, *argv)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(synthetic_images(3)):
        image.save(folder / f"{number}.png")
    return folder


def test_a_bundle_that_passes(parity):
    code, out, err = parity("--limit", "5")
    assert code == 0
    rows = out.splitlines()
    assert rows[0].split() == ["verdict", "PASSED"]
    assert any(row.startswith("data") and "5 samples, without labels" in row for row in rows)
    assert sum(row.startswith("check") for row in rows) == 8
    assert "note: measured on built-in samples" in err


def test_a_bundle_that_fails(parity):
    code, out, err = parity("--limit", "5", *TIGHT)
    assert code == 1
    rows = out.splitlines()
    assert rows[0].split() == ["verdict", "FAILED"]
    assert rows[1].startswith("failed   model.onnx on onnxruntime CPUExecutionProvider: logits: ")
    assert err.splitlines()[-1].startswith("error: parity failed: model.onnx on onnxruntime")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--limit", "0"], 2, "expected 1 sample or more"),
        (["--limit", "x"], 2, "invalid int value: 'x'"),
        (["--relative-rms", "nan"], 2, "relative_rms: Expected `float`"),
        (["--relative-rms", "0.05"], 2, "is looser than the recipe's 0.003"),
        (["--model", "a:b"], 2, "the bundle is of tiny, which needs no --model"),
        (["--data", "nowhere"], 2, "nowhere does not exist"),
        (["--require", "tvm"], 2, "unknown backend 'tvm'"),
        (["--require", "tensorrt-rtx"], 3, "tensorrt-rtx is required and does not run here"),
    ],
)
def test_exit_codes(parity, argv, code, said):
    found, out, err = parity(*argv)
    assert (found, out) == (code, "")
    assert said in err
    found, out, _ = parity(*argv, "--json")
    answer = json.loads(out)
    assert (found, answer["exit_code"]) == (code, code)
    assert said in answer["error"]


def test_json_has_all_that_ci_asks_for(parity):
    code, out, _ = parity("--limit", "3", "--json", *TIGHT)
    result = json.loads(out)
    assert (code, result["schema_version"], result["passed"]) == (1, 1, False)
    assert result.keys() >= {
        *("bundle", "name", "model", "precision", "weights_sha256", "data", "samples", "labelled"),
        *("tolerances", "checks", "artefacts", "skipped", "layers", "notes"),
    }
    assert {check["name"]: check["passed"] for check in result["checks"]}["FP16 range"] is True
    (artefact,) = result["artefacts"]
    assert artefact["failures"][0].startswith("logits: relative RMS")
    assert artefact["parity"]["outputs"][0]["relative_rms"] > 1e-9
    assert [batch["size"] for batch in artefact["parity"]["batches"]] == [1, 8, 32]
    assert all(one["thumbnail"] is None for one in artefact["worst"])  # only a page shows them


def test_a_bundle_by_any_path(parity, tiny_bundle, tmp_path, monkeypatch):
    def figures(bundle):
        code, out, _ = parity("--limit", "2", "--json", bundle=bundle)
        assert code == 0
        return json.loads(out)["artefacts"]

    expected = figures(tiny_bundle)
    link = tmp_path / "link"
    link.symlink_to(tiny_bundle)
    monkeypatch.chdir(tiny_bundle)
    for path in (link, f"../{tiny_bundle.name}/"):
        assert figures(path) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_no_text(parity, photos):
    odd = Path(os.fsdecode(os.fsencode(photos) + b"\xe9"))
    photos.rename(odd)
    (odd / "0.png").rename(os.fsdecode(os.fsencode(odd) + b"/caf\xe9.png"))
    (odd / "1.png").write_bytes(b"no image")
    code, out, _ = parity("--data", odd, "--json")
    result = json.loads(out)
    assert (code, result["samples"]) == (0, 2)
    assert result["data"].endswith("photos\\udce9")
    assert any("1 of 3 images were left out" in note for note in result["notes"])


def archive(path, *members, **options):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as made:
        warnings.simplefilter("ignore")
        for name, content in members:
            made.writestr(name, content)
    return path


def array(shape=(2, 3, 64, 64), content=None):
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    file.write(bytes(4 * int(np.prod(shape))) if content is None else content)
    return file.getvalue()


def test_archives_that_numpy_never_wrote(parity, tmp_path):
    """None is a bug of ours, and none takes the memory that it promises to fill."""
    path = tmp_path / "a.npz"
    whole = archive(path, ("input.npy", array())).read_bytes()
    directory, local = whole.rfind(b"PK\x01\x02"), whole.find(b"PK\x03\x04")
    encrypted, unknown = bytearray(whole), bytearray(whole)
    encrypted[directory + 8] |= 1
    encrypted[local + 6] |= 1
    unknown[directory + 10] = unknown[local + 8] = 99  # a compression that nobody has
    for content in (encrypted, unknown):
        path.write_bytes(content)
        code, _, err = parity("--data", path)
        assert (code, "cannot be read as an .npz of plain arrays" in err) == (2, True)
    for member in (
        ("input", array()),
        ("input.npy", array((10**12, 3, 64, 64), b"")),
        ("input.npy", array((-5, 3, 64, 64), b"")),
        ("input.npy", b"no array"),
    ):
        code, _, err = parity("--data", archive(path, member))
        assert (code, "cannot be read as an .npz of plain arrays" in err) == (2, True), member[0]


def test_labels_of_arrays_are_left_alone_if_asked(parity, tmp_path):
    path = tmp_path / "a.npz"
    images = np.random.RandomState(0).standard_normal((4, 3, 64, 64))
    np.savez(path, input=images, labels=np.arange(4))
    for flags, labelled in (((), True), (("--no-labels",), False)):
        code, out, _ = parity("--data", path, "--json", *flags)
        assert (code, json.loads(out)["labelled"]) == (0, labelled)


def test_a_bundle_that_is_none(parity, tiny_bundle, tmp_path):
    for path, said in (
        (tmp_path / "gone", "there is no such folder"),
        (tiny_bundle / MANIFEST, "is not a bundle"),
        (tmp_path, "it holds no manifest.json"),
    ):
        code, out, err = parity(bundle=path)
        assert (code, out) == (2, "")
        assert said in err


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough samples to be interrupted among them."""
    path = tmp_path_factory.mktemp("many") / "many.npz"
    np.savez(path, input=np.random.RandomState(0).standard_normal((160, 3, 64, 64)))
    return path


# As the command, but that every batch is kept at once, and the process ends itself at the third.
_ENDING = """
import os, signal, sys
from sam_deploy.cli import parity
from sam_deploy.verification import resume
resume._SNAPSHOT_EVERY_S = 0.0
resume._WRITE_EVERY_S = {write}
taken, snapshot = [], resume.Checkpoint.snapshot
def ending(self, state):
    snapshot(self, state)
    taken.append(state)
    if len(taken) == 3:
        os.kill(os.getpid(), signal.{signal})
resume.Checkpoint.snapshot = ending
sys.exit(parity.main())
"""


@pytest.mark.long
@pytest.mark.parametrize(("signal", "write", "code"), [("SIGTERM", 20, 130), ("SIGKILL", 0, -9)])
def test_what_a_signal_ends_goes_on_where_it_was(
    parity, tiny_bundle, tiny_checkpoint, many, cache, signal, write, code
):
    command = _ENDING.format(signal=signal, write=write)
    given = [str(tiny_bundle), "--weights", str(tiny_checkpoint), "--data", str(many), "--json"]
    done = subprocess.run([sys.executable, "-c", command, *given], capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert [path.suffix for path in cache.iterdir()] == [".state"]
    code, out, err = parity("--data", many, "--json")
    assert code == 0
    assert "going on at sample 96 of 160" in err
    assert not any(cache.iterdir())
    assert parity("--data", many, "--json")[1] == out


@pytest.mark.long
def test_a_reader_that_had_enough_does_not_change_the_verdict(tiny_bundle, tiny_checkpoint):
    command = [sys.executable, "-m", "sam_deploy.cli.parity", tiny_bundle]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*command, "--weights", tiny_checkpoint, "--limit", "2", *TIGHT],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: parity failed: model.onnx" in done.stderr
