"""The mixture: shares that hold, rows once per epoch, draws that depend on their number; the mix file."""

from __future__ import annotations

import pickle
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_on_disk import mixed_rows, write_jsonl

from og2.config import build
from og2.data.mix import BLOCK, MixConfig, Mixture, open_mix, permuted, read_mix
from og2.data.sources import SOURCES, Place
from og2.data.world_source import WorldOptions, WorldSource
from og2.errors import ConfigError


def world(name: str, rows: int) -> WorldSource:
    return WorldSource(Place(name, None, None, None), WorldOptions(rows=rows))


def mixture(weights: dict[str, float], rows: int = 977, seed: int = 3) -> Mixture:
    return Mixture([world(name, rows) for name in weights], list(weights.values()), seed)


@pytest.mark.parametrize("seed", [7])
def test_asked_ratios_are_met_within_one_percent_over_100k_draws(seed: int) -> None:
    asked = {"a": 0.5, "b": 0.3, "c": 0.14, "d": 0.05, "e": 0.01}
    mixed = mixture(asked, seed=seed)
    found = Counter(mixed.draw(number).source for number in range(100_000))
    for place, share in enumerate(asked.values()):
        assert abs(found[place] / 100_000 / share - 1) < 0.01, (place, found[place])


def test_ratios_hold_in_every_stretch_of_a_lane_and_not_only_in_the_end() -> None:
    mixed = mixture({"a": 0.7, "b": 0.3})
    for stride in (1, 2, 8, 13, 64):
        lane = [mixed.draw(5 + stride * k).source for k in range(600)]
        for first in range(0, 600, 100):
            assert 12 <= sum(lane[first : first + 100]) <= 48, (stride, first)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**64 - 1))
def test_a_permutation_visits_every_place_once(length: int, key: int) -> None:
    assert sorted(permuted(i, length, key) for i in range(length)) == list(range(length))


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 5)), min_size=1, max_size=4), st.integers(0, 99)
)
def test_every_row_comes_once_per_epoch_in_an_order_of_its_own(
    parts: list[tuple[int, float]], seed: int
) -> None:
    sources = [world(f"s{i}", rows) for i, (rows, _) in enumerate(parts)]
    mixed = Mixture(sources, [weight for _, weight in parts], seed)
    seen: dict[tuple[int, int], list[int]] = {}
    for number in range(1500):
        draw = mixed.draw(number)
        seen.setdefault((draw.source, draw.epoch), []).append(draw.index)
    drawn = Counter(source for (source, _), rows in seen.items() for _ in rows)
    for (source, epoch), rows in seen.items():
        assert len(set(rows)) == len(rows)
        if (epoch + 1) * parts[source][0] + 256 <= drawn[source]:  # draws of one window are not in order
            assert len(rows) == parts[source][0]


def test_a_draw_depends_on_its_number_and_the_seed_alone() -> None:
    first, again = mixture({"a": 1, "b": 2}), pickle.loads(pickle.dumps(mixture({"a": 1, "b": 2})))
    numbers = [0, 1, 17, 4096, BLOCK - 1, BLOCK, 3 * BLOCK + 5]
    assert [first.draw(n) for n in reversed(numbers)] == [again.draw(n) for n in numbers][::-1]
    other = mixture({"a": 1, "b": 2}, seed=4)
    assert [other.draw(n) for n in range(20)] != [first.draw(n) for n in range(20)]
    assert other.fingerprint != first.fingerprint
    assert again.fingerprint == first.fingerprint


def test_shares_of_a_block_add_up_however_odd_the_weights() -> None:
    mixed = mixture({"a": 1e-9, "b": 1.0, "c": 1 / 3})
    assert sum(mixed.shares) == 1.0
    assert min(mixed.shares) == 1 / BLOCK


