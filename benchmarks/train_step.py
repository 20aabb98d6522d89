"""Time of one training step of the whole engine, against the floor of its own matrix products.

    python benchmarks/train_step.py [--cpu-time] [--threads 2] [--steps 3] [--compile]
        [--json outputs/train_step.json]

It takes about two minutes on two quiet cores, with `--compile` two more.

The step is the loop's own (data, forward, backward, clipping, AdamW, average, figures) on a medium
transformer of 768 x 8 layers with 256 px pictures of the world, drawings and edits mixed, latents and text
features cached. Floor: the matrix FLOPs of its forward and backward (og2.train.cost), each counted once,
divided by the best matrix rate found in the same run: the products that a linear layer's forward and backward
are, in the model's own shapes and in a large cube, with the same threads and the same dtype. Products alone:
those of the first step, made again after each that counts (`products.py`), if blocks are not compiled.
The steps before those that count fill the memory that a run keeps: a page costs most when it is taken for the
first time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from products import Products

from og2.config import build
from og2.data.fill import FillConfig, fill_cache
from og2.device import chosen_device, computes_half
from og2.train.loop import Trainer
from og2.train.recipe import TransformerRecipe
from og2.train.transformer import data_of, make_task, whole_schedule

WIDTH, ROWS = 768, 24
WARM_UP = 3
BAR_FLOORS, BAR_WAIT = 1.4, 0.05
Clock = Callable[[], float]


def main() -> int:
    """Runs the steps, prints the table, writes JSON; 1 if a bar is missed."""
    options = parse_options()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    threads = 1 if options.cpu_time else options.threads
    torch.set_num_threads(threads)
    found = []
    for precision in ("fp32", "bf16"):
        if options.only in precision:
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(recipe(Path(folder), precision, threads, options), options.steps, clock))
                print(as_line(found[-1]), flush=True)
    made_with = {"torch": torch.__version__, "threads": threads}
    made_with |= {"cpu_time": options.cpu_time, "compile": options.compile}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"made_with": made_with, "measured": found}, indent=1))
    print(f"written to {options.json}")
    return int(not all(m["meets_bars"] for m in found))


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread, by its CPU time: on a busy machine"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=3, help=f"steps that count, after {WARM_UP} that do not")
    parser.add_argument("--budget", type=int, default=2048, help="tokens of a step")
    parser.add_argument("--only", default="", help="fp32 or bf16")
    parser.add_argument("--compile", action="store_true", help="compute.compile: true")
    parser.add_argument("--json", type=Path, default=Path("outputs/train_step.json"))
    return parser.parse_args()


def recipe(folder: Path, precision: str, threads: int, options: argparse.Namespace) -> TransformerRecipe:
    """The recipe of the run."""
    world = {"kind": "world", "options": {"rows": ROWS, "sizes_px": [[256, 256]]}}
    mix = [{**world, "name": "drawings", "type": "t2i"}, {**world, "name": "edits", "type": "edit"}]
    tree = {
        "run": {"folder": str(folder), "threads": threads, "peak_tflops": 1.0, "save_every_s": 1e9},
        "optim": {"steps": WARM_UP + options.steps, "lr": 1e-4},
        "model": "mini",
        "fresh": {
            "hidden_size": WIDTH, "num_layers": 8, "num_refiner_layers": 2, "num_attention_heads": 8,
            "num_kv_heads": 4, "multiple_of": 256, "ffn_dim_multiplier": None, "axes_dim_rope": [32, 32, 32],
        },
        "compute": {"device": "cpu", "precision": precision, "compile": options.compile},
        "data": {
            "mix": {"data": mix},
            "cache": str(folder / "cache"),
            "loader": {"packs_per_step": 1, "prefetch": 2, "packing": {"budget": options.budget}},
        },
    }  # fmt: skip
    return build(TransformerRecipe, tree, "train_step")


def measure(made: TransformerRecipe, num_steps: int, clock: Clock) -> dict[str, float | str | bool | None]:
    """Medians over the steps of one recipe, with probes of the matrix rate in between."""
    reader, encoder = data_of(made, made.data, chosen_device("cpu"))
    fill_cache(reader.mixture, made.data.read, encoder, FillConfig())
    task = make_task(made)
    trainer = Trainer(task, made.run, whole_schedule(made), made.rate)
    is_half = made.compute.precision == "bf16" and computes_half("cpu")  # without it, in float32 as the step
    dtype = torch.bfloat16 if is_half else torch.float32
    probes = rate_probes(dtype)
    # Compiled blocks make their products where they cannot be seen.
    products = nullcontext() if made.compute.compile else Products()
    with products:
        trainer.advance(threading.Event())
    products_flop = trainer.meters.flops
    for _ in range(WARM_UP - 1):
        trainer.advance(threading.Event())
    trainer.meters.take()
    rate, floors, taken, waits, alone = 0.0, [], [], [], []
    for _ in range(num_steps):
        rate = max(rate, best_rate(probes, clock))
        work_before = trainer.meters.flops
        taken.append(seconds(lambda: trainer.advance(threading.Event()), clock))
        floors.append(trainer.meters.flops - work_before)
        waits.append(trainer.meters.take()["data_wait_share"])
        if isinstance(products, Products):
            alone.append(seconds(products.repeat, clock))
    task.close()
    ratio = statistics.median(s * rate / flops for s, flops in zip(taken, floors, strict=True))
    wait = statistics.median(waits)
    return {
        "precision": made.compute.precision,
        "step_s": statistics.median(taken),
        "gflop": statistics.median(floors) / 1e9,
        "rate_gflop_per_s": rate / 1e9,
        "step_over_floor": ratio,
        "products_over_floor": statistics.median(alone) * rate / products_flop if alone else None,
        "data_wait_share": wait,
        "meets_bars": ratio <= BAR_FLOORS and wait <= BAR_WAIT,
    }


def rate_probes(dtype: torch.dtype) -> list[tuple[float, Callable[[], object]]]:
    """Products (FLOPs, call): forward, gradient of the input, gradient of the weight; and a large cube."""
    probes: list[tuple[float, Callable[[], object]]] = []
    for tokens, inputs, outputs in ((2048, WIDTH, 4 * WIDTH), (2048, WIDTH, WIDTH), (2048, 2048, 2048)):
        x, w = torch.randn(tokens, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
        y = torch.randn(tokens, outputs, dtype=dtype)
        flop = 2.0 * tokens * inputs * outputs
        probes += [
            (flop, lambda x=x, w=w: x @ w.T),
            (flop, lambda y=y, w=w: y @ w),
            (flop, lambda y=y, x=x: y.T @ x),
        ]
    return probes


def best_rate(probes: list[tuple[float, Callable[[], object]]], clock: Clock) -> float:
    """FLOP/s of the fastest probe, best of three."""
    return max(flop / min(seconds(call, clock) for _ in range(3)) for flop, call in probes)


def seconds(call: Callable[[], object], clock: Clock) -> float:
    """Time of one call."""
    started = clock()
    call()
    return clock() - started


def as_line(m: dict[str, float | str | bool | None]) -> str:
    """One line of the table."""
    verdict = "meets its bars" if m["meets_bars"] else "MISSES a bar"
    alone = m["products_over_floor"]
    control = "" if alone is None else f"; products alone {alone:4.2f}"
    return (
        f"{m['precision']}  {m['gflop']:7.1f} GFLOP at {m['rate_gflop_per_s']:5.1f}/s  "
        f"step {m['step_s']:7.2f} s = {m['step_over_floor']:4.2f} floor (bar {BAR_FLOORS}{control})  "
        f"data wait {m['data_wait_share']:5.1%} (bar {BAR_WAIT:.0%})  {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
