import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from conftest import rewrite_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy.bundle import (
    bundle_path,
    check_target,
    file_infos,
    publish,
    read_bundle,
    set_aside,
    staged,
    write_manifest,
)
from sam_deploy.errors import BundleError, InputError
from sam_deploy.manifest import SCHEMA_VERSION, manifest_from_json, manifest_to_json


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "out" / tiny_bundle.name))


DEEP = b'{"schema_version": %d, "x": ' % SCHEMA_VERSION + b"[" * 100_000


def refusal(folder):
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read(tiny_bundle):
    manifest = read_bundle(tiny_bundle)
    assert manifest.files == file_infos(tiny_bundle)
    assert sorted(manifest.files) == ["example.npz", "model.onnx", "parity.json"]
    assert manifest_to_json(manifest) == (tiny_bundle / "manifest.json").read_bytes()
    assert {p.name for p in tiny_bundle.parent.iterdir()} == {tiny_bundle.name}


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_the_manifests_sum_can_be_checked_by_hand(tiny_bundle):
    command = ["sha256sum", "--check", "--strict", "manifest.json.sha256"]
    assert subprocess.run(command, cwd=tiny_bundle, capture_output=True).returncode == 0


def test_a_changed_manifest_is_found_by_its_sum(bundle):
    (bundle / "manifest.json").write_text((bundle / "manifest.json").read_text() + " ")
    said = refusal(bundle)
    assert "manifest.json is not what manifest.json.sha256 says" in said
    assert "Nothing of it was loaded" in said


def test_a_bundle_from_before_manifests_had_a_sum(bundle):
    (bundle / "manifest.json.sha256").unlink()
    assert "holds no manifest.json.sha256" in refusal(bundle)
    assert "Export it again" in refusal(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "parity.json"])
def test_a_flipped_bit_anywhere_is_found(bundle, name):
    content = (bundle / name).read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        flipped = bytearray(content)
        flipped[place] ^= 1
        (bundle / name).write_bytes(flipped)
        assert f"{name}: its SHA-256 is not the manifest's" in refusal(bundle)


def test_missing_longer_and_extra_files(bundle):
    (bundle / "parity.json").unlink()
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"!")
    (bundle / "plans").mkdir()
    (bundle / "plans" / "manifest.json").write_text("{}")
    (bundle / ".hidden").touch()
    said = refusal(bundle)
    assert "parity.json: missing" in said
    assert "bytes, expected" in said
    assert "plans/manifest.json: not in the manifest" in said
    assert ".hidden: not in the manifest" in said


def test_links_out_of_the_bundle(bundle, tmp_path):
    outside = tmp_path / "model.onnx"
    shutil.move(bundle / "model.onnx", outside)
    (bundle / "model.onnx").symlink_to(outside)
    (bundle / "more").symlink_to(tmp_path)
    (bundle / "ring").symlink_to("ring")
    said = refusal(bundle)
    assert "model.onnx: reaches outside the bundle" in said
    assert "more: not in the manifest" in said
    assert "ring: not in the manifest" in said


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.sha256"])
def test_a_manifest_that_lies_elsewhere(bundle, tmp_path, name):
    shutil.move(bundle / name, tmp_path / name)
    (bundle / name).symlink_to(tmp_path / name)
    assert f"{name} reaches outside the bundle" in refusal(bundle)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "", ".", "a\0b", "n" * 5000, "ring"])
def test_a_manifest_that_lists_what_it_must_not(bundle, name):
    if name == "ring":
        (bundle / name).symlink_to(name)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    rewrite_manifest(bundle, files={**files, name: {"sha256": "0" * 64, "bytes": 1}})
    assert "is damaged" in refusal(bundle)


def test_a_model_that_is_not_listed(bundle):
    rewrite_manifest(bundle, files={})
    assert "model.onnx: not in the manifest" in refusal(bundle)


def test_another_schema(bundle):
    write_manifest(bundle, b'{"schema_version": 99, "whatever": [1]}')
    assert f"has schema version 99; this sam-deploy reads {SCHEMA_VERSION}." in refusal(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schema_version": true}',
        b'{"schema_version": %d}' % SCHEMA_VERSION,
        DEEP,
    ],
)
def test_not_a_manifest(bundle, content):
    write_manifest(bundle, content)
    assert "is not a manifest" in refusal(bundle)


