"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from og2.errors import CheckpointError
from og2.files import replaced, write_text, written


def test_a_file_appears_whole_under_folders_that_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    with written(path) as place:
        place.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("bad"), KeyboardInterrupt()])
def test_a_file_that_was_not_finished_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "b.txt"
    write_text(path, "r\u00f4le")

    def half() -> None:
        with written(path) as place:
            place.write_text("ha")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_text(encoding="utf-8") == "r\u00f4le"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def write(*names: str) -> None:
        def fill(place: Path) -> None:
            place.mkdir()
            for name in names:
                (place / name).write_text(name)
                if name == "bad":
                    raise OSError("disk full")

        replaced(folder, fill)

    write("one", "two")
    write("three")
    assert [p.name for p in folder.iterdir()] == ["three"]
    with pytest.raises(CheckpointError, match="disk full; nothing has changed there"):
        write("four", "bad")
    assert [p.name for p in folder.iterdir()] == ["three"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    folder.rename(tmp_path / ".model.og2-old")  # as a process leaves it that is killed between the two moves
    with pytest.raises(CheckpointError):
        write("four", "bad")
    assert [p.name for p in folder.iterdir()] == ["three"]
