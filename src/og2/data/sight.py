"""What lies in each cell of a picture's grid, in words: what picture tokens are asked for in training.

Tokens that draw may be asked too: representation alignment (arXiv 2410.06940), with answers that a procedural
world knows exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from og2.world.palette import ARM_ANGLES_DEG, DIRECTIONS, MOUTHS
from og2.world.scenes import boxes_of
from og2.world.spec import ALL_SHAPES, COLORS, FILLS, SHAPES, SIZES, Scene

_COUNTS = tuple(str(number) for number in range(9))
_BEINGS = ("creature", "gizmo", "plate")


@dataclass(frozen=True)
class CellWords:
    """The words that a world's cells are asked for, kind by kind; index 0 of each kind is nothing."""

    words: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, world: str) -> CellWords:
        """Shape, colour and size; of the full world also fills, creatures, gizmos and plates."""
        if world == "plain":
            return cls((tuple(SHAPES), tuple(COLORS), tuple(SIZES)))
        what = (*ALL_SHAPES, *_BEINGS)
        arms = tuple(ARM_ANGLES_DEG)
        creature = (MOUTHS, DIRECTIONS, arms, arms, _COUNTS, _COUNTS)
        return cls((what, tuple(COLORS), tuple(SIZES), tuple(FILLS), *creature))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Classes of each kind, nothing included."""
        return tuple(1 + len(known) for known in self.words)


def missed(scores: Tensor, labels: Tensor, asked: CellWords) -> Tensor:
    """Cross-entropy of scores (N, sum of sizes) with labels (N, kinds of word), summed over both."""
    kinds = zip(scores.split(asked.sizes, dim=-1), labels.T, strict=True)
    return torch.stack([functional.cross_entropy(*kind, reduction="sum") for kind in kinds]).sum()


def cell_labels(scene: Scene, cells: int, asked: CellWords) -> Tensor:
    """What has its centre in each cell of a grid: (cells * cells, kinds of word); 0 = nothing."""
    labels = torch.zeros(cells * cells, len(asked.words), dtype=torch.long)
    for (x, y), words in zip(_centres(scene), _words(scene, asked), strict=True):
        cell = min(int(y * cells), cells - 1) * cells + min(int(x * cells), cells - 1)
        labels[cell] = word_indices(words, asked)
    return labels


def covered_labels(scene: Scene, cells: int, asked: CellWords) -> Tensor:
    """What covers the middle of each cell with its upright box: (cells * cells, kinds of word); 0 = nothing.

    Of several the last one painted. What is smaller than a cell labels the cell of its centre.
    """
    labels = cell_labels(scene, cells, asked)
    middles = (torch.arange(cells) + 0.5) / cells
    for (left, top, right, bottom), words in zip(boxes_of(scene), _words(scene, asked), strict=True):
        rows, columns = (middles > top) & (middles < bottom), (middles > left) & (middles < right)
        labels[(rows[:, None] & columns).flatten()] = word_indices(words, asked)
    return labels


def _centres(scene: Scene) -> list[tuple[float, float]]:
    """Of all subjects, in the order of `boxes_of`."""
    middles = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in boxes_of(scene)]
    return [(o.x, o.y) for o in scene.objects] + middles[len(scene.objects) :]


def _words(scene: Scene, asked: CellWords) -> list[tuple[str | None, ...]]:
    """What is said of all subjects, in the order of `boxes_of`; kinds at the end may be left out."""
    found: list[tuple[str | None, ...]] = [
        (o.shape, o.color, o.size, o.fill_name)[: len(asked.words)] for o in scene.objects
    ]
    found += [("gizmo", g.body_color) for g in scene.gizmos]
    found += [("plate",) for _ in scene.plates]
    for one in scene.creatures:
        pose, body = one.pose, one.anatomy
        details = (pose.mouth, pose.facing, pose.left_arm, pose.right_arm)
        found.append(("creature", None, None, None, *details, str(body.spot_count), str(body.horn_count)))
    return found


def word_indices(words: tuple[str | None, ...], asked: CellWords) -> Tensor:
    """The class of each kind of word, 0 where nothing is said."""
    said = (*words, *[None] * (len(asked.words) - len(words)))
    return torch.tensor([0 if w is None else 1 + k.index(w) for k, w in zip(asked.words, said, strict=True)])
