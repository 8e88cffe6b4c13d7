"""The real tritonclient, all four of it with its defaults, against a real server."""

import asyncio
import gzip
import io
import json
import ssl
import subprocess
import urllib.request

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serve_process import serving
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import sam_deploy
from sam_deploy.synthetic import synthetic_images

pytestmark = pytest.mark.export
MODEL = "tiny-fp16-64"


@pytest.fixture(scope="module")
def server(tiny_bundle):
    with serving(tiny_bundle) as running:
        yield running


@pytest.fixture(scope="module")
def engine(tiny_bundle):
    return sam_deploy.load(tiny_bundle)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)


@pytest.fixture(scope="module")
def images():
    """Encoded, in the formats that users have."""
    encoded = []
    for image, kind in zip(synthetic_images(4), ("PNG", "JPEG", "WEBP", "BMP"), strict=True):
        file = io.BytesIO()
        image.convert("RGB").save(file, kind)
        encoded.append(file.getvalue())
    return encoded


@pytest.fixture(params=["http", "http.aio", "grpc", "grpc.aio"])
def client(request, server):
    """One of the four clients; all are called alike."""
    module, kind = {
        "http": (triton_http, triton_http.InferenceServerClient),
        "http.aio": (triton_http, triton_http_aio.InferenceServerClient),
        "grpc": (triton_grpc, triton_grpc.InferenceServerClient),
        "grpc.aio": (triton_grpc, triton_grpc_aio.InferenceServerClient),
    }[request.param]
    address = server.grpc if "grpc" in request.param else server.rest
    return Client(kind, address, module, is_async="aio" in request.param)


class Client:
    def __init__(self, kind, address, module, *, is_async):
        self.kind, self.address, self.module, self.is_async = kind, address, module, is_async
        self.grpc = module is triton_grpc

    def call(self, name, *args, **kwargs):
        if self.is_async:
            return asyncio.run(self._async(name, args, kwargs))
        with self.kind(self.address) as client:
            return getattr(client, name)(*args, **kwargs)

    async def _async(self, name, args, kwargs):
        async with self.kind(self.address) as client:
            return await getattr(client, name)(*args, **kwargs)

    def json(self, name, *args, **kwargs):
        return self.call(name, *args, **kwargs, **({"as_json": True} if self.grpc else {}))

    def input(self, name, array, datatype=None, **options):
        from tritonclient.utils import np_to_triton_dtype

        made = self.module.InferInput(
            name, list(array.shape), datatype or np_to_triton_dtype(array.dtype)
        )
        made.set_data_from_numpy(array, **options)
        return made

    def infer(self, array, **options):
        return self.call("infer", MODEL, [self.input("input", array)], **options)


def test_health_and_metadata(client):
    assert client.call("is_server_live")
    assert client.call("is_server_ready")
    assert client.call("is_model_ready", MODEL)
    assert client.call("is_model_ready", MODEL, "1")
    server = client.json("get_server_metadata")
    assert (server["name"], server["version"]) == ("sam-serve", sam_deploy.__version__)
    assert {"binary_tensor_data", "classification", "statistics"} <= set(server["extensions"])
    model = client.json("get_model_metadata", MODEL)
    assert (model["name"], model["versions"]) == (MODEL, ["1"])
    (one,) = model["inputs"]
    assert (one["name"], one["datatype"]) == ("input", "FP32")
    assert [int(size) for size in one["shape"]] == [-1, 3, 64, 64]


def test_configuration_and_index(client):
    config = client.json("get_model_config", MODEL)
    config = config.get("config", config)
    assert (config["name"], config["max_batch_size"]) == (MODEL, 4)
    assert [int(size) for size in config["input"][0]["dims"]] == [3, 64, 64]
    assert config["parameters"]["backend"]["string_value"].startswith("onnxruntime CPU")
    index = client.json("get_model_repository_index")
    index = index.get("models", index) if isinstance(index, dict) else index
    assert {(m["name"], m["state"]) for m in index} == {
        (MODEL, "READY"),
        (f"{MODEL}-images", "READY"),
    }


def test_inference_is_the_engines(client, engine, x):
    found = client.infer(x, request_id="a7")
    np.testing.assert_allclose(found.as_numpy("logits"), engine(x), rtol=1e-4, atol=1e-5)
    response = found.get_response(**({"as_json": True} if client.grpc else {}))
    assert (response["id"], response["model_name"], response["model_version"]) == ("a7", MODEL, "1")


def test_halves_and_pixels(client, engine, x):
    half = x.astype(np.float16)
    found = client.infer(half).as_numpy("logits")
    np.testing.assert_allclose(found, engine(half), rtol=1e-3, atol=1e-4)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    found = client.infer(pixels).as_numpy("logits")
    np.testing.assert_allclose(found, engine(pixels), rtol=1e-4, atol=1e-5)


