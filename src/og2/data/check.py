"""The lint behind `og2 data check`: every row of a mix, read as training would read it.

It looks for rows that cannot be used (missing or damaged pictures, paths outside the root, sizes, malformed
lines), pictures that are there more than once, edits whose result is their input, prompts that are empty or
too long; and it draws from the mixture, so that the shares which training will see stand beside those that
were asked for.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from og2.conditioning.processor import Processor
from og2.conditioning.templates import render_prompt
from og2.conditioning.vlm import count_chat_tokens, refuse_picture_tokens, tokenize
from og2.data.cache import content_hash
from og2.data.encode import WHOLE_ANSWER, answer_ids, check_length
from og2.data.examples import ReadConfig, Reader, Sample
from og2.data.mix import Draw, Mixture
from og2.data.packing import too_large
from og2.data.rows import Example
from og2.data.workers import Reading
from og2.errors import DataError, RequestError

Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""


@dataclass(frozen=True)
class CheckConfig:
    """`max_rows`: rows of each source to look at, evenly spread; None for all. `num_draws`: draws to count.

    `max_text_tokens`: longest prompt with its template, or question, pictures and answer. `budget`: most
    tokens of a row: text, inputs and target, of which a token shows `token_px` x `token_px`, or question,
    pictures and answer. None for no limit. `tokenizer`: whose tokens these are. `max_listed`: problems and
    duplicates listed one by one.
    """

    max_rows: int | None = None
    num_draws: int = 10_000
    max_text_tokens: int | None = None
    budget: int | None = None
    token_px: int = 16
    tokenizer: str = ""
    max_listed: int = 100
    workers: int = 0


@dataclass(frozen=True)
class Problem:
    """Something wrong with one row; `kind`: row (not usable), prompt, or same (result equals an input)."""

    kind: str
    id: str
    message: str


@dataclass(frozen=True)
class SourceReport:
    """One source: its rows, the share of draws asked for and found, and the tasks of the rows looked at."""

    name: str
    num_rows: int
    num_checked: int
    asked_share: float
    drawn_share: float
    tasks: dict[str, int]


@dataclass(frozen=True)
class Report:
    """What was found.

    `sizes`: targets by "width x height" as trained. `prompt_tokens`: least, median, 95 %, most, by
    `tokenizer`. `duplicates`: ids of rows with the very same target, group by group. `num_problems` counts
    what `problems` lists only up to a limit. `changes`: pictures by what is done to them when they are read,
    such as transparency laid on white.
    """

    sources: tuple[SourceReport, ...]
    num_checked: int
    num_bad: int
    num_problems: dict[str, int]
    problems: tuple[Problem, ...]
    num_duplicates: int
    duplicates: tuple[tuple[str, ...], ...]
    sizes: dict[str, int]
    num_references: dict[str, int]
    prompt_tokens: dict[str, int]
    tokenizer: str
    changes: dict[str, int]

    @property
    def is_clean(self) -> bool:
        """Whether every row can be used."""
        return self.num_bad == 0

    def to_tree(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Facts:
    """What one row is found to be."""

    source: int
    id: str
    task: str = ""
    target: str = ""
    size: str = ""
    num_references: int = 0
    num_tokens: int = 0
    problems: tuple[Problem, ...] = ()
    changes: tuple[str, ...] = ()


def check_data(
    mixture: Mixture,
    read: ReadConfig,
    processor: Processor,
    config: CheckConfig,
    on_progress: Progress | None = None,
) -> Report:
    """The report on a mixture; pictures are decoded and sized as `read` says.

    Raises: DataError when a worker died.
    """
    rows = RowNumbers(mixture, config.max_rows)
    reading = Reading(_Inspector(rows, read, processor, config), config.workers)
    try:
        facts = _counted(reading.map(range(len(rows))), len(rows), on_progress)
        return _report(rows, list(facts), config)
    finally:
        reading.close()


class RowNumbers:
    """The rows of all sources of a mixture under running numbers.

    `max_rows`: of each source at most so many, evenly spread.
    """

    def __init__(self, mixture: Mixture, max_rows: int | None = None) -> None:
        self.mixture = mixture
        self.counts = [len(s) if max_rows is None else min(len(s), max_rows) for s in mixture.sources]
        self._ends = list(itertools.accumulate(self.counts))

    def __len__(self) -> int:
        return self._ends[-1]

    def draw(self, number: int) -> Draw:
        """The row under that number, in the form of a draw."""
        source = bisect_right(self._ends, number)
        within = number - (self._ends[source] - self.counts[source])
        return Draw(number, source, within * len(self.mixture.sources[source]) // self.counts[source], 0)

    def describe(self, number: int) -> str:
        """In words, which row that is."""
        draw = self.draw(number)
        return f"row {self.mixture.sources[draw.source].row_id(draw.index)}"


class _Inspector:
    """Looks at rows; sent to worker processes."""

    def __init__(self, rows: RowNumbers, read: ReadConfig, processor: Processor, config: CheckConfig) -> None:
        self.rows, self.processor, self.config = rows, processor, config
        self.reader = Reader(rows.mixture, read.without_chance())

    def describe(self, number: int) -> str:
        return self.rows.describe(number)

    def __call__(self, number: int) -> _Facts:
        draw = self.rows.draw(number)
        source = self.rows.mixture.sources[draw.source]
        name = source.row_id(draw.index)
        try:
            return self._facts(draw, source.example(draw.index))
        except (DataError, RequestError) as error:
            return _Facts(draw.source, name, problems=(Problem("row", name, str(error)),))

    def _facts(self, draw: Draw, example: Example) -> _Facts:
        row, problems = example.row, []
        sample = self.reader.sample(example, draw)
        target, size = "", ""
        if sample.target is not None and sample.target.pixels is not None:
            size = f"{sample.target.pixels.shape[1]} x {sample.target.pixels.shape[0]}"
        if example.output_picture is not None:
            target = content_hash(example.output_picture)
            if target in map(content_hash, example.input_pictures):
                problems.append(
                    Problem("same", row.id, f"{row.id}: the result is one of the inputs, unchanged")
                )
        num_tokens = len(tokenize(self.processor, render_prompt(row.instruction)))
        if row.output_text is None:
            check_length(num_tokens, self.config.max_text_tokens, f"{row.id}: the prompt has")
            self._check_size(sample, num_tokens)
        else:
            self._check_answer(sample)
        if not row.instruction.strip():
            problems.append(Problem("prompt", row.id, f"{row.id}: the prompt is empty"))
        read = (*sample.references, *([sample.target] if sample.target else []))
        changes = tuple(change for picture in read for change in picture.changes)
        found = (target, size, len(sample.references), num_tokens, tuple(problems), changes)
        return _Facts(draw.source, row.id, row.task, *found)

    def _check_size(self, sample: Sample, num_text_tokens: int) -> None:
        """Raises: DataError for a row that is drawn and does not fit into a pack."""
        assert sample.target is not None
        shown = [picture.pixels for picture in (*sample.references, sample.target)]
        side = self.config.token_px
        size = num_text_tokens + sum(
            (pixels.shape[0] // side) * (pixels.shape[1] // side) for pixels in shown if pixels is not None
        )
        self._check_budget(sample.row.id, size)

    def _check_answer(self, sample: Sample) -> None:
        """Raises: DataError, RequestError for an answered row that `Encoder.answer` or a pack refuses."""
        row = sample.row
        refuse_picture_tokens([row.instruction, row.output_text or ""])
        if self.config.max_text_tokens is None and self.config.budget is None:
            return
        shown = [Image.fromarray(p.pixels) for p in sample.references if p.pixels is not None]
        size = count_chat_tokens(self.processor, sample.text, shown) + len(answer_ids(self.processor, row))
        check_length(size, self.config.max_text_tokens, f"{row.id}: {WHOLE_ANSWER}")
        self._check_budget(row.id, size)

    def _check_budget(self, row_id: str, size: int) -> None:
        if self.config.budget is not None and size > self.config.budget:
            raise too_large(row_id, size, self.config.budget)


def _report(rows: RowNumbers, facts: list[_Facts], config: CheckConfig) -> Report:
    mixture = rows.mixture
    drawn = Counter(mixture.draw(number).source for number in range(config.num_draws))
    problems = [problem for fact in facts for problem in fact.problems]
    groups: dict[str, list[str]] = {}
    for fact in facts:
        if fact.target:
            groups.setdefault(fact.target, []).append(fact.id)
    twice = sorted((tuple(ids) for ids in groups.values() if len(ids) > 1), key=len, reverse=True)
    usable = [fact for fact in facts if fact.task]
    return Report(
        sources=tuple(
            SourceReport(
                source.name,
                len(source),
                rows.counts[place],
                mixture.weights[place] / sum(mixture.weights),
                drawn[place] / config.num_draws,
                dict(Counter(fact.task for fact in usable if fact.source == place).most_common()),
            )
            for place, source in enumerate(mixture.sources)
        ),
        num_checked=len(facts),
        num_bad=len(facts) - len(usable),
        num_problems=dict(Counter(problem.kind for problem in problems).most_common()),
        problems=tuple(problems[: config.max_listed]),
        num_duplicates=sum(len(ids) - 1 for ids in twice),
        duplicates=tuple(twice[: config.max_listed]),
        sizes=dict(Counter(fact.size for fact in usable if fact.size).most_common()),
        num_references=dict(sorted(Counter(str(fact.num_references) for fact in usable).items())),
        prompt_tokens=_spread(sorted(fact.num_tokens for fact in usable)),
        tokenizer=config.tokenizer,
        changes=dict(Counter(change for fact in facts for change in fact.changes).most_common()),
    )


def _spread(values: list[int]) -> dict[str, int]:
    if not values:
        return {}
    last = len(values) - 1
    places = {"least": 0, "median": last // 2, "95 %": last * 95 // 100, "most": last}
    return {name: values[place] for name, place in places.items()}


def _counted(found: Iterable[_Facts], total: int, on_progress: Progress | None) -> Iterator[_Facts]:
    for done, fact in enumerate(found, start=1):
        if on_progress:
            on_progress(done, total)
        yield fact
