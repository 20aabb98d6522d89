"""Processes that read ahead of time.

They are forked from a clean helper process, never from the one that trains (which has threads and a device).
A worker that dies ends the run with one sentence; nothing is retried behind the user's back. A run that is
killed takes its workers with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Protocol, TypeVar

import torch

from og2.errors import DataError

T = TypeVar("T", covariant=True)
AHEAD = 4
"""Pieces of work that are begun ahead, per worker."""


class Work(Protocol[T]):
    """What workers do with numbers; it is sent to them once."""

    def __call__(self, number: int) -> T: ...

    def describe(self, number: int) -> str:
        """In words, what piece `number` is."""
        ...


class Reading(Generic[T]):
    """Does numbered pieces of work in `workers` processes, or in this one when there are none."""

    def __init__(self, work: Work[T], workers: int) -> None:
        self.work, self.workers = work, workers
        self._pool: ProcessPoolExecutor | None = None
        if workers > 0:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["__main__", __name__, type(work).__module__])
            self._pool = ProcessPoolExecutor(workers, context, _start, (work,))

    def begin(self, number: int) -> Callable[[], T]:
        """Have piece `number` done; call what is returned to have it, waiting where needed.

        Both raise: DataError when a worker died.
        """
        if self._pool is None:
            return lambda: self.work(number)
        try:
            future = self._pool.submit(_do, number)
        except BrokenProcessPool as error:
            raise self._died(number) from error
        return lambda: self._result(future, number)

    def map(self, numbers: Iterable[int]) -> Iterator[T]:
        """The results for these numbers in order, some of them begun ahead."""
        begun: deque[Callable[[], T]] = deque()
        for number in numbers:
            begun.append(self.begin(number))
            if len(begun) > AHEAD * self.workers:
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()

    def close(self) -> None:
        """End the workers; what they were doing is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _result(self, future: Future[T], number: int) -> T:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise self._died(number) from error

    def _died(self, number: int) -> DataError:
        return DataError(
            f"a data worker died while the run waited for {self.work.describe(number)}; it was killed or ran "
            "out "
            "of memory: lower workers, or read that row with workers=0 to see what it does"
        )


_work: Work[Any] | None = None


def _start(work: Work[Any]) -> None:
    global _work
    _work = work
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the run decides what becomes of it
    threading.Thread(target=_end_with_parent, name="og2-parent", daemon=True).start()


def _end_with_parent() -> None:
    """A run that was killed leaves no workers behind: they would wait for it forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(number: int) -> Any:
    assert _work is not None
    return _work(number)
