"""What counts as a sample, what is kept of an interrupted run, and what a verification says."""

import tracemalloc
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import sam_deploy
from sam_deploy.errors import InputError, MachineError
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity import normal_samples
from sam_deploy.parity.batches import chosen_rows, expected_alone, measure_batches
from sam_deploy.parity.comparison import Comparison
from sam_deploy.parity.gate import Taken, compare, described
from sam_deploy.parity.judge import batch_figures, reasons
from sam_deploy.plans import BatchProfile
from sam_deploy.progress import Progress
from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.synthetic import synthetic_images
from sam_deploy.verification import Asked, ParityResult, resume, verify

pytestmark = pytest.mark.long
ROWS = 40  # two batches: images of 64 px are run 32 at a time


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Where interrupted runs are kept; every batch is."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAM_DEPLOY_CACHE", str(folder))
    monkeypatch.setattr(resume, "_SNAPSHOT_EVERY_S", 0.0)
    return folder / "parity"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labelled arrays for the tiny SMT."""
    path = tmp_path_factory.mktemp("data") / "labelled.npz"
    images = np.random.RandomState(0).standard_normal((ROWS, 3, 64, 64)).astype(np.float32)
    np.savez(path, input=images, labels=np.arange(ROWS) % 10)
    return path


@pytest.fixture
def run(tiny_bundle, tiny_checkpoint, data):
    def run(progress=None, **asked):
        asked = {"weights": tiny_checkpoint, "data": data, **asked}
        return verify(tiny_bundle, Asked(**asked), progress)

    return run


class Stopped(Progress):
    """Interrupts after so many samples, and hears what is noted."""

    def __init__(self, after=None):
        self.after, self.notes, self.samples = after, [], 0

    @contextmanager
    def stage(self, name, total=None):
        def advance(steps):
            self.samples += steps if name == "parity" else 0
            if name == "parity" and self.after is not None and self.samples >= self.after:
                raise KeyboardInterrupt

        yield advance

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def whole(tiny_bundle, tiny_checkpoint, data):
    """What an uninterrupted run finds."""
    return verify(tiny_bundle, Asked(weights=tiny_checkpoint, data=data))


def test_an_interrupted_run_goes_on_and_finds_the_same_to_the_last_bit(run, whole, cache):
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(after=33))
    (state,) = cache.iterdir()
    assert state.suffix == ".state"
    going_on = Stopped()
    assert run(going_on) == whole
    (note,) = [note for note in going_on.notes if "going on" in note]
    assert f"sample 32 of {ROWS}, where an interrupted run stopped" in note
    assert not any(cache.iterdir())


def test_it_may_be_interrupted_again_and_again(run, whole):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(Stopped(after=ROWS - 1))
    assert run() == whole


def test_it_begins_anew_if_asked_or_if_anything_is_another(run, whole, data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(after=33))
    for asked in ({"resume": False}, {"limit": 33}):
        progress = Stopped()
        assert run(progress, **asked).passed
        assert not any("going on" in note for note in progress.notes)
    assert run() == whole


def test_what_cannot_be_read_of_it_is_nothing(run, whole, cache):
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(after=33))
    (state,) = cache.iterdir()
    content = state.read_bytes()
    for broken in (b"no state", content[:-9], content + b"\0"):
        state.write_bytes(broken)
        assert run() == whole


def test_a_cache_that_takes_nothing_is_no_failure(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SAM_DEPLOY_CACHE", str(tmp_path / "file"))
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(after=33))
    assert run(limit=4).passed


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_sample_counts_once_however_often_it_is_run(run, count):
    """Few samples are run once more, in batches of other sizes."""
    result = run(limit=count)
    (artefact,) = result.artefacts
    assert (result.samples, artefact.parity.samples) == (count, count)
    assert artefact.parity.accuracy.samples == count
    assert sum(artefact.histogram.counts) == count
    assert len({one.sample for one in artefact.worst}) == len(artefact.worst) == count


def test_a_limit_takes_of_every_class(tiny_bundle, tiny_checkpoint, tmp_path):
    for number, image in enumerate(synthetic_images(20)):
        folder = tmp_path / f"{number // 2} class"
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{number}.png")
    asked = {"weights": tiny_checkpoint, "data": tmp_path}
    (artefact,) = verify(tiny_bundle, Asked(**asked, limit=10)).artefacts
    assert sorted(one.label for one in artefact.worst) == [f"class {n}" for n in range(10)]
    assert artefact.parity.accuracy.samples == 10


@pytest.mark.parametrize("kind", ["float64", "float16", ">f4", "columns"])
def test_arrays_of_another_kind_are_the_same_samples(run, data, tmp_path, kind):
    images = np.load(data)["input"][:8].astype(np.float16).astype(np.float32)
    given = np.asfortranarray(images) if kind == "columns" else images.astype(kind)
    for name, array in (("same", images), ("other", given)):
        np.savez(tmp_path / f"{name}.npz", input=array)
    same, other = (
        run(data=tmp_path / f"{name}.npz").artefacts[0].parity for name in ("same", "other")
    )
    assert other == same


def test_it_says_everything_in_json(whole):
    encoded = msgspec.json.encode(whole)
    assert msgspec.json.decode(encoded, type=ParityResult) == whole
    assert msgspec.json.decode(encoded)["schema_version"] == 1
    assert whole.passed
    assert [check.name for check in whole.checks] == [
        "inputs and outputs",
        "model",
        "preprocessing",
        "class names",
        "precision",
        "graph",
        "constants",
        "FP16 range",
    ]
    assert all(check.passed and check.detail for check in whole.checks)
    (artefact,) = whole.artefacts
    assert [batch.size for batch in artefact.parity.batches] == [1, 8, 32]


def test_a_backend_that_is_required(run):
    assert run(limit=2, require=("cpu",)).passed
    with pytest.raises(MachineError, match="tensorrt-rtx is required and does not run here"):
        run(limit=2, require=("tensorrt-rtx",))
    with pytest.raises(InputError, match="unknown backend 'tvm'"):
        run(limit=2, require=("tvm",))


class Last:
    """Right but for the last of nine samples."""

    backend = "a test"

    def __init__(self):
        self.rows = 0

    def run(self, inputs):
        before, self.rows = self.rows, self.rows + len(inputs["x"])
        return {"y": inputs["x"] + (1.0 if before < 9 <= self.rows else 0.0)}


def test_an_artefact_for_small_batches_is_compared_on_every_sample():
    """It stands beside one that takes any."""
    (x, y) = (TensorSpec(name=name, dtype="float32", dims=["batch", 4]) for name in "xy")
    plan, onnx = (
        Comparison(
            "an artefact",
            Last(),
            [x],
            [y],
            classes=False,
            tolerances=DEFAULT_TOLERANCES["fp32"],
            profile=profile,
        )
        for profile in (BatchProfile(min=1, opt=2, max=2), None)
    )
    samples, taken = normal_samples("x", 9, 4), Taken()
    compare([plan, onnx], lambda x: {"y": x["x"]}, samples, batch=4, taken=taken)
    assert (taken.samples, plan.runner.rows) == (9, 9)
    assert not plan.report(**described(samples, taken)).passed


def batch_reasons(change, reference=lambda x: {"y": x["x"]}):
    """What an artefact that changes the reference's batches is told."""
    (x, y) = (TensorSpec(name=name, dtype="float32", dims=["batch", 4]) for name in "xy")

    class Runner:
        backend = "a test"

        def run(self, inputs):
            return {"y": change(reference(inputs)["y"])}

    rows = chosen_rows(normal_samples("x", 8, 4), 8)
    expected = expected_alone(reference, rows, None)
    (found,) = measure_batches(Runner(), rows, expected, [x], [y], [8])
    return " ".join(reasons(batch_figures(found, DEFAULT_TOLERANCES["fp32"])))