def test_not_a_bundle(tmp_path):
    assert "there is no such folder" in refusal(tmp_path / "gone")
    assert "it holds no manifest.json" in refusal(tmp_path)
    (tmp_path / "file").touch()
    assert "there is no such folder" in refusal(tmp_path / "file")


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"outputs": []},
        {"preprocessing": None},
        {"class_names": ["one"]},
        {"inputs": [{"name": "input", "dtype": "float32", "dims": []}]},
    ],
)
def test_a_manifest_no_engine_could_run(bundle, change):
    rewrite_manifest(bundle, **change)
    assert "is not a manifest" in refusal(bundle)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5), st.just([]), st.just({}), st.lists(st.integers(), max_size=3),
)  # fmt: skip


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_manifest_is_refused_or_means_what_it_says(tiny_bundle, data):
    whole = json.loads((tiny_bundle / "manifest.json").read_text())
    path = data.draw(st.sampled_from([p for p in places(whole) if p]))
    mutated = copy.deepcopy(whole)
    holder = mutated
    for key in path[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[path[-1]] = data.draw(JUNK)
    else:
        del holder[path[-1]]
    try:
        manifest = manifest_from_json(json.dumps(mutated).encode(), "m")
    except BundleError:
        return
    assert manifest_from_json(manifest_to_json(manifest), "m") == manifest


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_mangled_bytes_are_refused_or_a_manifest(tiny_bundle, data):
    content = bytearray((tiny_bundle / "manifest.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        manifest_from_json(bytes(content), "m")


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_anew(bundle, tmp_path):
    stop = threading.Event()
    newer = Path(shutil.copytree(bundle, tmp_path / "newer"))
    (newer / "parity.json").write_text("{}")
    rewrite_manifest(newer, files=msgspec.to_builtins(file_infos(newer)))

    def replace():
        while not stop.is_set():
            published(newer, bundle, force=True)
            published(tmp_path / "older", bundle, force=True)

    shutil.copytree(bundle, tmp_path / "older")
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        seen = {read_bundle(bundle).files["parity.json"].bytes for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert len(seen) == 2


def test_staging_leaves_nothing(tmp_path):
    target = tmp_path / "a" / "b" / "name"
    with contextlib.suppress(KeyboardInterrupt), staged(target) as folder:
        (folder / "model.onnx").touch()
        assert folder.parent == target.parent
        assert folder.name.startswith(".name.")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_staging_where_nothing_can_be_written():
    with pytest.raises(InputError, match=r"cannot write to /proc/sub: .* Choose another --out"):
        staged(Path("/proc/sub/name")).__enter__()


def published(source, target, *, force):
    manifest = read_bundle(source)
    with staged(target) as folder:
        for file in manifest.files:
            shutil.copy(source / file, folder / file)
        publish(folder, target, manifest, force=force)


def test_publishing(tiny_bundle, tmp_path):
    target = tmp_path / "out" / "name"
    published(tiny_bundle, target, force=False)
    assert read_bundle(target) == read_bundle(tiny_bundle)
    assert oct(target.stat().st_mode & 0o777) == "0o755"
    with pytest.raises(InputError, match=r"--force"):
        published(tiny_bundle, target, force=False)
    (target / "parity.json").write_text("changed")
    published(tiny_bundle, target, force=True)
    read_bundle(target)
    assert [p.name for p in target.parent.iterdir()] == ["name"]


def test_one_writes_to_a_place_at_a_time(tiny_bundle, tmp_path):
    first, second = tmp_path / "out" / "first", tmp_path / "out" / "second"
    with staged(first) as folder:
        said = (
            f"another export is writing to {first}. Let it end, or choose another --name or --out."
        )
        with pytest.raises(InputError, match=re.escape(said)):
            staged(first).__enter__()
        published(tiny_bundle, second, force=False)
        assert folder.is_dir()
    published(tiny_bundle, first, force=False)
    assert sorted(p.name for p in first.parent.iterdir()) == ["first", "second"]


WRITER = """
import shutil, sys
from pathlib import Path
from sam_deploy.bundle import publish, read_bundle, staged
from sam_deploy.errors import InputError

source, target = map(Path, sys.argv[1:])
manifest = read_bundle(source)
written = 0
for _ in range(60):
    try:
        with staged(target) as folder:
            for file in manifest.files:
                shutil.copy(source / file, folder / file)
            publish(folder, target, manifest, force=True)
        written += 1
    except InputError as error:
        assert "another export is writing to" in str(error), error
print(written)
"""


def test_many_that_write_to_one_place(tiny_bundle, tmp_path):
    target = tmp_path / "out" / "name"
    target.parent.mkdir()
    command = [sys.executable, "-c", WRITER, tiny_bundle, target]
    writers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            assert read_bundle(target) == read_bundle(tiny_bundle)
            seen += 1
    ended = [(*writer.communicate(), writer.returncode) for writer in writers]
    assert [(err, code) for _, err, code in ended] == [("", 0)] * len(writers)
    assert sum(int(out) for out, _, _ in ended) > 0
    assert seen > 0
    assert [path.name for path in target.parent.iterdir()] == ["name"]


def test_what_a_killed_export_left_is_tidied_up_and_nothing_else(tiny_bundle, tmp_path):
    target = tmp_path / "name"
    for ours in (".name.partial", ".name.old"):
        shutil.copytree(tiny_bundle, tmp_path / ours)
    (tmp_path / ".name.lock").touch()
    others = [".name.b.partial", ".name2.partial", ".name.b.old", "name.partial", ".name"]
    for other in others:
        (tmp_path / other).mkdir()
    with pytest.raises(InputError, match="--force"):  # the old one is back in its place
        published(tiny_bundle, target, force=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "name"])
    published(tiny_bundle, target, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "name"])


def test_rejected_files_give_way_to_the_next(tmp_path):
    target = tmp_path / "name"
    for content in ("first", "second"):
        with staged(target) as folder:
            (folder / "plans").mkdir()
            for name in ("model.onnx", "parity.json", "quantization.html", "plans/rtx.plan"):
                (folder / name).write_text(content)
            kept = set_aside(folder, target)
    assert (kept / "plans/rtx.plan").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["name.rejected"]


@pytest.mark.parametrize("name", ["notes.txt", "plans/notes.txt", "plans/old/rtx.plan"])
def test_what_is_set_aside_spares_foreign_folders(tmp_path, name):
    target = tmp_path / "name"
    foreign = tmp_path / "name.rejected"
    (foreign / name).parent.mkdir(parents=True)
    (foreign / name).write_text("mine")
    with staged(target) as folder:
        (folder / "model.onnx").write_text("refused")
        kept = set_aside(folder, target)
    assert kept.name == "name.rejected-2"
    assert (foreign / name).read_text() == "mine"


def test_targets(bundle, tmp_path):
    check_target(tmp_path / "new" / "deep" / "name", force=False)
    check_target(bundle, force=True)
    (bundle / "model.onnx").unlink()
    check_target(bundle, force=True)  # a damaged bundle may be replaced
    with pytest.raises(InputError, match=r"exists\. Give --force"):
        check_target(bundle, force=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is not a folder that can be written to"):
        check_target(tmp_path / "file" / "name", force=False)


@pytest.mark.parametrize("force", [False, True])
def test_force_spares_what_is_no_bundle(bundle, tmp_path, force):
    page = tmp_path / "page"
    page.mkdir()
    (page / "manifest.json").write_text('{"name": "a web page", "icons": []}')
    link = tmp_path / "link"
    link.symlink_to(bundle)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "gone")
    for target in (page, link, dangling, tmp_path):
        with pytest.raises(InputError, match=r"not overwritten"):
            check_target(target, force=force)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "-x", "a\n", "n" * 201])
def test_names_that_reach_elsewhere(name):
    with pytest.raises(InputError, match=r"cannot name a bundle"):
        bundle_path(Path("out"), name)
    assert bundle_path(Path("out"), "smt_t-fp16-192x256") == Path("out/smt_t-fp16-192x256")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_manifest_that_may_not_be_read(bundle):
    (bundle / "manifest.json").chmod(0)
    assert "cannot read" in refusal(bundle)
