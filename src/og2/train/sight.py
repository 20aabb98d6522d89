"""What lies in each cell of a picture's grid, in words: what picture tokens are asked for in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from og2.world.creatures import creature_box
from og2.world.palette import ARM_ANGLES_DEG, DIRECTIONS, MOUTHS
from og2.world.props import gizmo_box, plate_box
from og2.world.scenes import Box
from og2.world.spec import ALL_SHAPES, COLORS, FILLS, SHAPES, SIZES, Scene

_COUNTS = tuple(str(number) for number in range(9))
_BEINGS = ("creature", "gizmo", "plate")


@dataclass(frozen=True)
class CellWords:
    """The words that a world's cells are asked for, kind by kind; index 0 of each kind is nothing."""

    words: tuple[tuple[str, ...], ...]
    has_beings: bool

    @classmethod
    def of(cls, world: str) -> CellWords:
        """Shape, colour and size; of the full world also fills, creatures, gizmos and plates."""
        if world == "plain":
            return cls((tuple(SHAPES), tuple(COLORS), tuple(SIZES)), False)
        what = (*ALL_SHAPES, *_BEINGS)
        arms = tuple(ARM_ANGLES_DEG)
        creature = (MOUTHS, DIRECTIONS, arms, arms, _COUNTS, _COUNTS)
        return cls((what, tuple(COLORS), tuple(SIZES), tuple(FILLS), *creature), True)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Classes of each kind, nothing included."""
        return tuple(1 + len(known) for known in self.words)


def cell_labels(scene: Scene, cells: int, asked: CellWords) -> Tensor:
    """What has its centre in each cell of a grid: (cells * cells, kinds of word); 0 = nothing."""
    labels = torch.zeros(cells * cells, len(asked.words), dtype=torch.long)
    for x, y, words in _found(scene, asked):
        cell = min(int(y * cells), cells - 1) * cells + min(int(x * cells), cells - 1)
        pairs = zip(asked.words, words, strict=False)
        labels[cell] = 0
        labels[cell, : len(words)] = torch.tensor([0 if w is None else 1 + k.index(w) for k, w in pairs])
    return labels


def _found(scene: Scene, asked: CellWords) -> list[tuple[float, float, tuple[str | None, ...]]]:
    """Centre and words of everything in the scene."""
    number = 4 if asked.has_beings else 3
    found: list[tuple[float, float, tuple[str | None, ...]]] = [
        (o.x, o.y, (o.shape, o.color, o.size, o.fill_name)[:number]) for o in scene.objects
    ]
    if not asked.has_beings:
        return found
    found += [(*_middle(gizmo_box(g)), ("gizmo", g.body_color)) for g in scene.gizmos]
    found += [(*_middle(plate_box(p)), ("plate",)) for p in scene.plates]
    for one in scene.creatures:
        pose, body = one.pose, one.anatomy
        details = (pose.mouth, pose.facing, pose.left_arm, pose.right_arm)
        counts = (str(body.spot_count), str(body.horn_count))
        found.append((*_middle(creature_box(one)), ("creature", None, None, None, *details, *counts)))
    return found


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
