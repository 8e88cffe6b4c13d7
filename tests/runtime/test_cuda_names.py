"""The names of cuda-core that the runner uses; those of TensorRT are in engines/test_api_drift."""

from importlib import import_module


def test_cuda_core_has_what_is_used():
    core = import_module("cuda.core")
    graphs = import_module("cuda.core.graph")
    utils = import_module("cuda.core.utils")
    for kind, members in {
        core.Device: ["allocate", "create_stream", "device_id", "set_current"],
        core.Stream: ["close", "create_graph_builder", "handle", "sync"],
        core.Buffer: ["close", "copy_from", "from_handle", "handle", "__dlpack_device__"],
        core.LegacyPinnedMemoryResource: ["allocate"],
        graphs.GraphBuilder: ["begin_building", "close", "complete", "end_building"],
        graphs.Graph: ["close", "launch"],
        utils.StridedMemoryView: ["from_any_interface", "from_buffer", "__dlpack__"],
    }.items():
        assert [name for name in members if not hasattr(kind, name)] == []
    assert "thread_local" in graphs.GraphBuilder.begin_building.__doc__
    assert core.StreamOptions().nonblocking
