"""Model repositories for Triton, loaded and asked by a real tritonserver."""

import io
import json
import os
import shutil
import struct

import broken_requests
import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from conftest import rewrite_manifest
from google.protobuf import text_format
from PIL import Image
from triton_process import Refused, installed, triton
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

import sam_deploy
from sam_deploy.bundle import file_infos, read_bundle
from sam_deploy.cli.serve import main
from sam_deploy.errors import BundleError, InputError
from sam_deploy.exporter import export_recipe
from sam_deploy.images import to_rgb
from sam_deploy.plans import BatchProfile, PlanInfo
from sam_deploy.preprocess import Preprocessing
from sam_deploy.serving.triton import write_repository
from sam_deploy.serving.triton.preprocess_model import Preprocess
from sam_deploy.serving.triton.preprocess_model import Refused as NoImage
from sam_deploy.synthetic import synthetic_images

pytestmark = pytest.mark.export
MODEL = "tiny-fp16-64"
real_server = pytest.mark.skipif(
    not installed() and not os.environ.get("CI"), reason="tritonserver is not installed: make setup"
)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    """With names, and as if TensorRT had built a plan for it."""
    copied = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("planned") / MODEL)
    (copied / "plans").mkdir()
    plan = copied / "plans/tensorrt-10.16.1.11-sm89.plan"
    plan.write_bytes(b"ftrt and so on")
    passport = PlanInfo(
        file=f"plans/{plan.name}", flavour="tensorrt", version="10.16.1.11",
        compute_capabilities=["8.9"], gpu="an RTX 4090", options={}, build_s=1.0,
        profile=BatchProfile(min=1, opt=4, max=16), bytes=plan.stat().st_size,
        onnx_sha256=file_infos(copied)["model.onnx"].sha256,
    )  # fmt: skip
    rewrite_manifest(
        copied,
        class_names=[f"sort {i}" for i in range(10)],
        plans=msgspec.to_builtins([passport]),
        files=msgspec.to_builtins(file_infos(copied)),
    )
    return copied


