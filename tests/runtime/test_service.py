"""What a service does with an engine: many threads, images as bytes, NaN, warm-up, closing."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
from PIL import Image

import sam_deploy
from sam_deploy.errors import InputError
from sam_deploy.runtime.onnx_contexts import OnnxContexts
from sam_deploy.synthetic import synthetic_images


@pytest.mark.parametrize("contexts", [1, 3])
def test_eight_threads_on_one_engine_get_right_answers(tiny_bundle, contexts):
    xs = np.random.RandomState(0).standard_normal((16, 2, 3, 64, 64)).astype(np.float32)
    with sam_deploy.load(tiny_bundle, contexts=contexts) as engine:
        engine.warmup()
        expected = [engine(x) for x in xs]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda i: (i % 16, engine(xs[i % 16])), range(240)))
    for i, y in found:
        np.testing.assert_allclose(y, expected[i], atol=1e-5)


@pytest.mark.parametrize(("said", "threads", "more"), [("1", 0, 0), ("3,1", 0, 2), ("1", 4, 3)])
def test_as_many_threads_as_omp_num_threads_says(tiny_bundle, said, threads, more):
    count = """
import os, sys, sam_deploy.runtime, onnxruntime
before = len(os.listdir("/proc/self/task"))
with sam_deploy.load(sys.argv[1], "cpu", threads=int(sys.argv[2])):
    print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", count, str(tiny_bundle), str(threads)],
        env={**os.environ, "OMP_NUM_THREADS": said}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == more


def test_no_more_run_at_once_than_there_are_contexts():
    running, most, lock = 0, 0, threading.Lock()

    class Slow:
        backend, provider = "slow", "slow"

        def run(self, inputs):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            threading.Event().wait(0.01)
            with lock:
                running -= 1
            return inputs

    contexts = OnnxContexts(Slow(), 3)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: contexts.run({}), range(40)))
    assert most == 3


def test_engines_of_one_bundle_share_their_weights(tiny_bundle):
    from sam_deploy.runtime import sharing

    first, second = sam_deploy.load(tiny_bundle, "cpu"), sam_deploy.load(tiny_bundle, "cpu")
    held = list(sharing._runners.values())
    assert sum(str(tiny_bundle) in r._session._model_path for r in held) == 1
    first.close()
    x = np.zeros((1, 3, 64, 64), np.float32)
    assert second(x).shape == (1, 10)
    with pytest.raises(InputError, match=r"the engine is closed\. Load the bundle again"):
        first(x)
    second.close()
    del held, first, second
    assert not any(str(tiny_bundle) in r._session._model_path for r in sharing._runners.values())


def test_pixels_are_what_the_preprocessing_makes_of_the_image(tiny_bundle):
    engine = sam_deploy.load(tiny_bundle)
    preprocessing = engine.manifest.preprocessing
    images = [image.convert("RGB").resize((64, 64)) for image in synthetic_images(3)]
    pixels = np.stack([np.asarray(image) for image in images])
    straight = np.stack([_normalised(image, preprocessing) for image in images])
    np.testing.assert_array_equal(engine(pixels), engine(straight))
    with pytest.raises(InputError, match=r"images of 32x64 px; expected 64x64 px\. Resize"):
        engine(pixels[:, :32])


def _normalised(image, preprocessing):
    """As `apply` has it for an image that needs no resizing."""
    return msgspec.structs.replace(preprocessing, resize_px=None).apply(image)


def test_pixels_in_bgr():
    from sam_deploy.preprocess import Preprocessing
    from sam_deploy.runtime.pixels import from_pixels

    preprocessing = Preprocessing(size_px=(8, 8), channels="BGR")
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 8, 3), np.uint8))
    np.testing.assert_array_equal(
        from_pixels(np.asarray(image)[None], preprocessing)[0], preprocessing.apply(image)
    )


def test_nan_is_refused_where_that_is_asked_for(tiny_bundle):
    x = np.zeros((3, 3, 64, 64), np.float32)
    x[2, 1, 5, 5] = np.nan
    sam_deploy.load(tiny_bundle)(x)
    engine = sam_deploy.load(tiny_bundle, refuse_nan=True)
    with pytest.raises(InputError, match="input input has NaN or infinity, first in row 2"):
        engine(x)
    assert engine(np.nan_to_num(x)).shape == (3, 10)
