"""Checkable statements about a picture: what a caption or an instruction says, as plain data.

A requirement never holds pixel positions or random numbers, only words; `None` means "not said". Every
requirement of a picture is an exact inventory: objects that are not listed must not be there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ObjectRequirement:
    """One object by its words; None = not said."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class Requirements:
    """What a picture must show: exactly these objects, relations (subject, name, other) and background."""

    objects: tuple[ObjectRequirement, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Requirements:
        """The inverse of `to_dict`."""
        return Requirements(
            tuple(ObjectRequirement(**o) for o in data["objects"]),
            tuple((int(a), str(r), int(b)) for a, r, b in data.get("relations", ())),
            data.get("background"),
        )


@dataclass(frozen=True)
class EditRequirements:
    """What an edit must do.

    kind: "recolour", "add" or "remove". subject: the words of the object that changes (recolour, remove: as
    it is in the source; add: as it must appear). color: the new colour of a recolour. relation: for an
    added object, the relation to `anchor`, an object of the source.
    """

    kind: str
    subject: ObjectRequirement
    color: str | None = None
    relation: str | None = None
    anchor: ObjectRequirement | None = field(default=None)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> EditRequirements:
        """The inverse of `to_dict`."""
        anchor = data.get("anchor")
        return EditRequirements(
            data["kind"],
            ObjectRequirement(**data["subject"]),
            data.get("color"),
            data.get("relation"),
            ObjectRequirement(**anchor) if anchor else None,
        )
