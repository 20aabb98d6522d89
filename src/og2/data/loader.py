"""Steps of training: draws are read by worker processes, encoded, packed, and handed over step by step.

A step has `packs_per_step` packs over all ranks. Pack k of every step belongs to lane k, which draws the numbers k,
k + packs_per_step, ...; rank r works on the lanes whose number is r modulo the number of ranks. So the same steps come
out whatever the number of ranks and workers, and the position is a few numbers per lane: the next draw, and the draws
that wait for a pack. What is prefetched is not part of the position.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from og2.data.examples import Reader, Sample, Skipped
from og2.data.mix import Mixture
from og2.data.packing import Item, Pack, Packer, PackingConfig
from og2.data.workers import Reading
from og2.errors import ConfigError, DataError, ImageError, RequestError

logger = logging.getLogger(__name__)
MOST_IN_A_ROW = 1000
"""So many skipped draws in a row stop a run, whatever the budget for bad rows."""


class ItemEncoder(Protocol):
    """What turns a sample into latents and text features (og2.data.encode.Encoder)."""

    def item(self, sample: Sample) -> Item:
        """The sample, encoded; a pure function of it.   Raises: DataError, RequestError for what cannot be."""
        ...


@dataclass(frozen=True)
class LoaderConfig:
    """How steps are made.

    `packs_per_step`: packs of one optimizer step over all ranks and accumulated parts; a multiple of the number of
    ranks. `workers`: reading processes of each rank, 0 reads in the rank's own. `prefetch`: steps made ahead in a
    thread, 0 makes each when it is asked for. `max_bad_rows`: rows of each rank that may be bad before it stops.
    """

    packing: PackingConfig = field(default_factory=PackingConfig)
    packs_per_step: int = 1
    workers: int = 0
    prefetch: int = 2
    max_bad_rows: int = 0


@dataclass(frozen=True)
class StepBatch:
    """What one rank trains on in step `step`: its packs in order of their lanes, and what was left out and why.

    `position` is the loader's state after this step. `wait_s` is the time that was spent waiting for the step.
    """

    step: int
    packs: tuple[Pack, ...]
    skipped: tuple[Skipped, ...]
    position: dict[str, Any]
    wait_s: float = 0.0

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

    @property
    def num_tokens(self) -> int:
        """All tokens of this rank's packs."""
        return sum(pack.num_tokens for pack in self.packs)


class Loader:
    """Steps from a mixture, without end. Use as a context manager, or call `close`.

    `next(loader)` gives the next step. `state_dict()` is the position after the last step that was given: plain
    numbers for JSON, of this rank's lanes only; `merge_states` joins those of all ranks, and `load_state_dict` takes
    the joined one for any number of ranks.
    """