def test_classes(client, engine, x):
    wanted = client.module.InferRequestedOutput("logits", class_count=3)
    found = client.infer(x, outputs=[wanted]).as_numpy("logits")
    assert found.shape == (3, 3)
    for row, expected in zip(found, engine(x), strict=True):
        indices = [int(text.decode().split(":")[1]) for text in row]
        assert indices == np.argsort(-expected)[:3].tolist()


def test_encoded_images(client, engine, images, tmp_path):
    array = np.array(images, object)
    sent = [client.input("image", array, "BYTES")]
    found = client.call("infer", f"{MODEL}-images", sent)
    paths = []
    for number, data in enumerate(images):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    expected = engine.classify(paths)
    assert found.as_numpy("indices").tolist() == [[p.class_index for p in row] for row in expected]
    names = [[text.decode() for text in row] for row in found.as_numpy("names")]
    assert names == [[p.name for p in row] for row in expected]
    scores = np.take_along_axis(found.as_numpy("scores"), found.as_numpy("indices"), 1)
    np.testing.assert_allclose(scores, [[p.score for p in row] for row in expected], rtol=1e-3)


def test_statistics(client, x):
    def counts():
        (found,) = client.json("get_inference_statistics", MODEL)["model_stats"]
        stats = found["inference_stats"]
        return int(found.get("inference_count", 0)), int(stats["success"].get("count", 0))

    rows, requests = counts()
    client.infer(x)
    assert counts() == (rows + 3, requests + 1)


@pytest.mark.parametrize(
    ("model", "options", "code", "said"),
    [
        ("gone", {}, "404 NOT_FOUND", "unknown model 'gone'; there is tiny"),
        (MODEL, {"model_version": "9"}, "404 NOT_FOUND", "is served in version 1, not 9"),
        (MODEL, {"shape": (1, 3, 32, 64)}, "400 INVALID", r"shape \[1, 3, 32, 64\]; expected"),
        (MODEL, {"dtype": np.int32}, "400 INVALID", "input input is INT32; expected FP32"),
        (MODEL, {"name": "pixels"}, "400 INVALID", "expected the inputs input, once each; got pix"),
        (MODEL, {"output": "scores"}, "400 INVALID", "unknown output 'scores'; there is logits"),
        (f"{MODEL}-images", {}, "400 INVALID", "expected the input image"),
    ],
)
def test_errors_have_the_protocols_codes(client, model, options, code, said):
    array = np.zeros(options.get("shape", (1, 3, 64, 64)), options.get("dtype", np.float32))
    sent = [client.input(options.get("name", "input"), array)]
    more = {k: v for k, v in options.items() if k == "model_version"}
    if "output" in options:
        more["outputs"] = [client.module.InferRequestedOutput(options["output"])]
    with pytest.raises(InferenceServerException, match=said) as error:
        client.call("infer", model, sent, **more)
    status = str(error.value.status())
    assert any(part in status for part in code.split()), status


def test_an_image_that_is_none(client):
    sent = [client.input("image", np.array([b"no image"], object), "BYTES")]
    with pytest.raises(InferenceServerException, match=r"image 0 \(8 bytes\) is no image"):
        client.call("infer", f"{MODEL}-images", sent)


def test_what_is_not_served_over_the_network(client):
    with pytest.raises(InferenceServerException):
        client.call("load_model", MODEL)
    with pytest.raises(InferenceServerException):
        client.call("get_log_settings")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compression_over_rest(server, engine, x, algorithm, binary):
    with triton_http.InferenceServerClient(server.rest) as client:
        sent = triton_http.InferInput("input", [1, 3, 64, 64], "FP32")
        sent.set_data_from_numpy(x[:1], binary_data=binary)
        wanted = triton_http.InferRequestedOutput("logits", binary_data=binary)
        found = client.infer(
            MODEL, [sent], outputs=[wanted],
            request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
        )  # fmt: skip
    np.testing.assert_allclose(found.as_numpy("logits"), engine(x[:1]), rtol=1e-4, atol=1e-5)


def test_plain_json_as_curl_sends_it(server, engine, x):
    one = {"name": "input", "datatype": "FP32", "shape": [1, 3, 64, 64], "data": x[:1].tolist()}
    body = json.dumps({"id": "curl", "inputs": [one]}).encode()
    status, headers, answer = server.get(f"/v2/models/{MODEL}/infer", body)
    found = json.loads(answer)
    assert (status, found["id"], headers["content-type"]) == (200, "curl", "application/json")
    np.testing.assert_allclose(found["outputs"][0]["data"], engine(x[:1])[0], rtol=1e-4, atol=1e-5)
    packed, encoding = gzip.compress(body), {"Content-Encoding": "gzip"}
    assert server.get(f"/v2/models/{MODEL}/versions/1/infer", packed, encoding)[0] == 200


