"""What goes wrong in production: overload, bombs, kills, malformed requests, a stop under load."""

import http.client
import io
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import broken_requests
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from PIL import Image
from serve_process import serving, until
from tritonclient.utils import InferenceServerException

import sam_deploy

pytestmark = pytest.mark.export
MODEL = "tiny-fp16-64"


def sent(x):
    made = triton_http.InferInput("input", list(x.shape), "FP32")
    made.set_data_from_numpy(x)
    return [made]


def infer(server, x, **options):
    with triton_http.InferenceServerClient(server.rest) as client:
        return client.infer(MODEL, sent(x), **options).as_numpy("logits")


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 64, 64), np.float32)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def ask_images(server, data):
    with triton_http.InferenceServerClient(server.rest) as client:
        made = triton_http.InferInput("image", [1], "BYTES")
        made.set_data_from_numpy(np.array([data], object))
        return client.infer(f"{MODEL}-images", [made])


@pytest.fixture(scope="module")
def limited(tiny_bundle):
    with serving(tiny_bundle, max_request_mb=1, max_image_mpx=1) as server:
        yield server


def test_bombs_are_refused_before_they_are_decoded(limited):
    assert len(broken_requests.bomb(30_000)) < 100
    for data in (broken_requests.bomb(30_000), broken_requests.bomb(2**31 - 1)):
        with pytest.raises(InferenceServerException, match=r"at most 1000000 px|pixels|no image"):
            ask_images(limited, data)
    with pytest.raises(InferenceServerException, match="2000x1000 px; at most 1000000 px") as error:
        ask_images(limited, png(Image.new("RGB", (2000, 1000))))
    assert error.value.status() == "413"
    ask_images(limited, png(Image.new("RGB", (1000, 1000))))


def test_what_is_too_large_is_413(limited):
    status, _, body = limited.get(f"/v2/models/{MODEL}/infer", b" " * (3 << 19))
    assert (status, "1048576 bytes" in json.loads(body)["error"]) == (413, True)
    import gzip

    packed = gzip.compress(bytes(1 << 24))
    status, _, body = limited.get(f"/v2/models/{MODEL}/infer", packed, {"Content-Encoding": "gzip"})
    assert (status, "unpacked" in json.loads(body)["error"]) == (413, True)
    with triton_grpc.InferenceServerClient(limited.grpc) as client:
        made = triton_grpc.InferInput("input", [30, 3, 64, 64], "FP32")
        made.set_data_from_numpy(rows(30))
        with pytest.raises(InferenceServerException, match="larger than max"):
            client.infer(MODEL, [made])


def test_a_body_that_never_ends_is_cut(limited):
    connection = http.client.HTTPConnection(limited.rest, timeout=30)
    endless = (b"x" * 65536 for _ in range(10_000))
    status = None
    try:
        connection.request("POST", f"/v2/models/{MODEL}/infer", endless, encode_chunked=True)
        status = connection.getresponse().status
    except OSError:
        pass  # the connection was closed while it was still sending
    finally:
        connection.close()
    assert status in (413, None)
    assert infer(limited, rows(1)).shape == (1, 10)


def test_many_at_once_get_their_own_answers(tiny_bundle):
    engine = sam_deploy.load(tiny_bundle)
    xs = [rows(1 + i % 3, seed=i) for i in range(12)]
    expected = [engine(x) for x in xs]
    with serving(tiny_bundle, max_batch=8, max_delay_ms=5) as server:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda i: infer(server, xs[i % 12]), range(96)))
        for i, y in enumerate(found):
            np.testing.assert_allclose(y, expected[i % 12], rtol=1e-3, atol=1e-4)
        samples = server.metrics()
        batches = samples[f'sam_batch_rows_count{{model="{MODEL}"}}']
        assert samples[f'sam_batch_rows_sum{{model="{MODEL}"}}'] == sum(
            len(xs[i % 12]) for i in range(96)
        )
        assert batches < 96  # they ran together


def test_a_full_queue_is_503_at_once_and_says_when_to_come_back(tiny_bundle):
    with serving(tiny_bundle, queue=2, max_batch=1) as server:
        os.kill(server.workers()[0], signal.SIGSTOP)  # the engine takes for ever
        try:
            with ThreadPoolExecutor(8) as threads:
                waiting = [threads.submit(infer, server, rows(1)) for _ in range(3)]
                until(lambda: server.counted("sam_queued") == 2)
                begun = time.monotonic()
                body, size = triton_http.InferenceServerClient.generate_request_body(sent(rows(1)))
                headers = {"Inference-Header-Content-Length": str(size)}
                status, headers, body = server.get(
                    f"/v2/models/{MODEL}/infer", bytes(body), headers
                )
                assert time.monotonic() - begun < 1
                assert (status, headers["retry-after"]) == (503, "1")
                assert "requests wait already" in json.loads(body)["error"]
                os.kill(server.workers()[0], signal.SIGCONT)
                assert [future.result().shape for future in waiting] == [(1, 10)] * 3
        finally:
            os.kill(server.workers()[0], signal.SIGCONT)


