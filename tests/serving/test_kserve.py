"""Manifests for KServe against the real schemas, and the images' recipes against the wheel."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from openapi_models import installed, problems
from serve_process import serving

from sam_deploy.bundle import read_bundle
from sam_deploy.cli.serve import main
from sam_deploy.errors import InputError
from sam_deploy.serving.kserve import Deployment, kserve_name, manifests

ROOT = Path(__file__).parent.parent.parent
KINDS = {"ServingRuntime": "V1alpha1ServingRuntime", "InferenceService": "V1beta1InferenceService"}
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
schemas = pytest.mark.skipif(
    not installed() and not os.environ.get("CI"), reason="the schemas are not there: make setup"
)
pytestmark = pytest.mark.export


def found_in(objects):
    return [p for one in objects for p in problems(one, KINDS[one["kind"]], one["kind"])]


@pytest.fixture
def printed(capsys, tiny_bundle):
    def printed(*argv):
        code = main(["--kserve", *argv, str(tiny_bundle)])
        out, err = capsys.readouterr()
        return code, out, err

    return printed


@schemas
@pytest.mark.parametrize("runtime", ["sam-serve", "triton"])
@pytest.mark.parametrize("more", [[], ["--gpu"]])
def test_the_schemas_take_them(printed, runtime, more):
    code, out, err = printed(runtime, "--storage-uri", "s3://models/tiny", *more)
    assert (code, err) == (0, "")
    objects = list(yaml.safe_load_all(out))
    assert found_in(objects) == []
    service = objects[-1]
    assert service["metadata"]["name"] == "tiny-fp16-64"
    model = service["spec"]["predictor"]["model"]
    assert model["storageUri"] == "s3://models/tiny"
    assert ("nvidia.com/gpu" in model["resources"]["limits"]) == bool(more)
    if runtime == "triton":
        assert [one["kind"] for one in objects] == ["InferenceService"]
        assert model["runtime"] == "kserve-tritonserver"
    else:
        assert model["runtime"] == objects[0]["metadata"]["name"]
        (container,) = objects[0]["spec"]["containers"]
        assert container["image"] == ("sam-serve:gpu" if more else "sam-serve:cpu")
        grace = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
        drain, timeout = (
            int(re.search(rf"{flag}=(\d+)", " ".join(container["args"]))[1])
            for flag in ("--drain-s", "--timeout-s")
        )
        assert grace > drain + timeout  # what is under way is answered before it is killed


@schemas
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda o: o[1]["spec"]["predictor"]["model"].update(storageURI="x"),
            "storageURI is unknown",
        ),
        (lambda o: o[1]["spec"]["predictor"].update(minReplicas="1"), "minReplicas is str"),
        (lambda o: o[1]["spec"].pop("predictor"), "predictor is missing"),
        (lambda o: o[0]["spec"]["containers"][0].update(args="--host"), "args is str"),
        (lambda o: o[0]["spec"]["containers"][0]["ports"][0].pop("containerPort"), "is missing"),
        (lambda o: o[0]["spec"]["containers"][0]["readinessProbe"].update(periodS=1), "is unknown"),
    ],
)
def test_what_a_cluster_would_refuse_is_found(tiny_bundle, change, said):
    objects = manifests(read_bundle(tiny_bundle), Deployment("s3://b/m"))
    assert found_in(objects) == []
    change(objects)
    assert any(said in problem for problem in found_in(objects))


def test_json_is_the_same(printed):
    assert json.loads(printed("triton", "--storage-uri", "pvc://c/x", "--json")[1]) == list(
        yaml.safe_load_all(printed("triton", "--storage-uri", "pvc://c/x")[1])
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sam-serve"], "--kserve needs --storage-uri"),
        (["sam-serve", "--storage-uri", "/local"], "is no storage URI"),
        (["triton", "--storage-uri", "s3://x", "--image", "y"], "--image is for sam-serve's"),
        (["triton", "--storage-uri", "s3://x", "--name", "123"], "must begin with a letter"),
        (["triton", "--storage-uri", "s3://x", "another"], "--kserve takes one bundle; got 2"),
    ],
)
def test_what_cannot_be(printed, argv, said):
    code, out, err = printed(*argv)
    assert (code, out) == (2, "")
    assert said in err


def test_flags_that_need_it(tiny_bundle, capsys):
    assert main([str(tiny_bundle), "--gpu"]) == 2
    assert "--gpu is for --kserve" in capsys.readouterr().err
    with pytest.raises(InputError, match="replicas 3 to 2"):
        Deployment("s3://x", min_replicas=3, max_replicas=2)


def test_names(printed):
    assert kserve_name("smt_t-FP16..224") == "smt-t-fp16-224"
    assert len(kserve_name("a" * 99)) == 53
    code, _, err = printed("triton", "--storage-uri", "s3://x", "--name", "My_Model")
    assert code == 0
    assert "note: the service is called my-model; clusters have no 'My_Model'" in err


def test_the_containers_command_serves_under_the_services_name(tiny_bundle):
    """What KServe fills in, and the ports and probes that the manifest tells it of."""
    objects = manifests(read_bundle(tiny_bundle), Deployment("s3://b/m", name="mine"))
    (container,) = objects[0]["spec"]["containers"]
    bundle, *flags = container["args"]
    bundle = bundle.replace("{{.Name}}", "mine").replace("/mnt/models", str(tiny_bundle))
    given = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)
    options = {n.replace("-", "_"): v or True for n, v in given.items() if "port" not in n}
    with serving(bundle, **{**options, "host": "127.0.0.1", "drain_s": 0}) as server:
        assert set(server.models) == {"mine", "mine-images"}
        for probe in ("readinessProbe", "livenessProbe"):
            assert server.get(container[probe]["httpGet"]["path"])[0] == 200


def instructions(path):
    text = re.sub(r"\\\n", " ", path.read_text())
    return [line.split(None, 1) for line in text.splitlines() if line and line[0] not in "# "]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_the_images_are_made_of_is_there(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = instructions(path)
    for word, rest in found:
        if word == "COPY" and not rest.startswith("--from"):
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()
    installs = " ".join(rest for word, rest in found if word == "RUN")
    (extras,) = re.findall(r"\.whl\)\[([a-z,-]+)\]", installs)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    (entry,) = [json.loads(rest) for word, rest in found if word == "ENTRYPOINT"]
    assert entry[0] in project["scripts"]
    assert [rest for word, rest in found if word == "USER"] == ["1000"]
    assert [rest for word, rest in found if word == "EXPOSE"] == ["8000 8001 8002"]


def test_the_images_health_check(tiny_bundle):
    for path in DOCKERFILES:
        (check,) = [rest for word, rest in instructions(path) if word == "HEALTHCHECK"]
        command = json.loads(check.partition("CMD")[2])
        with serving(tiny_bundle) as server:
            here = [part.replace("127.0.0.1:8000", server.rest) for part in command]
            assert subprocess.run([sys.executable, *here[1:]], check=False).returncode == 0
        gone = subprocess.run([sys.executable, *here[1:]], check=False, capture_output=True)
        assert gone.returncode == 1
