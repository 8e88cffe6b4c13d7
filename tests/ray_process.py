"""A Ray cluster of real nodes on this machine, in a process of its own, and clients that retry.

python tests/ray_process.py     prints its address; takes `add`, `remove` and the end of stdin
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from serve_process import SAM_SERVE

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
_RETRIES, _PAUSE_S = 4, 0.5


class Nodes:
    """One with one CPU always, and another that `remove` kills as a power cut does.

    `remove` returns when Ray has noticed, some 15 seconds after the kill.
    """

    def __init__(self, process):
        self._process = process
        self.address = self._said()

    def add(self):
        self._tell("add")

    def remove(self):
        self._tell("remove")

    def _tell(self, command):
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._said() == command

    def _said(self):
        for line in self._process.stdout:
            if line.startswith("= "):
                return line[2:].strip()
        raise AssertionError("the cluster ended")


@contextlib.contextmanager
def two_nodes():
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    try:
        yield Nodes(process)
    finally:
        process.stdin.close()
        process.stdout.read()
        process.stdout.close()
        process.wait(60)


class Served:
    """`sam-serve --ray`, or what else serves on Ray; `rest` is host:port."""

    def __init__(self, process, rest, log):
        self.process, self.rest, self._log = process, rest, log

    @property
    def log(self):
        return Path(self._log).read_text(errors="replace")

    def get(self, path, data=None, headers=None):
        """Status, headers and body; of errors, too."""
        request = urllib.request.Request(f"http://{self.rest}{path}", data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()


def environment(address):
    return {**os.environ, **ENVIRONMENT, "RAY_ADDRESS": address}


@contextlib.contextmanager
def ray_serving(address, *bundles, **flags):
    """`sam-serve --ray` on the cluster at `address`; it must end with 0 at SIGTERM."""
    options = [x for key, value in flags.items() for x in (f"--{key.replace('_', '-')}", value)]
    command = [SAM_SERVE, "--ray", *bundles, "--http-port", "0", "--json", *options]
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment(address),
        )  # fmt: skip
        try:
            text = ""
            for line in process.stdout:
                text += line
                if line == "}\n":
                    break
            served = Served(process, "", log.name)
            assert text.endswith("}\n"), served.log
            served.rest = json.loads(text)["rest"].removeprefix("http://")
            yield served
            process.terminate()
            assert (process.wait(60), process.stdout.read()) == (0, ""), served.log
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


class Load:
    """Clients that send `x` until `stop`, and send again what failed with 5xx or on the way."""

    def __init__(self, rest, model, x, expected, clients):
        self.requests = self.retried = self.retries = 0
        self.lost, self.failures, self.longest_s = [], {}, 0.0
        self._given = rest, model, x, expected
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._executor = ThreadPoolExecutor(clients)
        self._clients = [self._executor.submit(self._client) for _ in range(clients)]

    def stop(self):
        """A client that ended early would have hidden what it met: that is an error here."""
        early = [client for client in self._clients if client.done()]
        self._stop.set()
        self._executor.shutdown()
        for client in self._clients:
            client.result()
        assert not early

    def _client(self):
        while not self._stop.is_set():
            begun = time.monotonic()
            failures = self._one()
            with self._lock:
                self.requests += 1
                self.longest_s = max(self.longest_s, time.monotonic() - begun)
                self.retried += bool(failures)
                self.retries += min(len(failures), _RETRIES)
                for failure in failures:
                    self.failures[failure] = self.failures.get(failure, 0) + 1
                if len(failures) > _RETRIES:
                    self.lost.append(failures[-1])

    def _one(self):
        """Why it failed, each time that it did."""
        import tritonclient.http as triton
        from tritonclient.utils import InferenceServerException

        rest, model, x, expected = self._given
        sent = triton.InferInput("input", list(x.shape), "FP32")
        sent.set_data_from_numpy(x)
        failures = []
        while len(failures) <= _RETRIES:
            if failures:
                time.sleep(_PAUSE_S)
            try:  # a connection each: a proxy's node may be gone
                with triton.InferenceServerClient(rest, network_timeout=20.0) as client:
                    found = client.infer(model, [sent]).as_numpy("logits")
            except InferenceServerException as error:
                failures.append(f"status {error.status()}")
                if not (error.status() or "5").startswith("5"):
                    return [*failures, *["not retried"] * _RETRIES]
            except Exception as error:  # of its HTTP client, which has many: none may go uncounted
                failures.append(type(error).__name__)
            else:
                if not np.allclose(found, expected, rtol=1e-3, atol=1e-4):
                    return ["a wrong answer"] * (_RETRIES + 1)
                return failures
        return failures


def main():
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        other = cluster.add_node(num_cpus=1)
        print(f"= {cluster.address}", flush=True)
        for line in sys.stdin:
            if line == "add\n":
                other = cluster.add_node(num_cpus=1)
            else:
                raylet = other.all_processes["raylet"][0].process.pid
                threads = Path(f"/proc/{raylet}/task").glob("*/children")
                what_it_runs = " ".join(children.read_text() for children in threads).split()
                assert what_it_runs
                cluster.remove_node(other, allow_graceful=False)
                for process in what_it_runs:  # they would end themselves, up to a second later
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)
                cluster.wait_for_nodes()  # until Ray knows
            print(f"= {line}", end="", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
