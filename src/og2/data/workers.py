"""Processes that read ahead of time.

They are forked from a clean helper process, never from the one that trains (which has threads and a device).
Each has a pipe of its own, so that a worker that dies, even half way through sending, is noticed at once: the
run then ends with one sentence, and nothing is retried behind the user's back. A run that is killed takes its
workers with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any, Generic, Protocol, TypeVar

import torch

from og2.errors import DataError, Og2Error

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
    """Does numbered pieces of work in `workers` processes in turn, or in this one when there are none."""

    def __init__(self, work: Work[T], workers: int) -> None:
        self.work = work
        self.workers: tuple[_Worker, ...] = ()
        self._next = 0
        if workers > 0:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["__main__", __name__, type(work).__module__])
            self.workers = tuple(_Worker(context, work) for _ in range(workers))

    def begin(self, number: int) -> Callable[[], T]:
        """Have piece `number` done; call what is returned to have it, waiting where needed.

        The call raises: DataError when the worker died.
        """
        if not self.workers:
            return lambda: self.work(number)
        self._next = (self._next + 1) % len(self.workers)
        return self.workers[self._next].begin(number).result

    def map(self, numbers: Iterable[int]) -> Iterator[T]:
        """The results for these numbers in order, some of them begun ahead."""
        begun: deque[Callable[[], T]] = deque()
        for number in numbers:
            begun.append(self.begin(number))
            if len(begun) > AHEAD * len(self.workers):
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()

    def close(self) -> None:
        """End the workers; what they were doing is dropped."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
            worker.collector.join()


class _Worker:
    """One process, and the thread that collects what it sends."""

    def __init__(self, context: ForkServerContext, work: Work[Any]) -> None:
        self.work = work
        self._ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), name="og2-data", daemon=True)
        self.process.start()
        theirs.close()
        self._lock = threading.Lock()
        self._begun: deque[tuple[int, Future[Any]]] = deque()
        self._death: DataError | None = None
        self.collector = threading.Thread(target=self._collect, name="og2-data-collector", daemon=True)
        self.collector.start()

    def begin(self, number: int) -> Future[Any]:
        """The future result of piece `number`."""
        future: Future[Any] = Future()
        with self._lock:
            if self._death is not None:
                future.set_exception(self._death)
                return future
            self._begun.append((number, future))
        with contextlib.suppress(OSError):  # the worker is gone, which the collector notices
            self._ours.send(number)
        return future

    def _collect(self) -> None:
        while True:
            try:
                is_done, value = self._ours.recv()
            except (EOFError, OSError):
                died = "a data worker died{0}; it was killed or ran out of memory: lower workers, or "
                break
            except Exception as error:  # noqa: BLE001  whatever it sent, nothing after it can be told apart
                died = f"what a data worker sent{{0}} cannot be read ({type(error).__name__}): "
                self.process.terminate()
                break
            _, future = self._begun.popleft()
            if is_done:
                future.set_result(value)
            else:
                future.set_exception(value)
        with self._lock:
            doing = f" while it read {self.work.describe(self._begun[0][0])}" if self._begun else ""
            self._death = DataError(f"{died.format(doing)}read that row with workers=0 to see what it does")
            for _, future in self._begun:
                future.set_exception(self._death)
        self._ours.close()


def _serve(work: Work[Any], theirs: Connection) -> None:
    """What a worker process does until the run is over, or gone."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the run decides what becomes of it
    while True:
        try:
            number = theirs.recv()
            try:
                answer = (True, work(number))
            except Og2Error as error:
                answer = (False, error)
            except Exception as error:  # noqa: BLE001  told to the run, which asked for it
                fault = f"{work.describe(number)}: {type(error).__name__}: {error}"
                answer = (False, DataError(f"{fault}; read it with workers=0 to see where"))
            theirs.send(answer)
        except (EOFError, OSError):
            return
