import contextlib
import copy
import json
import os
import shutil
from pathlib import Path

import pytest
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
)
from sam_deploy.errors import BundleError, InputError
from sam_deploy.manifest import manifest_from_json, manifest_to_json


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "out" / tiny_bundle.name))


DEEP = b'{"schema_version": 1, "x": ' + b"[" * 100_000


def refusal(folder):
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def edited(bundle, **changes):
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_is_read(tiny_bundle):
    manifest = read_bundle(tiny_bundle)
    assert manifest.files == file_infos(tiny_bundle)
    assert sorted(manifest.files) == ["model.onnx", "parity.json"]
    assert manifest_to_json(manifest) == (tiny_bundle / "manifest.json").read_bytes()
    assert {p.name for p in tiny_bundle.parent.iterdir()} == {tiny_bundle.name}


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


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "", ".", "a\0b", "n" * 5000, "ring"])
def test_a_manifest_that_lists_what_it_must_not(bundle, name):
    if name == "ring":
        (bundle / name).symlink_to(name)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    edited(bundle, files={**files, name: {"sha256": "0" * 64, "bytes": 1}})
    assert "is damaged" in refusal(bundle)


def test_a_model_that_is_not_listed(bundle):
    edited(bundle, files={})
    assert "model.onnx: not in the manifest" in refusal(bundle)


def test_another_schema(bundle):
    (bundle / "manifest.json").write_text('{"schema_version": 99, "whatever": [1]}')
    assert "has schema version 99; this sam-deploy reads 1." in refusal(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schema_version": true}',
        b'{"schema_version": 1}',
        DEEP,
    ],
)
def test_not_a_manifest(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
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
    edited(bundle, **change)
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


def published(source, target, *, force, name="again"):
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


@pytest.mark.parametrize("failing", [1, 2])
def test_an_interrupted_replacement_keeps_the_old_bundle(bundle, monkeypatch, failing):
    real, calls = Path.rename, []

    def rename(self, target):
        calls.append(self)
        if len(calls) == failing:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        published(bundle, bundle, force=True)
    read_bundle(bundle)
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_rejected_files_give_way_to_the_next(tmp_path):
    target = tmp_path / "name"
    for content in ("first", "second"):
        with staged(target) as folder:
            (folder / "model.onnx").write_text(content)
            kept = set_aside(folder, target)
    assert (kept / "model.onnx").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["name.rejected"]


def test_what_is_set_aside_spares_foreign_folders(tmp_path):
    target = tmp_path / "name"
    foreign = tmp_path / "name.rejected"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with staged(target) as folder:
        (folder / "model.onnx").write_text("refused")
        kept = set_aside(folder, target)
    assert kept.name == "name.rejected-2"
    assert (foreign / "notes.txt").read_text() == "mine"


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
