"""No file given as a checkpoint can break `sam-export`: one message, exit code 2, little memory."""

import os
import re
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from hostile_files import HOSTILE
from torch.utils.serialization import config

from sam_deploy.cli.export import main
from sam_deploy.models import SAM
from sam_deploy.models.checkpoint import read_checkpoint


def refusal(capsys, *argv):
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    (message,) = re.findall(r"^error: (.*)", err, re.MULTILINE | re.DOTALL)
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(("write", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused(capsys, tmp_path, write, said):
    path = tmp_path / "c.pth"
    write(path)
    assert re.search(said, refusal(capsys, "--weights", str(path), "--dry-run"))


@pytest.mark.long
def test_no_hostile_file_takes_much_memory(tmp_path):
    for number, (write, _) in enumerate(HOSTILE.values()):
        write(tmp_path / f"{number}.pth")
    code = """
import resource, sys
from pathlib import Path
from sam_deploy.errors import CheckpointError
from sam_deploy.models.fit import load_model
def peak_mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
def refused(path):
    try: load_model(path)
    except CheckpointError: return 1
paths = sorted(Path(sys.argv[1]).iterdir())
before = peak_mb()
print(sum(map(refused, paths)), peak_mb() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    refused, grown_mb = map(int, done.stdout.split())
    assert refused == len(HOSTILE)
    assert grown_mb < 100


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_refused(capsys, tmp_path, kind):
    path = tmp_path / "c.pth"
    if kind == "safetensors":
        safetensors.torch.save_file(SAM(8).state_dict(), path)
    else:
        torch.save(SAM(8).state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    noise = bytes(range(5, 256)) * 9
    for damaged in (b"", whole[: len(whole) // 2], whole[:-1], noise, noise[:64] + whole):
        path.write_bytes(damaged)
        said = refusal(capsys, "--weights", str(path), "--dry-run")
        assert said.startswith(str(path))
        assert "expected" in said


def test_a_flipped_bit_in_a_weight_is_found(capsys, tmp_path):
    """torch.load itself would not: it leaves the checksums of the archive alone."""
    torch.save({"w": torch.arange(64.0)}, tmp_path / "c.pth")
    raw = bytearray((tmp_path / "c.pth").read_bytes())
    raw[raw.index(torch.arange(64.0).numpy().tobytes()) + 5] ^= 1
    (tmp_path / "c.pth").write_bytes(raw)
    assert torch.load(tmp_path / "c.pth")["w"].shape == (64,)
    said = refusal(capsys, "--weights", str(tmp_path / "c.pth"), "--dry-run")
    assert "damaged or cut short" in said
    assert "CRC" in said


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "epoch": 3}])
def test_a_whole_module_is_refused_and_not_run(capsys, tmp_path, wrap, zipped):
    path = tmp_path / "c.pth"
    torch.save(wrap(torch.nn.DataParallel(SAM(8))), path, _use_new_zipfile_serialization=zipped)
    said = refusal(capsys, "--weights", str(path), "--dry-run")
    assert "whole pickled module (torch.nn.parallel.data_parallel.DataParallel)" in said
    assert "nothing of it was" in said
    assert "torch.save(model.state_dict(), ...)" in said


def test_a_whole_module_is_refused_as_the_averaged_copy_too(capsys, tmp_path):
    torch.save({"model": SAM(8).state_dict(), "ema": SAM(8)}, tmp_path / "c.pth")
    said = refusal(capsys, "--weights", str(tmp_path / "c.pth"), "--ema", "--dry-run")
    assert "whole pickled module (sam_deploy.models.sam.SAM)" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(capsys, tmp_path, value):
    module = SAM(8)
    module.proj.bias.data[3] = value
    torch.save(module.state_dict(), tmp_path / "c.pth")
    said = refusal(capsys, "--weights", str(tmp_path / "c.pth"), "--dry-run")
    assert "holds NaN or infinity in 1 of " in said
    assert "proj.bias" in said


def test_a_checkpoint_of_another_model_says_of_which(capsys, tmp_path):
    torch.save(SAM(8).state_dict(), tmp_path / "c.pth")
    said = refusal(
        capsys, "--model", "smt_t", "--weights", str(tmp_path / "c.pth"), "--out", str(tmp_path),
        "--num-classes", "0",
    )  # fmt: skip
    assert "does not fit smt_t" in said
    assert "use --model sam" in said


def test_names_in_a_file_cannot_write_to_the_terminal(capsys, tmp_path):
    torch.save({"\x1b[2J\nw": torch.zeros(1)}, tmp_path / "c.pth")
    assert "\x1b" not in refusal(capsys, "--weights", str(tmp_path / "c.pth"), "--dry-run")


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/mem", "n" * 300, "x\0y"])
def test_paths_that_are_no_files(capsys, path):
    code = main(["--weights", path, "--dry-run"])
    assert code in (2, 3)
    assert "Traceback" not in capsys.readouterr().err


def test_a_pipe_is_not_waited_for(capsys, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    said = refusal(capsys, "--weights", str(tmp_path / "pipe"), "--dry-run")
    assert "is a pipe or a device" in said


def test_what_torch_writes_without_checksums_is_read(tmp_path):
    config.save.compute_crc32 = False  # monkeypatch would delete it afterwards, and torch hide it
    try:
        torch.save({"w": torch.arange(3.0)}, tmp_path / "c.pth")
    finally:
        config.save.compute_crc32 = True
    assert read_checkpoint(tmp_path / "c.pth")["w"].tolist() == [0, 1, 2]
