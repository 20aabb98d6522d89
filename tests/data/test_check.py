"""The lint of a data set, and the cache filled ahead of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from rows_on_disk import MODEL, mixed_rows, write_jsonl
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.cli.check_report import lines
from og2.conditioning.processor import Processor, load_processor
from og2.data.cache import Cache, folder_hash
from og2.data.check import CheckConfig, Problem, Report, check_data
from og2.data.encode import EncodeConfig, Encoder, Networks
from og2.data.examples import ReadConfig, Reader, Sample
from og2.data.fill import FillConfig, fill_cache
from og2.data.jsonl import JsonlOptions, JsonlSource
from og2.data.mix import Draw, Mixture
from og2.data.sources import Place
from og2.errors import ConfigError, DataError, RequestError
from og2.train.prepare import check


@pytest.fixture(scope="module")
def processor() -> Processor:
    return load_processor(MODEL / "processor")


@pytest.fixture(scope="module")
def networks(processor: Processor) -> Networks:
    return Networks(
        lambda: AutoencoderKL.from_pretrained(MODEL / "vae"),
        lambda: Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL / "mllm"),
        lambda: processor,
        folder_hash(MODEL / "vae"),
        folder_hash(MODEL / "mllm"),
    )


def mixture(folder: Path, rows: list[dict], extra: list[dict] | None = None) -> Mixture:
    parts = {"main": rows, **({"extra": extra} if extra else {})}
    sources = [
        JsonlSource(Place(name, write_jsonl(folder / name, part), None, None), JsonlOptions())
        for name, part in parts.items()
    ]
    return Mixture(sources, [3.0, 1.0][: len(sources)], 0)


def test_a_clean_data_set_is_described(tmp_path: Path, processor: Processor) -> None:
    mixed = mixture(tmp_path, mixed_rows(9), mixed_rows(3, "q"))
    seen: list[tuple[int, int]] = []
    report = check_data(
        mixed, ReadConfig(max_pixels=1024), processor, CheckConfig(), lambda *at: seen.append(at)
    )
    assert isinstance(report, Report)
    assert report.is_clean
    assert seen[-1] == (12, 12)
    main, extra = report.sources
    assert (main.num_rows, main.tasks) == (9, {"t2i": 3, "edit": 3, "text": 3})
    assert (main.asked_share, extra.asked_share) == (0.75, 0.25)
    assert abs(main.drawn_share - 0.75) < 0.0075
    assert report.sizes == {"32 x 16": 8}
    assert report.num_references == {"0": 4, "1": 8}
    assert report.prompt_tokens["least"] <= report.prompt_tokens["median"] <= report.prompt_tokens["most"]
    json.dumps(report.to_tree())


def test_everything_wrong_is_named_with_its_source_and_line(tmp_path: Path, processor: Processor) -> None:
    rows = [
        {"task_type": "t2i", "instruction": "fine", "output_image": "a.png"},
        {"task_type": "t2i", "instruction": "the same again", "output_image": "same.png"},
        {"task_type": "t2i", "instruction": "cut", "output_image": "cut.png"},
        {"task_type": "t2i", "instruction": "gone", "output_image": "gone.png"},
        {"task_type": "t2i", "instruction": "out", "output_image": "../main.png"},
        {"task_type": "edit", "instruction": "nothing", "input_images": ["e.png"], "output_image": "e.png"},
        {"task_type": "t2i", "instruction": " ", "output_image": "b.png"},
        {"task_type": "t2i", "instruction": "word " * 900, "output_image": "c.png"},
        {"task_type": "t2i", "output_image": "d.png"},
    ]
    mixed = mixture(tmp_path, rows)
    folder = tmp_path / "main"
    (folder / "same.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:200])
    (folder / "gone.png").unlink()
    report = check_data(mixed, ReadConfig(), processor, CheckConfig(max_text_tokens=888))
    found = {problem.id: problem for problem in report.problems}
    assert {row_id: problem.kind for row_id, problem in found.items()} == {
        "main:3": "row", "main:4": "row", "main:5": "row", "main:6": "same",
        "main:7": "prompt", "main:8": "row", "main:9": "row",
    }  # fmt: skip
    assert "outside the data root" in found["main:5"].message
    assert "main:9 has no instruction" in found["main:9"].message
    assert report.num_problems == {"row": 5, "same": 1, "prompt": 1}
    assert report.num_bad == 5
    assert report.duplicates == (("main:1", "main:2"),)
    assert not report.is_clean


def test_a_row_that_no_pack_holds_is_named_as_training_names_it(tmp_path: Path, processor: Processor) -> None:
    mixed = mixture(tmp_path, mixed_rows(9))
    report = check_data(mixed, ReadConfig(), processor, CheckConfig(budget=20))
    drawn = [
        problem for problem in report.problems if "tokens, the budget of a pack is 20" in problem.message
    ]
    assert len(drawn) == report.num_bad > 0
    longest = report.prompt_tokens["most"] if report.prompt_tokens else 0
    largest = max(int(problem.message.split(" has ")[1].split()[0]) for problem in drawn)
    assert check_data(mixed, ReadConfig(), processor, CheckConfig(budget=largest)).is_clean
    assert not check_data(mixed, ReadConfig(), processor, CheckConfig(budget=largest - 1)).is_clean
    assert largest > longest


def test_rows_answered_in_words_are_held_to_the_limits_that_training_holds_them_to(
    tmp_path: Path, processor: Processor, networks: Networks
) -> None:
    talk = {"task_type": "text", "instruction": "what?", "input_images": ["a.png"], "output_text": "a thing"}
    changes = (
        {}, {"output_text": "word " * 300}, {"instruction": "a <|image_pad|> b"},
        {"output_text": "<|video_pad|>"}, {"input_images": ["a.png", "b.png"]},
    )  # fmt: skip
    mixed = mixture(tmp_path, [talk | change for change in changes])
    encoder, reader = Encoder(networks, EncodeConfig(), 0), Reader(mixed, ReadConfig().without_chance())

    def size(number: int) -> int:
        sample = reader.read_row(Draw(0, 0, number, 0))
        assert isinstance(sample, Sample)
        return encoder.item(sample).num_tokens(2)

    for number in (2, 3):
        with pytest.raises(RequestError, match="control token"):
            size(number)
    plain, long, two = size(0), size(1), size(4)
    assert plain < two < long
    for limit, bad in ((long, ()), (long - 1, (1,)), (two - 1, (1, 4)), (plain - 1, (0, 1, 4))):
        for config in (CheckConfig(budget=limit), CheckConfig(max_text_tokens=limit)):
            report = check_data(mixed, ReadConfig(), processor, config)
            found = {problem.id for problem in report.problems}
            assert found == {f"main:{number + 1}" for number in (2, 3, *bad)}, config
    limited = Encoder(networks, EncodeConfig(max_text_tokens=long - 1), 0)
    sample = reader.read_row(Draw(0, 0, 1, 0))
    assert isinstance(sample, Sample)
    with pytest.raises(RequestError, match=rf"answer have {long} tokens; the limit is {long - 1}"):
        limited.item(sample)


def test_what_is_printed_names_the_row_its_file_and_what_reading_changed(
    tmp_path: Path, processor: Processor
) -> None:
    rows = [{"task_type": "t2i", "instruction": "word " * 900, "output_image": f"{n}.png"} for n in "abc"]
    mixed = mixture(tmp_path, rows)
    (tmp_path / "main" / "b.png").write_bytes(b"no picture")
    Image.new("RGBA", (32, 32)).save(tmp_path / "main" / "c.png")
    report = check_data(mixed, ReadConfig(), processor, CheckConfig(tokenizer="mini"))
    assert [problem.id for problem in report.problems] == ["main:2"]  # without a limit no prompt is too long
    assert report.changes == {"RGBA with transparency laid on white": 1}
    said = "\n".join(lines("data", report))
    assert "\n    main:2: b.png: the given bytes is empty or not a picture" in said
    assert "prompt tokens, by the tokenizer of mini: least: " in said
    assert "pictures read with a change, RGBA with transparency laid on white: 1" in said
    odd = Problem("row", "s:\udce9.png", "no caption")
    "\n".join(lines("data", replace(report, problems=(odd,)))).encode()


def test_a_mix_alone_is_described_by_the_tokenizer_of_mini_and_holds_no_row_to_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path, [{"task_type": "t2i", "instruction": "word " * 1100, "output_image": "a.png"}])
    (tmp_path / "mix.yaml").write_text("data: [{path: rows.jsonl}]")
    ((_, report),) = check(tmp_path / "mix.yaml", [], CheckConfig(num_draws=10))
    assert report.is_clean
    assert report.tokenizer == "mini"
    assert report.prompt_tokens["most"] > 1024


def test_workers_find_the_same_and_a_limit_looks_at_rows_spread_over_the_source(
    tmp_path: Path, processor: Processor
) -> None:
    mixed = mixture(tmp_path, mixed_rows(12))
    alone = check_data(mixed, ReadConfig(), processor, CheckConfig())
    assert check_data(mixed, ReadConfig(), processor, CheckConfig(workers=2)) == alone
    few = check_data(mixed, ReadConfig(), processor, CheckConfig(max_rows=4))
    assert few.num_checked == 4
    assert few.sources[0].tasks == {"t2i": 4}  # rows 1, 4, 7, 10


def test_a_cache_that_cannot_be_written_to_is_never_reported_as_filled(
    tmp_path: Path, networks: Networks
) -> None:
    (tmp_path / "file").write_text("in the way")
    encoder = Encoder(networks, EncodeConfig(), 0, Cache(tmp_path / "file"))
    with pytest.raises(DataError, match=rf"the cache {tmp_path / 'file'} cannot be written to; make room"):
        fill_cache(mixture(tmp_path, mixed_rows(1)), ReadConfig(), encoder, FillConfig())


def test_a_filled_cache_holds_all_that_training_asks_for(tmp_path: Path, networks: Networks) -> None:
    rows = mixed_rows(6)
    rows[0]["instruction"] = "The image shows a thing"
    mixed = mixture(tmp_path, rows)
    read = ReadConfig(drop_text=0.3, strip_openings=0.5, chat_share=0.5, max_pixels=1024)
    encoder = Encoder(networks, EncodeConfig(), 0, Cache(tmp_path / "cache"))
    (tmp_path / "main" / "p4.png").write_bytes(b"damaged")
    report = fill_cache(mixed, read, encoder, FillConfig())
    assert [skipped.id for skipped in report.skipped] == ["main:5"]
    reader = Reader(mixed, read, encoder.keys)
    samples = [reader.read(number) for number in range(40)]
    for sample in samples:
        if isinstance(sample, Sample) and sample.target is not None:
            assert sample.text_entry is not None, sample
            assert all(p.entry is not None for p in (*sample.references, sample.target))
    again = fill_cache(mixed, read, encoder, FillConfig())
    assert again.num_made == 0
    assert again.num_found >= report.num_made
    with pytest.raises(ConfigError, match="no cache to fill"):
        fill_cache(mixed, read, Encoder(networks, EncodeConfig(), 0), FillConfig())
