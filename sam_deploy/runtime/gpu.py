"""The GPU through cuda-core: memory, streams, graphs. Everything that touches CUDA is in here."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sam_deploy.errors import InputError, MachineError, SamDeployError

Stream = Any  # cuda.core.Stream
Buffer = Any  # cuda.core.Buffer
Graph = Any  # cuda.core.graph.Graph


class DeviceView(NamedTuple):
    """Somebody's array on the GPU: address, shape, numpy's dtype, and what keeps it alive."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any


def require_cuda() -> Any:
    """The cuda.core module; loading it needs no driver.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import cuda.core
    except ImportError:
        raise MachineError(
            "cuda-core is not installed. Run: pip install 'sam-deploy[tensorrt]' "
            "(or [tensorrt-rtx])."
        ) from None
    return cuda.core


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Whatever CUDA raises meanwhile becomes a MachineError that says what was being done."""
    try:
        yield
    except SamDeployError:
        raise
    except Exception as error:  # cuda-core's exception classes are not public
        raise MachineError(f"the GPU failed at {doing}: {error}") from None


class Gpu:
    """The first GPU that CUDA shows; CUDA_VISIBLE_DEVICES chooses which that is.

    All methods but `current` are called within `with gpu.current():`.

    Raises:
        MachineError: cuda-core is not installed. Every method: CUDA failed, in its words.
    """

    def __init__(self) -> None:
        self._cuda = require_cuda()

    @contextmanager
    def current(self) -> Iterator[None]:
        """This GPU is the thread's current one meanwhile, and the one before it afterwards."""
        with told("its start"):
            before = self._cuda.Device()
            self._device.set_current()
        try:
            yield
        finally:
            if before.device_id != self._device.device_id:
                before.set_current()

    @property
    def _device(self) -> Any:
        return self._cuda.Device(0)  # a singleton of the thread: not to be kept for others

    def stream(self) -> Stream:
        """A new stream that does not wait for the default stream, nor makes it wait."""
        with told("making a stream"):
            return self._device.create_stream(options=self._cuda.StreamOptions(nonblocking=True))

    def allocate(self, nbytes: int, stream: Stream) -> Buffer:
        """`nbytes` on the GPU, for use on `stream`."""
        with told(f"allocating {nbytes} bytes"):
            return self._device.allocate(nbytes, stream=stream)

    def pinned(self, nbytes: int) -> tuple[Buffer, npt.NDArray[np.uint8]]:
        """`nbytes` of page-locked host memory, and the array on it, void once that is freed."""
        with told(f"allocating {nbytes} bytes of page-locked memory"):
            buffer = self._cuda.LegacyPinnedMemoryResource().allocate(nbytes)
            bytes_ = (ctypes.c_uint8 * nbytes).from_address(int(buffer.handle))
            return buffer, np.ctypeslib.as_array(bytes_)

    def free(self, held: Buffer | Stream | Graph) -> None:
        """Free `held` now; memory in the order of the stream that it was allocated on."""
        with told("freeing what it held"):
            held.close()

    def copy(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Copy between addresses, either of which is on the GPU or page-locked, on `stream`."""
        wrapped = self._cuda.Buffer.from_handle
        with told(f"copying {nbytes} bytes"):
            wrapped(target, nbytes).copy_from(wrapped(source, nbytes), stream=stream)

    def wait(self, stream: Stream) -> None:
        """Until all work on `stream` is done."""
        with told("running the plan"):
            stream.sync()

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph:
        """What `enqueue` puts on `stream`, as a graph; it returns whether it could.

        The capture is thread-local: other threads may allocate, wait and launch meanwhile.
        """
        with told("capturing a CUDA graph"):
            builder = stream.create_graph_builder()
            try:
                builder.begin_building("thread_local")
                enqueued = enqueue()
                builder.end_building()
                if not enqueued:
                    raise MachineError("the plan cannot be captured in a CUDA graph")
                return builder.complete()
            finally:
                builder.close()  # ends a capture that was cut short, so that the stream is usable

    def launch(self, graph: Graph, stream: Stream) -> None:
        """Run `graph` on `stream`."""
        with told("launching a CUDA graph"):
            graph.launch(stream)

    def view(self, x: Any, stream: Stream) -> DeviceView:
        """The array `x` on this GPU, without a copy; `stream` waits for the work that makes it.

        Raises:
            InputError: it cannot be exported, is on another GPU, or is not contiguous.
        """
        from cuda.core.utils import StridedMemoryView

        try:
            view = StridedMemoryView.from_any_interface(x, stream_ptr=int(stream.handle))
            shape, strides, dtype = tuple(view.shape), view.strides, view.dtype
        except Exception as error:  # of whoever exports it
            raise InputError(f"the input cannot be taken from the GPU: {error}") from None
        if dtype is None or view.device_id != self._device.device_id:
            raise InputError(
                f"the input is on GPU {view.device_id} as {dtype}; expected numbers on GPU "
                f"{self._device.device_id}"
            )
        if strides is not None and not _contiguous(shape, tuple(strides)):
            raise InputError(
                f"the input on the GPU has strides {tuple(strides)}; expected it contiguous: "
                "call .contiguous() on it first"
            )
        return DeviceView(int(view.ptr), shape, np.dtype(dtype), view)


def is_on_gpu(x: Any) -> bool:
    """Whether `x` is an array in CUDA's memory: a torch or CuPy one, or another that tells."""
    with suppress(Exception):  # whoever exports it may refuse to say
        if hasattr(x, "__dlpack_device__"):
            kind, _ = x.__dlpack_device__()
            return int(kind) in (2, 13)  # DLPack's kDLCUDA, kDLCUDAManaged
        return hasattr(x, "__cuda_array_interface__")
    return False


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether `strides`, in elements, are those of C order; of a single element any are."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
