"""Pictures of the whole world alone, without words: what a VAE learns from.

Scene i of a stream is a pure function of (seed, i), and of the training split. Kinds:
  plain    the plain world, one in ten without objects
  drawing  what a prompt of the full world asks for
  asked    that and nothing else, on a plain background
  edit     the source or the target of an edit of the full world
  context  a reference or the target of an in-context task
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from numpy.random import Generator
from torch import Tensor

from og2.data.world_source import item_rng, pictures
from og2.errors import ConfigError
from og2.world.scenes import boxes_of
from og2.world.spec import (
    Scene,
    plainly,
    sample_edit,
    sample_incontext,
    sample_prompt,
    sample_scene,
)

EMPTY_SHARE = 0.1


@dataclass(frozen=True)
class PictureView:
    """One way to show pictures: how often a step takes it, how many, how large, and of what kinds.

    Units: px, the side that pictures are rendered at; crop_px, the side of the square near one of the
    picture's subjects that is seen (0: the whole picture). kinds: odds of PICTURE_KINDS.
    """

    share: float
    batch: int
    px: int = 128
    crop_px: int = 0
    kinds: dict[str, float] = field(default_factory=lambda: {"drawing": 1.0, "edit": 1.0, "context": 1.0})

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(PICTURE_KINDS))
        if unknown or not self.kinds or min(self.kinds.values()) < 0 or not sum(self.kinds.values()):
            raise ConfigError(f"kinds={self.kinds}; odds of {', '.join(PICTURE_KINDS)} are allowed")
        if self.batch < 2 or self.share < 0 or not 0 <= self.crop_px <= self.px:
            raise ConfigError(
                f"a view has batch={self.batch}, share={self.share}, crop_px={self.crop_px} of px={self.px}; "
                "batch starts at 2, share at 0, crop_px is at most px"
            )


def view_scenes(view: PictureView, seed: int, first: int, split: str = "train") -> list[Scene]:
    """The scenes `first` to `first + batch - 1` of a view."""
    return [view_scene(view, item_rng(seed, index), split) for index in range(first, first + view.batch)]


def view_scene(view: PictureView, rng: Generator, split: str = "train") -> Scene:
    """A random scene of one of the view's kinds."""
    names = tuple(view.kinds)
    odds = [view.kinds[name] / sum(view.kinds.values()) for name in names]
    return PICTURE_KINDS[names[int(rng.choice(len(names), p=odds))]](rng, split)


def view_pictures(view: PictureView, scenes: Sequence[Scene], generator: torch.Generator) -> Tensor:
    """The scenes as the view shows them: float (B, 3, side, side) in [-1, 1]."""
    whole = pictures(scenes, view.px)
    if not view.crop_px:
        return whole
    cut = [_crop(p, s, view.crop_px, generator) for p, s in zip(whole, scenes, strict=True)]
    return torch.stack(cut)


def _crop(picture: Tensor, scene: Scene, side: int, generator: torch.Generator) -> Tensor:
    size = picture.shape[-1]
    which, dx, dy = torch.rand(3, generator=generator).tolist()
    boxes = boxes_of(scene) or [(0.0, 0.0, 1.0, 1.0)]
    box = boxes[int(which * len(boxes))]
    left, top = (
        min(max(0, round(low * size + jitter * (high - low) * size - side / 2)), size - side)
        for low, high, jitter in ((box[0], box[2], dx), (box[1], box[3], dy))
    )
    return picture[:, top : top + side, left : left + side]


def _plain(rng: Generator, split: str) -> Scene:
    scene = sample_scene(rng, split=split)
    return replace(scene, objects=()) if rng.random() < EMPTY_SHARE else scene


def _drawing(rng: Generator, split: str) -> Scene:
    return sample_prompt(rng, None, split).scene


def _asked(rng: Generator, split: str) -> Scene:
    return plainly(rng, sample_prompt(rng, None, split))


def _edit(rng: Generator, split: str) -> Scene:
    edit = sample_edit(rng, None, split, "full")
    return edit.target if rng.random() < 0.5 else edit.source


def _context(rng: Generator, split: str) -> Scene:
    made = sample_incontext(rng, None, split)
    shown = (*made.references, made.target)
    return shown[int(rng.integers(len(shown)))]


PICTURE_KINDS: dict[str, Callable[[Generator, str], Scene]] = {
    "plain": _plain,
    "drawing": _drawing,
    "asked": _asked,
    "edit": _edit,
    "context": _context,
}
