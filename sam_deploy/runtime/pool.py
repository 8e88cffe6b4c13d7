"""A few things that one thread at a time may use, for many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, Protocol, TypeVar

from sam_deploy.errors import InputError, MachineError


class Closeable(Protocol):
    """What holds something until it is closed."""

    def close(self) -> None:
        """Free what it holds."""
        ...


T = TypeVar("T", bound=Closeable)


class Pool(Generic[T]):
    """At most `size` things from `make`, each made when a thread first needs one more.

    The one used last is taken first: it is the warmest.
    """

    def __init__(self, make: Callable[[], T], size: int) -> None:
        if size < 1:
            raise InputError(f"a pool of {size}; expected 1 or more")
        self._make = make
        self._size = size
        self._idle: list[T] = []
        self._made = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[T]:
        """One of them, for this thread alone; waits for one while all are taken.

        One in which a MachineError was raised is closed instead of given back.

        Raises:
            InputError: the pool is closed.
        """
        item = self._take()
        try:
            yield item
        except MachineError:
            with suppress(MachineError):
                item.close()
            self._give_back(None)
            raise
        except BaseException:
            self._give_back(item)
            raise
        self._give_back(item)

    def close(self) -> None:
        """Wait until all are given back, and close them. Twice is once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._idle) == self._made)
            idle, self._idle, self._made = self._idle, [], 0
        for item in idle:
            item.close()

    def _take(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._made < self._size)
            if self._closed:
                raise InputError("the engine is closed. Load the bundle again.")
            if self._idle:
                return self._idle.pop()
            self._made += 1
        try:
            return self._make()
        except BaseException:
            self._give_back(None)
            raise

    def _give_back(self, item: T | None) -> None:
        with self._changed:
            if item is None:
                self._made -= 1
            else:
                self._idle.append(item)
            self._changed.notify_all()
