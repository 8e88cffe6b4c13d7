"""A real `sam-serve`, for tests that are its clients."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

SAM_SERVE = Path(sys.executable).parent / "sam-serve"
_START_S, _STOP_S = 60, 60


class Server:
    """One that runs. `rest`, `grpc` and `metrics` are host:port."""

    def __init__(self, process, log):
        self.process, self._log = process, log
        text = ""
        for line in process.stdout:
            text += line
            with contextlib.suppress(json.JSONDecodeError):
                said = json.loads(text)
                break
        else:
            raise AssertionError(f"it did not start: {text}{self.log}")
        assert "error" not in said, said
        self.url, self.grpc, self.models = said["rest"], said["grpc"], said["models"]
        self.rest = self.url.partition("://")[2]
        self.metrics_url = said["metrics"]

    @property
    def log(self):
        return Path(self._log).read_text()

    @property
    def lines(self):
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def metrics(self):
        """Every sample, by its name with labels."""
        text = urllib.request.urlopen(self.metrics_url, timeout=20).read().decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def counted(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.split("{")[0] == name and all(part in sample for part in wanted)
        )

    def get(self, path, data=None, headers=None):
        """Status, headers and body; of errors, too."""
        request = urllib.request.Request(self.url + path, data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def workers(self):
        """The process ids of its workers."""
        return children(self.process.pid)

    def stop(self):
        """SIGTERM; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_S)


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


@contextlib.contextmanager
def serving(*bundles, env=None, **flags):
    """`sam-serve` on free ports; it must end with 0 unless the test ended it otherwise."""
    given = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, "drain_s": 0, **flags}
    options = []
    for name, value in given.items():
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, list) else [value]
        options += [flag] if value is True else [x for v in values for x in (flag, str(v))]
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        process = subprocess.Popen(
            [SAM_SERVE, *map(str, bundles), "--json", *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **(env or {})},
        )
        try:
            server = Server(process, log.name)
            yield server
            ended = process.poll()
            code = server.stop()
            assert ended is not None or code == 0, server.log
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


def until(condition, seconds=20.0):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
