import multiprocessing
import os
from pathlib import Path

import pytest

from sam_deploy.engines.cache import read_cache, timing_cache_path, update_cache
from sam_deploy.engines.timing import use_timings
from sam_deploy.tensorrt_family import log_of, member

pytestmark = pytest.mark.long

ADDED = 25


@pytest.fixture
def path(tmp_path):
    return timing_cache_path("tensorrt", "10.16.1.11", "NVIDIA L4", tmp_path / "cache")


def test_a_file_for_each_version_and_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_DEPLOY_CACHE", str(tmp_path))
    found = {
        timing_cache_path("tensorrt", version, gpu)
        for version in ("10.16.1.11", "11.4.0.106")
        for gpu in ("NVIDIA L4", "NVIDIA H100 80GB HBM3")
    }
    assert len(found) == 4
    assert {path.parent for path in found} == {tmp_path}
    assert tmp_path / "tensorrt-10.16.1.11-nvidia-l4.timing-cache" in found


def test_what_is_kept_is_read_again(path):
    assert read_cache(path) == (b"", None)
    assert update_cache(path, lambda before: before + b"a") is None
    assert update_cache(path, lambda before: before + b"b") is None
    assert read_cache(path) == (b"ab", None)
    assert [file.name for file in path.parent.iterdir() if ".lock" not in file.name] == [path.name]


def add(path, first):
    for number in range(first, first + ADDED):
        assert update_cache(Path(path), lambda kept, n=number: kept + bytes([n])) is None


def test_two_builders_at_once_lose_nothing(path):
    context = multiprocessing.get_context("spawn")
    builders = [context.Process(target=add, args=(str(path), n * ADDED)) for n in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0] * 3
    assert sorted(read_cache(path)[0]) == list(range(3 * ADDED))


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_a_damaged_cache_is_a_note_and_is_replaced(path, damage):
    update_cache(path, lambda before: b"timings")
    path.write_bytes(damage(path.read_bytes()))
    kept, problem = read_cache(path)
    assert kept == b""
    assert problem == f"the cache {path} is damaged and is not used"
    assert update_cache(path, lambda before: before + b"new") is None
    assert read_cache(path) == (b"new", None)


def test_a_cache_that_cannot_be_kept_is_a_note(tmp_path):
    (tmp_path / "cache").write_text("a file")
    path = timing_cache_path("tensorrt", "10", "gpu", tmp_path / "cache")
    assert "cannot be read: Not a directory" in read_cache(path)[1]
    assert "is not kept: File exists" in update_cache(path, lambda before: b"new")


def test_a_failure_within_leaves_the_old_content(path):
    update_cache(path, lambda before: b"old")

    def fails(before):
        os.write(-1, b"")  # as a full disk would

    assert "is not kept" in update_cache(path, fails)
    assert read_cache(path) == (b"old", None)


def test_the_builders_own_cache_goes_there_and_back(path):
    """TensorRT-RTX has the same classes, and nothing in them."""
    rtx = member("tensorrt-rtx")
    with log_of(rtx).of_one_build():
        builder = rtx.trt.Builder(log_of(rtx).logger)
        for _ in range(2):
            notes = []
            keep = use_timings(builder.create_builder_config(), path, notes)
            keep()
            assert notes == []
            assert path.is_file()
        path.write_bytes(b"damaged")
        keep = use_timings(builder.create_builder_config(), path, notes)
        keep()
        assert notes == [f"the cache {path} is damaged and is not used"]
        assert read_cache(path)[1] is None
