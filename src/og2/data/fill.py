"""Fills the cache for a whole mix ahead of training: what is behind `og2 cache`."""

from __future__ import annotations

from dataclasses import dataclass

from og2.data.check import Progress, RowNumbers
from og2.data.encode import Encoder
from og2.data.examples import ReadConfig, Reader, Sample, Skipped
from og2.data.mix import Mixture
from og2.data.workers import Reading
from og2.errors import ConfigError, DataError, RequestError


@dataclass(frozen=True)
class FillReport:
    """Rows gone through, entries made, entries that were there, and rows that cannot be used."""

    num_rows: int
    num_made: int
    num_found: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class FillConfig:
    """`max_rows`: of each source, evenly spread; None for all. `workers`: reading processes."""

    workers: int = 0
    max_rows: int | None = None


def fill_cache(
    mixture: Mixture,
    read: ReadConfig,
    encoder: Encoder,
    config: FillConfig,
    on_progress: Progress | None = None,
) -> FillReport:
    """Encode all that training on this mixture under `read` can ask for, except what is there already.

    Rows that cannot be used are returned, not raised. Rows answered in words need no entries. It may be
    stopped at any time and started again.
    Raises: ConfigError when the encoder has no cache; DataError for a dead worker, or a disk that takes no
    more.
    """
    if encoder.cache is None:
        raise ConfigError("there is no cache to fill; give its folder")
    rows = RowNumbers(mixture, config.max_rows)
    reader, variants = (
        Reader(mixture, read.without_chance(), encoder.keys),
        Reader(mixture, read, encoder.keys),
    )
    reading = Reading(_RowReader(rows, reader), config.workers)
    made, found, skipped = 0, 0, []
    try:
        for done, sample in enumerate(reading.map(range(len(rows))), start=1):
            if isinstance(sample, Skipped):
                skipped.append(sample)
            elif sample.target is not None:
                try:
                    counts = _fill(sample, encoder, variants)
                    made, found = made + counts[0], found + counts[1]
                except RequestError as error:
                    skipped.append(Skipped(sample.draw, sample.row.id, str(error)))
            if encoder.cache.is_full:
                raise DataError(
                    f"the cache {encoder.cache.folder} cannot be written to; make room there, or give "
                    "data.cache another folder, and start again"
                )
            if on_progress:
                on_progress(done, len(rows))
    finally:
        reading.close()
    return FillReport(len(rows), made, found, tuple(skipped))


class _RowReader:
    """Reads rows by their running number; sent to worker processes."""

    def __init__(self, rows: RowNumbers, reader: Reader) -> None:
        self.rows, self.reader = rows, reader

    def describe(self, number: int) -> str:
        return self.rows.describe(number)

    def __call__(self, number: int) -> Sample | Skipped:
        return self.reader.read_row(self.rows.draw(number))


def _fill(sample: Sample, encoder: Encoder, variants: Reader) -> tuple[int, int]:
    """How many entries of one sample were made, and how many were there."""
    assert sample.target is not None
    made, found = 0, 0
    for picture in (*sample.references, sample.target):
        made, found = (made + 1, found) if picture.entry is None else (made, found + 1)
        encoder.posterior(picture)
    for text, form in variants.texts(sample.row):
        shown = variants.with_text(sample, text, form)
        made, found = (made + 1, found) if shown.text_entry is None else (made, found + 1)
        encoder.features(shown)
    return made, found
