"""Whatever ends an export, and whenever: its place holds what it held, or the whole new bundle."""

import json
import shutil
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from conftest import TINY, rewrite_manifest
from torn import runs

import sam_deploy
from sam_deploy.bundle import file_infos, staged
from sam_deploy.cli.export import main

pytestmark = pytest.mark.long

STAGES = [f"stage {s}" for s in ("load", "rewrite", "lower", "ranges", "fp16", "parity", "bundle")]


@pytest.fixture
def arguments(tiny_checkpoint, tmp_path):
    """The tiny model's recipe as a file, for the command."""
    lines = {
        "model": "tiny",
        "image_size": [64, 64],
        "precision": "fp16",
        "weights": str(tiny_checkpoint),
    }
    table = "\n".join(f"{key} = {value}" for key, value in TINY.items())
    path = tmp_path / "tiny.toml"
    top = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
    path.write_text(f"{top}\n[architecture]\n{table}\n")
    return [str(path)]


def check(run, before):
    """The law: before, or new and whole; and the next export finds nothing in its way."""
    assert run["found"] in (before, "new"), run
    assert (run["next"], run["left_next"]) == ("next", ["name"]), run


def check_interrupted(run, before):
    check(run, before)
    assert run["ended"] == 130, run
    assert run["left"] == ([] if run["found"] == "absent" else ["name"]), run


def writings(bundle, tmp_path, *signals, **options):
    """The writing of `bundle`, struck by each signal at each of its steps in turn."""
    strikes = [[each, None] for each in signals]
    return runs("publish", out=tmp_path / "out", source=bundle, strikes=strikes, **options)


@pytest.mark.parametrize("old", [False, True])
def test_killed_at_every_step_of_the_writing(tiny_bundle, tmp_path, old):
    struck = writings(tiny_bundle, tmp_path, signal.SIGKILL, old=old)
    for run in struck:
        assert run["ended"] == -signal.SIGKILL
        check(run, "old" if old else "absent")
    assert {run["found"] for run in struck} == {"old" if old else "absent", "new"}
    assert len(struck) > 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is always so")
def test_where_folders_cannot_be_swapped_the_old_bundle_is_never_lost(tiny_bundle, tmp_path):
    struck = writings(tiny_bundle, tmp_path, signal.SIGKILL, signal.SIGINT, old=True, swap=False)
    gone = [run for run in struck if run["found"] == "absent"]
    for run in struck:
        check(run, "absent" if run in gone else "old")
    (between,) = gone  # the two renames: then it stands beside its place, until the next export
    assert ".name.old" in between["left"]
    assert between["ended"] == -signal.SIGKILL


@pytest.mark.parametrize("way", ["straight in", "remove and rename"])
def test_another_way_of_writing_is_found_out(tiny_bundle, tmp_path, way):
    struck = writings(tiny_bundle, tmp_path, signal.SIGKILL, old=True, sabotage=way)
    assert any(run["found"].startswith("torn") for run in struck)


@pytest.mark.parametrize("old", [False, True])
def test_interrupted_at_every_step_of_the_writing(tiny_bundle, tmp_path, old):
    struck = writings(tiny_bundle, tmp_path, signal.SIGINT, old=old)
    for run in struck:
        check_interrupted(run, "old" if old else "absent")


@pytest.fixture(scope="module")
def small_bundle(tiny_bundle, tmp_path_factory):
    """No model, but whole: a bundle whose manifest is its largest file."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("small") / "bundle"))
    for name in ("model.onnx", "example.npz"):
        (folder / name).write_bytes(b"small")
    rewrite_manifest(folder, files=msgspec.to_builtins(file_infos(folder)))
    return folder


def test_a_file_that_may_not_grow(small_bundle, tmp_path):
    struck = runs(
        "publish", out=tmp_path / "out", source=small_bundle, old=True, limits=[3, 100, 2000]
    )
    for run in struck:
        check(run, "old")
        assert (run["ended"], run["found"], run["left"]) == (3, "old", ["name"]), run
    names = [".name.partial/example.npz", ".name.partial/parity.json", ""]  # a write has no name
    for run, name in zip(struck, names, strict=True):
        where = tmp_path / "out" / name
        remedy = "Free some space, or choose another --out."
        assert run["said"] == f"error: cannot write to {where}: File too large. {remedy}\n"


@pytest.mark.export
def test_whole_exports(arguments, tiny_bundle, tmp_path):
    """Killed in the last stage, by SIGTERM in an early one, and out of space for the model."""
    killed = ["stage bundle"]
    struck = runs(
        arguments,
        out=tmp_path / "out",
        source=tiny_bundle,
        old=True,
        strikes=[[signal.SIGKILL, killed], [signal.SIGTERM, ["stage lower"]]],
        limits=[50_000],
    )
    assert [run["event"] for run in struck] == [*killed, "stage lower", "limit 50000"]
    for run in struck:
        check(run, "old")
        assert run["found"] == "old"
        assert "Traceback" not in run["said"]
    by_kill, by_term, by_limit = struck
    assert by_kill["ended"] == -signal.SIGKILL
    check_interrupted(by_term, "old")
    assert by_term["said"].splitlines()[-1] == "error: interrupted"
    assert (by_limit["ended"], by_limit["left"]) == (3, ["name"])
    assert by_limit["said"].splitlines()[-1] == (
        f"error: cannot write to {tmp_path}/out: File too large. "
        "Free some space, or choose another --out."
    )
    assert main([*arguments, "--out", str(tmp_path / "out"), "--name", "name", "--force"]) == 0
    assert sam_deploy.load(tmp_path / "out" / "name").manifest.name == "name"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["name"]


@pytest.mark.slow
@pytest.mark.export
@pytest.mark.parametrize(
    ("number", "old"), [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGINT, True)]
)
def test_whole_exports_struck_at_every_step(arguments, tiny_bundle, tmp_path, number, old):
    struck = runs(
        arguments, out=tmp_path / "out", source=tiny_bundle, old=old, strikes=[[number, None]]
    )
    assert set(STAGES) < {run["event"] for run in struck}
    for run in struck:
        (check if number == signal.SIGKILL else check_interrupted)(run, "old" if old else "absent")
        if number == signal.SIGINT:
            assert run["said"].splitlines()[-1] == "error: interrupted"
            assert "Traceback" not in run["said"]


def test_a_second_export_to_the_same_place(arguments, tmp_path, capsys):
    with staged(tmp_path / "out" / "name") as folder:
        (folder / "model.onnx").write_text("the first one's")
        assert main([*arguments, "--out", str(tmp_path / "out"), "--name", "name"]) == 2
        assert "another export is writing to" in capsys.readouterr().err
        assert (folder / "model.onnx").read_text() == "the first one's"
