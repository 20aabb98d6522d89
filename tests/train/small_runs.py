"""Small runs of the real engine: a tiny model in the published layout, the mini-world as rows."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from og2.config import build, override
from og2.train.checkpoint import Snapshot, finished, read_group, read_values
from og2.train.recipe import TransformerRecipe

MODEL = Path(__file__).parents[1] / "golden" / "pipeline" / "model"
SIZES = [[32, 32], [32, 48], [48, 32]]


def recipe_tree(folder: Path, tasks: tuple[str, ...] = ("t2i", "edit"), **sections: Any) -> dict[str, Any]:
    """A recipe as YAML would give it; sections are merged over it."""
    entries = [
        {"kind": "world", "name": task, "type": task, "options": {"sizes_px": SIZES}} for task in tasks
    ]
    tree: dict[str, Any] = {
        "run": {"folder": str(folder), "threads": 1, "seed": 5, "log_every": 2, "eval_every": 1000},
        "optim": {"steps": 3, "lr": 1e-4, "warmup": 1, "schedule": "constant"},
        "data": {
            "mix": {"data": entries},
            "loader": {"packs_per_step": 4, "prefetch": 0, "packing": {"budget": 160, "waiting": 0}},
        },
        "model": str(MODEL),
        "compute": {"precision": "fp32", "device": "cpu"},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values} if isinstance(values, dict) else values
    return tree


def recipe(folder: Path, *changes: str, **options: Any) -> TransformerRecipe:
    """The recipe, with overrides of the form section.key=value."""
    return build(TransformerRecipe, override(recipe_tree(folder, **options), changes), "small")


def last_snapshot(folder: Path) -> Snapshot | None:
    """The newest complete checkpoint under `folder` as plain tensors, or None when there is none."""
    folders = finished(folder)
    if not folders:
        return None
    groups = {group: read_group(folders[-1], group, {}) for group in ("parameters", "average", "optimizer")}
    return Snapshot(groups, read_values(folders[-1]))


def in_processes(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Runs `work(*arguments)` in `count` forked processes that form a process group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("fork")
    processes = [
        context.Process(target=_member, args=(rank, count, port, work, arguments)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=500)
    assert [process.exitcode for process in processes] == [0] * count


def _member(rank: int, count: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    names = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}
    code = 0
    try:
        torch.set_num_threads(1)
        work(*arguments)
    except BaseException:  # noqa: BLE001  a child that must end without the parent's handlers
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)  # gloo's threads may abort an interpreter that ends the usual way
