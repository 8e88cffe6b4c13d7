"""A real tritonserver on this machine's CPU, out of the wheel of nvidia-pytriton.

The wheel has the server and its Python backend; `triton_backends/` stand for the backends that it
lacks. Its environment is one of its own (`make setup` makes it): it wants numpy 1.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HOME = Path(sys.prefix) / "triton"
BACKENDS = Path(__file__).parent / "triton_backends"
_START_S = 120


def site_packages():
    return next(HOME.glob("lib/python3.*/site-packages"), None)


def installed():
    site = site_packages()
    return site is not None and (site / "pytriton").is_dir()


class Refused(Exception):
    """It did not start; its log."""


class Triton:
    def __init__(self, process, http, grpc, log):
        self.process, self.http, self.grpc, self._log = process, http, grpc, log

    @property
    def log(self):
        return self._log.read_text(errors="replace")


@contextlib.contextmanager
def triton(repository, work, *options):
    """It serves `repository`; files of its own are in the folder `work`.

    Raises:
        Refused: a model does not load.
    """
    site = site_packages()
    backends = work / "backends"
    shutil.copytree(site / "pytriton/tritonserver/backends/python", backends / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = backends / "python/triton_python_backend_stub"
    shutil.copy(site / "pytriton/tritonserver/python_backend_stubs" / version / stub.name, stub)
    stub.chmod(0o755)
    shutil.copytree(BACKENDS, backends, dirs_exist_ok=True)
    # The stub is isolated from the environment: where packages are is told in the code itself.
    for model in [*backends.glob("*/model.py"), *Path(repository).glob("*/1/model.py")]:
        first = f"import sys; sys.path.insert(0, {str(site)!r})\n"
        text = model.read_text()
        if not text.startswith(first):
            marker = "from __future__ import annotations\n"
            model.write_text(
                text.replace(marker, marker + first, 1) if marker in text else first + text
            )
    http, grpc, metrics = (free_port() for _ in range(3))
    log = work / "triton.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                site / "pytriton/tritonserver/bin/tritonserver",
                f"--model-repository={repository}", f"--backend-directory={backends}",
                "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
                f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}",
                "--exit-on-error=true", "--strict-readiness=true", *options,
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs")},
        )  # fmt: skip
    running = Triton(process, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", log)
    try:
        _wait(running)
        yield running
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(running):
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if running.process.poll() is not None:
            raise Refused(running.log)
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{running.http}/v2/health/ready", timeout=5).close()
            return
        time.sleep(0.1)
    raise Refused(f"not ready in time: {running.log}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]
