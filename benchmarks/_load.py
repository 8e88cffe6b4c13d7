"""Load on a server from a process of its own: raw requests, made once and sent by many clients.

    python benchmarks/_load.py JOB.json

Clients are threads with a connection each, and as lean as can be: on two cores they take their time
from the server. What they measure is printed as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass
class Job:
    """`request` is a file with the bytes to send: a whole HTTP request, or a gRPC message.

    The answer must end with the bytes of `expected`; `clients` send for `seconds`.
    """

    protocol: str
    address: str
    request: str
    expected: str
    clients: int
    seconds: float


@dataclass
class Load:
    """Latencies of good answers in milliseconds, and how often others were met."""

    latencies_ms: list[float] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def run(job: Job) -> Load:
    """Send, and measure."""
    request, expected = Path(job.request).read_bytes(), Path(job.expected).read_bytes()
    make = _rest if job.protocol == "rest" else _grpc
    start = threading.Barrier(job.clients + 1)
    latencies: list[list[float]] = [[] for _ in range(job.clients)]
    others: Counter[str] = Counter()
    until = [0.0]

    def client(number: int) -> None:
        send = make(job.address, request)
        send()  # the connection, and whatever is made at the first request
        start.wait()
        while (begun := time.perf_counter()) < until[0]:
            status, body = send()
            if status == "ok" and body.endswith(expected):
                latencies[number].append(1e3 * (time.perf_counter() - begun))
            else:
                others[status if status != "ok" else "wrong"] += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(job.clients)]
    for thread in threads:
        thread.start()
    until[0] = time.perf_counter() + 1e9
    while start.n_waiting < job.clients:
        time.sleep(0.01)
    begun = time.perf_counter()
    until[0] = begun + job.seconds
    start.wait()
    for thread in threads:
        thread.join()
    return Load([x for one in latencies for x in one], dict(others), time.perf_counter() - begun)


def _rest(address: str, request: bytes) -> Callable[[], tuple[str, bytes]]:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send() -> tuple[str, bytes]:
        connection.sendall(request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += _some(connection)
        head = data[:end].lower()
        size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(data) < end + 4 + size:
            data += _some(connection)
        status = head.split(b" ", 2)[1].decode()
        return ("ok" if status == "200" else status), data[end + 4 :]

    return send


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 18)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


def _grpc(address: str, request: bytes) -> Callable[[], tuple[str, bytes]]:
    # a connection each, as of different clients
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    infer = grpc.insecure_channel(address, options=options).unary_unary(INFER)

    def send() -> tuple[str, bytes]:
        try:
            return "ok", infer(request, timeout=120)
        except grpc.RpcError as error:
            return error.code().name, b""

    return send


if __name__ == "__main__":
    print(json.dumps(asdict(run(Job(**json.loads(Path(sys.argv[1]).read_text()))))))
