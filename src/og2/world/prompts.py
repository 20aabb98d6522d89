"""What drawing is asked for: the six tasks of GenEval (arXiv 2310.11513) and four more, each with its scene.

A prompt comes with the scene it was made from, which is one right answer, and with the requirements it
states, which every right answer meets. Every prompt is an exact inventory: nothing else may be there.
Left and right are the viewer's; "left of" is said only where no diagonal could be meant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.choose import pick
from og2.world.language import (
    backdrop_phrase,
    count_phrase,
    finish,
    join,
    phrase_of,
    place_phrase,
    relation_phrase,
)
from og2.world.props import plate_box, sample_plate
from og2.world.requirements import ObjectRequirement, PlateRequirement, Requirements
from og2.world.scenes import (
    Object,
    Scene,
    World,
    box_of,
    empty_scene,
    fits,
    place_object,
    relation,
    world_named,
)
from og2.world.split import check_split, split_of

_TRIES = 400
_LARGER = 1.3  # ratio of nominal radii, and of box sides, from which one object is called larger
_BACKDROP_SHARE = 0.25
_OPENINGS = (
    "{0}",
    "{0}",
    "{0}",
    "a picture of {0}",
    "a picture with {0}",
    "an image of {0}",
    "a drawing of {0}",
    "draw {0}",
    "please draw {0}",
    "show me {0}",
)


@dataclass(frozen=True)
class Prompt:
    """A wish for a picture: its task, the words, one scene that fulfils it, and what is checked."""

    task: str
    text: str
    scene: Scene
    requirements: Requirements


@dataclass(frozen=True)
class _Wish:
    """A prompt without its opening."""

    body: str
    scene: Scene
    requirements: Requirements


def sample_prompt(
    rng: Generator, task: str | None = None, split: str = "train", world: str = "full"
) -> Prompt:
    """A random prompt of one of PROMPT_TASKS; None = any of them.

    split: one in ten combinations of the shapes and colours in it, and one in ten object tuples, are "test".
    Raises: RequestError for an unknown task, split or world, and for "text" in the plain world.
    """
    task = pick(rng, PROMPT_TASKS) if task is None else task
    if task not in PROMPT_TASKS:
        raise RequestError(f"task={task!r} is unknown; use one of {', '.join(PROMPT_TASKS)}")
    check_split(split)
    level = world_named(world)
    if task == "text" and level.name == "plain":
        raise RequestError("the plain world has no plates; use world='full' for task='text'")
    while True:
        wish = _MAKERS[task](rng, level, split)
        if wish is None:
            continue
        body, stated = wish.body, wish.requirements
        kind, name = wish.scene.backdrop_kind, wish.scene.background
        is_banned = any(unwanted.color in name.split() for unwanted in stated.absent)
        if rng.random() < _BACKDROP_SHARE and not is_banned:  # nothing blue, before pale blue?
            body = f"{body}{',' if task in _LONG else ''} {backdrop_phrase(kind, name, rng)}"
            stated = replace(stated, background=name, backdrop=kind)
        return Prompt(task, finish(pick(rng, _OPENINGS).format(body), rng), wish.scene, stated)


def plainly(rng: Generator, prompt: Prompt) -> Scene:
    """The prompt's scene without what the words do not ask for: flat objects unless a fill is said, before a
    plain backdrop unless one is said. It fulfils the prompt as well.
    """
    scene, stated = prompt.scene, prompt.requirements
    if stated.background is None:
        bare = empty_scene(rng, world_named("full"), "plain")
        scene = replace(bare, objects=scene.objects, plates=scene.plates)
    if any(wanted.fill for wanted in stated.objects):
        return scene
    return replace(scene, objects=tuple(replace(o, fill=None, shading=0.0) for o in scene.objects))


def compose(
    rng: Generator,
    world: World,
    kinds: list[tuple[str, str]],
    accept: Callable[[Scene], bool] = lambda _: True,
    split: str = "train",
) -> Scene | None:
    """A scene of objects of these (shape, colour) kinds that `accept` agrees to, or None when none was found.

    split "test": the first object's tuple is held out.
    """
    backdrop = empty_scene(rng, world)
    for _ in range(_TRIES):
        scene: Scene | None = backdrop
        for i, kind in enumerate(kinds):
            held_out = "test" if split == "test" and i == 0 else "train"
            scene = scene and place_object(rng, scene, len(kinds), kind, held_out, world)
        if scene is not None and accept(scene):
            return scene
    return None


def is_larger(a: Object, b: Object) -> bool:
    """Whether a is clearly larger than b, by nominal radius and by its box."""
    sides = [max(box[2] - box[0], box[3] - box[1]) for box in (box_of(a), box_of(b))]
    return a.radius >= _LARGER * b.radius and sides[0] >= _LARGER * sides[1]


def _kinds(rng: Generator, world: World, number: int, split: str) -> list[tuple[str, str]]:
    """Different shapes in different colours, as a combination one of that split."""
    names = tuple(palette.COLORS)
    while True:
        shapes, colors = rng.permutation(len(world.shapes)), rng.permutation(len(names))
        kinds = [(world.shapes[shapes[i]], names[colors[i]]) for i in range(number)]
        if number == 1 or split_of(("together", *(word for kind in kinds for word in kind))) == split:
            return kinds


def _single(rng: Generator, world: World, split: str) -> _Wish | None:
    ((shape, color),) = _kinds(rng, world, 1, split)
    scene = compose(rng, world, [(shape, color)], split=split)
    if scene is None:
        return None
    obj = scene.objects[0]
    stated = ObjectRequirement(shape, size=obj.size if rng.random() < 0.5 else None)
    said = phrase_of(stated)
    if rng.random() < 0.5:
        stated, said = replace(stated, position=obj.position), f"{said} {place_phrase(obj.position, rng)}"
    return _Wish(said, scene, Requirements((stated,)))


def _two(rng: Generator, world: World, split: str) -> _Wish | None:
    kinds = _kinds(rng, world, 2, split)
    scene = compose(rng, world, kinds, split=split)
    if scene is None:
        return None
    stated = tuple(ObjectRequirement(shape) for shape, _ in kinds)
    return _Wish(join([phrase_of(o) for o in stated]), scene, Requirements(stated))


def _counting(rng: Generator, world: World, split: str) -> _Wish | None:
    number = int(rng.integers(2, world.max_objects + 1))
    shape = pick(rng, world.shapes)
    one_color = rng.random() < 0.5
    color = pick(rng, tuple(palette.COLORS))
    kinds = [(shape, color if one_color else pick(rng, tuple(palette.COLORS))) for _ in range(number)]
    scene = compose(rng, world, kinds, split=split)
    if scene is None:
        return None
    stated = ObjectRequirement(shape, color if one_color else None)
    return _Wish(count_phrase(number, stated), scene, Requirements((stated,) * number))


def _colors(rng: Generator, world: World, split: str) -> _Wish | None:
    ((shape, color),) = _kinds(rng, world, 1, split)
    scene = compose(rng, world, [(shape, color)], split=split)
    if scene is None:
        return None
    obj = scene.objects[0]
    stated = ObjectRequirement(shape, color, fill=obj.fill.kind if obj.fill else None)
    return _Wish(phrase_of(stated), scene, Requirements((stated,)))


def _position(rng: Generator, world: World, split: str) -> _Wish | None:
    kinds = _kinds(rng, world, 2, split)
    scene = compose(rng, world, kinds, lambda s: relation(*s.objects) is not None, split)
    if scene is None:
        return None
    name = relation(*scene.objects)
    assert name is not None
    one, other = (ObjectRequirement(shape) for shape, _ in kinds)
    body = f"{phrase_of(one)} {relation_phrase(name, rng)} {phrase_of(other)}"
    return _Wish(body, scene, Requirements((one, other), ((0, name, 1),)))


def _attribution(rng: Generator, world: World, split: str) -> _Wish | None:
    kinds = _kinds(rng, world, 2, split)
    scene = compose(rng, world, kinds, split=split)
    if scene is None:
        return None
    stated = tuple(ObjectRequirement(*kind) for kind in kinds)
    return _Wish(join([phrase_of(o) for o in stated]), scene, Requirements(stated))


def _size(rng: Generator, world: World, split: str) -> _Wish | None:
    kinds = _kinds(rng, world, 2, split)
    scene = compose(rng, world, kinds, lambda s: is_larger(*s.objects) or is_larger(*s.objects[::-1]), split)
    if scene is None:
        return None
    name = "larger than" if is_larger(*scene.objects) else "smaller than"
    one, other = (ObjectRequirement(*kind) for kind in kinds)
    said = (
        f"{phrase_of(one)} that is {relation_phrase(name, rng)} {phrase_of(other)}",
        f"{phrase_of(one)} and {phrase_of(other)}, the {one.shape} {relation_phrase(name, rng)} "
        f"the {other.shape}",
    )
    stated = Requirements((one, other), ((0, name, 1),))
    return _Wish(pick(rng, said), scene, stated)


def _chain(rng: Generator, world: World, split: str) -> _Wish | None:
    kinds = _kinds(rng, world, 3, split)

    def is_chain(scene: Scene) -> bool:
        a, b, c = scene.objects
        return relation(a, b) is not None and relation(b, c) is not None

    scene = compose(rng, world, kinds, is_chain, split)
    if scene is None:
        return None
    a, b, c = scene.objects
    first, second = relation(a, b), relation(b, c)
    assert first is not None
    assert second is not None
    one, two, three = (ObjectRequirement(*kind) for kind in kinds)
    said = (
        f"{phrase_of(one)} {relation_phrase(first, rng)} {phrase_of(two)}, which is "
        f"{relation_phrase(second, rng)} {phrase_of(three)}",
        f"{phrase_of(one)}, {phrase_of(two)} and {phrase_of(three)}, the {one.shape} "
        f"{relation_phrase(first, rng)} the {two.shape} and the {two.shape} "
        f"{relation_phrase(second, rng)} the {three.shape}",
    )
    stated = Requirements((one, two, three), ((0, first, 1), (1, second, 2)))
    return _Wish(pick(rng, said), scene, stated)


def _negation(rng: Generator, world: World, split: str) -> _Wish | None:
    """A number of objects, none of which has a word; or one object that does not have a colour."""
    if rng.random() < 0.5:
        ((shape, color),) = _kinds(rng, world, 1, split)
        scene = compose(rng, world, [(shape, color)], split=split)
        other = pick(rng, tuple(c for c in palette.COLORS if c != color))
        if scene is None:
            return None
        said = (f"a {shape} that is not {other}", f"a {shape} in any color but {other}")
        stated = Requirements((ObjectRequirement(shape),), absent=(ObjectRequirement(color=other),))
        return _Wish(pick(rng, said), scene, stated)
    number = int(rng.integers(2, min(4, world.max_objects) + 1))
    kinds = [(pick(rng, world.shapes), pick(rng, tuple(palette.COLORS))) for _ in range(number)]
    scene = compose(rng, world, kinds, split=split)
    if scene is None:
        return None
    if rng.random() < 0.5:
        word = pick(rng, tuple(s for s in world.shapes if s not in {shape for shape, _ in kinds}))
        absent, said = ObjectRequirement(word), (f"none of them a {word}", f"but no {word}")
    else:
        word = pick(rng, tuple(c for c in palette.COLORS if c not in {color for _, color in kinds}))
        absent, said = ObjectRequirement(color=word), (f"none of them {word}", f"but nothing {word}")
    stated = Requirements((ObjectRequirement(),) * number, absent=(absent,))
    body = f"{count_phrase(number, ObjectRequirement())}, {pick(rng, said)}"
    return _Wish(body, scene, stated)


def _text(rng: Generator, world: World, split: str) -> _Wish | None:
    scene = empty_scene(rng, world)
    plate = sample_plate(rng, split=split)
    if not fits(plate_box(plate), scene):
        return None
    said = pick(rng, ('a sign that says "{0}"', 'the word "{0}" on a sign', 'a plate with the text "{0}"'))
    stated = Requirements(plates=(PlateRequirement(plate.text),))
    return _Wish(said.format(plate.text), replace(scene, plates=(plate,)), stated)


_LONG = ("size", "chain", "negation")
_MAKERS: dict[str, Callable[[Generator, World, str], _Wish | None]] = {
    "single": _single,
    "two": _two,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "attribution": _attribution,
    "size": _size,
    "chain": _chain,
    "negation": _negation,
    "text": _text,
}
PROMPT_TASKS: tuple[str, ...] = tuple(_MAKERS)
GENEVAL_TASKS = ("single", "two", "counting", "colors", "position", "attribution")
"""GenEval's six (arXiv 2310.11513)."""
