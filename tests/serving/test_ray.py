"""A bundle on Ray Serve: real raylets, a real tritonclient, and a node that is lost."""

import json
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from ray_process import Load, environment, ray_serving, two_nodes
from serve_process import SAM_SERVE, until
from tritonclient.utils import InferenceServerException

import sam_deploy
from sam_deploy.cli.serve import main
from sam_deploy.errors import InputError
from sam_deploy.serving import failures
from sam_deploy.serving.ray_args import ray_args
from sam_deploy.synthetic import synthetic_images

pytestmark = pytest.mark.export
MODEL = "tiny-fp16-64"
SERVE = Path(sys.executable).parent / "serve"


@pytest.fixture(scope="module")
def nodes():
    with two_nodes() as running:
        yield running


@pytest.fixture(scope="module")
def server(nodes, tiny_bundle):
    """A replica on each node: each has one CPU."""
    with ray_serving(nodes.address, tiny_bundle, min_replicas=2, max_request_mb=1) as running:
        yield running


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)


@pytest.fixture(scope="module")
def expected(tiny_bundle):
    with sam_deploy.load(tiny_bundle) as engine:
        yield engine


def given(name, array, kind):
    made = triton.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def infer(address, model, sent, **options):
    with triton.InferenceServerClient(address) as client:
        return client.infer(model, [sent], **options)


def test_answers_are_the_engines(server, expected, x):
    for rows in (1, 2, 3):
        found = infer(server.rest, MODEL, given("input", x[:rows], "FP32"), request_id="a7")
        np.testing.assert_allclose(found.as_numpy("logits"), expected(x[:rows]), 1e-4, 1e-5)
        assert found.get_response()["id"] == "a7"


def test_encoded_images(server, expected, tmp_path):
    path = tmp_path / "image.png"
    next(iter(synthetic_images(1))).convert("RGB").save(path)
    image = given("image", np.array([path.read_bytes()], object), "BYTES")
    found = infer(server.rest, f"{MODEL}-images", image)
    (best,) = expected.classify([path])
    assert found.as_numpy("indices").tolist() == [[one.class_index for one in best]]
    scores = np.take_along_axis(found.as_numpy("scores"), found.as_numpy("indices"), 1)
    np.testing.assert_allclose(scores, [[one.score for one in best]], rtol=1e-3)


def test_health_metadata_and_the_page(server):
    with triton.InferenceServerClient(server.rest) as client:
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        assert client.get_model_metadata(MODEL)["platform"] == "sam_deploy"
    assert b"<html" in server.get("/")[2]


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/v2/models/none", None, 404),
        ("/v2/nothing", None, 404),
        ("/v2/models/none/infer", b"{}", 400),
        (f"/v2/models/{MODEL}/infer", b"no json", 400),
        (f"/v2/models/{MODEL}/infer", b"x" * (5 << 18), 413),
    ],
)
def test_errors_have_the_protocols_form(server, path, data, status):
    code, headers, body = server.get(path, data)
    assert code == status
    assert {name.lower(): value for name, value in headers.items()}["content-type"] == (
        "application/json"
    )
    assert list(json.loads(body)) == ["error"]


def test_a_wrong_shape_is_the_clients_error(server):
    with pytest.raises(InferenceServerException, match="expected") as caught:
        infer(server.rest, MODEL, given("input", np.zeros((1, 3, 8, 8), np.float32), "FP32"))
    assert caught.value.status() == "400"


def test_a_cluster_that_serves_is_left_alone(server, nodes, tiny_bundle):
    done = subprocess.run(
        [SAM_SERVE, "--ray", tiny_bundle, "--http-port", "0"],
        capture_output=True, text=True, env=environment(nodes.address), timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "serves something already" in done.stderr
    assert server.get("/v2/health/ready")[0] == 200


def test_a_node_that_is_lost_loses_no_request(server, nodes, expected, x):
    load = Load(server.rest, MODEL, x, expected(x), clients=4)
    time.sleep(2)
    before = load.requests
    nodes.remove()
    time.sleep(6)  # as long as Ray needs to notice, and then some
    after = load.requests
    nodes.add()
    time.sleep(2)
    load.stop()
    assert before > 0
    assert after > before
    assert load.lost == [], load.failures


@pytest.mark.slow
def test_serve_run_with_a_token(nodes, server, tiny_bundle, tmp_path, request):
    """After the others: it wants the cluster for itself."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    token = tmp_path / "token"
    token.write_text("secret\n")
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w") as out:
        process = subprocess.Popen(
            [SERVE, "run", "sam_deploy.serving.ray:app", f"bundle={tiny_bundle}",
             "max_replicas=2", f"token_file={token}"],
            stdout=out, stderr=out,
            env={**environment(nodes.address), "RAY_SERVE_DEFAULT_HTTP_PORT": str(port)},
        )  # fmt: skip
    try:
        until(lambda: "is ready at" in log.read_text() or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()
        address = log.read_text().partition("is ready at http://")[2].partition("/")[0]
        with triton.InferenceServerClient(address) as client:
            with pytest.raises(InferenceServerException) as caught:
                client.get_model_metadata(MODEL)
            assert caught.value.status() == "401"
            told = {"Authorization": "Bearer secret"}
            assert client.get_model_metadata(MODEL, headers=told)["name"] == MODEL
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.slow
def test_replicas_that_do_not_start_are_an_error_that_says_why(tiny_bundle):
    done = subprocess.run(
        [SAM_SERVE, "--ray", tiny_bundle, "--http-port", "0", "--require", "tensorrt"],
        capture_output=True, text=True, env=environment("local"), timeout=180,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "no plan for TensorRT" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "flags",
    [
        ["--ray", "--grpc-port", "0"],
        ["--ray", "--metrics-port", "0"],
        ["--ray", "--tls-cert", "a"],
        ["--ray", "--drain-s", "0"],
        ["--ray", "--triton", "x"],
        ["--min-replicas", "2"],
        ["--replica-gpus", "1"],
        ["--ray", "--min-replicas", "3", "--max-replicas", "2"],
        ["--ray", "--min-replicas", "0"],
    ],
)
def test_flags_that_mean_nothing_are_refused(tiny_bundle, flags, capsys):
    assert main([str(tiny_bundle), *flags]) == 2
    assert "--" in capsys.readouterr().err or "replicas" in flags[-2]


def test_a_taken_port_and_a_broken_bundle_start_no_cluster(tiny_bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for bundle, said in ((tiny_bundle, "cannot listen"), (tmp_path, "manifest.json")):
            done = subprocess.run(
                [SAM_SERVE, "--ray", bundle, "--http-port", port],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 2, done.stderr
            assert said in done.stderr


@pytest.mark.parametrize(
    "wrong", [{}, {"bundle": "x", "min": "1"}, {"bundle": "x", "min_replicas": "one"}]
)
def test_arguments_that_are_none(wrong):
    with pytest.raises(InputError, match="arguments of Ray Serve"):
        ray_args(wrong)


def test_arguments_come_as_text():
    found = ray_args({"bundle": "a,b", "min_replicas": "2", "max_replicas": "4", "num_cpus": "3"})
    assert [path.name for path in found.bundles] == ["a", "b"]
    assert (found.min_replicas, found.max_replicas, found.options.threads) == (2, 4, 3)


def test_every_failure_can_be_pickled():
    for kind in vars(failures).values():
        if isinstance(kind, type) and issubclass(kind, failures.ServingError):
            back = pickle.loads(pickle.dumps(kind("why")))
            assert (type(back), str(back)) == (kind, "why")
