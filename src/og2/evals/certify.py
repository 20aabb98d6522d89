"""Measures the scorer itself: how often it accepts right pictures and refuses wrong ones.

The cases of `cases` are drawn fresh for each task, clean and under the conditions of `conditions`. Done in
blocks that depend only on seed, task and number, so a stopped run goes on where it was, and several processes
do the same as one. A block's pictures are drawn once for all conditions that only change pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from og2 import world
from og2.data.workers import Reading
from og2.errors import ConfigError, RequestError
from og2.evals.cases import TASKS, Case, Manner
from og2.evals.certificate import CLEAN, RIGHT, Certificate, Counts
from og2.evals.conditions import CONDITIONS, INKED, SHIFTED, VAE, as_it_is, corrupted, drawn_for, shifted
from og2.evals.edit_near_miss import mixed_again
from og2.evals.items import least_px
from og2.files import write_text

DEFAULT_N = 1500
SIZES = "64 for the plain world, 128 for the full one, 256 in context"
BLOCK = 10


@dataclass(frozen=True)
class Plan:
    """What to measure; None stands for all, or the usual.

    n: requests a task, each with one right picture. kinds: near misses a request, of so many kinds drawn from
    those that are wrong for it. n_conditions: requests under each condition but clean, None
    for n. size: side in px. vae: for the condition "VAE", left out when None. workers: processes beside this
    one. seconds: begin nothing new after so long; what is done counts, and the same state goes on from there.
    on_block: told of progress.
    """

    n: int = DEFAULT_N
    seed: int = 1
    size: int | None = None
    tasks: tuple[str, ...] | None = None
    conditions: tuple[str, ...] | None = None
    vae: Any = None
    on_block: Callable[[str, int, int], None] | None = None
    n_conditions: int | None = None
    kinds: int | None = None
    workers: int = 0
    seconds: float | None = None

    def number(self, condition: str) -> int:
        """Requests a task under that condition."""
        return self.n if condition == CLEAN or self.n_conditions is None else min(self.n, self.n_conditions)

    def number_in(self, condition: str, block: int) -> int:
        """Requests of a block under that condition."""
        return max(0, min(BLOCK, self.number(condition) - block * BLOCK))


Found = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Job:
    """A block of requests of a task, and the conditions that it is still to be judged under."""

    task: str
    block: int
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class Blocks:
    """The work of a certificate, job by job: what a worker process is sent once."""

    plan: Plan
    jobs: tuple[Job, ...]

    def __call__(self, number: int) -> dict[str, Found]:
        """Accepted and number per kind, by key of task, condition and block."""
        job = self.jobs[number]
        drawn: dict[str, list[list[Case]]] = {}
        done: dict[str, Found] = {}
        for condition in job.conditions:
            start = drawn_for(condition)
            if start not in drawn:
                most = max(self.plan.number_in(c, job.block) for c in job.conditions if drawn_for(c) == start)
                drawn[start] = self._cases(job, start, most)
            requests = drawn[start][: self.plan.number_in(condition, job.block)]
            done[_key(job.task, condition, job.block)] = self._judged(job, condition, requests)
        return done

    def describe(self, number: int) -> str:
        """In words, what job `number` is."""
        return f"block {self.jobs[number].block} of {self.jobs[number].task}"

    def _cases(self, job: Job, start: str, number: int) -> list[list[Case]]:
        """For each request of the block its cases, clean."""
        manner = Manner(
            self.plan.size or least_px(job.task),
            "inked" if start == INKED else "clean",
            shifted if start == SHIFTED else as_it_is,
            self.plan.kinds,
        )
        rng = self._stream(job, 0)
        return [TASKS[job.task](rng, manner) for _ in range(number)]

    def _judged(self, job: Job, condition: str, requests: list[list[Case]]) -> Found:
        cases = [case for own in requests for case in own]
        rng = self._stream(job, 1)
        pictures = corrupted([c.picture for c in cases], condition, self.plan.vae, rng)
        if condition == VAE:
            for i, case in enumerate(cases):
                if case.mixed_of is not None:
                    decoded = corrupted(case.mixed_of, condition, self.plan.vae, rng)
                    pictures[i] = mixed_again(case.picture, case.mixed_of, decoded)
        found: Found = {}
        for case, picture in zip(cases, pictures, strict=True):
            k, n = found.get(case.kind, (0, 0))
            found[case.kind] = (k + int(case.accepts(picture)), n + 1)
        return found

    def _stream(self, job: Job, use: int) -> Generator:
        return np.random.default_rng([self.plan.seed, zlib.crc32(job.task.encode()), job.block, use])


def certify(plan: Plan, state: Path | None = None) -> Certificate:
    """The certificate by that plan; `state`: a file of finished blocks to go on from and add to.

    With `seconds` it holds what was done by then. What went through another VAE is measured again.
    Raises: RequestError for an unknown task or condition; ConfigError when the file is of another plan or
    scorer.
    """
    tasks, conditions = _chosen(plan)
    settings = {"n": plan.n, "seed": plan.seed, "size": plan.size or SIZES}
    settings |= {"n_conditions": plan.n_conditions, "kinds": plan.kinds, "world": _world_hash()}
    network = None if plan.vae is None else _weights_hash(plan.vae)
    done = _read_state(state, settings, plan, network)
    jobs = _open_jobs(plan, tasks, conditions, done)
    end = None if plan.seconds is None else time.monotonic() + plan.seconds
    reading = Reading(Blocks(replace(plan, on_block=None), jobs), plan.workers)
    try:
        for number, found in enumerate(reading.map(_until(len(jobs), end))):
            _add_state(state, found, network)
            done |= found
            if plan.on_block is not None:
                plan.on_block(jobs[number].task, number + 1, len(jobs))
    finally:
        reading.close()
    return Certificate(settings, _summed(plan, tasks, conditions, done))


def _world_hash() -> str:
    """Of the source that draws and judges."""
    digest = hashlib.sha256()
    for path in sorted(Path(world.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _weights_hash(vae: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _chosen(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for name, value in (("n", plan.n), ("n_conditions", plan.n_conditions), ("kinds", plan.kinds)):
        if value is not None and value < 1:
            raise RequestError(f"{name}={value} leaves nothing to measure; use 1 or more")
    known = tuple(c for c in CONDITIONS if c != VAE or plan.vae is not None)
    tasks, conditions = plan.tasks or tuple(TASKS), plan.conditions or known
    for name, given, allowed in (("tasks", tasks, tuple(TASKS)), ("conditions", conditions, known)):
        wrong = [g for g in given if g not in allowed]
        if wrong:
            raise RequestError(f"{name} {wrong} are unknown; there are {', '.join(allowed)}")
    return tasks, conditions


def _open_jobs(
    plan: Plan, tasks: Sequence[str], conditions: Sequence[str], done: Mapping[str, Found]
) -> tuple[Job, ...]:
    """What is left to do: the first blocks of all tasks, then the second ones, so that a run that is stopped
    has measured all tasks alike."""
    jobs: list[Job] = []
    for block in range(-(-plan.n // BLOCK)):
        for task in tasks:
            left = tuple(
                c for c in conditions if plan.number_in(c, block) and _key(task, c, block) not in done
            )
            jobs += [Job(task, block, left)] if left else []
    return tuple(jobs)


def _until(number: int, end: float | None) -> Iterator[int]:
    for i in range(number):
        if end is not None and time.monotonic() >= end:
            return
        yield i


def _summed(plan: Plan, tasks: Sequence[str], conditions: Sequence[str], done: Mapping[str, Found]) -> Counts:
    counts: Counts = {task: {condition: {} for condition in conditions} for task in tasks}
    for task, cells in counts.items():
        for condition, kinds in cells.items():
            for block in range(-(-plan.number(condition) // BLOCK)):
                for kind, (k, n) in done.get(_key(task, condition, block), {}).items():
                    have = kinds.get(kind, (0, 0))
                    kinds[kind] = (have[0] + k, have[1] + n)
    return counts


def _key(task: str, condition: str, block: int) -> str:
    return f"{task}|{condition}|{block}"


def _read_state(
    path: Path | None, settings: dict[str, Any], plan: Plan, network: str | None
) -> dict[str, Found]:
    """Finished blocks; a line that was cut off when a run was killed, or of another VAE, does not count."""
    if path is None or not path.exists():
        if path is not None:
            write_text(path, json.dumps({"settings": settings}) + "\n")
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = json.loads(lines[0])["settings"]
        same = {k: found.get(k) for k in _FIXED} == {k: settings[k] for k in _FIXED}
    except (OSError, IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no state of a certification: {error}") from error
    if not same:
        raise ConfigError(
            f"{path} is the state of another plan or scorer ({found}, now {settings}); choose another file"
        )
    done: dict[str, Found] = {}
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            _, condition, block = entry["block"].split("|")
            is_other = condition == VAE and entry.get("vae") != network
            if entry["of"] == plan.number_in(condition, int(block)) and not is_other:
                done[entry["block"]] = {kind: (int(k), int(n)) for kind, (k, n) in entry["counts"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return done


_FIXED = ("seed", "size", "kinds", "world")


def _add_state(path: Path | None, found: Mapping[str, Found], network: str | None) -> None:
    if path is None:
        return
    lines = [
        json.dumps({"block": key, "of": counts[RIGHT][1], "counts": counts, "vae": network})
        for key, counts in found.items()
    ]
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if _ends_clean(path) else "\n") + "\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _ends_clean(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
