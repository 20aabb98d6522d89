"""Steps of training: draws are read by worker processes, encoded, packed, and handed over step by step.

A step has `packs_per_step` packs over all ranks. Pack k of every step belongs to lane k, which draws the
numbers k, k + packs_per_step, ...; rank r works on the lanes whose number is r modulo the number of ranks. So
the same steps come out whatever the number of ranks and workers, and the position is a few numbers per lane:
the next draw, and the draws that wait for a pack. What is prefetched is not part of the position.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from og2.data.examples import Reader, Sample, Skipped
from og2.data.packing import Item, Pack, Packer, PackingConfig
from og2.data.workers import AHEAD, Reading
from og2.errors import ConfigError, DataError, RequestError

logger = logging.getLogger(__name__)
MOST_IN_A_ROW = 10_000
"""So many draws that give no full pack stop a run."""


class ItemEncoder(Protocol):
    """What turns a sample into latents and text features (og2.data.encode.Encoder)."""

    def item(self, sample: Sample) -> Item:
        """The sample, encoded; a pure function of it.   Raises: DataError, RequestError."""
        ...


@dataclass(frozen=True)
class LoaderConfig:
    """How steps are made.

    `packs_per_step`: packs of one optimizer step over all ranks and accumulated parts; a multiple of the
    number of ranks. `workers`: reading processes of each rank, 0 reads in the rank's own. `prefetch`: steps
    made ahead in a thread, 0 makes each when it is asked for. `max_bad_rows`: rows of each rank that may be
    bad before it stops.
    """

    packing: PackingConfig = field(default_factory=PackingConfig)
    packs_per_step: int = 1
    workers: int = 0
    prefetch: int = 2
    max_bad_rows: int = 0


@dataclass(frozen=True)
class StepBatch:
    """What one rank trains on in step `step`: its packs in order of their lanes.

    `skipped`: draws that were left out, and why. `position`: the loader's state after this step.
    """

    step: int
    packs: tuple[Pack, ...]
    skipped: tuple[Skipped, ...]
    position: dict[str, Any]

    @property
    def ids(self) -> tuple[str, ...]:
        """Rows of the step, answered ones last in each pack."""
        return tuple(name for pack in self.packs for name in (*pack.ids, *pack.answer_ids))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the rows, in the order of `ids`."""
        return tuple(name for pack in self.packs for name in (*pack.tasks, *pack.answer_tasks))

    @property
    def num_target_tokens(self) -> int:
        """Target tokens of this rank's packs; known without looking at the device."""
        return sum(pack.num_target_tokens for pack in self.packs)


