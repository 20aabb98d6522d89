"""Checkable statements about a picture: what a caption or an instruction says, as plain data.

A requirement never holds pixel positions or random numbers, only words (and whole numbers that were said);
`None` means "not said". Every requirement of a picture is an exact inventory: what is not listed must not be
there. Subjects are numbered through the inventory: objects first, then creatures, gizmos and plates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# How one subject relates to another; the first four are about place (of boxes), the last two about size.
SIZE_RELATIONS: tuple[str, ...] = ("larger than", "smaller than")


@dataclass(frozen=True)
class ObjectRequirement:
    """One object by its words; None = not said."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None
    position: str | None = None
    fill: str | None = None


@dataclass(frozen=True)
class Reference:
    """A subject of a reference picture.

    picture: counts from 0. position: where it is there ("left", "right"), None when it is the only one of
    its kind in that picture.
    """

    picture: int
    position: str | None = None

    @staticmethod
    def from_dict(data: dict[str, Any] | None) -> Reference | None:
        """The inverse of `asdict`; None stays None."""
        return None if data is None else Reference(int(data["picture"]), data.get("position"))


@dataclass(frozen=True)
class CreatureRequirement:
    """One creature by its state; its looks only by reference, since words cannot carry them.

    left_arm, right_arm: "up", "out" or "down" (left and right are the viewer's); mouth: "open" or "closed";
    facing, gaze: "left", "front" or "right"; horns, spots: how many; reference: whose looks it must have.
    position: a column ("left", "center", "right"), a row ("top", "bottom") or both ("top left") of the
    body's middle; what is not named is free.
    """

    position: str | None = None
    left_arm: str | None = None
    right_arm: str | None = None
    mouth: str | None = None
    facing: str | None = None
    gaze: str | None = None
    horns: int | None = None
    spots: int | None = None
    reference: Reference | None = None

    @staticmethod
    def from_dict(data: dict[str, Any]) -> CreatureRequirement:
        """The inverse of `asdict`."""
        return CreatureRequirement(**{**data, "reference": Reference.from_dict(data.get("reference"))})


@dataclass(frozen=True)
class GizmoRequirement:
    """One gizmo (a prop made of two shapes, a pattern and an emblem) by place, colour and reference.

    position: as of a creature; color: name of the body's colour.
    """

    position: str | None = None
    color: str | None = None
    reference: Reference | None = None

    @staticmethod
    def from_dict(data: dict[str, Any]) -> GizmoRequirement:
        """The inverse of `asdict`."""
        return GizmoRequirement(**{**data, "reference": Reference.from_dict(data.get("reference"))})


@dataclass(frozen=True)
class PlateRequirement:
    """One plate by the capital letters on it."""

    text: str | None = None


@dataclass(frozen=True)
class Requirements:
    """What a picture must show: exactly these subjects, relations (subject, name, other) and background.

    background: name of the backdrop's colour or landscape; backdrop: its family ("plain", "gradient",
    "landscape", "tiles", "noise"); absent: words that no object of the picture may meet all of; scene_of:
    the reference picture (from 0) whose landscape must be the background.
    """

    objects: tuple[ObjectRequirement, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None
    backdrop: str | None = None
    creatures: tuple[CreatureRequirement, ...] = ()
    gizmos: tuple[GizmoRequirement, ...] = ()
    plates: tuple[PlateRequirement, ...] = ()
    absent: tuple[ObjectRequirement, ...] = ()
    scene_of: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Requirements:
        """The inverse of `to_dict`."""
        return Requirements(
            objects=tuple(ObjectRequirement(**o) for o in data["objects"]),
            relations=tuple((int(a), str(r), int(b)) for a, r, b in data.get("relations", ())),
            background=data.get("background"),
            backdrop=data.get("backdrop"),
            creatures=tuple(CreatureRequirement.from_dict(c) for c in data.get("creatures", ())),
            gizmos=tuple(GizmoRequirement.from_dict(g) for g in data.get("gizmos", ())),
            plates=tuple(PlateRequirement(**p) for p in data.get("plates", ())),
            absent=tuple(ObjectRequirement(**o) for o in data.get("absent", ())),
            scene_of=data.get("scene_of"),
        )


@dataclass(frozen=True)
class EditRequirements:
    """What an edit must do; which fields are set depends on `kind`, all else must be kept.

    subject: words of the object that changes, as it is in the source (add: as it must appear).

    | kind | set beside the subject |
    |---|---|
    | recolour | color: the new one |
    | add | relation and anchor (an object of the source), or the subject's position |
    | remove | |
    | replace | shape: the new one, and color where that was said; else the colour stays; so does the middle |
    | material | fill: the new one; the colour's name stays |
    | resize | factor: of the nominal radius; the middle stays |
    | motion | creature: the new state of the only creature, nothing else of it changes |
    | retouch | creature.spots = 0, or factor: of the eyes; only whether above or below 1 counts |
    | background | backdrop and background: the new ones; everything in front stays |
    | style | style: "outline", "pixelated", "halftone", "sepia"; the layout stays |
    | tone | tone: "night", "warm", "cool", "high contrast", "faded" |
    | text | old_text and text: the letters before and after |
    | extract | subject, or creature (no field set) for the only creature; the rest is white |
    | hybrid, multi_turn | parts: what was changed in the end, each on another subject |
    """

    kind: str
    subject: ObjectRequirement | None = None
    color: str | None = None
    relation: str | None = None
    anchor: ObjectRequirement | None = None
    shape: str | None = None
    fill: str | None = None
    factor: float | None = None
    creature: CreatureRequirement | None = None
    background: str | None = None
    backdrop: str | None = None
    style: str | None = None
    tone: str | None = None
    old_text: str | None = None
    text: str | None = None
    parts: tuple[EditRequirements, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> EditRequirements:
        """The inverse of `to_dict`."""
        subject, anchor, creature = (data.get(name) for name in ("subject", "anchor", "creature"))
        rest = {
            "subject": None if subject is None else ObjectRequirement(**subject),
            "anchor": None if anchor is None else ObjectRequirement(**anchor),
            "creature": None if creature is None else CreatureRequirement.from_dict(creature),
            "parts": tuple(EditRequirements.from_dict(p) for p in data.get("parts", ())),
        }
        return EditRequirements(**{**data, **rest})


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong with a picture, as data; the sentence for it is in `critique`.

    kind: "missing", "extra", "color", "shape", "size", "fill", "position", "count", "relation",
    "background", "text". subject: what it is about, as it is seen (missing, relation: as required; count: in
    the plural). wanted, seen: the word or number that was asked for and the one in the picture; of a banned
    word, "not red" is wanted.
    """

    kind: str
    subject: str
    wanted: str = ""
    seen: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Defect:
        """The inverse of `to_dict`."""
        return Defect(**data)
