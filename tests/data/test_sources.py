"""Rows from every kind of source, and one clear sentence for every fault."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_on_disk import mixed_rows, picture_bytes, write_jsonl, write_shard

from og2.data.rows import Source, parse_line, parse_row
from og2.data.sources import open_source
from og2.errors import ConfigError, DataError


def opened(kind: str, path: Path | None = None, **more: Any) -> Source:
    known = {"name": "s", "root": None, "task": None, "options": {}} | more
    return open_source(kind, known["name"], path, known["root"], known["task"], known["options"])


def captioned(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "deep/c")):
        (folder / f"{name}.png").write_bytes(picture_bytes(number))
        (folder / f"{name}.txt").write_text(f"picture {name}\n")
    return folder


def shard(path: Path) -> Path:
    official = {
        "task_type": "edit", "instruction": "change it",
        "input_images": ["input.png"], "output_image": "output.png",
    }  # fmt: skip
    return write_shard(
        path,
        {
            "x/1.txt": b"a picture", "x/1.png": picture_bytes(1),
            "x/2.json": json.dumps(official).encode(),
            "x/2.input.png": picture_bytes(2), "x/2.output.png": picture_bytes(3),
        },
    )  # fmt: skip


def hub(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict(
        {
            "instruction": ["one", "two"],
            "before": [[{"bytes": picture_bytes(0), "path": None}], []],
            "after": [{"bytes": picture_bytes(i), "path": None} for i in (1, 2)],
        },
        features=datasets.Features(
            instruction=datasets.Value("string"),
            before=datasets.List(datasets.Image()),
            after=datasets.Image(),
        ),
    )
    table.save_to_disk(str(folder))
    return folder


def every_source(folder: Path) -> dict[str, Source]:
    columns = {"input_images": "before", "output_image": "after"}
    return {
        "jsonl": opened("jsonl", write_jsonl(folder / "j", mixed_rows(3))),
        "folder": opened("folder", captioned(folder / "f")),
        "webdataset": opened("webdataset", shard(folder / "w" / "0.tar")),
        "world": opened("world", options={"rows": 5}),
        "huggingface": opened("huggingface", hub(folder / "h"), task="edit", options=columns),
    }


def test_every_source_gives_its_rows_in_any_order_and_in_another_process(tmp_path: Path) -> None:
    for kind, source in every_source(tmp_path).items():
        assert isinstance(source, Source)
        examples = [source.example(i) for i in range(len(source))]
        ids = [e.row.id for e in examples]
        assert len(set(ids)) == len(ids), kind
        assert all(row_id.startswith("s") for row_id in ids)
        again = pickle.loads(pickle.dumps(source))
        for index in reversed(range(len(source))):
            other = again.example(index)
            assert other.row == examples[index].row == source.row(index)
            assert len(other.input_pictures) == len(other.row.input_images)
            assert (other.output_picture is None) == (other.row.output_image is None)
            for mine, its in zip(
                [*other.input_pictures, other.output_picture],
                [*examples[index].input_pictures, examples[index].output_picture],
                strict=True,
            ):
                assert np.array_equal(mine, its) if isinstance(mine, np.ndarray) else mine == its


def test_lines_are_counted_as_editors_do_and_blank_ones_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    row = b'{"instruction": "x", "output_text": "y", "task_type": "text"}'
    path.write_bytes(b"\n" + row + b"\n  \n" + row)
    source = opened("jsonl", path)
    assert [source.row(i).id for i in range(len(source))] == ["s:2", "s:4"]


def test_a_json_file_with_one_list_is_read_like_lines(tmp_path: Path) -> None:
    rows = mixed_rows(4)
    lines = opened("jsonl", write_jsonl(tmp_path, rows))
    (tmp_path / "list.json").write_text(json.dumps(rows))
    listed = opened("jsonl", tmp_path / "list.json")
    assert [listed.row(i) for i in range(4)] == [lines.row(i) for i in range(4)]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1], "holds list"),
        ({"output_image": "a.png", "task_type": "t2i"}, "s:7 has no instruction"),
        ({"instrution": "x", "output_image": "a.png"}, "did you mean 'instrution'"),
        ({"instruction": "x", "task_type": "t2i"}, "either output_image or output_text"),
        ({"instruction": "x", "output_image": "a", "output_text": "b"}, "either output_image or output_text"),
        ({"instruction": "x", "output_image": "a"}, "no task_type"),
        ({"instruction": "x", "output_image": 3, "task_type": "t2i"}, "output_image=3 is int"),
        ({"instruction": "x", "output_image": "a", "input_images": [1]}, "not a list of picture names"),
    ],
)
def test_a_wrong_row_is_refused_with_its_source_and_line(tree: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_row(tree, "s:7", "s")
    assert "s:7" in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_line_gives_anything_but_a_row_or_a_data_error(line: bytes) -> None:
    try:
        said = parse_line(line, "s:1", "s", "t2i").id
    except DataError as error:
        said = str(error)
    assert "s:1" in said


@pytest.mark.parametrize("name", ["../secret.png", "{outside}/secret.png", "link.png"])
def test_a_path_outside_the_data_root_is_refused(name: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    folder.mkdir()
    (outside / "secret.png").write_bytes(picture_bytes(0))
    (tmp_path / "secret.png").write_bytes(picture_bytes(0))
    os.symlink(outside / "secret.png", folder / "link.png")
    row = {"task_type": "t2i", "instruction": "x", "output_image": name.format(outside=outside)}
    (folder / "r.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"s:1: .* leads outside the data root"):
        opened("jsonl", folder / "r.jsonl").example(0)
    if "{outside}" in name:
        found = opened("jsonl", folder / "r.jsonl", root=tmp_path).example(0)
        assert found.output_picture == picture_bytes(0)


def test_missing_files_and_captions_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"task_type": "t2i", "instruction": "x", "output_image": "gone.png"}')
    with pytest.raises(DataError, match=r"s:1: cannot read gone.png"):
        opened("jsonl", tmp_path / "r.jsonl").example(0)
    folder = captioned(tmp_path / "f")
    (folder / "a.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(DataError, match=r"s:a.png: its caption is not UTF-8 \(byte 3 is 0xe9\)"):
        opened("folder", folder).row(0)
    (folder / "a.txt").write_text("caf\u00e9\n", encoding="utf-8-sig")
    assert opened("folder", folder).row(0).instruction == "caf\u00e9"
    (folder / "b.txt").unlink()
    with pytest.raises(DataError, match=r"s:b.png: cannot read b.txt"):
        opened("folder", folder).row(1)


def test_a_folder_of_inputs_makes_edits(tmp_path: Path) -> None:
    captioned(tmp_path / "after")
    captioned(tmp_path / "before")
    example = opened("folder", tmp_path / "after", options={"inputs": ["before"]}).example(0)
    assert example.row.task == "edit"
    assert example.input_pictures == (picture_bytes(0),)


def test_a_truncated_shard_and_one_with_pickles_are_refused(tmp_path: Path) -> None:
    whole = shard(tmp_path / "0.tar").read_bytes()
    for kept in (len(whole) // 3, 700, 10):
        (tmp_path / "cut.tar").write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"cut.tar (is damaged|ends within)"):
            opened("webdataset", tmp_path / "cut.tar")
    with tarfile.open(tmp_path / "0.tar") as tar:
        boundary = tar.getmembers()[2].offset
    (tmp_path / "cut.tar").write_bytes(whole[:boundary])
    with pytest.raises(DataError, match="ends without a tar file's end mark"):
        opened("webdataset", tmp_path / "cut.tar")
    (tmp_path / "noise.tar").write_bytes(os.urandom(4096))
    with pytest.raises(DataError, match=r"noise.tar is damaged or no plain tar"):
        opened("webdataset", tmp_path / "noise.tar")
    with pytest.raises(DataError, match="a pickled object"):
        opened("webdataset", write_shard(tmp_path / "p.tar", {"1.txt": b"x", "1.pyd": b"y"}))


def test_a_shard_row_says_what_it_lacks(tmp_path: Path) -> None:
    held = {"1.png": b"x", "2.txt": b"y", "3.json": b'{"instruction": "z", "output_image": "png"}'}
    source = opened("webdataset", write_shard(tmp_path / "0.tar", held), task="t2i")
    for index, message in enumerate(("neither a caption", "has 0 pictures", "has no member png")):
        with pytest.raises(DataError, match=rf"s/0.tar:{index + 1}.*{message}"):
            source.example(index)


def test_empty_places_are_refused(tmp_path: Path) -> None:
    for kind in ("jsonl", "folder", "webdataset"):
        with pytest.raises(ConfigError, match="source s"):
            opened(kind, tmp_path)
    with pytest.raises(ConfigError, match="has no column aftr; it has instruction, before, after"):
        opened("huggingface", hub(tmp_path / "h"), options={"output_image": "aftr"})


BROKEN = [
    ('{"instruction": "a \\ud83d cat", "output_image": "a.png"}', "instruction holds '.ud83d' at place 3"),
    ('{"instruction": "x", "output_image": "a\\ud800.png"}', "output_image holds '.ud800'"),
    ('{"instruction": "x", "output_image": "a.png", "input_images": ["\\udc00"]}', "a name in input_images"),
    ('{"\\ud800": 1, "output_image": "a.png"}', "no instruction; known: '.ud800', output_image"),
    ('{"instruction": "x", "output_image": "a\\u0000b.png"}', r"cannot read 'a.x00b.png'"),
    ('{"instruction": "x", "output_image": "loop.png"}', "cannot read loop.png"),
    ("[" * 100_000, "is not valid JSON"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_what_no_file_or_prompt_can_be_is_a_fault_of_its_row_alone(
    line: str, message: str, tmp_path: Path
) -> None:
    os.symlink("loop.png", tmp_path / "loop.png")
    (tmp_path / "r.jsonl").write_text(line)
    with pytest.raises(DataError, match=message) as caught:
        opened("jsonl", tmp_path / "r.jsonl", task="t2i").example(0)
    assert str(caught.value).startswith("s:1")
    str(caught.value).encode()


@pytest.mark.parametrize("names", ["1.txt 1.png 1.txt 1.png", "1.txt 2.txt 1.png 2.png"])
def test_a_member_or_key_that_a_shard_holds_twice_is_refused(names: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in names.split():
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=r"0.tar holds 1.(txt|png) where the row 1 is complete"):
        opened("webdataset", tmp_path / "0.tar")


def test_shards_of_one_name_in_two_folders_give_ids_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_shard(tmp_path / folder / "0.tar", {"1.txt": b"x", "1.png": b"y"})
    source = opened("webdataset", tmp_path)
    assert [source.row_id(i) for i in range(2)] == ["s/a/0.tar:1", "s/b/0.tar:1"]


def test_pictures_that_are_links_are_read_where_the_root_of_the_mix_holds_them(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for file in captioned(tmp_path / "real").glob("a.*"):
        os.symlink(file, tmp_path / "links" / file.name)
    with pytest.raises(DataError, match=r"leads outside the data root .* set `root` in the mix"):
        opened("folder", tmp_path / "links").example(0)
    example = opened("folder", tmp_path / "links", root=tmp_path, options={"inputs": ["links"]}).example(0)
    assert (example.row.instruction, example.output_picture) == ("picture a", picture_bytes(0))
    assert example.input_pictures == (picture_bytes(0),)


def test_copies_that_other_programs_leave_behind_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()
    held = {"._1.txt": b"junk", "1.txt": b"x", "._1.png": b"junk", "1.png": b"y"}
    for folder in (tmp_path, tmp_path / ".ipynb_checkpoints"):
        write_jsonl(folder, mixed_rows(1))
        write_shard(folder / "0.tar", held)
    (tmp_path / "._p0.png").write_bytes(b"junk")
    for kind in ("jsonl", "folder", "webdataset"):
        assert len(opened(kind, tmp_path)) == 1, kind


@pytest.mark.parametrize(
    ("kind", "name"), [("jsonl", "b.jsonl.gz"), ("webdataset", "1.tar.gz"), ("webdataset", "d/2.tgz")]
)
def test_a_compressed_file_among_the_rows_is_refused_and_not_passed_over(
    kind: str, name: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path, mixed_rows(1))
    write_shard(tmp_path / "0.tar", {"1.txt": b"x", "1.png": b"y"})
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ConfigError, match=rf"{name} is compressed .*; unpack it, or take it out"):
            opened(kind, path)


def test_a_list_of_rows_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = json.dumps(mixed_rows(2), indent=1)
    (tmp_path / "r.json").write_text(text, encoding="utf-8-sig")
    assert [opened("jsonl", tmp_path / "r.json").row(i).task for i in range(2)] == ["t2i", "edit"]