def test_deadlines(tiny_bundle):
    with serving(tiny_bundle, timeout_s=0.5) as server:
        worker = server.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            with pytest.raises(
                InferenceServerException, match=r"not answered within 0\.5 s"
            ) as error:
                infer(server, rows(1))
            assert error.value.status() == "504"
            with pytest.raises(InferenceServerException, match=r"not answered within 0\.1 s"):
                infer(server, rows(1), timeout=100_000)  # microseconds
            with triton_grpc.InferenceServerClient(server.grpc) as client:
                made = triton_grpc.InferInput("input", [1, 3, 64, 64], "FP32")
                made.set_data_from_numpy(rows(1))
                with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
                    client.infer(MODEL, [made], client_timeout=0.2)
        finally:
            os.kill(worker, signal.SIGCONT)
        until(lambda: _answers(server))


def _answers(server):
    try:
        return infer(server, rows(1)).shape == (1, 10)
    except InferenceServerException:
        return False


def test_a_killed_worker_is_started_again_and_counted(tiny_bundle):
    engine = sam_deploy.load(tiny_bundle)
    x = rows(1)
    with serving(tiny_bundle) as server:
        failures, stop = [], threading.Event()

        def hammer():
            while not stop.is_set():
                try:
                    np.testing.assert_allclose(infer(server, x), engine(x), rtol=1e-3, atol=1e-4)
                except Exception as error:
                    failures.append(error)

        with ThreadPoolExecutor(4) as threads:
            for _ in range(4):
                threads.submit(hammer)
            for kill in range(3):
                time.sleep(0.5)
                os.kill(server.workers()[0], signal.SIGKILL)
                until(lambda n=kill: server.counted("sam_restarts_total", what="worker") == n + 1)
                until(lambda: server.get("/v2/health/ready")[0] == 200)
            stop.set()
        assert failures == []  # what ran when it was killed ran again
        os.kill(server.workers()[0], signal.SIGKILL)  # while nothing is asked
        until(lambda: server.counted("sam_restarts_total", what="worker") == 4)
        until(lambda: server.get("/v2/health/ready")[0] == 200)
        assert len(server.workers()) == 1


def test_sigterm_says_so_first_and_answers_what_is_under_way(tiny_bundle):
    x = rows(2)
    expected = sam_deploy.load(tiny_bundle)(x)
    with serving(tiny_bundle, max_batch=2, drain_s=1.5) as server:
        worker = server.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        with ThreadPoolExecutor(50) as threads:
            waiting = [threads.submit(infer, server, x) for _ in range(50)]
            until(lambda: server.counted("sam_queued") == 49)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.get("/v2/health/ready")[0] == 503)
            assert server.get("/v2/health/live")[0] == 200
            os.kill(worker, signal.SIGCONT)
            for future in waiting:
                np.testing.assert_allclose(future.result(), expected, rtol=1e-3, atol=1e-4)
        assert server.process.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_thousand_malformed_requests(tiny_bundle):
    with serving(tiny_bundle) as server:
        met = broken_requests.bombard(server, MODEL, 1000, seed=1)
        assert broken_requests.unexpected(met) == {}, met
        assert met[400] > 200
        assert met["INVALID_ARGUMENT"] > 100
        assert server.counted("sam_restarts_total") == 0
        assert infer(server, rows(1)).shape == (1, 10)
        assert "Traceback" not in server.log
        assert not [line for line in server.lines if "traceback" in line]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone"], "gone is not a bundle"),
        (["{bundle}", "--require", "cuda"], "not the one for CUDA"),
        (["{bundle}", "{bundle}"], "two models would be called"),
        (["{bundle}", "--max-batch", "x=3"], "no model is called 'x'"),
        (["{bundle}", "--max-batch", "many"], "expected a number, or MODEL=number"),
        (["{bundle}", "--queue", "0"], "queue is 0; expected 1 or more"),
        (["{bundle}", "--tls-cert", "x"], "TLS takes a certificate and its key"),
        (["{bundle}", "--http-port", "{taken}"], "cannot listen on 127.0.0.1:"),
        (["{bundle}", "--grpc-port", "{taken}"], "cannot listen on 127.0.0.1:"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(tiny_bundle, arguments, said, capfd):
    import socket
    import subprocess

    from serve_process import SAM_SERVE

    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"bundle": tiny_bundle, "taken": taken.getsockname()[1]}
        given = [argument.format(**values) for argument in arguments]
        ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
        done = subprocess.run(
            [SAM_SERVE, *ports, *given, "--log-level", "warning"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == (3 if "cuda" in arguments else 2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert said in done.stderr.splitlines()[0]
