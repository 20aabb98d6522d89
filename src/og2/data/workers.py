"""Processes that read draws ahead of time.

They are forked from a clean helper process, never from the one that trains (which has threads and a device).
A worker that dies ends the run with one sentence; nothing is retried behind the user's back.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from og2.data.examples import Reader, Sample, Skipped
from og2.errors import DataError

Pending = Callable[[], "Sample | Skipped"]


class Reading:
    """Reads draws in `workers` processes, or in this one when there are none."""

    def __init__(self, reader: Reader, workers: int) -> None:
        self.reader, self.workers = reader, workers
        self._pool: ProcessPoolExecutor | None = None
        if workers > 0:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._pool = ProcessPoolExecutor(workers, context, _start, (reader,))

    def begin(self, number: int) -> Pending:
        """Have draw `number` read; call what is returned to have it, waiting where needed.

        The call raises: DataError when a worker died.
        """
        if self._pool is None:
            return lambda: self.reader.read(number)
        try:
            future = self._pool.submit(_read, number)
        except BrokenProcessPool as error:
            raise self._died([number]) from error
        return lambda: self._result(future, number)

    def close(self) -> None:
        """End the workers; what they were reading is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _result(self, future: Future[Sample | Skipped], number: int) -> Sample | Skipped:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise self._died([number]) from error

    def _died(self, numbers: Iterable[int]) -> DataError:
        rows = []
        for number in numbers:
            draw = self.reader.mixture.draw(number)
            rows.append(
                f"draw {number}, row {draw.index + 1} of {self.reader.mixture.sources[draw.source].name}"
            )
        return DataError(
            f"a data worker died while the run waited for {'; '.join(rows)}; it was killed or ran out of "
            "memory: "
            "lower workers, or read that row with workers=0 to see what it does"
        )


_reader: Reader | None = None


def _start(reader: Reader) -> None:
    global _reader
    _reader = reader
    torch.set_num_threads(1)


def _read(number: int) -> Sample | Skipped:
    assert _reader is not None
    return _reader.read(number)
