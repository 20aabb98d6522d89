"""Questions of the full world: relations, sizes, fills, signs, poses, what is not there; one wording each."""

from __future__ import annotations

from itertools import permutations

from numpy.random import Generator

from og2.world import palette
from og2.world.casting import column_of
from og2.world.choose import pick
from og2.world.creatures import Creature, creature_box
from og2.world.language import FILL_WORDS, NUMBER_WORDS, SHAPE_PLURALS, relation_phrase
from og2.world.prompts import is_larger
from og2.world.props import Gizmo, Plate, gizmo_box
from og2.world.scenes import Object, Scene, relation

MORE_KINDS = ("relation", "compare", "fill", "text", "pose", "creatures", "none", "backdrop")
PLAIN_PLACES: dict[str, str] = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
    "top left": "at the top left",
    "top right": "at the top right",
    "bottom left": "at the bottom left",
    "bottom right": "at the bottom right",
}
_COLUMN_PLACES = {"left": " on the left", "center": " in the middle", "right": " on the right", None: ""}
_FACINGS = {"left": "to the left", "front": "to the front", "right": "to the right"}
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def more_questions(scene: Scene, rng: Generator) -> list[tuple[str, str, str]]:
    """One (kind, question, answer) of each of MORE_KINDS that the scene allows."""
    asked = [] if has_look(scene) else _ask_relations(scene, rng) + _ask_fill(scene, rng)
    if len(scene.plates) == 1:
        asked.append(("text", "what does the sign say?", scene.plates[0].text))
    if len(scene.creatures) == 1:
        asked.append(("pose", *_ask_pose(scene.creatures[0], rng)))
    if scene.creatures or rng.random() < 0.2:
        asked.append(("creatures", "how many creatures are there?", NUMBER_WORDS[len(scene.creatures)]))
    shapes = shapes_of_objects(scene, palette.ALL_SHAPES)
    missing = tuple(s for s in shapes if s not in {o.shape for o in scene.objects})
    present = tuple(o.shape for o in scene.objects if o.shape in shapes)
    options = missing if rng.random() < 0.5 or not present else present
    if options:
        word = pick(rng, options)
        answer = "yes" if word in missing else "no"
        asked.append(("none", f"is it true that there are no {SHAPE_PLURALS[word]}?", answer))
    if has_look(scene):
        return asked
    family = {"plain": "plain", "gradient": "a gradient", "landscape": "a landscape"}
    family |= {"tiles": "a tiled floor", "noise": "rough paper"}
    asked.append(("backdrop", "what kind of background is it?", family[scene.backdrop_kind]))
    return asked


def shapes_of_objects(scene: Scene, shapes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the shapes that nothing but an object shows: no part of a gizmo, no spot of a creature."""
    shown = {shape for g in scene.gizmos for shape in (g.body, g.cap, g.emblem)}
    shown |= {"circle"} if scene.creatures else set()
    return tuple(s for s in shapes if s not in shown)


def has_look(scene: Scene) -> bool:
    """Whether a style or a tone changes all colours, so that no colour's name can be read."""
    return scene.style is not None or scene.tone is not None


def creature_phrase(creature: Creature) -> str:
    """ "a creature on the left with three spots, its mouth open"."""
    place = _COLUMN_PLACES[column_of(creature_box(creature))]
    spots = creature.anatomy.spot_count
    spotted = f"{NUMBER_WORDS[spots]} spot{'' if spots == 1 else 's'}" if spots else "no spots"
    return f"a creature{place} with {spotted} and its mouth {creature.pose.mouth}"


def gizmo_phrase(gizmo: Gizmo) -> str:
    """ "a red gadget with a star on it on the right"."""
    color = "an orange" if gizmo.body_color == "orange" else f"a {gizmo.body_color}"
    return f"{color} gadget with a {gizmo.emblem} on it{_COLUMN_PLACES[column_of(gizmo_box(gizmo))]}"


def plate_phrase(plate: Plate) -> str:
    """'a sign that says "MOON"'."""
    return f'a sign that says "{plate.text}"'


def _ask_relations(scene: Scene, rng: Generator) -> list[tuple[str, str, str]]:
    """Where one object is from another, and whether it is larger: half of the answers are yes."""
    unique = [o for o in scene.objects if sum(p.kind == o.kind for p in scene.objects) == 1]
    pairs = list(permutations(unique, 2))
    asked: list[tuple[str, str, str]] = []
    clear = [(a, b) for a, b in pairs if relation(a, b)]
    if clear:
        a, b = clear[int(rng.integers(len(clear)))]
        name = relation(a, b)
        assert name is not None
        said = name if rng.random() < 0.5 else _OPPOSITE[name]
        question = f"is the {_name(a)} {relation_phrase(said, rng)} the {_name(b)}?"
        asked.append(("relation", question, "yes" if said == name else "no"))
    sized = [(a, b) for a, b in pairs if is_larger(a, b)]
    if sized:
        a, b = sized[int(rng.integers(len(sized)))]
        truth = rng.random() < 0.5
        one, other = (a, b) if truth else (b, a)
        question = f"is the {_name(one)} {relation_phrase('larger than', rng)} the {_name(other)}?"
        asked.append(("compare", question, "yes" if truth else "no"))
    return asked


def _ask_fill(scene: Scene, rng: Generator) -> list[tuple[str, str, str]]:
    unique = [o for o in scene.objects if sum(p.kind == o.kind for p in scene.objects) == 1]
    if not unique:
        return []
    obj = unique[int(rng.integers(len(unique)))]
    question = f"is the {_name(obj)} plain, striped, dotted or checkered?"
    return [("fill", question, FILL_WORDS[obj.fill_name])]


def _ask_pose(creature: Creature, rng: Generator) -> tuple[str, str]:
    pose = creature.pose
    arm = pick(rng, ("left", "right"))
    spots, horns = creature.anatomy.spot_count, creature.anatomy.horn_count
    asked = (
        ("is the creature's mouth open or closed?", pose.mouth),
        ("where does the creature face?", _FACINGS[pose.facing]),
        ("how many spots does the creature have?", NUMBER_WORDS[spots]),
        ("how many horns does the creature have?", NUMBER_WORDS[horns]),
        (
            f"is the creature's arm on the {arm} up, out or down?",
            pose.left_arm if arm == "left" else pose.right_arm,
        ),
    )
    return asked[int(rng.integers(len(asked)))]


def _name(obj: Object) -> str:
    return f"{obj.color} {obj.shape}"
