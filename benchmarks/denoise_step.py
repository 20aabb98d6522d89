"""Time of one guided denoising step, against its floor and against a plain implementation.

    python benchmarks/denoise_step.py [--quick] [--threads 2] [--rounds 5] [--json outputs/denoise_step.json]

Floor: matrix FLOPs that the step needs, each thing counted once, divided by the best matrix rate that was
found in the same run, with prepacked weights, the same threads and the same dtype.
Plain: `plain_transformer.py`.
Ours (after `og2.model.fused.fuse`) and plain run in turns of a few steps; times are medians of turns.
Both must give the same numbers, else the run fails.
Products alone: `products.py`, in the same turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import torch
from plain_transformer import PlainTransformer
from products import Products
from torch import Tensor

from og2.device import has_products
from og2.model.fused import fuse
from og2.model.packed_linear import PackedLinear
from og2.model.transformer import OmniGen2Transformer2DModel, Sequence

MEDIUM = {
    "hidden_size": 768, "num_layers": 8, "num_refiner_layers": 2, "num_attention_heads": 8, "num_kv_heads": 4,
    "axes_dim_rope": (32, 32, 32), "text_feat_dim": 768, "timestep_scale": 1000.0,
}  # fmt: skip
NUM_TEXT_TOKENS = {"medium": 100, "mini": 40}
NUM_NEGATIVE_TOKENS = {"medium": 100, "mini": 30}
TURN_S, TURN_STEPS = 0.2, 2  # a turn: at least so long, at least so many steps
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2}
GUIDANCE = {"text": 4.0, "image": 2.0}
# At most so many floors, at least so many times faster than plain; edits with two references have no bar.
BARS = {"float32": (1.25, 1.35), "bfloat16": (1.45, 1.45)}
MINI_BAR = 2.0
Clock = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """One picture size and number of references, on one model."""

    model: str
    name: str
    size_px: int
    num_references: int


@dataclass(frozen=True)
class Measured:
    """Medians of one case in one dtype."""

    model: str
    case: str
    dtype: str
    needed_gflop: float
    best_rate_gflop_per_s: float
    floor_s: float
    plain_s: float
    ours_s: float
    products_s: float
    ours_over_floor: float
    products_over_floor: float
    plain_over_ours: float
    difference: float


CASES = [
    *(Case("medium", f"{name} {size}", size, n) for size in (256, 512)
      for name, n in (("t2i", 0), ("edit 1 ref", 1), ("edit 2 refs", 2))),
    *(Case("mini", f"{name} 64", 64, n) for name, n in (("t2i", 0), ("edit 1 ref", 1), ("edit 2 refs", 2))),
]  # fmt: skip


def main() -> int:
    """Runs all cases, prints the table, writes JSON; 1 if ours and plain give different numbers."""
    options = parse_options()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(1 if options.cpu_time else options.threads)
    torch.set_grad_enabled(False)
    mini = mini_config(options.mini_config)
    measured = []
    for dtype in (torch.float32, torch.bfloat16):
        for case in CASES:
            if options.only in f"{case.model} {case.name} {dtype}" and (
                case.size_px < 512 or not options.quick
            ):
                measured.append(measure(case, dtype, mini, options.rounds, clock))
                print(as_line(measured[-1]), flush=True)
    if not measured:
        sys.exit(f"no case has {options.only!r} in its name")
    write(options.json, measured, {"threads": torch.get_num_threads(), "cpu_time": options.cpu_time})
    wrong = [m for m in measured if m.difference > TOLERANCE[getattr(torch, m.dtype)]]
    for m in wrong:
        print(f"DIFFERENT NUMBERS: {m.model} {m.case} {m.dtype}: {m.difference:.2e}")
    return 1 if wrong else 0


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="256 px and mini only")
    parser.add_argument("--only", default="", help="cases whose name (model, case, dtype) contains this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread, by its CPU time: for a machine that is not idle"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns per case; medians are over these")
    parser.add_argument("--mini-config", type=Path, help="another mini transformer's config.json")
    parser.add_argument("--json", type=Path, default=Path("outputs/denoise_step.json"))
    return parser.parse_args()


def measure(case: Case, dtype: torch.dtype, mini: dict, rounds: int, clock: Clock) -> Measured:
    """Plain and ours in turns, with probes of the matrix rate in between."""
    model, config = build_model(MEDIUM if case.model == "medium" else mini, dtype)
    request = GuidedRequest(model, case, dtype)
    plain_step = request.plain_step(PlainTransformer(model))
    expected = plain_step()
    fuse(model)
    our_step = request.our_step(model)
    with Products() as products:
        found = our_step()
    difference = ((found - expected).norm() / expected.norm()).item()
    probes = rate_probes(config, max(request.sequence_lengths), dtype)
    plain_s, ours_s, products_s, rates = [], [], [], []
    for _ in range(rounds):
        rates.append(best_rate(probes, clock))
        plain_s.append(turn(plain_step, clock))
        ours_s.append(turn(our_step, clock))
        products_s.append(turn(products.repeat, clock))
    needed, rate = needed_flop(config, request), max(rates)
    plain, ours, alone = map(statistics.median, (plain_s, ours_s, products_s))
    return Measured(
        model=case.model, case=case.name, dtype=str(dtype).removeprefix("torch."), needed_gflop=needed / 1e9,
        best_rate_gflop_per_s=rate / 1e9, floor_s=needed / rate, plain_s=plain, ours_s=ours,
        products_s=alone, ours_over_floor=ours * rate / needed, products_over_floor=alone * rate / needed,
        plain_over_ours=plain / ours, difference=difference,
    )  # fmt: skip


def build_model(config: dict, dtype: torch.dtype) -> tuple[OmniGen2Transformer2DModel, dict]:
    """A model with random weights, none of them zero, and its configuration."""
    torch.manual_seed(0)
    model = OmniGen2Transformer2DModel.from_config(dict(config)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1 and parameter.min() == 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif parameter.abs().max() == 0:
            parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    return model.to(dtype), dict(model.config)


def mini_config(path: Path | None) -> dict:
    """The configuration of the model that is part of the package, or of a file."""
    file = path or resources.files("og2") / "checkpoints" / "mini" / "transformer" / "config.json"
    if not file.is_file():
        sys.exit(f"{file} is missing: name the mini transformer's config.json with --mini-config")
    config = json.loads(file.read_text())
    return {name: value for name, value in config.items() if not name.startswith("_")}


class GuidedRequest:
    """Inputs of one guided step: two branches without references, three with."""

    def __init__(self, model: OmniGen2Transformer2DModel, case: Case, dtype: torch.dtype) -> None:
        config, generator = model.config, torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype)

        size = case.size_px // 8
        self.latents = draw(config.in_channels, size, size)
        self.references = [draw(config.in_channels, size, size) for _ in range(case.num_references)]
        self.texts = [
            draw(count[case.model], config.text_feat_dim) for count in (NUM_TEXT_TOKENS, NUM_NEGATIVE_TOKENS)
        ]
        self.t = torch.tensor(0.3)
        places = tuple(range(case.num_references))
        self.branches = [Sequence(0, places, 0), Sequence(1, places, 0), Sequence(1, (), 0)]
        if not places:
            self.branches.pop(1)
        self.num_target_tokens = (size // config.patch_size) ** 2
        self.sequence_lengths = [
            len(self.texts[b.text]) + (len(b.references) + 1) * self.num_target_tokens for b in self.branches
        ]

    def guided(self, velocities: list[Tensor]) -> Tensor:
        """The branches combined, as the pipeline does."""
        if len(velocities) == 2:
            conditional, without = velocities
            return without + GUIDANCE["text"] * (conditional - without)
        conditional, pictures_only, without = velocities
        guided = without + GUIDANCE["image"] * (pictures_only - without)
        return guided + GUIDANCE["text"] * (conditional - pictures_only)

    def plain_step(self, plain: PlainTransformer) -> Callable[[], Tensor]:
        """One step of the plain implementation: branch after branch, nothing kept from before."""

        def step() -> Tensor:
            velocities = []
            for branch in self.branches:
                text = self.texts[branch.text][None]
                references = [self.references[k] for k in branch.references]
                mask = torch.ones(text.shape[:2], dtype=torch.long)
                velocities.append(plain(self.latents[None], self.t[None], text, mask, references)[0])
            return self.guided(velocities).float()

        return step

    def our_step(self, model: OmniGen2Transformer2DModel) -> Callable[[], Tensor]:
        """One step of ours; what depends on the request alone is done here, before the step."""
        size = tuple(self.latents.shape[1:])
        times = [self.t.item()]
        prepared = model.prepare(self.texts, self.references, [size], self.branches, times=times)

        def step() -> Tensor:
            return self.guided(model.velocity([self.latents], self.t, prepared)).float()

        return step


def needed_flop(config: dict, request: GuidedRequest) -> float:
    """Matrix FLOPs of one step, 2 per multiply-add, each thing counted once, the request's share not at all.

    Noise and reference refiners once for all branches; in the last layer keys and values of all tokens, but
    queries, output, feed-forward and head of target tokens only. Times are known before a run, so what they
    say is the request's share.
    """
    width, num_layers, refiners = config["hidden_size"], config["num_layers"], config["num_refiner_layers"]
    kv_width = config["num_kv_heads"] * width // config["num_attention_heads"]
    multiple = config.get("multiple_of", 256)
    inner = int((config.get("ffn_dim_multiplier") or 1.0) * 4 * width)
    inner = -(-inner // multiple) * multiple
    patch = config["patch_size"] ** 2 * config["in_channels"]
    asked = 4 * width * width + 6 * width * inner  # per asking token: query, output, feed-forward
    read = 4 * width * kv_width  # per token: key and value
    n = request.num_target_tokens
    num_references = len(request.references)
    refined = refiners * (1 + num_references) * (n * (asked + read) + 4 * width * n * n)
    layers = sum(
        (num_layers - 1) * (s * (asked + read) + 4 * width * s * s) + n * asked + s * read + 4 * width * n * s
        for s in request.sequence_lengths
    )
    ends = 2 * patch * width * n * (1 + len(request.branches))
    return refined + layers + ends


def rate_probes(
    config: dict, num_tokens: int, dtype: torch.dtype
) -> list[tuple[float, Callable[[], Tensor]]]:
    """Matrix products with prepacked weights: (FLOPs, call) for the model's own shapes and a large cube.

    In float32 where the CPU has no products of this dtype: ours go through float32 there too.
    """
    dtype = dtype if has_products(dtype) else torch.float32
    width, inner = config["hidden_size"], 4 * config["hidden_size"]
    shapes = [(num_tokens, width, width), (num_tokens, width, inner), (num_tokens, inner, width), (2048,) * 3]
    probes = []
    for rows, inputs, outputs in shapes:
        x, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
        linear = PackedLinear(weight)
        repeats = max(1, round(5e8 / (2 * rows * inputs * outputs)))
        probes.append((2.0 * rows * inputs * outputs * repeats, _repeated(linear, x, repeats)))
    return probes


def _repeated(linear: PackedLinear, x: Tensor, repeats: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(repeats):
            linear(x)

    return run


def best_rate(probes: list[tuple[float, Callable[[], None]]], clock: Clock) -> float:
    """FLOP/s of the fastest probe, best of three."""
    return max(flop / min(seconds(call, clock) for _ in range(3)) for flop, call in probes)


def turn(step: Callable[[], Tensor], clock: Clock) -> float:
    """Time per step of a few steps in a row, as a denoising run makes them.

    One more goes before and is not counted: it finds caches and memory as the other implementation left them.
    """
    count = max(TURN_STEPS, int(TURN_S / seconds(step, clock)))
    return sum(seconds(step, clock) for _ in range(count)) / count


def seconds(call: Callable[[], object], clock: Clock) -> float:
    """Time of one call."""
    start = clock()
    call()
    return clock() - start


def as_line(m: Measured) -> str:
    """One line of the table."""
    return (
        f"{m.model:6} {m.case:15} {m.dtype:8}  {m.needed_gflop:7.1f} GFLOP, {m.best_rate_gflop_per_s:3.0f}/s"
        f"  floor {m.floor_s:7.4f} s  ours {m.ours_s:7.4f} s = {m.ours_over_floor:4.2f} floor"
        f" (products alone {m.products_over_floor:4.2f})"
        f"  plain {m.plain_s:7.4f} s = {m.plain_over_ours:4.2f} ours  difference {m.difference:.1e}"
        f"  {verdict(m)}"
    )


def verdict(m: Measured) -> str:
    """Whether the case meets its bar."""
    if m.model == "mini":
        return "meets its bar" if m.plain_over_ours >= MINI_BAR else "MISSES its bar"
    if "2 refs" in m.case:
        return "no bar"
    most_floors, least_gain = BARS[m.dtype]
    met = m.ours_over_floor <= most_floors and m.plain_over_ours >= least_gain
    return "meets its bar" if met else "MISSES its bar"


def write(path: Path, measured: list[Measured], how: dict[str, object]) -> None:
    """The measurements and what they were made with, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made_with = {"torch": torch.__version__, **how, "cpu": torch.backends.cpu.get_cpu_capability()}
    path.write_text(json.dumps({"made_with": made_with, "measured": [asdict(m) for m in measured]}, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main())
