"""Shares of a mixture as training gets them, through worker processes, ranks, and a stop half way.

    python benchmarks/mixture.py [--draws 100000] [--workers 4] [--ranks 2] [--json outputs/mixture.json]

Rows of text in five JSONL files are drawn in very unequal shares. The first half comes from `--ranks` loaders
with `--workers` processes each; their positions are joined, written as JSON, and one loader without workers
goes on from there. Every drawn row is counted where a training step would see it. The bar: every share within
1 % of what was asked, in each half and in the whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

from og2.conditioning.processor import load_processor
from og2.config import build
from og2.data.encode import EncodeConfig, Encoder, Networks
from og2.data.examples import ReadConfig, Reader
from og2.data.loader import Loader, LoaderConfig, merge_states
from og2.data.mix import MixConfig, Mixture, open_mix
from og2.data.packing import PackingConfig
from og2.model.weights import load_mllm, load_vae

ASKED = {"half": 0.5, "third": 0.3, "some": 0.14, "few": 0.05, "rare": 0.01}
BAR = 0.01


def main() -> int:
    """Draws, prints the table, writes JSON; 1 if a share is missed."""
    options = parse_options()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        mixture = make_mixture(Path(folder))
        halves = drawn(mixture, options)
    parts = {"first half": halves[0], "after resume": halves[1], "whole": halves[0] + halves[1]}
    table = {}
    for name, counts in parts.items():
        total = sum(counts.values())
        shares = {source: counts[source] / total for source in ASKED}
        errors = {source: shares[source] / asked - 1 for source, asked in ASKED.items()}
        table[name] = {"draws": total, "shares": shares, "relative_errors": errors}
        line = "  ".join(f"{source} {shares[source]:7.3%} ({error:+.2%})" for source, error in errors.items())
        print(f"{name:13} {total:7d} draws   {line}")
    worst = max(abs(error) for row in table.values() for error in row["relative_errors"].values())
    rarest = min(ASKED.values()) * min(row["draws"] for row in table.values())
    print(f"one draw more or less of the rarest source in one half is {1 / rarest:.2%} of its share")
    took = time.perf_counter() - started
    print(
        f"worst relative error {worst:.2%} (asked {BAR:.0%})  {'meets' if worst <= BAR else 'MISSES'} its bar"
    )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    how = {"workers": options.workers, "ranks": options.ranks, "s": took}
    options.json.write_text(json.dumps({"made_with": how, "measured": table}, indent=1))
    print(f"written to {options.json}")
    return int(worst > BAR)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("outputs/mixture.json"))
    return parser.parse_args()


def make_mixture(folder: Path) -> Mixture:
    """Five sources of different lengths."""
    entries = []
    for place, (name, ratio) in enumerate(ASKED.items()):
        row = {"task_type": "text", "instruction": f"say {name}", "output_text": name}
        (folder / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * (40 + 37 * place))
        entries.append({"path": f"{name}.jsonl", "ratio": ratio})
    return open_mix(build(MixConfig, {"data": entries}), seed=1, base=folder)


def drawn(mixture: Mixture, options: argparse.Namespace) -> tuple[Counter[str], Counter[str]]:
    """Rows that steps held, by source: of the ranks together, then of the loader that goes on."""
    model = Path(str(resources.files("og2") / "checkpoints" / "mini"))
    networks = Networks(
        lambda: load_vae(model / "vae"),
        lambda: load_mllm(model / "mllm"),
        lambda: load_processor(model / "processor"),
        "",
        "",
    )
    encoder = Encoder(networks, EncodeConfig(), mixture.seed)
    reader = Reader(mixture, ReadConfig())
    config = LoaderConfig(PackingConfig(budget=4096), options.ranks, options.workers)
    loaders = [Loader(reader, encoder, config, rank, options.ranks) for rank in range(options.ranks)]
    first: Counter[str] = Counter()
    while first.total() < options.draws / 2:
        for loader in loaders:
            first.update(name.partition(":")[0] for name in next(loader).ids)
    position = json.loads(json.dumps(merge_states([loader.state_dict() for loader in loaders])))
    for loader in loaders:
        loader.close()
    second: Counter[str] = Counter()
    with Loader(reader, encoder, replace(config, workers=0)) as resumed:
        resumed.load_state_dict(position)
        while second.total() < options.draws / 2:
            second.update(name.partition(":")[0] for name in next(resumed).ids)
    return first, second


if __name__ == "__main__":
    sys.exit(main())
