"""Everything seen in a picture, sorted: objects, plates, creatures and gizmos.

Part of the scorer. Each connected part of the foreground is what it can be read as; what can be read as
nothing stays among the objects, without a shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from og2.errors import ImageError
from og2.world.background import View, take_apart
from og2.world.creature_reading import SeenCreature, read_creature
from og2.world.detect import MAX_THINGS, Detected, box_of, describe, parts_of, things_in
from og2.world.gizmo_reading import SeenGizmo, read_gizmo
from og2.world.pixels import BoolArray, dilate, erode, fill_holes
from og2.world.plates import SeenPlate, read_plate


@dataclass(frozen=True)
class Sight:
    """What is seen in a picture, or nothing and the reason why it cannot be judged."""

    objects: tuple[Detected, ...] = ()
    creatures: tuple[SeenCreature, ...] = ()
    gizmos: tuple[SeenGizmo, ...] = ()
    plates: tuple[SeenPlate, ...] = ()
    view: View | None = None
    reason: str = ""

    @property
    def count(self) -> int:
        """How many things there are."""
        return len(self.objects) + len(self.creatures) + len(self.gizmos) + len(self.plates)


_MAX_REST = 0.02
FINE_SIDE_PX = 256  # working resolution where creatures and letters matter


def look(image: Any) -> Sight:
    """What is seen in a picture. Never raises."""
    try:
        view = take_apart(image, FINE_SIDE_PX)
    except ImageError as error:
        return Sight(reason=str(error))
    parts = parts_of(view)
    if len(parts) > MAX_THINGS:
        return Sight(view=view, reason=f"{len(parts)} things: no picture of this world has so many")
    objects: list[Detected] = []
    creatures, gizmos, plates = [], [], []
    for part in parts:
        creature = read_creature(view, part)
        if creature is not None:
            creatures.append(creature)
            continue
        whole = describe(view, part)
        is_object = whole.shape is not None and whole.color is not None and _is_all(whole, part)
        if is_object and whole.fill == "flat":
            objects.append(whole)
            continue
        solid = fill_holes(part)
        plate = read_plate(view, solid, box_of(solid))
        gizmo = None if plate or is_object else read_gizmo(view, part, solid)
        if plate is not None:
            plates.append(plate)
        elif gizmo is not None:
            gizmos.append(gizmo)
        else:
            objects += things_in(view, part, whole)
    return Sight(tuple(objects), tuple(creatures), tuple(gizmos), tuple(plates), view)


def _is_all(whole: Detected, part: BoolArray) -> bool:
    """Whether the thing is all of the part: a gizmo's body and emblem alone may look like a ring."""
    rest = erode(part & ~dilate(whole.mask, 1.5), 1.0)
    return float(rest.sum()) <= _MAX_REST * float(part.sum())