def test_the_official_mix_is_read_with_directories_files_and_nested_mixes(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "many" / "deep", mixed_rows(4), "one.jsonl")
    write_jsonl(tmp_path / "many", mixed_rows(2), "two.jsonl")
    write_jsonl(tmp_path / "edits", mixed_rows(3), "edits.jsonl")
    (tmp_path / "edits" / "inner.yml").write_text(
        "data:\n - {path: edits.jsonl, type: edit, ratio: 1}\n - {kind: world, type: t2i, ratio: 3}\n"
    )
    (tmp_path / "mix.yml").write_text(
        "data:\n - {path: many, type: t2i, ratio: 0.5}\n - {path: edits/inner.yml, type: edit, ratio: 0.5}\n"
    )
    mixed = open_mix(read_mix(tmp_path / "mix.yml"), 0, tmp_path)
    assert [(s.name, len(s)) for s in mixed.sources] == [("many", 6), ("edits", 3), ("world", 1_000_000)]
    assert mixed.shares == (0.5, 0.125, 0.375)
    assert {mixed.sources[0].row(i).id for i in range(6)} >= {"many/deep/one.jsonl:1", "many/two.jsonl:2"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"data": [{"path": "x.jsonl", "ration": 1}]}, "did you mean 'ratio'"),
        ({"data": [{"kind": "jsonlines"}]}, "did you mean 'jsonl'"),
        ({"data": [{"kind": "world", "options": {"row": 3}}]}, "did you mean 'rows'"),
        ({"data": [{"kind": "world", "ratio": 0}]}, "must be a positive number"),
        ({"data": [{"path": "gone.jsonl"}]}, "does not exist"),
        ({"data": [{"kind": "jsonl"}]}, "needs a path"),
        ({"data": []}, "no entries"),
        ({"data": [{"kind": "world"}, {"kind": "world"}]}, "two sources are named world"),
        ({"data": [{"kind": "world", "type": "video"}]}, "none of t2i, edit, ic, text, critique"),
    ],
)
def test_a_wrong_mix_is_refused_in_one_sentence(tree: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        open_mix(build(MixConfig, tree), 0, tmp_path)


def test_a_mix_that_contains_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("data: [{path: b.yml}]")
    (tmp_path / "b.yml").write_text("data: [{path: a.yml}]")
    with pytest.raises(ConfigError, match="contains itself"):
        open_mix(read_mix(tmp_path / "a.yml"), 0, tmp_path)


def test_type_and_root_hold_in_mixes_inside_unless_they_say_otherwise(tmp_path: Path) -> None:
    row = {"instruction": "x", "output_image": "p.png"}
    for folder in (tmp_path, tmp_path / "in"):
        write_jsonl(folder, [row])
    (tmp_path / "in" / "p.png").write_bytes(b"that beside the rows")
    (tmp_path / "in" / "in.yml").write_text(
        "data: [{path: rows.jsonl, name: a}, {path: rows.jsonl, name: b, type: ic}]"
    )
    outer = {"root": ".", "data": [{"path": "in/in.yml", "type": "edit"}]}
    first, second = open_mix(build(MixConfig, outer), 0, tmp_path).sources
    assert (first.row(0).task, second.row(0).task) == ("edit", "ic")
    assert first.example(0).output_picture == (tmp_path / "p.png").read_bytes()
    (tmp_path / "in" / "in.yml").write_text("root: .\ndata: [{path: rows.jsonl}]")
    (own,) = open_mix(build(MixConfig, outer), 0, tmp_path).sources
    assert own.example(0).output_picture == b"that beside the rows"


@pytest.mark.parametrize("more", [{"name": "n"}, {"kind": "folder"}, {"options": {"rows": 1}}])
def test_what_would_do_nothing_on_a_mix_inside_is_refused(more: dict, tmp_path: Path) -> None:
    (tmp_path / "in.yml").write_text("data: [{kind: world}]")
    with pytest.raises(ConfigError, match=f"another mix, for which {next(iter(more))} would do nothing"):
        open_mix(build(MixConfig, {"data": [{"path": "in.yml", **more}]}), 0, tmp_path)


def test_mixtures_that_draw_other_rows_have_other_fingerprints() -> None:
    def fingerprint(**entry: object) -> str:
        tree = {"data": [{"kind": "world", "name": "w", **entry}]}
        return open_mix(build(MixConfig, tree), 0).fingerprint

    changes = (
        {}, {"options": {"seed": 5}}, {"options": {"world": "full"}}, {"type": "edit"}, {"path": "elsewhere"}
    )  # fmt: skip
    assert len({fingerprint(**change) for change in changes}) == len(changes)
    assert fingerprint() == fingerprint(ratio=2.0)


def test_every_kind_of_source_can_be_imported_by_its_registered_names() -> None:
    for name in SOURCES:
        module = import_module(SOURCES[name].module)
        assert isinstance(getattr(module, SOURCES[name].source), type)
        assert isinstance(getattr(module, SOURCES[name].options), type)
