import errno
import os
import re
import shutil
import subprocess

import pytest

from sam_deploy.bundle import file_infos, publish, read_bundle, staged
from sam_deploy.errors import CheckFailed, InputError, MachineError

REMEDY = re.escape("Free some space, or choose another --out.")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_as_such_also_where_a_library_wrapped_it(tmp_path, number):
    said = (
        rf"^cannot write to {re.escape(str(tmp_path / 'out'))}: {os.strerror(number)}\. {REMEDY}$"
    )
    with pytest.raises(MachineError, match=said) as caught, staged(tmp_path / "out" / "name"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 3
    with pytest.raises(MachineError, match=said), staged(tmp_path / "out" / "name"):
        raise RuntimeError("serializing failed") from OSError(number, "a library's words")
    with pytest.raises(MachineError, match="elsewhere"), staged(tmp_path / "out" / "name"):
        raise OSError(number, os.strerror(number), "elsewhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), CheckFailed("no"), ValueError()])
def test_any_other_error_stays_what_it_is(tmp_path, error):
    with pytest.raises(type(error)) as caught, staged(tmp_path / "name"):
        raise error
    assert caught.value is error


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many bytes, or files."""
    disks = []

    def make(options):
        disk = tmp_path / f"disk{len(disks)}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        subprocess.run(["umount", disk], check=True)


def write(source, target):
    manifest = read_bundle(source)
    with staged(target) as folder:
        for file in manifest.files:
            shutil.copyfile(source / file, folder / file)
        assert file_infos(folder) == manifest.files
        publish(folder, target, manifest, force=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root mounts")
def test_a_disk_too_small_at_any_point(tiny_bundle, small_disk):
    needed = sum(-(-path.stat().st_size // 4096) for path in tiny_bundle.iterdir()) * 4096
    disk = small_disk(f"size={2 * needed + 65536}")
    write(tiny_bundle, disk / "name")
    before = (disk / "name").stat().st_ino
    for free in range(0, needed, 4096):
        (disk / "filler").unlink(missing_ok=True)
        spare = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(b"x" * (spare - free))
        with pytest.raises(MachineError, match=rf"^cannot write to .*: No space left.* {REMEDY}$"):
            write(tiny_bundle, disk / "name")
        read_bundle(disk / "name")
        assert (disk / "name").stat().st_ino == before
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "name"]
    (disk / "filler").unlink()
    write(tiny_bundle, disk / "name")
    assert (disk / "name").stat().st_ino != before


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root mounts")
def test_a_disk_without_room_for_another_file(tiny_bundle, small_disk):
    for files in range(2, 9):  # the disk, out, lock, name, and its five files
        disk = small_disk(f"nr_inodes={files}")
        with pytest.raises(MachineError, match=r"No space left on device"):
            write(tiny_bundle, disk / "out" / "name")
        assert list(disk.iterdir()) == []
    write(tiny_bundle, small_disk("nr_inodes=9") / "out" / "name")


def test_what_cannot_be_written_for_another_reason_is_bad_input(tmp_path):
    (tmp_path / ".name.partial").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"cannot write to .*File exists. Choose another --out"):
        staged(tmp_path / "name").__enter__()
    assert (tmp_path / ".name.partial").is_symlink()
