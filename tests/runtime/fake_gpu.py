"""A GPU and an execution context that keep CUDA's rules of order: work runs when it is waited for.

It stands for what cannot run here, so that our own order of copying, capturing and freeing can.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from sam_deploy.errors import MachineError
from sam_deploy.runtime.gpu import DeviceView


class Held:
    """What must be freed once: memory, a stream, a graph."""

    def __init__(self, gpu, kind):
        self.gpu, self.kind, self.closed = gpu, kind, False
        gpu.held.append(self)


class Stream(Held):
    def __init__(self, gpu):
        super().__init__(gpu, "stream")
        self.queue, self.captured, self.handle = [], None, id(self)

    def put(self, work):
        (self.queue if self.captured is None else self.captured).append(work)


class Memory(Held):
    def __init__(self, gpu, nbytes):
        super().__init__(gpu, "memory")
        self.bytes = np.full(nbytes, 0xAB, np.uint8)  # not what anybody waits for
        self.handle = self.bytes.ctypes.data


class Graph(Held):
    def __init__(self, gpu, work):
        super().__init__(gpu, "graph")
        self.work = work


class FakeGpu:
    """`Gpu`'s methods; `said` is what was done, in order."""

    def __init__(self):
        self.held, self.said = [], []
        self.capturable = True

    @property
    def open(self):
        return [held.kind for held in self.held if not held.closed]

    @contextmanager
    def current(self):
        yield

    def stream(self):
        return Stream(self)

    def allocate(self, nbytes, stream):
        return Memory(self, nbytes)

    def pinned(self, nbytes):
        memory = Memory(self, nbytes)
        return memory, memory.bytes

    def free(self, held):
        assert not held.closed, f"{held.kind} freed twice"
        held.closed = True

    def copy(self, target, source, nbytes, stream):
        self.said.append("copy")
        stream.put(lambda: ctypes.memmove(target, source, nbytes))

    def wait(self, stream):
        queue, stream.queue = stream.queue, []
        for work in queue:
            work()

    def capture(self, stream, enqueue):
        self.said.append("capture")
        stream.captured = []
        enqueued = enqueue() and self.capturable
        work, stream.captured = stream.captured, None
        if not enqueued:
            raise MachineError("the plan cannot be captured in a CUDA graph")
        return Graph(self, work)

    def launch(self, graph, stream):
        assert not graph.closed
        self.said.append("launch")
        stream.queue += graph.work

    def view(self, x, stream):
        return DeviceView(x.array.ctypes.data, x.array.shape, x.array.dtype, x)


class OnGpu:
    """Somebody's array in device memory."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return 2, 0


class FakeContext:
    """An execution context of y = 2 x, float32, on the streams of `gpu`; it complains to `log`."""

    def __init__(self, gpu, log):
        self.gpu, self.log, self.shapes, self.addresses = gpu, log, {}, {}
        self.fails = False

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name):
        return self.shapes["x"]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle):
        self.gpu.said.append("enqueue")
        if self.fails or not self.gpu.capturable:
            self.log.logger.log(_Logger.ERROR, "a reason")
        (stream,) = [s for s in self.gpu.held if s.kind == "stream" and s.handle == handle]
        x, y = (self._array(name) for name in ("x", "y"))
        stream.put(lambda: np.multiply(x, 2, out=y))
        return not self.fails

    def _array(self, name):
        """As a kernel has it: the address is taken when the work is enqueued."""
        shape = self.shapes["x"]
        floats = ctypes.c_float * int(np.prod(shape))
        return np.ctypeslib.as_array(floats.from_address(self.addresses[name])).reshape(shape)


class _Logger:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal error", "warning"


fake_tensorrt = SimpleNamespace(ILogger=_Logger)
"""All of TensorRT's module that a log needs."""