class Loader:
    """Steps from a mixture, without end. Use as a context manager, or call `close`.

    `next(loader)` gives the next step. `state_dict()` is the position after the last step that was given:
    plain numbers for JSON, of this rank's lanes only; `merge_states` joins those of all ranks, and
    `load_state_dict` takes the joined one for any number of ranks.
    """

    def __init__(
        self,
        reader: Reader,
        encoder: ItemEncoder,
        config: LoaderConfig,
        rank: int = 0,
        world_size: int = 1,
        patch_size: int = 2,
    ) -> None:
        """`patch_size`: the model's, by which latents are tokens.

        Raises: ConfigError when `packs_per_step` is no multiple of `world_size`.
        """
        if config.packs_per_step < 1 or config.packs_per_step % world_size:
            raise ConfigError(
                f"packs_per_step={config.packs_per_step} is no multiple of the {world_size} processes; use "
                f"{max(1, round(config.packs_per_step / world_size)) * world_size}, or another number of "
                "processes"
            )
        if min(config.workers, config.prefetch, config.max_bad_rows) < 0:
            raise ConfigError("workers, prefetch and max_bad_rows start at 0")
        self.reader, self.encoder, self.config, self.patch_size = reader, encoder, config, patch_size
        self.lanes = tuple(range(rank, config.packs_per_step, world_size))
        self._position = self._first_position()
        self._reading: Reading[Sample | Skipped] | None = None
        self._steps: Iterator[StepBatch] | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> StepBatch:
        """The next step.   Raises: DataError when more rows are bad than allowed, or a worker died."""
        if self._steps is None:
            self._reading = Reading(self.reader, self.config.workers)
            made = self._make_steps(self._position, self._reading)
            self._steps = _Ahead(made, self.config.prefetch) if self.config.prefetch else made
        try:
            batch = next(self._steps)
        except BaseException:
            self.close()
            raise
        self._position = batch.position
        return batch

    def close(self) -> None:
        """End workers and prefetching; the position stays, and the next `next` starts anew from it."""
        steps, reading = self._steps, self._reading
        self._steps, self._reading = None, None
        if isinstance(steps, _Ahead):
            steps.stop()
        if reading is not None:
            reading.close()

    def state_dict(self) -> dict[str, Any]:
        """The position of this rank's lanes after the last step that was given; good for JSON."""
        return copy.deepcopy(self._position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position, that of `merge_states` where there were several ranks.

        Raises: ConfigError when it is of another mixture, or lacks this rank's lanes.
        """
        own = self._first_position()
        mixture = "mixture or seed, or by an og2 that did not yet tell all mixtures apart"
        for key, meaning in (("mixture", mixture), ("packs_per_step", "packs_per_step")):
            if state.get(key) != own[key]:
                raise ConfigError(
                    f"the checkpoint's data position was made with another {meaning} ({state.get(key)}, now "
                    f"{own[key]}); go on with that one, or start a new run from the weights"
                )
        missing = [lane for lane in own["lanes"] if lane not in state["lanes"]]
        if missing:
            raise ConfigError(
                f"the data position lacks lanes {', '.join(missing)}; join the states of all ranks"
            )
        self.close()
        lanes = {lane: copy.deepcopy(state["lanes"][lane]) for lane in own["lanes"]}
        self._position = {**own, "step": state["step"], "lanes": lanes}

    def _first_position(self) -> dict[str, Any]:
        return {
            "step": 0,
            "mixture": self.reader.mixture.fingerprint,
            "packs_per_step": self.config.packs_per_step,
            "lanes": {str(lane): {"next": lane, "waiting": [], "bad": []} for lane in self.lanes},
        }

    def _make_steps(
        self, position: Mapping[str, Any], reading: Reading[Sample | Skipped]
    ) -> Iterator[StepBatch]:
        known = [row for lane in self.lanes for row in position["lanes"][str(lane)]["bad"]]
        bad, workers = _BadRows(known, self.config.max_bad_rows), self.config.workers
        # Lanes are filled one after another: each needs as many draws begun as keep all workers busy.
        ahead = max(1 + workers, AHEAD * workers // len(self.lanes))
        shared = _Shared(reading, self.encoder, bad, ahead, self.patch_size)
        lanes = [_Lane(position["lanes"][str(lane)], self.config, shared) for lane in self.lanes]
        for step in itertools.count(position["step"]):
            packs = tuple(lane.next_pack() for lane in lanes)
            after = {
                **position,
                "step": step + 1,
                "lanes": {str(n): lane.position() for n, lane in zip(self.lanes, lanes, strict=True)},
            }
            yield StepBatch(step, packs, bad.take(), after)


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The positions of all ranks after the same step as one, which any number of ranks can go on from.

    Raises: ConfigError when they are not of one run and step.
    """
    same = {(state["step"], state["mixture"], state["packs_per_step"]) for state in states}
    if len(same) != 1:
        raise ConfigError(f"data positions of different steps or runs cannot be joined: {sorted(same)}")
    lanes = {lane: place for state in states for lane, place in state["lanes"].items()}
    return {**states[0], "lanes": dict(sorted(lanes.items(), key=lambda pair: int(pair[0])))}


class _BadRows:
    """Bad rows by their ids, each counted once, against the budget."""

    def __init__(self, ids: Sequence[str], budget: int) -> None:
        self.ids: dict[str, None] = dict.fromkeys(ids)
        self.budget = budget
        self._new: list[Skipped] = []

    def add(self, skipped: Skipped) -> None:
        """Raises: DataError when the budget is spent."""
        self.ids.setdefault(skipped.id)
        self._new.append(skipped)
        logger.warning("draw %d is left out: %s", skipped.draw, skipped.reason)
        if len(self.ids) > self.budget:
            others = f" ({len(self.ids)} bad rows so far)" if len(self.ids) > 1 else ""
            raise DataError(
                f"{skipped.reason}{others}; mend the row, or allow max_bad_rows (now {self.budget})"
            )

    def take(self) -> tuple[Skipped, ...]:
        """What was skipped since the last call."""
        taken, self._new = tuple(self._new), []
        return taken


@dataclass(frozen=True)
class _Shared:
    """What the lanes of a rank have in common; `ahead`: draws that each has begun; the model's patch size."""

    reading: Reading[Sample | Skipped]
    encoder: ItemEncoder
    bad: _BadRows
    ahead: int
    patch_size: int


class _Lane:
    """The draws of one pack of every step, in order."""

    def __init__(self, position: Mapping[str, Any], config: LoaderConfig, shared: _Shared) -> None:
        self.stride, self.shared = config.packs_per_step, shared
        self.packer = Packer(config.packing, shared.patch_size)
        self.next: int = position["next"]
        self._begun: deque[Callable[[], Sample | Skipped]] = deque()
        self._bad_ids: dict[str, None] = dict.fromkeys(position["bad"])
        self._again: deque[int] = deque(position["waiting"])

    def position(self) -> dict[str, Any]:
        """Where the lane stands between packs."""
        waiting = [*self.packer.waiting, *self._again]
        return {"next": self.next, "waiting": waiting, "bad": list(self._bad_ids)}

    def next_pack(self) -> Pack:
        """The next pack.   Raises: DataError."""
        for _ in range(MOST_IN_A_ROW):
            pack = self._add(self._read())
            if pack is not None:
                return pack
        raise DataError(
            f"{MOST_IN_A_ROW} draws gave no full pack; lower budget, or see with `og2 data check` why rows "
            "are left out"
        )

    def _read(self) -> Sample | Skipped:
        """What waited when the run stopped, then the draws that follow."""
        if self._again:
            return self.shared.reading.begin(self._again.popleft())()
        while len(self._begun) < self.shared.ahead:
            self._begun.append(self.shared.reading.begin(self.next + len(self._begun) * self.stride))
        self.next += self.stride
        return self._begun.popleft()()

    def _add(self, read: Sample | Skipped) -> Pack | None:
        if isinstance(read, Sample):
            try:
                return self.packer.add(self.shared.encoder.item(read))
            except (DataError, RequestError) as error:
                name, reason = read.row.id, str(error)
                read = Skipped(read.draw, name, reason if name in reason else f"{name}: {reason}")
        self._bad_ids.setdefault(read.id)
        self.shared.bad.add(read)
        return None


class _Ahead(Iterator[StepBatch]):
    """Makes steps in a thread, at most so many ahead; an error comes where its step would have come."""

    def __init__(self, steps: Iterator[StepBatch], count: int) -> None:
        self._made: queue.Queue[StepBatch | BaseException] = queue.Queue(count)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(steps,), name="og2-data", daemon=True)
        self._thread.start()

    def __next__(self) -> StepBatch:
        made = self._made.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def stop(self) -> None:
        """End the thread, whatever it is making."""
        self._stopping.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._made.get(timeout=0.05)

    def _run(self, steps: Iterator[StepBatch]) -> None:
        try:
            for batch in steps:
                self._made.put(batch)
                if self._stopping.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  handed to the thread that asks for steps
            self._made.put(error)
