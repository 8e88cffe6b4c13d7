import pytest

from sam_deploy.cache_folder import cache_folder
from sam_deploy.runtime.runtime_cache import RuntimeCache, runtime_cache_path


class FakeConfig:
    """An IRuntimeConfig and its IRuntimeCache, which takes what begins with b'ours'."""

    def __init__(self):
        self.content, self.used = b"", None

    def create_runtime_cache(self):
        return self

    def set_runtime_cache(self, cache):
        self.used = cache

    def deserialize(self, blob):
        fits = blob.startswith(b"ours")
        self.content = blob if fits else self.content
        return fits

    def serialize(self):
        return memoryview(self.content)


@pytest.fixture
def path(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_DEPLOY_CACHE", str(tmp_path / "cache"))
    return runtime_cache_path("tensorrt-rtx", "1.7.1.116", "NVIDIA GeForce RTX 4090", "a" * 64)


def test_what_was_compiled_is_there_for_the_next(path):
    first = FakeConfig()
    cache = RuntimeCache(first, path)
    assert first.used is first
    assert not path.exists()
    first.content = b"ours: a kernel"
    cache.save()
    second = FakeConfig()
    RuntimeCache(second, path)
    assert second.content == b"ours: a kernel"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_tensorrt_refuses_is_written_anew(path):
    path.parent.mkdir()
    path.write_bytes(b"of another driver")
    config = FakeConfig()
    cache = RuntimeCache(config, path)
    assert config.content == b""
    config.content = b"ours"
    cache.save()
    assert path.read_bytes() == b"ours"


def test_nothing_new_writes_nothing(path):
    path.parent.mkdir()
    path.write_bytes(b"ours")
    before = path.stat().st_mtime_ns
    RuntimeCache(FakeConfig(), path).save()
    assert path.stat().st_mtime_ns == before


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAM_DEPLOY_CACHE", str(tmp_path / "file" / "cache"))
    config = FakeConfig()
    cache = RuntimeCache(config, runtime_cache_path("tensorrt-rtx", "1", "gpu", "b" * 64))
    config.content = b"ours"
    cache.save()
    assert (tmp_path / "file").read_text() == ""


def test_the_name_tells_version_gpu_and_plan(path):
    assert path.name == (
        "tensorrt-rtx-1.7.1.116-nvidia-geforce-rtx-4090-aaaaaaaaaaaaaaaa.runtime-cache"
    )


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("SAM_DEPLOY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sam-deploy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "sam-deploy"
