"""In-context tasks with OmniContext's eight sub-tasks (arXiv 2506.18871, section 5).

Characters are creatures, objects are gizmos, scenes are landscapes. A reference shows its subject in another
pose, at another place, in another size and in front of another backdrop than is asked for, so that a copy of
a reference never passes. Left and right are the viewer's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.casting import Room, column_of, place_creature, place_gizmo
from og2.world.choose import pick, pick_by_odds
from og2.world.creatures import Anatomy, Creature, Pose, creature_box, sample_anatomy, sample_pose
from og2.world.language import backdrop_phrase, finish, join, relation_phrase
from og2.world.props import Gizmo, gizmo_box, sample_gizmo
from og2.world.requirements import CreatureRequirement, GizmoRequirement, Reference, Requirements
from og2.world.scenes import WORLDS, Box, Scene, empty_scene, relation_of_boxes
from og2.world.split import check_split
from og2.world.strokes import painted_box

MAX_REFERENCES = 5  # the published model's image index embeddings
# Number of creatures and gizmos of each sub-task (drawn), and whether a landscape comes with them.
_CASTS: dict[str, tuple[tuple[tuple[int, int], ...], bool]] = {
    "single_character": (((1, 0),), False),
    "single_object": (((0, 1),), False),
    "multi_character": (((2, 0), (2, 0), (3, 0)), False),
    "multi_object": (((0, 2), (0, 2), (0, 3)), False),
    "multi_character_object": (((1, 1), (2, 1), (1, 2)), False),
    "scene_character": (((1, 0), (2, 0)), True),
    "scene_object": (((0, 1), (0, 2)), True),
    "scene_character_object": (((1, 1),), True),
}
INCONTEXT_TASKS: tuple[str, ...] = tuple(_CASTS)
_CROWDED_SHARE = 0.25  # of character references that show a second creature which is not asked for
_TRIES = 40
_POSE_WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("arms", "up"): ("with both arms up", "with its arms raised"),
    ("left_arm", "up"): ("with its arm on the left raised",),
    ("right_arm", "up"): ("with its arm on the right raised",),
    ("mouth", "open"): ("with its mouth open", "shouting"),
    ("mouth", "closed"): ("with its mouth closed", "smiling with a closed mouth"),
    ("facing", "left"): ("facing left", "turned to the left"),
    ("facing", "right"): ("facing right", "turned to the right"),
    ("gaze", "left"): ("looking to the left",),
    ("gaze", "right"): ("looking to the right",),
}
_OPENINGS = ("show {0}", "draw {0}", "a picture of {0}", "put together {0}", "create a picture of {0}")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True)
class InContext:
    """References as scenes, what is asked for, one right answer as a scene, and what is checked."""

    task: str
    references: tuple[Scene, ...]
    instruction: str
    target: Scene
    requirements: Requirements


@dataclass(frozen=True)
class _Role:
    """A subject of the answer: who it is, the words for it, and what is said about it."""

    who: Anatomy | Gizmo
    name: str
    reference: Reference
    shown: Scene
    column: str | None = None
    state: tuple[str, str] | None = None


def sample_incontext(rng: Generator, task: str | None = None, split: str = "train") -> InContext:
    """A random in-context task of one of INCONTEXT_TASKS; None = any of them.

    split "test": all anatomies and gizmos are held out.   Raises: RequestError for an unknown task or split.
    """
    task = pick(rng, INCONTEXT_TASKS) if task is None else task
    if task not in _CASTS:
        raise RequestError(f"task={task!r} is unknown; use one of {', '.join(INCONTEXT_TASKS)}")
    check_split(split)
    while True:
        made = _make(rng, task, split)
        if made is not None:
            return made


def _make(rng: Generator, task: str, split: str) -> InContext | None:
    casts, has_scene = _CASTS[task]
    creatures, gizmos = casts[int(rng.integers(len(casts)))]
    roles: list[_Role] = []
    for index in range(creatures + gizmos):
        role = _cast(rng, index, index < creatures, split)
        if role is None:
            return None
        roles.append(role)
    roles = _directed(rng, roles)
    backdrop = _backdrop(rng, "landscape" if has_scene else None, [r.shown for r in roles])
    target = _staged(rng, backdrop, roles)
    if target is None:
        return None
    references = [role.shown for role in roles]
    scene_of = None
    if has_scene:
        scene_of = len(references)
        references.append(replace(backdrop))
    return _asked(rng, task, roles, target, (tuple(references), scene_of))


def _cast(rng: Generator, index: int, is_creature: bool, split: str) -> _Role | None:
    """A subject with the picture that shows it; now and then beside another creature, to tell apart."""
    scene = empty_scene(rng, WORLDS["full"])
    which = pick(rng, ("the {1} in image {0}", "the {1} of image {0}", "the {1} from the {2} image"))
    if not is_creature:
        gizmo = sample_gizmo(rng, 0.5, 0.5, 0.1, split)
        shown = place_gizmo(rng, scene, Room(), gizmo)
        name = which.format(index + 1, "gadget", _ORDINALS[index])
        return shown and _Role(gizmo, name, Reference(index), shown)
    anatomy = sample_anatomy(rng, split)
    if rng.random() >= _CROWDED_SHARE:
        shown = place_creature(rng, scene, Room(), anatomy)
        name = which.format(index + 1, "creature", _ORDINALS[index])
        return shown and _Role(anatomy, name, Reference(index), shown)
    column = pick(rng, ("left", "right"))
    shown = place_creature(rng, scene, Room(2, column), anatomy)
    other = "right" if column == "left" else "left"
    shown = shown and place_creature(rng, shown, Room(2, other), split=split)
    name = which.format(index + 1, f"creature on the {column}", _ORDINALS[index])
    return shown and _Role(anatomy, name, Reference(index, column), shown)


def _directed(rng: Generator, roles: list[_Role]) -> list[_Role]:
    """Roles with what is asked of them, each different from what its reference shows."""
    directed = []
    for role in roles:
        state = None
        if isinstance(role.who, Anatomy):
            pose = _shown_creature(role).pose
            options = [key for key in _POSE_WORDS if not _has_state(pose, key)]
            state = options[int(rng.integers(len(options)))]
        column = None
        if len(roles) == 1:
            here = column_of(_shown_box(role))
            column = pick(rng, tuple(c for c in palette.COLUMNS if c != here))
        directed.append(replace(role, state=state, column=column))
    return directed


def _backdrop(rng: Generator, kind: str | None, shown: list[Scene]) -> Scene:
    """A backdrop that no reference shows."""
    taken = {(s.backdrop_kind, s.background) for s in shown}
    while True:
        family = kind or pick_by_odds(rng, WORLDS["full"].backdrops)
        scene = empty_scene(rng, WORLDS["full"], family)
        if (scene.backdrop_kind, scene.background) not in taken:
            return scene


def _staged(rng: Generator, backdrop: Scene, roles: list[_Role]) -> Scene | None:
    """The answer: every subject in its new state, smaller or larger than in its reference."""
    for _ in range(_TRIES):
        scene: Scene | None = backdrop
        for role in roles:
            room = Room(max(len(roles), 1), role.column)
            if scene is not None and isinstance(role.who, Anatomy):
                pose = _new_pose(rng, role)
                scene = place_creature(rng, scene, room, role.who, pose)
            elif scene is not None and isinstance(role.who, Gizmo):
                scene = place_gizmo(rng, scene, room, role.who)
        if scene is not None and (len(roles) < 2 or _clear_relation(scene, roles) is not None):
            return scene
    return None


def _asked(
    rng: Generator,
    task: str,
    roles: list[_Role],
    target: Scene,
    references: tuple[tuple[Scene, ...], int | None],
) -> InContext:
    """The words and the requirements."""
    pictures, scene_of = references
    parts = []
    for role in roles:
        words = [role.name]
        if role.state:
            words.append(pick(rng, _POSE_WORDS[role.state]))
        if role.column:
            words.append(
                {"left": "on the left", "right": "on the right", "center": "in the middle"}[role.column]
            )
        parts.append(" ".join(words))
    body, relations = join(parts), ()
    found = _clear_relation(target, roles)
    if found is not None:
        body = f"{body}, {roles[0].name} {relation_phrase(found, rng)} {roles[1].name}"
        relations = ((0, found, 1),)
    stated = Requirements(
        relations=relations,
        creatures=tuple(_creature_rule(r) for r in roles if isinstance(r.who, Anatomy)),
        gizmos=tuple(
            GizmoRequirement(position=r.column, reference=r.reference)
            for r in roles
            if isinstance(r.who, Gizmo)
        ),
        scene_of=scene_of,
    )
    if scene_of is not None:
        where = pick(rng, ("in the landscape of image {0}", "in the scene from image {0}"))
        body = f"{body}, {where.format(scene_of + 1)}"
    else:
        stated = replace(stated, background=target.background, backdrop=target.backdrop_kind)
        body = f"{body}, {backdrop_phrase(target.backdrop_kind, target.background, rng)}"
    text = finish(pick(rng, _OPENINGS).format(body), rng)
    return InContext(task, pictures, text, target, stated)


def _creature_rule(role: _Role) -> CreatureRequirement:
    rule = CreatureRequirement(position=role.column, reference=role.reference)
    if role.state is None:
        return rule
    word, value = role.state
    words = {"left_arm": value, "right_arm": value} if word == "arms" else {word: value}
    return replace(rule, **words)


def _new_pose(rng: Generator, role: _Role) -> Pose:
    word, value = role.state or ("mouth", "open")
    fixed = {"left_arm": value, "right_arm": value} if word == "arms" else {word: value}
    return sample_pose(rng, like=_shown_creature(role).pose, fixed=fixed)


def _has_state(pose: Pose, state: tuple[str, str]) -> bool:
    word, value = state
    if word == "arms":
        return value in (pose.left_arm, pose.right_arm)
    return getattr(pose, word) == value


def _clear_relation(scene: Scene, roles: list[_Role]) -> str | None:
    """The relation of the first subject to the second, None where there is one subject or a diagonal.

    It holds for where they stand and for what is painted of them, an arm to one side included.
    """
    if len(roles) < 2:
        return None
    stand = relation_of_boxes(*_boxes(scene)[:2])
    painted = [painted_box(subject) for subject in (*scene.creatures, *scene.gizmos)[:2]]
    return stand if stand == relation_of_boxes(*painted) else None


def _boxes(scene: Scene) -> list[Box]:
    return [*(creature_box(c) for c in scene.creatures), *(gizmo_box(g) for g in scene.gizmos)]


def _shown_creature(role: _Role) -> Creature:
    return role.shown.creatures[0]


def _shown_box(role: _Role) -> Box:
    return _boxes(role.shown)[0]
