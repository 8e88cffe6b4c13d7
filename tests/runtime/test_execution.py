import numpy as np
import pytest
from fake_gpu import FakeContext, FakeGpu, OnGpu, fake_tensorrt

from sam_deploy.errors import InputError, MachineError
from sam_deploy.manifest import TensorSpec
from sam_deploy.plans import BatchProfile
from sam_deploy.runtime.execution import Execution, Graphs
from sam_deploy.runtime.inputs import check_profile
from sam_deploy.tensorrt_family import Log

X = TensorSpec(name="x", dtype="float32", dims=["batch", 3])
Y = TensorSpec(name="y", dtype="float32", dims=["batch", 3])


@pytest.fixture
def gpu():
    return FakeGpu()


@pytest.fixture
def make(gpu):
    def make(**graphs):
        log = Log(fake_tensorrt)
        return Execution(
            FakeContext(gpu, log),
            gpu,
            [X],
            [Y],
            check=lambda shapes: check_profile(shapes, [X], BatchProfile(min=1, opt=2, max=4)),
            log=log,
            graphs=Graphs(**graphs),
        )

    return make


def rows(count, first=0.0):
    return np.arange(first, first + 3 * count, dtype=np.float32).reshape(count, 3)


def run(execution, x, **options):
    return execution.run({"x": x}, keep=False, **options)["y"]


def test_every_batch_and_every_repeat_gives_its_own_result(make):
    execution = make()
    for count in (1, 4, 4, 4, 2, 2, 1, 3, 3):
        x = rows(count, first=count)
        np.testing.assert_array_equal(run(execution, x), 2 * x)


def test_the_second_call_of_a_shape_is_captured_and_those_after_it_launch(make, gpu):
    execution = make()
    results = [run(execution, rows(2, first=i)) for i in range(4)]
    assert [word for word in gpu.said if word != "copy"] == [
        "enqueue",  # the warm-up, which is never captured
        "capture", "enqueue", "launch",
        "launch",
        "launch",
    ]  # fmt: skip
    for i, y in enumerate(results):
        np.testing.assert_array_equal(y, 2 * rows(2, first=i))


def test_another_shape_drops_the_graph(make, gpu):
    execution = make()
    for count in (2, 2, 1, 2, 2):
        run(execution, rows(count))
    assert gpu.said.count("capture") == 2
    assert gpu.open.count("graph") == 1


def test_another_address_is_never_launched_by_the_old_graph(make, gpu):
    execution = make()
    arrays = [OnGpu(rows(2, first=i)) for i in range(2)]
    for x in (arrays[0], arrays[0], arrays[1], arrays[1], arrays[0]):
        np.testing.assert_array_equal(run(execution, x), 2 * x.array)
    assert gpu.said.count("capture") == 2


def test_an_array_on_the_gpu_is_not_copied(make, gpu):
    execution = make()
    run(execution, OnGpu(rows(2)))
    assert gpu.said.count("copy") == 1  # the output's


def test_without_graphs_every_call_is_enqueued(make, gpu):
    execution = make(wanted=False)
    for _ in range(3):
        run(execution, rows(1))
    assert [word for word in gpu.said if word != "copy"] == ["enqueue"] * 3


def test_what_cannot_be_captured_runs_and_is_tried_once(make, gpu):
    gpu.capturable = False
    execution = make()
    for i in range(4):
        x = rows(2, first=i)
        np.testing.assert_array_equal(run(execution, x), 2 * x)
    assert gpu.said.count("capture") == 1
    assert execution._graphs.refused == "the plan cannot be captured in a CUDA graph: a reason"


def test_a_context_that_says_it_is_not_capturable_is_believed(make, gpu):
    execution = make()
    execution._context.is_stream_capturable = lambda handle: False
    for _ in range(3):
        run(execution, rows(2))
    assert "capture" not in gpu.said


def test_outputs_that_stay_on_the_gpu_are_not_written_over(make):
    execution = make()
    kept = [execution.run({"x": rows(2, first=i)}, keep=True)["y"] for i in range(4)]
    for i, y in enumerate(kept):
        assert (y.shape, y.dtype) == ((2, 3), np.float32)
        found = y._buffer.bytes.view(np.float32).reshape(2, 3)
        np.testing.assert_array_equal(found, 2 * rows(2, first=i))
        interface = y.__cuda_array_interface__
        assert interface["data"] == (y._buffer.handle, False)
        assert (interface["shape"], interface["typestr"]) == ((2, 3), "<f4")


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (rows(5), "batch is 5; this plan takes 1 to 4"),
        (OnGpu(rows(5)), "batch is 5; this plan takes 1 to 4"),
        (OnGpu(rows(2).astype(np.float16)), "x on the GPU is float16; expected float32"),
        (OnGpu(rows(2).T.copy()), r"has shape \(3, 2\); expected \(batch, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_tensorrt_sees_it(make, gpu, x, said):
    execution = make()
    with pytest.raises(InputError, match=said):
        run(execution, x)
    assert (gpu.said, execution._context.shapes) == ([], {})
    np.testing.assert_array_equal(run(execution, rows(1)), 2 * rows(1))


def test_a_failure_is_told_with_tensorrts_reason(make):
    execution = make()
    execution._context.fails = True
    with pytest.raises(MachineError, match="TensorRT cannot run the plan: a reason"):
        run(execution, rows(1))


def test_a_shape_that_depends_on_values_is_sent_to_the_onnx(make):
    execution = make()
    execution._context.get_tensor_shape = lambda name: (-1, 3)
    with pytest.raises(MachineError, match='require="cpu"'):
        run(execution, rows(1))


def test_closing_frees_everything_once(make, gpu):
    execution = make()
    for count in (1, 3, 3, 3):
        run(execution, rows(count))
    assert set(gpu.open) == {"stream", "memory", "graph"}
    execution.close()
    assert gpu.open == []