@pytest.fixture(scope="module")
def repository(bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("triton") / "repo"
    assert main(["--triton", str(path), str(bundle)]) == 0
    return path


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    with triton(repository, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def engine(bundle):
    return sam_deploy.load(bundle, "cpu")


def config_of(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_what_is_written(repository, bundle):
    names = {path.name for path in repository.iterdir()}
    variants = {MODEL, f"{MODEL}-trt"}
    assert names == {f"{v}{part}" for v in variants for part in ("", "-preprocess", "-images")}
    assert (repository / MODEL / "1/model.onnx").read_bytes() == (
        bundle / "model.onnx"
    ).read_bytes()
    plan = (repository / f"{MODEL}-trt/1/model.plan").read_bytes()
    assert plan == b"ftrt and so on"
    onnx, plan = config_of(repository / MODEL), config_of(repository / f"{MODEL}-trt")
    assert (onnx.platform, onnx.max_batch_size) == ("onnxruntime_onnx", 32)
    assert (plan.platform, plan.max_batch_size) == ("tensorrt_plan", 16)
    assert list(plan.dynamic_batching.preferred_batch_size) == [4, 16]
    assert [warmup.batch_size for warmup in plan.model_warmup] == [1, 4, 16]
    assert (repository / MODEL / "labels.txt").read_text().splitlines()[3] == "sort 3"
    assert not list(repository.parent.glob(".*"))


def test_the_commands_result_and_notes(bundle, tmp_path, capsys):
    assert main(["--triton", str(tmp_path / "r"), str(bundle), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["models"][0] == MODEL
    assert "note: tiny-fp16-64-trt runs with TensorRT 10.16.1.11 on compute capability 8.9" in err


@real_server
@pytest.mark.parametrize("module", [triton_http, triton_grpc])
def test_a_real_triton_answers_as_the_engine(server, engine, module):
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    address = server.http if module is triton_http else server.grpc
    with module.InferenceServerClient(address) as client:
        assert client.is_model_ready(MODEL)
        sent = module.InferInput("input", [3, 3, 64, 64], "FP32")
        sent.set_data_from_numpy(x)
        found = client.infer(MODEL, [sent]).as_numpy("logits")
        np.testing.assert_allclose(found, engine(x), rtol=1e-4, atol=1e-5)
        wanted = module.InferRequestedOutput("logits", class_count=2)
        classes = client.infer(MODEL, [sent], outputs=[wanted]).as_numpy("logits")
        best = np.argsort(-engine(x))[:, 0]
        assert [row[0].decode().split(":")[1:] for row in classes] == [
            [str(i), f"sort {i}"] for i in best
        ]
        zeros = client.infer(f"{MODEL}-trt", [sent]).as_numpy("logits")  # a stand-in ran
        assert zeros.shape == (3, 10)


@real_server
@pytest.mark.parametrize("module", [triton_http, triton_grpc])
def test_the_ensemble_takes_encoded_images(server, engine, module):
    images = [image.convert("RGB") for image in synthetic_images(3)]
    files = [
        encoded(images[0]),
        encoded(images[1], "WEBP", lossless=True),
        encoded(images[2], "BMP"),
    ]
    address = server.http if module is triton_http else server.grpc
    with module.InferenceServerClient(address) as client:
        sent = module.InferInput("image", [3, 1], "BYTES")
        sent.set_data_from_numpy(np.array(files, object)[:, None])
        found = client.infer(f"{MODEL}-images", [sent]).as_numpy("logits")
        expected = engine(engine.manifest.preprocessing.batch(images))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        for bad, said in (
            (b"no image", "8 bytes that are no image"),
            (broken_requests.bomb(30_000), "900000000 pixels"),
        ):
            sent = module.InferInput("image", [1, 1], "BYTES")
            sent.set_data_from_numpy(np.array([[bad]], object))
            with pytest.raises(InferenceServerException, match=said):
                client.infer(f"{MODEL}-images", [sent])


@real_server
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("max_batch_size: 32", "max_batch_size: -3", "max_batch_size"),
        ("dims: 64\n", "dims: 0\n", "dims|dimension"),
        ('model_name: "tiny-fp16-64"', 'model_name: "gone"', "gone"),
    ],
)
def test_a_real_triton_refuses_what_is_broken(repository, tmp_path, before, after, said):
    broken = shutil.copytree(repository, tmp_path / "repo")
    done = False
    for config in broken.glob("*/config.pbtxt"):
        text = config.read_text()
        done = done or before in text
        config.write_text(text.replace(before, after))
    assert done
    with (
        pytest.raises(Refused, match=f"(?s){said}"),
        triton(broken, tmp_path / "work"),
    ):
        pass


@real_server
@pytest.mark.slow
def test_other_models_load_too(tiny_recipe, tmp_path):
    """A fixed batch, features of several outputs, half-precision ends."""
    made = [
        export_recipe(tiny_recipe(batch=2), out=tmp_path, name="fixed").bundle,
        export_recipe(tiny_recipe(features=True), out=tmp_path, name="features").bundle,
        export_recipe(
            tiny_recipe(precision="fp16", io_dtype="fp16"), out=tmp_path, name="halves"
        ).bundle,
    ]
    written = write_repository(tmp_path / "repo", made)
    assert "fixed-images" in written.models
    image = next(iter(synthetic_images(1))).convert("RGB")
    with (
        triton(tmp_path / "repo", tmp_path / "work") as server,
        triton_http.InferenceServerClient(server.http) as client,
    ):
        for bundle in made:
            engine = sam_deploy.load(bundle, "cpu")
            shape = [2] if bundle.name == "fixed" else [2, 1]
            sent = triton_http.InferInput("image", shape, "BYTES")
            sent.set_data_from_numpy(np.array([encoded(image)] * 2, object).reshape(shape))
            found = client.infer(f"{bundle.name}-images", [sent])
            expected = engine.run({"input": engine.manifest.preprocessing.batch([image] * 2)})
            for name, array in expected.items():
                np.testing.assert_allclose(found.as_numpy(name), array, rtol=1e-2, atol=1e-3)


MODES = ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(64, 64), (40, 90), (333, 57), (1, 1)])
def test_preprocessing_in_triton_is_ours_bit_for_bit(mode, size):
    rng = np.random.default_rng(3)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, size[::-1], np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    for preprocessing in (
        Preprocessing.for_size(64, 64),
        Preprocessing.for_size(48, 80),
        Preprocessing(size_px=(32, 32), interpolation="bilinear", channels="BGR"),
        Preprocessing(size_px=(32, 32), resize_px=40, mean=(0, 0.1, 1), std=(1, 2, 3)),
    ):
        theirs = Preprocess({**msgspec.to_builtins(preprocessing), "max_image_px": 10**6})
        with Image.open(io.BytesIO(data)) as opened:
            expected = preprocessing.apply(to_rgb(opened))
        np.testing.assert_array_equal(theirs.decoded(data), expected)


def test_what_is_no_image_there():
    settings = {**msgspec.to_builtins(Preprocessing.for_size(64, 64)), "max_image_px": 100}
    theirs = Preprocess(settings)
    wide = encoded(Image.new("RGB", (4000, 1)))
    for data in (b"", b"x" * 99, encoded(Image.new("RGB", (11, 10))), wide, struct.pack("<I", 5)):
        with pytest.raises(NoImage):
            theirs.decoded(data)
    narrow = Preprocess({**settings, "max_image_px": 10**9})
    with pytest.raises(NoImage, match="too narrow"):
        narrow.decoded(encoded(Image.new("RGB", (200_000, 1))))


def test_a_repository_of_others_is_left_alone(bundle, tmp_path):
    repository = tmp_path / "repo"
    write_repository(repository, [bundle])
    other = repository / "resnet"
    other.mkdir()
    (other / "config.pbtxt").write_text('name: "resnet"')
    before = (repository / MODEL / "config.pbtxt").stat().st_ino
    write_repository(repository, [bundle])  # replaces its own, whole
    assert (repository / MODEL / "config.pbtxt").stat().st_ino != before
    assert (other / "config.pbtxt").read_text() == 'name: "resnet"'
    (repository / MODEL / "config.pbtxt").write_text('name: "somebody\'s"')
    with pytest.raises(InputError, match=f"{MODEL} is there, and sam-serve did not write it"):
        write_repository(repository, [bundle])


def test_a_damaged_bundle_writes_nothing(bundle, tmp_path):
    copied = shutil.copytree(bundle, tmp_path / "m")
    (copied / "model.onnx").write_bytes(b"no")
    with pytest.raises(BundleError):
        write_repository(tmp_path / "repo", [bundle, copied])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
    assert read_bundle(bundle).name
