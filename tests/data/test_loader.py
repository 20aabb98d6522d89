"""Steps: the same rows whatever the ranks, workers and interruptions; conditions dropped; bad rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from rows_on_disk import MODEL, mixed_rows, write_jsonl
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.conditioning.processor import load_processor
from og2.conditioning.vlm import encode_prompt
from og2.data.cache import Cache, folder_hash
from og2.data.encode import EncodeConfig, Encoder, Networks
from og2.data.examples import ReadConfig, Reader, Sample, Skipped
from og2.data.jsonl import JsonlOptions, JsonlSource
from og2.data.loader import Loader, LoaderConfig, StepBatch, merge_states
from og2.data.mix import Mixture
from og2.data.packing import PackingConfig
from og2.data.rows import Source
from og2.data.sources import Place
from og2.data.workers import Reading
from og2.data.world_source import WorldOptions, WorldSource
from og2.errors import ConfigError, DataError, RequestError

NO_DROP = ReadConfig(drop_text=0.0, drop_references=0.0)
PACKING = PackingConfig(budget=260, waiting=3)


def world(name: str, task: str, rows: int = 50) -> WorldSource:
    return WorldSource(
        Place(name, None, None, task), WorldOptions(rows=rows, sizes_px=((32, 32), (48, 32), (64, 64)))
    )


def mixture(seed: int = 1) -> Mixture:
    return Mixture([world("t2i", "t2i"), world("edit", "edit"), world("talk", "text")], [0.5, 0.3, 0.2], seed)


@dataclass(frozen=True)
class Kit:
    """The mini networks, and a cache that the tests share."""

    networks: Networks
    cache: Cache | None


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    networks = Networks(
        lambda: AutoencoderKL.from_pretrained(MODEL / "vae"),
        lambda: Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL / "mllm"),
        lambda: load_processor(MODEL / "processor"),
        folder_hash(MODEL / "vae"),
        folder_hash(MODEL / "mllm", MODEL / "processor"),
    )
    return Kit(networks, Cache(tmp_path_factory.mktemp("cache")))


def loader(
    kit: Kit, mixed: Mixture, config: LoaderConfig, rank: int = 0, world_size: int = 1,
    read: ReadConfig = NO_DROP,
) -> Loader:  # fmt: skip
    encoder = Encoder(kit.networks, EncodeConfig(), mixed.seed, kit.cache)
    return Loader(Reader(mixed, read, encoder.keys), encoder, config, rank, world_size)


def same(one: StepBatch, other: StepBatch) -> bool:
    if (one.step, one.ids, one.tasks, one.position) != (other.step, other.ids, other.tasks, other.position):
        return False
    return all(
        p.sequences == q.sequences
        and all(torch.equal(x, y) for x, y in zip(tensors(p), tensors(q), strict=True))
        for p, q in zip(one.packs, other.packs, strict=True)
    )


def tensors(pack: object) -> list[torch.Tensor]:
    return [x for name in ("texts", "references", "targets") for x in getattr(pack, name)]


def steps(made: Loader, count: int) -> list[StepBatch]:
    with made:
        return [next(made) for _ in range(count)]


def test_a_resumed_loader_gives_bit_for_bit_what_the_uninterrupted_one_gives(kit: Kit) -> None:
    config = LoaderConfig(PACKING, packs_per_step=2, prefetch=0)
    whole = steps(loader(kit, mixture(), config), 5)
    first = loader(kit, mixture(), replace(config, prefetch=2))
    steps(first, 2)  # more was prefetched, and is not part of the position
    resumed = loader(kit, mixture(), config)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert all(same(a, b) for a, b in zip(whole[2:], steps(resumed, 3), strict=True))
    assert any(place["waiting"] for place in first.state_dict()["lanes"].values())


def test_packs_do_not_depend_on_the_number_of_ranks_and_a_position_may_change_it(kit: Kit) -> None:
    config = LoaderConfig(PACKING, packs_per_step=2, prefetch=0)
    alone = steps(loader(kit, mixture(), config), 3)
    ranks = [loader(kit, mixture(), config, rank, 2) for rank in range(2)]
    shared = [steps(rank, 2) for rank in ranks]
    for step in range(2):
        assert [p.ids for r in shared for p in r[step].packs] == [p.ids for p in alone[step].packs]
    joined = loader(kit, mixture(), config)
    joined.load_state_dict(merge_states([rank.state_dict() for rank in ranks]))
    assert same(steps(joined, 1)[0], alone[2])


def test_four_workers_on_each_of_two_ranks_draw_the_mixture_and_nothing_else(kit: Kit) -> None:
    mixed, drawn = mixture(), []
    config = LoaderConfig(PACKING, packs_per_step=2, workers=4, prefetch=1)
    positions = []
    for rank in range(2):
        made = loader(kit, mixed, config, rank, 2)
        drawn += [name for batch in steps(made, 4) for name in batch.ids]
        positions += made.state_dict()["lanes"].items()
    wanted: list[str] = []
    for lane, place in positions:
        numbers = set(range(int(lane), place["next"], 2)) - set(place["waiting"])
        wanted += [mixed.sources[d.source].row(d.index).id for d in map(mixed.draw, numbers)]
    assert Counter(drawn) == Counter(wanted)


def test_a_pack_never_holds_more_than_its_budget_and_names_every_target(kit: Kit) -> None:
    for batch in steps(loader(kit, mixture(), LoaderConfig(PACKING, prefetch=0)), 4):
        for pack in batch.packs:
            assert 0 < pack.num_tokens <= PACKING.budget
            assert len(pack.ids) == len(pack.tasks) == len(pack.draws) == len(pack.targets)
            assert len(pack.answer_ids) == len(pack.answers)
            for (text, references, target), task in zip(pack.sequences, pack.tasks, strict=True):
                assert (len(references) == 1) == (task == "edit")
                assert pack.texts[text].ndim == 2
                assert pack.targets[target].shape[0] == 16
            for answer in pack.answers:
                assert answer.said.any()
                assert not answer.said[0]


@pytest.mark.parametrize("drop_references", [0.0, 1.0])
def test_a_dropped_text_is_the_empty_prompt_of_sampling(kit: Kit, drop_references: float) -> None:
    read = ReadConfig(drop_text=1.0, drop_references=drop_references)
    mixed = Mixture([world("edit", "edit")], [1.0], 0)
    pack = steps(loader(kit, mixed, LoaderConfig(PACKING, prefetch=0), read=read), 1)[0].packs[0]
    empty = encode_prompt(kit.networks.mllm, kit.networks.processor, "")
    assert len(pack.texts) == 1
    torch.testing.assert_close(pack.texts[0], empty)
    assert len(pack.references) == (0 if drop_references else len(pack.targets))


def test_conditions_are_dropped_at_the_asked_rates_and_never_references_alone() -> None:
    reader = Reader(
        Mixture([world("edit", "edit")], [1.0], 5), ReadConfig(drop_text=0.3, drop_references=0.5)
    )
    read = [reader.read(number) for number in range(200)]
    kinds = Counter(
        (sample.text == "", bool(sample.references)) for sample in read if isinstance(sample, Sample)
    )
    assert kinds[(False, False)] == 0
    assert 40 < kinds[(True, True)] + kinds[(True, False)] < 80
    assert 14 < kinds[(True, False)] < 46


def test_what_the_cache_gives_is_bit_for_bit_what_is_computed(kit: Kit, tmp_path: Path) -> None:
    mixed, config, cache = mixture(), LoaderConfig(PACKING, prefetch=0), Cache(tmp_path)
    plain = steps(loader(Kit(kit.networks, None), mixed, config), 2)
    filled = steps(loader(Kit(kit.networks, cache), mixed, config), 2)

    def never() -> AutoencoderKL:
        raise AssertionError("the VAE is not needed when everything is cached")

    cached = steps(loader(Kit(replace(kit.networks, load_vae=never), cache), mixed, config), 2)
    for one, two, three in zip(plain, filled, cached, strict=True):
        assert same(one, two)
        assert same(one, three)


def jsonl(folder: Path, rows: list[dict]) -> Source:
    return JsonlSource(Place("rows", write_jsonl(folder, rows), None, None), JsonlOptions())


def test_a_bad_row_stops_the_run_or_is_counted_and_named_and_nothing_takes_its_place(
    kit: Kit, tmp_path: Path
) -> None:
    source = jsonl(tmp_path, mixed_rows(9))
    (tmp_path / "p3.png").write_bytes(b"no picture")
    mixed = Mixture([source], [1.0], 0)
    config = LoaderConfig(PackingConfig(budget=400, waiting=0), prefetch=1)
    with pytest.raises(DataError, match=r"rows:4: .*not a picture.*max_bad_rows \(now 0\)"):
        steps(loader(kit, mixed, config), 20)
    batches = steps(loader(kit, mixed, replace(config, max_bad_rows=1)), 6)
    skipped = [entry for batch in batches for entry in batch.skipped]
    assert {entry.id for entry in skipped} == {"rows:4"}
    assert all("not a picture" in entry.reason for entry in skipped)
    place = batches[-1].position["lanes"]["0"]
    numbers = set(range(place["next"])) - set(place["waiting"]) - {entry.draw for entry in skipped}
    wanted = [source.row(mixed.draw(n).index).id for n in numbers]
    assert Counter(name for batch in batches for name in batch.ids) == Counter(wanted)
    assert place["bad"] == ["rows:4"]


def test_a_text_that_is_too_long_is_refused_from_the_cache_too(kit: Kit, tmp_path: Path) -> None:
    mixed = Mixture([world("t2i", "t2i")], [1.0], 0)
    encoder = Encoder(kit.networks, EncodeConfig(), 0, Cache(tmp_path))
    encoder.item(Reader(mixed, NO_DROP, encoder.keys).read(0))
    limited = Encoder(kit.networks, EncodeConfig(max_text_tokens=9), 0, encoder.cache)
    sample = Reader(mixed, NO_DROP, limited.keys).read(0)
    assert isinstance(sample, Sample)
    assert sample.text_entry is not None
    with pytest.raises(RequestError, match=r"t2i:\d+: the prompt has \d+ tokens; the limit is 9"):
        limited.item(sample)


def test_a_row_larger_than_the_budget_is_a_bad_row(kit: Kit) -> None:
    with pytest.raises(DataError, match=r"edit:\d+ has \d+ tokens, the budget of a pack is 20"):
        steps(loader(kit, mixture(), LoaderConfig(PackingConfig(budget=20))), 1)


def test_a_worker_that_dies_ends_the_run_with_one_sentence(kit: Kit) -> None:
    made = loader(kit, mixture(), LoaderConfig(PACKING, workers=2, prefetch=1))
    with made:
        next(made)
        assert made._reading is not None
        workers = [worker.process.pid for worker in made._reading.workers]
        for sent in (signal.SIGINT, signal.SIGKILL):  # the first is Ctrl-C, which the run itself answers
            for pid in workers:
                os.kill(pid, sent)
            if sent == signal.SIGINT:
                [next(made) for _ in range(6)]
        with pytest.raises(DataError, match=r"a data worker died( while it read draw \d+, row \w+:\d+)?;"):
            [next(made) for _ in range(50)]


class OddError(Exception):
    """Like errors of networking libraries: it can be sent, and not be read."""

    def __init__(self, message: str, *, response: int) -> None:
        super().__init__(message)
        self.response = response


class OddAnswer:
    def __reduce__(self) -> tuple[type[OddError], tuple[str]]:
        return OddError, ("x",)


class OddWork:
    def describe(self, number: int) -> str:
        return f"piece {number}"

    def __call__(self, number: int) -> object:
        if number == 0:
            raise OddError("no such thing", response=1)
        return OddAnswer() if number == 1 else number


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, r"piece 0: OddError: no such thing; read it with workers=0"),
        (1, r"what a data worker sent while it read piece 1 cannot be read \(TypeError\)"),
    ],
)
def test_what_a_worker_sends_and_nobody_can_read_is_an_error_and_no_endless_wait(
    number: int, message: str
) -> None:
    reading = Reading(OddWork(), 1)
    try:
        with pytest.raises(DataError, match=message):
            reading.workers[0].begin(number).result(timeout=120)
    finally:
        reading.close()


KILLED = """
import sys, time
from og2.data.examples import ReadConfig, Reader
from og2.data.mix import Mixture
from og2.data.sources import Place
from og2.data.workers import Reading
from og2.data.world_source import WorldOptions, WorldSource
if __name__ == "__main__":
    source = WorldSource(Place("w", None, None, "t2i"), WorldOptions(rows=9))
    reading = Reading(Reader(Mixture([source], [1.0], 0), ReadConfig()), 2)
    [begun() for begun in [reading.begin(n) for n in range(4)]]
    print(*(worker.process.pid for worker in reading.workers), flush=True)
    time.sleep(600)
