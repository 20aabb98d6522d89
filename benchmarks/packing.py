"""Useful tokens per second of a training step: packed sequences against padded batches.

    python benchmarks/packing.py [--model medium] [--size 256] [--batch 4] [--samples 16] [--rounds 2]
        [--cpu-time] [--json outputs/packing.json]

As it stands it takes about three minutes on two quiet cores (27 TFLOP); `--model mini` takes seconds.

Samples are a uniform mix of drawings, edits (one reference) and compositions (two), with sides of five
proportions and texts of 40 to 160 tokens. Useful tokens are those of texts, references and targets.
Padded: batches of `--batch` samples in the order they come, every sequence as long as the batch's longest, as
a plain batched implementation lays them out. It is given more than its due: real tokens attend to real ones
only, refiners and the last layer see no padding. Packed: the data room's Packer, with as many tokens to a
pack as a padded batch has on average. Both are the same model with the same weights and make a forward and a
backward pass. They run in turns (padded, packed, packed, padded, ...), after one small batch each; rates are
medians of turns. The loss of every sample must be the same in both, else the run fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from og2.data.packing import Item, Pack, Packer, PackingConfig, make_pack
from og2.model.packing import Joint, Segments
from og2.model.rope import Rotary
from og2.model.transformer import Moment, OmniGen2Transformer2DModel, Sequence

BAR = 1.25
TOLERANCE = 1e-4
MODELS = {
    "medium": {
        "hidden_size": 768, "num_layers": 8, "num_refiner_layers": 2, "num_attention_heads": 8,
        "num_kv_heads": 4, "axes_dim_rope": (32, 32, 32), "text_feat_dim": 768, "timestep_scale": 1000.0,
    },
    "mini": {
        "hidden_size": 240, "num_layers": 6, "num_refiner_layers": 1, "num_attention_heads": 5,
        "num_kv_heads": 1, "multiple_of": 64, "ffn_dim_multiplier": 0.5, "axes_dim_rope": (16, 16, 16),
        "text_feat_dim": 192, "timestep_scale": 1000.0,
    },
}  # fmt: skip
PROPORTIONS = ((1, 1), (3, 4), (4, 3), (9, 16), (16, 9))
Clock = Callable[[], float]


@dataclass(frozen=True)
class Measured:
    """Medians of one run."""

    model: str
    size_px: int
    batch: int
    num_samples: int
    padding_share: float
    pack_fill: float
    padded_tokens_per_s: float
    packed_tokens_per_s: float
    packed_over_padded: float
    difference: float


def main() -> int:
    """Runs, prints the table, writes JSON; 1 if the losses differ or the bar is missed."""
    options = parse_options()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(1 if options.cpu_time else options.threads)
    torch.manual_seed(0)
    measured = measure(options, clock)
    print(as_line(measured))
    write(options.json, measured, {"threads": torch.get_num_threads(), "cpu_time": options.cpu_time})
    if measured.difference > TOLERANCE:
        print(f"DIFFERENT NUMBERS: {measured.difference:.2e}")
    return int(measured.difference > TOLERANCE or measured.packed_over_padded < BAR)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="medium")
    parser.add_argument(
        "--size", type=int, default=256, help="side in pixels of a square of the pictures' area"
    )
    parser.add_argument("--batch", type=int, default=4, help="samples of a padded batch")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread, its own time: for a busy machine"
    )
    parser.add_argument("--json", type=Path, default=Path("outputs/packing.json"))
    return parser.parse_args()


def measure(options: argparse.Namespace, clock: Clock) -> Measured:
    """Both layouts on the same samples, in turns."""
    packed_model, padded_model = (
        kind(**MODELS[options.model]) for kind in (OmniGen2Transformer2DModel, PaddedTransformer)
    )
    with torch.no_grad():  # a fresh model gives zeros, which would hide differences
        for parameter in packed_model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    padded_model.load_state_dict(packed_model.state_dict())
    items = samples(options.samples, options.size, packed_model.config)
    lengths = [item.num_tokens(2) for item in items]
    rows = [lengths[i : i + options.batch] for i in range(0, len(items), options.batch)]
    padded_tokens = sum(max(row) * len(row) for row in rows)
    batches = [make_pack(items[i : i + options.batch]) for i in range(0, len(items), options.batch)]
    budget = max(padded_tokens // len(rows), *lengths)
    packs = packed_in(items, budget)
    fill = sum(lengths) / budget / len(packs)
    losses: dict[str, dict[int, float]] = {"padded": {}, "packed": {}}
    rates: dict[str, list[float]] = {"padded": [], "packed": []}
    layouts = [("padded", padded_model, batches), ("packed", packed_model, packs)]
    for _, model, _ in layouts:
        step(model, make_pack([min(items, key=lambda item: item.num_tokens(2))]))
    for _ in range(options.rounds):
        for name, model, parts in layouts:
            start = clock()
            for part in parts:
                losses[name].update(step(model, part))
            rates[name].append(sum(lengths) / (clock() - start))
        layouts.reverse()
    padded, packed = (statistics.median(rates[name]) for name in ("padded", "packed"))
    worst = max(abs(losses["padded"][d] / losses["packed"][d] - 1) for d in losses["packed"])
    return Measured(
        options.model, options.size, options.batch, len(items), 1 - sum(lengths) / padded_tokens, fill,
        padded, packed, packed / padded, worst,
    )  # fmt: skip


def packed_in(items: list[Item], budget: int) -> list[Pack]:
    """All items in packs, what waits in the end included, so that both layouts see every sample."""
    packs = []
    for waiting in (8, 0):
        packer = Packer(PackingConfig(budget, waiting))
        packs += [pack for item in items if (pack := packer.add(item)) is not None]
        items = [item for item in items if item.draw in packer.waiting]
    return [*packs, make_pack(items)] if items else packs


def samples(count: int, size_px: int, config: dict) -> list[Item]:
    """A uniform mix of three tasks; sizes in latent pixels, of the same area up to rounding."""
    generator = torch.Generator().manual_seed(1)

    def size() -> tuple[int, int]:
        wide, high = PROPORTIONS[int(torch.randint(len(PROPORTIONS), (), generator=generator))]
        side = size_px / 8 / (wide * high) ** 0.5
        return int(high * side) // 2 * 2, int(wide * side) // 2 * 2

    def latents() -> Tensor:
        return torch.randn(config["in_channels"], *size(), generator=generator)

    items = []
    for draw in range(count):
        num_references = int(torch.randint(3, (), generator=generator))
        length = int(torch.randint(40, 161, (), generator=generator))
        text = torch.randn(length, config["text_feat_dim"], generator=generator)
        references = tuple(latents() for _ in range(num_references))
        items.append(
            Item(
                draw,
                f"s:{draw}",
                ("t2i", "edit", "ic")[num_references],
                text,
                str(draw),
                references,
                latents(),
            )
        )
    return items


def step(model: OmniGen2Transformer2DModel, pack: Pack) -> dict[int, float]:
    """Forward and backward of one pack or batch; the loss of each sample by its draw."""
    model.zero_grad(set_to_none=True)
    sizes = [(x.shape[1], x.shape[2]) for x in pack.targets]
    sequences = [Sequence(*parts) for parts in pack.sequences]
    prepared = model.prepare(list(pack.texts), list(pack.references), sizes, sequences)
    times = torch.linspace(0.1, 0.9, 64)[torch.tensor(pack.draws) % 64]
    errors = [
        (velocity - target).square().mean()
        for velocity, target in zip(
            model.velocity(list(pack.targets), times, prepared), pack.targets, strict=True
        )
    ]
    torch.stack(errors).sum().backward()
    return {draw: float(error.detach()) for draw, error in zip(pack.draws, errors, strict=True)}


class PaddedTransformer(OmniGen2Transformer2DModel):
    """The same network, whose layers (but the last) work on sequences as long as the batch's longest.

    The added rows are segments of their own, so that real tokens do not see them.
    """

    def _joint_layers(self, pool_SD: Tensor, joint: Joint, moment: Moment) -> Tensor:
        segments, rows, real = pad(joint.segments)
        x_SD = pool_SD.index_select(0, joint.sources).index_select(0, rows)
        *blocks, last = self.layers
        for block in blocks:
            x_SD = self._run(block, x_SD, segments, moment.modulations[block])
        x_SD = x_SD.index_select(0, real)
        modulation = moment.modulations[last]
        return self._run(last, x_SD, joint.segments, modulation, joint.targets, joint.target_tokens)


def pad(segments: Segments) -> tuple[Segments, Tensor, Tensor]:
    """The segments each followed by its padding, the row that every row is a copy of, and the real rows."""
    longest, start = max(segments.lengths), 0
    rows, real, lengths = [], [], []
    for place, length in enumerate(segments.lengths):
        own = torch.arange(start, start + length)
        rows.append(torch.cat([own, own[:1].expand(longest - length)]))
        real.append(torch.arange(length) + place * longest)
        lengths += [length, longest - length] if length < longest else [length]
        start += length
    copied = torch.cat(rows)
    rotary = Rotary(segments.rotary.cos[copied], segments.rotary.sin[copied])
    return Segments(tuple(lengths), rotary, segments.time_rows[copied]), copied, torch.cat(real)


def as_line(m: Measured) -> str:
    """The table: one line for each layout."""
    verdict = "meets its bar" if m.packed_over_padded >= BAR else "MISSES its bar"
    return (
        f"{m.model} {m.size_px} px, {m.num_samples} samples, difference {m.difference:.1e}\n"
        f"  padded, batches of {m.batch}   {m.padded_tokens_per_s:9.0f} useful tokens/s   "
        f"{m.padding_share:5.1%} of the rows are padding\n"
        f"  packed                 {m.packed_tokens_per_s:9.0f} useful tokens/s   packs {m.pack_fill:5.1%} "
        "full\n"
        f"  packed / padded        {m.packed_over_padded:9.2f}   (asked {BAR})  {verdict}"
    )


def write(path: Path, measured: Measured, how: dict[str, object]) -> None:
    """The measurement and what it was made with, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made_with = {"torch": torch.__version__, **how, "cpu": torch.backends.cpu.get_cpu_capability()}
    path.write_text(json.dumps({"made_with": made_with, "measured": asdict(measured)}, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main())
