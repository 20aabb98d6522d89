"""What an edit is, and the words that name what it changes."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from og2.world.choose import pick
from og2.world.language import finish
from og2.world.requirements import EditRequirements, ObjectRequirement
from og2.world.scenes import Object, Scene

_POLITE_SHARE = 0.08


@dataclass(frozen=True)
class Turn:
    """One step of a conversation about a picture: what is said, and the scene after it."""

    instruction: str
    target: Scene


@dataclass(frozen=True)
class Edit:
    """An instruction with the scene before and after it, and what the result is checked against.

    turns: the single steps of a multi-turn edit, whose instruction is all of them in a row; else empty.
    """

    kind: str
    source: Scene
    target: Scene
    instruction: str
    requirements: EditRequirements
    turns: tuple[Turn, ...] = ()


def reference(obj: Object, scene: Scene, rng: Generator) -> str:
    """A phrase that fits exactly this object of the scene: "the circle", "the red one", "the red circle"."""
    forms = [f"the {obj.color} {obj.shape}"] * 2
    if sum(o.shape == obj.shape for o in scene.objects) == 1:
        forms += [f"the {obj.shape}"] * 2
    if sum(o.color == obj.color for o in scene.objects) == 1:
        forms.append(f"the {obj.color} object")
    return pick(rng, tuple(forms))


def words_of(obj: Object) -> ObjectRequirement:
    """All words of an object of a source; a fill only where there is one."""
    return ObjectRequirement(
        obj.shape, obj.color, obj.size, obj.position, obj.fill.kind if obj.fill else None
    )


def say(text: str, rng: Generator) -> str:
    """The instruction, now and then with "please", a capital letter or a full stop."""
    return finish(f"please {text}" if rng.random() < _POLITE_SHARE else text, rng)