"""


def test_a_run_that_is_killed_takes_its_workers_with_it(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(KILLED)
    run = subprocess.Popen([sys.executable, tmp_path / "run.py"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    workers = [int(pid) for pid in run.stdout.readline().split()]
    assert workers
    run.kill()
    run.wait()
    until = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < until, "workers are still there"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_number_of_packs_that_ranks_do_not_divide_is_refused(kit: Kit) -> None:
    with pytest.raises(ConfigError, match="packs_per_step=4 is no multiple of the 3 processes; use 3"):
        loader(kit, mixture(), LoaderConfig(packs_per_step=4), 0, 3)


def test_a_run_may_go_on_with_smaller_packs(kit: Kit) -> None:
    first = loader(kit, mixture(), LoaderConfig(PACKING, prefetch=0))
    drawn = [name for batch in steps(first, 2) for name in batch.ids]
    smaller = LoaderConfig(PackingConfig(budget=160, waiting=0), prefetch=0)
    resumed = first
    for _ in range(4):  # stopped after every step
        state = resumed.state_dict()
        resumed = loader(kit, mixture(), smaller)
        resumed.load_state_dict(state)
        drawn += [name for batch in steps(resumed, 1) for name in batch.ids]
    place = resumed.state_dict()["lanes"]["0"]
    numbers = set(range(place["next"])) - set(place["waiting"])
    mixed = mixture()
    wanted = [mixed.sources[d.source].row_id(d.index) for d in map(mixed.draw, numbers)]
    assert Counter(drawn) == Counter(wanted)


def test_a_position_of_another_mixture_is_refused(kit: Kit) -> None:
    state = loader(kit, mixture(seed=1), LoaderConfig()).state_dict()
    with pytest.raises(ConfigError, match="another mixture or seed"):
        loader(kit, mixture(seed=2), LoaderConfig()).load_state_dict(state)
    with pytest.raises(ConfigError, match="another packs_per_step"):
        loader(kit, mixture(seed=1), LoaderConfig(packs_per_step=2)).load_state_dict(state)


def test_reading_names_row_and_reason(tmp_path: Path) -> None:
    rows = [{"task_type": "t2i", "instruction": "x", "output_image": "../outside.png"}]
    read = Reader(Mixture([jsonl(tmp_path, rows)], [1.0], 0), NO_DROP).read(0)
    assert isinstance(read, Skipped)
    assert (read.draw, read.id) == (0, "rows:1")
    assert "outside the data root" in read.reason
