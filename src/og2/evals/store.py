"""A run of the benchmark on disk: the model's pictures and answers, and nothing that can be worked out again.

    FOLDER/settings.json                   what was asked of which model; a run only resumes under the same
    FOLDER/pictures/TASK/FAMILY/0007.png   one picture an item
    FOLDER/answers/TASK/FAMILY/0007.json   one answer in words an item

Every file appears whole or not at all (written aside, then moved), so a run can be killed at any moment;
scores are always computed from these files, hence a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from og2.errors import RequestError
from og2.files import write_text, written

_SETTINGS = "settings.json"
Picture = NDArray[np.uint8]


class Store:
    """The folder of one run."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Opens or makes the folder.   Raises: RequestError when it holds a run with other settings."""
        self.folder = folder
        path = folder / _SETTINGS
        wanted = json.loads(json.dumps(settings))
        if path.exists():
            found = _settings_in(path)
            other = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            if other:
                text = ", ".join(f"{k} was {found.get(k)!r}, is {wanted.get(k)!r}" for k in other)
                raise RequestError(f"{folder} holds another run ({text}); choose another folder")
        else:
            write_text(path, json.dumps(wanted, indent=1))

    @staticmethod
    def is_run(folder: Path) -> bool:
        """Whether the folder holds a run."""
        return (folder / _SETTINGS).is_file()

    def has_picture(self, key: str) -> bool:
        """Whether the item's picture is there."""
        return self.picture_path(key).exists()

    def picture_path(self, key: str) -> Path:
        """Where the item's picture is."""
        return self.folder / "pictures" / f"{key}.png"

    def put_picture(self, key: str, image: Image.Image) -> None:
        """Keeps an item's picture as PNG."""
        with written(self.picture_path(key)) as place:
            image.convert("RGB").save(place, format="PNG")

    def picture(self, key: str) -> Picture | None:
        """The item's picture (H, W, 3), or None when it is not there or is no readable picture."""
        try:
            with Image.open(self.picture_path(key)) as opened:
                return np.asarray(opened.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return None

    def answer(self, key: str) -> Any:
        """What was kept as the item's answer, or None when it is not there or cannot be read."""
        try:
            return json.loads(self._answer_path(key).read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put_answer(self, key: str, answer: Any) -> None:
        """Keeps an item's answer: a text or a truth value."""
        write_text(self._answer_path(key), json.dumps({"answer": answer}))

    def _answer_path(self, key: str) -> Path:
        return self.folder / "answers" / f"{key}.json"


def _settings_in(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found)
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(
            f"{path} does not say what this run was ({error}); choose another folder"
        ) from error