def test_a_stream_outlives_a_bad_request(server, engine, x):
    results = []
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: results.append((result, error)))
        for shape in ((1, 3, 64, 64), (1, 3, 8, 8), (2, 3, 64, 64)):
            sent = triton_grpc.InferInput("input", shape, "FP32")
            sent.set_data_from_numpy(np.resize(x, shape))
            client.async_stream_infer(MODEL, [sent])
        client.stop_stream()
    assert [error is None for _, error in results] == [True, False, True]
    assert "expected [-1, 3, 64, 64]" in str(results[1][1])
    np.testing.assert_allclose(
        results[2][0].as_numpy("logits"), engine(x[:2]), rtol=1e-4, atol=1e-5
    )


def test_typed_contents_and_health_over_grpc(server, engine, x):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = triton_grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        message = service_pb2.ModelInferRequest(model_name=MODEL)
        one = message.inputs.add(name="input", datatype="FP32", shape=[1, 3, 64, 64])
        one.contents.fp32_contents.extend(x[0].ravel().tolist())
        found = np.frombuffer(stub.ModelInfer(message).raw_output_contents[0], np.float32)
        np.testing.assert_allclose(found, engine(x[:1])[0], rtol=1e-4, atol=1e-5)
        health = health_pb2_grpc.HealthStub(channel)
        serving_ = health_pb2.HealthCheckResponse.SERVING
        assert health.Check(health_pb2.HealthCheckRequest()).status == serving_


def test_paths_that_there_are_not(server):
    for path in ("/v3", "/v2/models", f"/v2/models/{MODEL}/generate", "/docs", "/openapi.json"):
        status, _, body = server.get(path)
        assert (status, "error" in json.loads(body)) == (404, True)
    assert server.get(f"/v2/models/{MODEL}/infer")[0] == 405
    assert server.get("/v2/models/gone/stats")[0] == 404
    assert server.get("/v2/models/stats")[0] == 200


def test_metrics(server, x):
    before = server.counted("sam_requests_total", model=MODEL, code="OK", protocol="rest")
    with triton_http.InferenceServerClient(server.rest) as client:
        sent = triton_http.InferInput("input", list(x.shape), "FP32")
        sent.set_data_from_numpy(x)
        client.infer(MODEL, [sent])
    assert (
        server.counted("sam_requests_total", model=MODEL, code="OK", protocol="rest") == before + 1
    )
    samples = server.metrics()
    for name in (
        "sam_request_seconds",
        "sam_queue_seconds",
        "sam_compute_seconds",
        "sam_batch_rows",
    ):
        assert samples[f'{name}_count{{model="{MODEL}"}}'] >= 1
    assert samples[f'sam_restarts_total{{model="{MODEL}",what="worker"}}'] == 0
    assert samples[f'sam_queued{{model="{MODEL}"}}'] == 0


def test_a_token_and_tls(tiny_bundle, tmp_path, x, engine):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    env = {"SAM_SERVE_TOKEN": "s3cret"}
    with serving(tiny_bundle, env=env, tls_cert=certificate, tls_key=key) as server:
        trusted = ssl.create_default_context(cafile=certificate)

        def status(path, **headers):
            request = urllib.request.Request(server.url + path, headers=headers)
            try:
                with urllib.request.urlopen(request, context=trusted, timeout=20) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        assert status("/v2/health/ready") == 200  # probes have no token
        assert status("/v2") == 401
        assert status("/v2", Authorization="Bearer wrong") == 401
        assert status("/v2", Authorization="Basic s3cret") == 401
        assert status("/v2", Authorization="Bearer s3cret") == 200
        sent = triton_grpc.InferInput("input", [1, 3, 64, 64], "FP32")
        sent.set_data_from_numpy(x[:1])
        port = server.grpc.rpartition(":")[2]
        with triton_grpc.InferenceServerClient(
            f"localhost:{port}", ssl=True, root_certificates=str(certificate)
        ) as client:
            assert client.is_server_ready()
            with pytest.raises(InferenceServerException, match="bearer token"):
                client.infer(MODEL, [sent])
            found = client.infer(MODEL, [sent], headers={"authorization": "Bearer s3cret"})
        np.testing.assert_allclose(found.as_numpy("logits"), engine(x[:1]), rtol=1e-4, atol=1e-5)
        assert "s3cret" not in server.log


def test_the_log_is_lines_of_json_with_request_ids(tiny_bundle, x):
    with serving(tiny_bundle, log_level="debug") as server:
        with triton_http.InferenceServerClient(server.rest) as client:
            sent = triton_http.InferInput("input", list(x.shape), "FP32")
            sent.set_data_from_numpy(x)
            client.infer(MODEL, [sent], request_id="r-1")
            with pytest.raises(InferenceServerException):
                client.infer("gone", [sent], request_id="r-2")
        told = {line.get("id"): line for line in server.lines if line["event"] == "inference"}
    assert (told["r-1"]["code"], told["r-1"]["model"], told["r-1"]["protocol"]) == (
        "OK",
        MODEL,
        "rest",
    )
    assert told["r-1"]["ms"] > 0
    assert told["r-2"]["code"] == "NOT_FOUND"
