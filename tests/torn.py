"""Writes a bundle again and again, each time in a forked child that is struck at another point.

A script of its own, so that what forks is small and quiet. A point is whatever the child does to a
path below the output folder, as Python's audit events tell, and the start of a stage. What a point
left is told as a line of JSON; `runs` starts the script and reads them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import msgspec

from sam_deploy.bundle import file_infos, publish, read_bundle, staged, write_manifest
from sam_deploy.errors import BundleError, InputError
from sam_deploy.manifest import manifest_to_json
from sam_deploy.plans import PlanInfo, PlanOptions, plan_file

WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "stage"}


def runs(work, *, out, source, **options):
    """A dict a run: the event it was struck at, how it ended, what was found, what came next.

    `work` is "publish", which writes a copy of the bundle `source`, "rebuild", which adds a plan to
    it (no real one: TensorRT would not survive the fork), or arguments of sam-export.
    `old`: a bundle is there before. `strikes`: signals, each with the events at which it comes or
    None for all. `limits`: bytes that a file may grow to, a run each without a signal. `swap`:
    False takes the system call away. `sabotage`: the name of a wrong way to publish.
    """
    spec = {"work": work, "out": str(out), "source": str(source), **options}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(spec)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Driver:
    """Strikes the work of a spec and tells what is left of it."""

    def __init__(self, spec):
        self.spec = spec
        self.out = Path(spec["out"])
        self.target = self.out / "name"
        self.source = Path(spec["source"])
        self.struck = None
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        if spec["work"] == "rebuild":
            self.prepare_rebuild()
        elif spec["work"] != "publish":
            self.prepare_export()
        if not spec.get("swap", True):
            forbid_renameat2()
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if not self.struck or event not in WATCHED:
            return
        what = str(arguments[0])
        inside = event == "os.remove" and arguments[1] != -1  # by rmtree, which gives a bare name
        if event == "stage" or inside or what.startswith(str(self.out)):
            self.struck(f"{event} {what.removeprefix(str(self.out))}")

    def prepare_export(self):
        from sam_deploy.cli import _progress

        class Told(_progress.StderrProgress):
            def stage(self, name, total=None):
                sys.audit("stage", name)
                return super().stage(name, total)

        _progress.StderrProgress = Told

    def prepare_rebuild(self):
        from sam_deploy.engines import rebuild

        def built(onnx_path, folder, flavour, options, precision, **_):
            file = plan_file(flavour, "1", [])
            (folder / file).parent.mkdir()
            (folder / file).write_bytes(b"plan")
            return PlanInfo(
                file=file,
                flavour=flavour,
                version="1",
                compute_capabilities=[],
                gpu=None,
                profile=None,
                options={},
                onnx_sha256="",
                bytes=4,
                build_s=0.0,
            )

        sys.modules[rebuild.__module__].plan_from_onnx = built
        self.rebuild = lambda: rebuild(self.target, PlanOptions(engines=["tensorrt-rtx"]))

    def work(self):
        if self.spec["work"] == "rebuild":
            return 0 if self.rebuild().built else 70
        if self.spec["work"] == "publish":
            sabotage = self.spec.get("sabotage")
            return self.publish("new", SABOTAGE[sabotage] if sabotage else None)
        from sam_deploy.cli.export import main

        sys.argv = ["sam-export", *self.spec["work"], "--out", str(self.out), "--name", "name"]
        sys.argv += ["--force"]
        return main()

    def publish(self, name, way=None):
        """The writing alone, of a copy of the source under another name."""
        manifest = read_bundle(self.source)
        with staged(self.target) as folder:
            for file in manifest.files:
                shutil.copy(self.source / file, folder / file)
            changed = msgspec.structs.replace(manifest, name=name, files=file_infos(folder))
            (way or publish)(folder, self.target, changed, force=True)
        return 0

    def prepare(self):
        shutil.rmtree(self.out, ignore_errors=True)
        if self.spec.get("old"):
            self.publish("old")

    def events(self):
        """What an undisturbed run does, in order; run here, so that the forks start warm."""
        self.prepare()
        events = []
        self.struck = events.append
        assert self.work() == 0
        self.struck = None
        return events

    def child(self, struck, limit=None):
        """Run the work in a fork, `struck` at each event; how it ended and what it said."""
        reader, writer = os.pipe()  # what is said fits into it, and no limit on files counts
        pid = os.fork()
        if not pid:
            code = 70
            try:
                os.dup2(writer, 1)
                os.dup2(writer, 2)
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                self.struck = struck
                code = self.work()
            except KeyboardInterrupt:
                code = 130
            except Exception as error:
                code = getattr(error, "exit_code", 70)
                print(f"error: {error}")
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader) as said:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.read()

    def found(self):
        """ "absent", or which whole bundle is at the target, or what is torn."""
        if not self.target.exists():
            return "absent"
        try:
            manifest = read_bundle(self.target)
        except BundleError as error:
            return f"torn: {error}"
        return manifest.name if manifest.name in ("old", "next") and not manifest.plans else "new"

    def left(self):
        return sorted(p.name for p in self.out.iterdir()) if self.out.exists() else []

    def strike(self, event, struck, limit=None):
        self.prepare()
        ended, said = self.child(struck, limit)
        line = {"event": event, "ended": ended, "said": said, "found": self.found()}
        line["left"] = self.left()
        with contextlib.suppress(InputError):
            self.publish("next")  # as if nothing had happened
        line |= {"next": self.found(), "left_next": self.left()}
        print(json.dumps(line), file=self.answers, flush=True)

    def strike_all(self):
        events = self.events()
        for signal, only in self.spec.get("strikes", ()):
            for index, event in enumerate(events):
                if only is None or event in only:
                    self.strike(event, self.at(index, signal))
        for limit in self.spec.get("limits", ()):
            self.strike(f"limit {limit}", None, limit)

    def at(self, index, signal):
        count = iter(range(10**9))

        def struck(_event):
            if next(count) == index:
                os.kill(os.getpid(), signal)

        return struck


def forbid_renameat2():
    """From here on the system answers renameat2 as one does that is too old for it."""
    number = {"x86_64": 316, "aarch64": 276}[platform.machine()]
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    steps = [
        (load, 0, 0, 0),
        (jump_if_equal, 0, 1, number),
        (give, 0, 0, 0x00050000 | errno.ENOSYS),
        (give, 0, 0, 0x7FFF0000),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges: then anyone may filter
    head = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
    assert libc.prctl(22, 2, head, 0, 0) == 0, os.strerror(ctypes.get_errno())


def straight_in(folder, target, manifest, *, force):
    """Writes where others read."""
    write_manifest(folder, manifest_to_json(manifest))
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        shutil.copy(path, target / path.name)


def remove_and_rename(folder, target, manifest, *, force):
    """Makes room first."""
    shutil.rmtree(target, ignore_errors=True)
    publish(folder, target, manifest, force=force)


SABOTAGE = {"straight in": straight_in, "remove and rename": remove_and_rename}

if __name__ == "__main__":
    Driver(json.loads(sys.argv[1])).strike_all()
