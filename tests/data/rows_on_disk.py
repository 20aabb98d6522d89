"""Small data sets on disk, with pictures of the world."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from og2.data.world_source import scenes
from og2.world.render import render

MODEL = Path(__file__).parents[2] / "src" / "og2" / "checkpoints" / "mini"


def picture_bytes(index: int, size: tuple[int, int] = (48, 64)) -> bytes:
    """The PNG file of a scene; size (height, width)."""
    out = io.BytesIO()
    Image.fromarray(render(scenes(5, index, 1)[0], size).numpy()).save(out, "PNG")
    return out.getvalue()


def write_jsonl(folder: Path, rows: list[dict], name: str = "rows.jsonl") -> Path:
    """The rows as a JSONL file, and every picture they name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, row in enumerate(rows):
        for place, picture in enumerate([*(row.get("input_images") or []), row.get("output_image")]):
            if picture and not (folder / picture).exists() and ".." not in picture:
                (folder / picture).write_bytes(picture_bytes(10 * number + place))
    return path


def mixed_rows(count: int, name: str = "p") -> list[dict]:
    """Rows of three tasks in turn: drawings, edits, questions."""
    kinds = (
        lambda i: {"task_type": "t2i", "instruction": f"a thing {i}", "output_image": f"{name}{i}.png"},
        lambda i: {
            "task_type": "edit",
            "instruction": f"change thing {i}",
            "input_images": [f"{name}{i}_in.png"],
            "output_image": f"{name}{i}.png",
        },
        lambda i: {
            "task_type": "text",
            "instruction": "what is this?",
            "input_images": [f"{name}{i}_in.png"],
            "output_text": f"thing {i}",
        },
    )
    return [kinds[i % 3](i) for i in range(count)]


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    """A tar file of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, held in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(held)
            tar.addfile(info, io.BytesIO(held))
    return path
