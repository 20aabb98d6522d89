"""Loss on rows that are not trained on, with the same noise at the same times: a curve without luck."""

from __future__ import annotations

import torch

from og2.data.check import RowNumbers
from og2.data.encode import Encoder, generator_of
from og2.data.examples import Reader, Skipped
from og2.data.mix import Draw
from og2.data.packing import Item
from og2.errors import ConfigError, DataError
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.transformer import Sequence as TokenSequence
from og2.train.objective import noisy, squared_errors
from og2.train.recipe import ValidationConfig

NOISE_SEED = 900_401


class Validation:
    """Rows of each source of a mixture, evenly spread and encoded once; nothing is dropped from them.

    Raises: DataError when one of them cannot be used, ConfigError for one that is answered in words.
    """

    def __init__(self, config: ValidationConfig, reader: Reader, encoder: Encoder) -> None:
        self.config = config
        reader = Reader(reader.mixture, reader.config.without_chance(), reader.keys)
        rows = RowNumbers(reader.mixture, config.num_samples)
        self.items = [_item(reader, encoder, rows.draw(number)) for number in range(len(rows))]

    @torch.no_grad()
    def losses(self, transformer: OmniGen2Transformer2DModel) -> dict[str, float]:
        """Mean squared error per latent value: `loss_<task>`, and `loss`, the mean of the tasks."""
        sums: dict[str, list[float]] = {}
        for item in self.items:
            known = sums.setdefault(item.task, [0.0, 0.0])
            error, count = self._error(transformer, item)
            known[0], known[1] = known[0] + error, known[1] + count
        found = {f"loss_{task}": error / count for task, (error, count) in sorted(sums.items())}
        return {**found, "loss": sum(found.values()) / len(found)}

    def _error(self, transformer: OmniGen2Transformer2DModel, item: Item) -> tuple[float, int]:
        assert item.text is not None
        assert item.target is not None
        device, times = next(transformer.parameters()).device, self.config.times
        target = item.target.to(device)
        noises = [
            torch.randn(target.shape, generator=generator_of(NOISE_SEED, item.draw, index)).to(device)
            for index in range(len(times))
        ]
        references = [x.to(device) for x in item.references]
        places = tuple(range(len(references)))
        size = (target.shape[-2], target.shape[-1])
        prepared = transformer.prepare(
            [item.text.to(device)],
            references,
            [size] * len(times),
            [TokenSequence(0, places, index) for index in range(len(times))],
        )
        latents = [noisy(target, noise, t) for noise, t in zip(noises, times, strict=True)]
        predicted = transformer.velocity(latents, torch.tensor(times, device=device), prepared)
        errors = squared_errors(predicted, [target] * len(times), noises)
        return float(errors.sum()), target.numel() * len(times)


def _item(reader: Reader, encoder: Encoder, draw: Draw) -> Item:
    sample = reader.read_row(draw)
    if isinstance(sample, Skipped):
        raise DataError(f"validation: {sample.reason}")
    if sample.target is None:
        raise ConfigError(f"validation: row {sample.row.id} is answered in words; only pictures are measured")
    return encoder.item(sample)
