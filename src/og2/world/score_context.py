"""Verdicts on pictures with creatures, gizmos and plates, alone or with references whose subjects must
appear.

Pixels, references and requirements in; no scene and no renderer. PF (does the picture follow the words?) is
the share of predicates met, SC (are they the same subjects?) the mean identity of the referenced subjects and
of the referenced landscape, both from 0 to 10, overall the root of their product, as in OmniContext
(arXiv 2506.18871, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from og2.world.backdrop_words import name_backdrop, same_name
from og2.world.creature_reading import SeenCreature
from og2.world.gizmo_reading import SeenGizmo
from og2.world.identity import assign, creature_distance, gizmo_distance, identity_score, is_blend
from og2.world.known import Known, known
from og2.world.measures import rate, relation_amount, share_alike
from og2.world.object_atoms import MARGIN_OF_RELATION, Slot, absent_atoms, object_atoms, pair_objects
from og2.world.palette import COLUMNS, POSE_WORDS, ROWS
from og2.world.pixels import dilate
from og2.world.requirement_checks import check_requirements
from og2.world.requirements import (
    SIZE_RELATIONS,
    CreatureRequirement,
    GizmoRequirement,
    Reference,
    Requirements,
)
from og2.world.subjects import Sight

_SAME = 5.0
_SAME_SCENE_DE = 6.0
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ContextVerdict:
    """pf, sc, overall: in [0, 10]; sc is 10 where nothing is referenced. atoms: each predicate by itself.

    passed: every predicate met and every subject recognised. is_swapped: the right subjects in each other's
    roles. is_blend: a subject that is nearer to a mixture of two references than to one.
    """

    pf: float
    sc: float
    passed: bool
    reason: str
    unknown: bool = False
    atoms: dict[str, bool] = field(default_factory=dict)
    undecided: tuple[str, ...] = ()
    identities: tuple[float, ...] = ()
    is_swapped: bool = False
    is_blend: bool = False

    @property
    def overall(self) -> float:
        """Root of PF times SC."""
        return math.sqrt(self.pf * self.sc)


@dataclass(frozen=True)
class _Cast:
    """Who stands for each required subject (index into what is seen, or -1), and how well it is
    recognised."""

    creatures: list[int]
    gizmos: list[int]
    identities: list[float]


def score_context(references: Sequence[Any], image: Any, requirements: Requirements) -> ContextVerdict:
    """Whether the picture shows what is asked for, with the subjects of the references.

    A reference, or the picture, may be what `look` has seen in it already, or come as `known.Known`, which is
    looked at once. Raises: RequestError for requirements that cannot be judged, or that need more references.
    """
    check_requirements(requirements, len(references))
    seen = _sight(next((r for r in references if isinstance(r, Known) and r.image is image), image))
    if seen.view is None or seen.reason:
        return ContextVerdict(0.0, 0.0, False, f"unknown: {seen.reason}", unknown=True)
    shown = [_sight(r) for r in references]
    models, missing = _models(requirements, shown)
    if missing:
        return ContextVerdict(math.nan, math.nan, False, f"unknown: {missing}", unknown=True)
    cast = _cast(seen, requirements, models)
    atoms, undecided = _predicates(seen, requirements, cast)
    scores = [*cast.identities]
    if requirements.scene_of is not None:
        scores.append(_scene_score(shown[requirements.scene_of], seen))
    pf = 10.0 * sum(atoms.values()) / len(atoms)
    sc = float(np.mean(scores)) if scores else 10.0
    wrong = [name for name, met in atoms.items() if not met]
    strangers = sum(score < _SAME for score in scores)
    reasons = [f"wrong {', '.join(wrong)}"] if wrong else []
    reasons += [f"{strangers} of {len(scores)} references not recognised"] if strangers else []
    references_seen = [m for m in models if isinstance(m, SeenCreature)]
    blend = any(is_blend(c, references_seen) for c in seen.creatures) if len(references_seen) > 1 else False
    return ContextVerdict(
        pf,
        sc,
        not reasons,
        "; ".join(reasons),
        bool(undecided),
        atoms,
        tuple(undecided),
        tuple(scores),
        _is_swapped(seen, requirements, cast),
        blend,
    )


def _sight(picture: Any) -> Sight:
    return picture if isinstance(picture, Sight) else known(picture).sight


def _models(
    requirements: Requirements, shown: Sequence[Sight]
) -> tuple[list[SeenCreature | SeenGizmo | None], str]:
    """For each required creature, then gizmo, what its reference shows; and which reference is unclear."""
    models: list[SeenCreature | SeenGizmo | None] = []
    wanted: tuple[CreatureRequirement | GizmoRequirement, ...] = (
        *requirements.creatures,
        *requirements.gizmos,
    )
    for one in wanted:
        if one.reference is None:
            models.append(None)
            continue
        sight = shown[one.reference.picture]
        options = sight.creatures if isinstance(one, CreatureRequirement) else sight.gizmos
        found = _referred(options, one.reference)
        if found is None:
            return [], f"reference {one.reference.picture + 1} shows no subject to compare with"
        models.append(found)
    return models, ""


def _referred(
    options: Sequence[SeenCreature] | Sequence[SeenGizmo], reference: Reference
) -> SeenCreature | SeenGizmo | None:
    if reference.position is None or len(options) < 2:
        return options[0] if len(options) == 1 else None
    ordered = sorted(options, key=lambda o: o.center[0])
    return ordered[0] if reference.position == "left" else ordered[-1]


def _cast(
    seen: Sight, requirements: Requirements, models: Sequence[SeenCreature | SeenGizmo | None]
) -> _Cast:
    """Roles by identity where there are references, else by the words that are met."""
    split = len(requirements.creatures)
    creatures, first = _assigned(seen.creatures[:6], requirements.creatures, models[:split])
    gizmos, second = _assigned(seen.gizmos[:6], requirements.gizmos, models[split:])
    return _Cast(creatures, gizmos, first + second)


def _assigned(
    found: Sequence[Any], wanted: Sequence[Any], models: Sequence[SeenCreature | SeenGizmo | None]
) -> tuple[list[int], list[float]]:
    if not wanted:
        return [], []
    cost = np.zeros((len(wanted), len(found)))
    scores = np.zeros((len(wanted), len(found)))
    for i, (one, model) in enumerate(zip(wanted, models, strict=True)):
        for j, thing in enumerate(found):
            if isinstance(model, SeenCreature):
                d = min(creature_distance(model, thing), 1e3)
                scores[i, j], cost[i, j] = identity_score(d, is_creature=True), d
            elif isinstance(model, SeenGizmo):
                d = gizmo_distance(model, thing)
                scores[i, j], cost[i, j] = identity_score(d, is_creature=False), d
            else:
                cost[i, j] = -sum(ok is True for _, ok in _words(one, thing))
    order = assign(cost)
    known = [i for i, model in enumerate(models) if model is not None]
    return order, [float(scores[i, order[i]]) if order[i] >= 0 else 0.0 for i in known]


def _said(wanted: CreatureRequirement | GizmoRequirement) -> list[str]:
    """The words said about a creature or gizmo, in the order of `_words`."""
    words = ("position", *POSE_WORDS, "horns", "spots", "color")
    return [word for word in words if getattr(wanted, word, None) is not None]


def _words(wanted: CreatureRequirement | GizmoRequirement, thing: Any) -> list[tuple[str, bool | None]]:
    """Every word said about a creature or gizmo, and whether it holds; None where it cannot be read."""
    return [(word, _holds(word, getattr(wanted, word), thing)) for word in _said(wanted)]


def _holds(word: str, value: Any, thing: Any) -> bool | None:
    if word == "position":
        return _at(thing.center, value)
    seen = thing.words[word].value if word in POSE_WORDS else getattr(thing, word)
    return None if seen is None else bool(seen == value)


def _at(center: tuple[float, float], position: str) -> bool:
    """Whether a middle lies in the named column and row; what is not named is free."""
    column, row = (_band(bands, at) for bands, at in zip((COLUMNS, ROWS), center, strict=True))
    if position in ("center", "middle"):
        return column == "center"
    return all(word in (column, row) for word in position.split())


def _band(bands: dict[str, tuple[float, float]], at: float) -> str:
    names = tuple(bands)
    edges = [(bands[a][1] + bands[b][0]) / 2 for a, b in pairwise(names)]
    return names[sum(at >= edge for edge in edges)]


def _predicates(seen: Sight, requirements: Requirements, cast: _Cast) -> tuple[dict[str, bool], list[str]]:
    counts = {
        "objects": (len(seen.objects), len(requirements.objects)),
        "creatures": (len(seen.creatures), len(requirements.creatures)),
        "gizmos": (len(seen.gizmos), len(requirements.gizmos)),
        "plates": (len(seen.plates), len(requirements.plates)),
    }
    # One atom for all numbers: several would reward a copied reference for what it need not do.
    atoms = {"count": all(have == want for have, want in counts.values())}
    undecided: set[str] = set()

    def note(name: str, answer: bool | None) -> None:
        atoms[name] = bool(answer)
        if answer is None:
            undecided.add(name)

    chosen = pair_objects(list(seen.objects), requirements)
    if requirements.objects:
        is_legal = all(None not in (o.shape, o.color, o.fill) for o in seen.objects)
        note("legal", is_legal or None)
    for name, (met, is_clear) in object_atoms(chosen, requirements).items():
        note(name, met if is_clear else None)
    absent_atoms(list(seen.objects), requirements, atoms, undecided)
    _subjects(seen, requirements, cast, note)
    boxes = _boxes(seen, requirements, cast, chosen)
    for a, name, b in requirements.relations:
        if max(a, b) >= len(requirements.objects):
            note(f"{a + 1} {name} {b + 1}", _related(boxes[a], name, boxes[b]))
    _backdrop(seen, requirements, note)
    return atoms, sorted(undecided)


def _subjects(seen: Sight, requirements: Requirements, cast: _Cast, note: Any) -> None:
    """What is said of creatures, gizmos and plates; of one that is not seen nothing holds."""
    for kind, wanted, order, found in (
        ("creature", requirements.creatures, cast.creatures, seen.creatures),
        ("gizmo", requirements.gizmos, cast.gizmos, seen.gizmos),
    ):
        for i, (one, j) in enumerate(zip(wanted, order, strict=True)):
            for word, answer in _words(one, found[j]) if j >= 0 else [(word, False) for word in _said(one)]:
                note(f"{kind} {i + 1} {word}", answer)
    for i, plate in enumerate(requirements.plates):
        text = seen.plates[i].text if i < len(seen.plates) else None
        is_met = plate.text is None or (text is not None and text.value == plate.text)
        note(f"plate {i + 1} text", None if text is not None and text.value is None else is_met)


def _related(one: Box | None, name: str, other: Box | None) -> bool:
    if one is None or other is None:
        return False
    return relation_amount(one, name, other) > MARGIN_OF_RELATION


def _boxes(
    seen: Sight, requirements: Requirements, cast: _Cast, chosen: tuple[Slot, ...]
) -> list[Box | None]:
    """The box of every required subject in the order of the requirements; None where it is not seen.

    chosen: who stands for each object.
    """
    boxes: list[Box | None] = [o.box if o else None for o in chosen]
    boxes += [seen.creatures[j].box if j >= 0 else None for j in cast.creatures]
    boxes += [seen.gizmos[j].box if j >= 0 else None for j in cast.gizmos]
    plates = [p.box for p in seen.plates[: len(requirements.plates)]]
    return [*boxes, *plates, *[None] * (len(requirements.plates) - len(plates))]


def _backdrop(seen: Sight, requirements: Requirements, note: Any) -> None:
    if requirements.background is None and requirements.backdrop is None:
        return
    assert seen.view is not None
    family, name = name_backdrop(seen.view, expected=requirements.backdrop)
    if requirements.backdrop is not None:
        note("backdrop", None if family.value is None else family.value == requirements.backdrop)
    if requirements.background is not None:
        note("background", None if name.value is None else same_name(name.value, requirements.background))


def _scene_score(reference: Sight, seen: Sight) -> float:
    """How much of the free background looks as in the reference, whatever stands in front."""
    if reference.view is None or seen.view is None or reference.view.lab.shape != seen.view.lab.shape:
        return 0.0
    free = ~dilate(reference.view.mask, 3.0) & ~dilate(seen.view.mask, 3.0)
    return rate("preservation", share_alike(reference.view.lab, seen.view.lab, free, _SAME_SCENE_DE))


def _is_swapped(seen: Sight, requirements: Requirements, cast: _Cast) -> bool:
    """Whether the relations fail for the recognised subjects and hold with two of a kind exchanged."""
    if any(score < _SAME for score in cast.identities):
        return False
    relations = [r for r in requirements.relations if r[1] not in SIZE_RELATIONS]
    if not relations:
        return False
    boxes = _boxes(seen, requirements, cast, pair_objects(list(seen.objects), requirements))

    def hold(own: list[Box | None]) -> bool:
        return all(_related(own[a], name, own[b]) for a, name, b in relations)

    if hold(boxes):
        return False
    a, _, b = relations[0]
    changed = list(boxes)
    changed[a], changed[b] = changed[b], changed[a]
    return hold(changed)
