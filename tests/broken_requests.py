"""Malformed requests over REST and gRPC, as many as wanted, from a seed."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import random
import socket
import struct

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"
GOOD_STATUS = {200, 400, 401, 404, 405, 413, 415, 503, 504}


def rest_body(model, rng):
    """A good request as (path, body, headers)."""
    x = np.zeros((1, 3, 64, 64), np.float32)
    one = {"name": "input", "datatype": "FP32", "shape": list(x.shape)}
    headers = {}
    if rng.random() < 0.5:
        one["parameters"] = {"binary_data_size": x.nbytes}
        header = json.dumps({"inputs": [one]}).encode()
        headers["Inference-Header-Content-Length"] = str(len(header))
        return f"/v2/models/{model}/infer", header + x.tobytes(), headers
    one["shape"], one["data"] = [1, 3], [0.0, 1.0, 2.0]
    return f"/v2/models/{model}/infer", json.dumps({"inputs": [one]}).encode(), headers


def broken_rest(model, rng):
    """A request that is wrong somewhere."""
    path, body, headers = rest_body(model, rng)
    kind = rng.randrange(12)
    if kind == 0:
        body = body[: rng.randrange(len(body))]
    elif kind == 1:
        body = bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    elif kind == 2:
        headers["Inference-Header-Content-Length"] = rng.choice(
            ["-1", "x", "0", "99999999", "1" * 40]
        )
    elif kind == 3:
        damaged = bytearray(body)
        for _ in range(rng.randrange(1, 8)):
            damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
        body = bytes(damaged)
    elif kind == 4:
        shape = rng.choice(
            [[2**62, 2**62], [-1, 3], [0], [1] * 200, [2**31, 2, 2], [1.5], "x", None]
        )
        one = {"name": "input", "datatype": "FP32", "shape": shape, "data": [1]}
        body, headers = json.dumps({"inputs": [one]}).encode(), {}
    elif kind == 5:
        datatype = rng.choice(["", "FP31", "BF16", "BYTES", "fp32", "INT64", "BOOL", 7, None])
        data = rng.choice([[1], ["a"], [None], [[[]]], [True], {}, 3, [1e308, 1e999]])
        one = {"name": "input", "datatype": datatype, "shape": [1], "data": data}
        body, headers = json.dumps({"inputs": [one]}).encode(), {}
    elif kind == 6:
        body, headers = b'{"inputs":' + b"[" * rng.choice([10, 1000, 100_000]), {}
    elif kind == 7:
        headers["Content-Encoding"] = rng.choice(["gzip", "deflate", "br", "zstd", "\x7f"])
    elif kind == 8:
        path = rng.choice(
            [
                *("/v2/models//infer", f"/v2/models/{model}/versions/x/infer"),
                *("/v2/models/%00/infer", f"/v2/models/{model}%2finfer", "/v2/" + "a" * 3000),
            ]
        )
    elif kind == 9:
        path = f"/v2/models/{model}-images/infer"
        image = broken_image(rng)
        one = {"name": "image", "datatype": "BYTES", "shape": [1],
               "parameters": {"binary_data_size": len(image) + 4}}  # fmt: skip
        header = json.dumps({"inputs": [one]}).encode()
        body = header + struct.pack("<I", len(image) + rng.choice([0, 0, 1, -1, 2**31])) + image
        headers = {"Inference-Header-Content-Length": str(len(header))}
    elif kind == 10:
        negative = {"name": "logits", "parameters": {"classification": -4}}
        wanted = rng.choice([[{"name": "x"}], [{"name": "logits"}] * 2, 3, [3], [negative]])
        body, headers = json.dumps({"inputs": [], "outputs": wanted}).encode(), {}
    else:
        one = {
            "name": rng.choice(["", "y", "input"]),
            "datatype": "FP32",
            "shape": [1],
            "data": [1],
        }
        body, headers = json.dumps({"inputs": [one] * rng.randrange(4)}).encode(), {}
    return path, body, headers


def broken_image(rng):
    """A damaged PNG or JPEG, one that claims to be huge, or none at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(300)))
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (9, 8, 7)).save(file, rng.choice(["PNG", "JPEG", "GIF", "BMP"]))
    data = bytearray(file.getvalue())
    if kind == 1:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 2:
        return bomb(rng.choice([20_000, 2**31 - 1]))
    for _ in range(rng.randrange(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def bomb(side_px):
    """A PNG of a few bytes whose header says `side_px` by `side_px`."""
    import zlib

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def send_rest(address, request):
    """Its status, or None where the connection ended."""
    path, body, headers = request
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (http.client.HTTPException, OSError, ValueError):
        return None
    finally:
        connection.close()


def send_raw(address, rng):
    """Bytes that are hardly HTTP: a wrong content length, half a request; then gone."""
    host, _, port = address.partition(":")
    head = b"POST /v2/models/x/infer HTTP/1.1\r\nHost: x\r\n"
    data = rng.choice([
        head + b"Content-Length: 100\r\n\r\n{}",
        head + b"Content-Length: -5\r\n\r\n{}",
        head + b"Content-Length: abc\r\n\r\n{}",
        head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(50), head,
    ])  # fmt: skip
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, int(port)), 20) as connection,
    ):
        connection.settimeout(0.05)
        connection.sendall(data)
        with contextlib.suppress(OSError):
            connection.recv(4096)


def broken_grpc(model, rng):
    """Bytes of a ModelInferRequest that is wrong, or of nothing."""
    message = service_pb2.ModelInferRequest(model_name=rng.choice([model, model, "gone", ""]))
    kind = rng.randrange(7)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 100)))
    one = message.inputs.add(name="input", datatype="FP32", shape=[1, 3, 64, 64])
    raw = bytes(4 * 3 * 64 * 64)
    if kind == 1:
        one.shape[:] = rng.choice([[2**62, 2**62], [-1], [0, 4], [1] * 100, []])
    elif kind == 2:
        raw = raw[: rng.randrange(len(raw))]
    elif kind == 3:
        one.datatype = rng.choice(["", "BF16", "BYTES", "FP64", "x" * 1000])
    elif kind == 4:
        one.contents.fp32_contents.extend([1.0] * rng.randrange(5))
    elif kind == 5:
        message.parameters["timeout"].string_param = "soon"
    else:
        message.outputs.add(name=rng.choice(["x", ""]))
    if rng.random() < 0.8:
        message.raw_input_contents.append(raw)
    data = message.SerializeToString()
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data))]
    return data


def bombard(server, model, count, seed=0):
    """Send `count` of them; how often each outcome was met."""
    rng = random.Random(seed)
    met = {}
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(INFER)
        for _ in range(count):
            kind = rng.random()
            if kind < 0.6:
                outcome = send_rest(server.rest, broken_rest(model, rng))
            elif kind < 0.65:
                send_raw(server.rest, rng)
                outcome = "raw"
            else:
                try:
                    infer(broken_grpc(model, rng), timeout=60)
                    outcome = "OK"
                except grpc.RpcError as error:
                    outcome = error.code().name
            met[outcome] = met.get(outcome, 0) + 1
    return met


def unexpected(met):
    """Outcomes that no malformed request may have."""
    fine = {"raw", "OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", *GOOD_STATUS}
    return {outcome: count for outcome, count in met.items() if outcome not in fine}