def test_a_leak_all_around_the_batch():
    """Turned by one slot, every sample would keep the neighbour that it leaks from."""
    assert batch_reasons(lambda y: y) == ""
    said = batch_reasons(lambda y: y + np.float32(0.001) * (np.roll(y, 1, axis=0) - y))
    assert "depends on its slot or its neighbours" in said


def test_what_is_constant_for_a_sample_alone():
    """A constant has no spread, and its errors count all the same."""
    said = batch_reasons(lambda y: y + np.float32(len(y) > 1), lambda x: {"y": 0 * x["x"]})
    assert "slot 0 is off by a relative RMS of 1.00e+00" in said


@pytest.mark.parametrize("count", [5, 32, 40, 63, 100])
def test_the_rows_of_batches_are_of_the_whole_set(count):
    rows = chosen_rows(normal_samples("x", count, 2), 32)
    every = [sample["x"] for _, sample in normal_samples("x", count, 2).make(0)]
    numbers = [next(n for n, x in enumerate(every) if (x == row["x"][0]).all()) for row in rows]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(count, 32)
    assert count - numbers[-1] <= -(-count // 32)


class Net(nn.Module):
    """Two inputs; floats, an image and integers come out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.mix = nn.Linear(4, 8)
        self.head = nn.Linear(8, 6)

    def forward(self, image, meta):
        scores = self.head(torch.relu(self.conv(image).mean((2, 3)) + self.mix(meta)))
        return {"scores": scores, "best": scores.argmax(1), "map": self.conv(image)}


class Careless(Net):
    """The same weights, and another network."""

    def forward(self, image, meta):
        return super().forward(image, 2 * meta)


def seeded(kind):
    torch.manual_seed(0)
    return kind().eval()


def arrays(rows, seed=0):
    random = np.random.RandomState(seed)
    return {
        "image": random.standard_normal((rows, 3, 8, 8)).astype(np.float32),
        "meta": random.standard_normal((rows, 4)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A bundle of a network of one's own, what it was made of, and 4000 samples for it."""
    inputs = tuple(torch.from_numpy(array) for array in arrays(6).values())
    folder = tmp_path_factory.mktemp("own")
    made = sam_deploy.export(seeded(Net), inputs, out=folder / "net")
    for rows in (400, 4000):
        np.savez(folder / f"{rows}.npz", **arrays(rows))
    return made.bundle, inputs, folder


@pytest.mark.export
def test_a_network_of_ones_own_is_given_and_never_imported(own):
    bundle, inputs, folder = own
    with pytest.raises(InputError, match="nothing that a bundle names is imported"):
        verify(bundle)
    asked = {"example_inputs": inputs, "data": folder / "400.npz"}
    result = verify(bundle, Asked(module=seeded(Net), **asked))
    assert (result.passed, result.failures) == (True, [])
    outputs = {output.name: output for output in result.artefacts[0].parity.outputs}
    assert list(outputs) == ["scores", "best", "map"]
    assert outputs["best"].equal_elements == 1.0
    assert outputs["best"].relative_rms is None

    careless = verify(bundle, Asked(module=seeded(Careless), **asked))
    assert not careless.passed
    assert "scores: relative RMS" in careless.failures[0]
    other = seeded(Net)
    other.head.bias.data[0] += 1
    with pytest.raises(InputError, match="the module holds other weights"):
        verify(bundle, Asked(module=other, **asked))


@pytest.mark.export
def test_example_inputs_that_changed_meanwhile_are_other_samples(own):
    bundle, inputs, _ = own
    with pytest.raises(KeyboardInterrupt):
        verify(bundle, Asked(module=seeded(Net), example_inputs=inputs), Stopped(after=1))
    going_on, others = Stopped(), tuple(x.flip(0) for x in inputs)
    assert verify(bundle, Asked(module=seeded(Net), example_inputs=others), going_on).passed
    assert not any("going on" in note for note in going_on.notes)


@pytest.mark.export
def test_memory_does_not_grow_with_the_samples(own):
    bundle, inputs, folder = own
    peaks = []
    for rows in (400, 4000):
        asked = Asked(module=seeded(Net), example_inputs=inputs, data=folder / f"{rows}.npz")
        tracemalloc.start()
        assert verify(bundle, asked).samples == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2e6  # the arrays of 4000 samples take 3.1 MB, and more in figures
