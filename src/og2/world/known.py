"""A picture that others are compared with is looked at once. Part of the scorer: nothing here draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from og2.world.detect import Reading, glance, read
from og2.world.pixels import FloatArray, working_lab
from og2.world.subjects import Sight, look


@dataclass(frozen=True)
class Known:
    """A source or a reference, and what was read in it; the picture must not change afterwards."""

    image: Any

    @cached_property
    def reading(self) -> Reading:
        """Its objects, see `detect.read`."""
        return read(self.image)

    @cached_property
    def glance(self) -> Reading:
        """What lies behind and in front, see `detect.glance`."""
        return glance(self.image)

    @cached_property
    def sight(self) -> Sight:
        """Everything seen in it, see `subjects.look`."""
        return look(self.image)

    @cached_property
    def lab(self) -> FloatArray:
        """Its CIELAB pixels (H, W, 3) at working resolution. Raises: ImageError when it cannot be read."""
        return working_lab(self.image)[0]


def known(picture: Any) -> Known:
    """The picture as one that is looked at once; itself if it is one already."""
    return picture if isinstance(picture, Known) else Known(picture)
