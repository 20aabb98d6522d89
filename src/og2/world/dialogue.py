"""Questions about scenes with their answers, and chat turns that teach when to answer with a picture."""

from __future__ import annotations

from dataclasses import replace

from numpy.random import Generator

from og2.world import palette
from og2.world.choose import pick
from og2.world.creatures import Creature
from og2.world.edit_words import words_of
from og2.world.edits import sample_edit
from og2.world.language import (
    EMPTY_PHRASES,
    NUMBER_WORDS,
    SHAPE_PLURALS,
    caption,
    finish,
    join,
    phrase_of,
)
from og2.world.props import Gizmo, Plate
from og2.world.questions import (
    PLAIN_PLACES,
    creature_phrase,
    gizmo_phrase,
    has_look,
    more_questions,
    plate_phrase,
    shapes_of_objects,
)
from og2.world.scenes import Object, Scene, sample_scene, world_named

IMAGE_ANSWER = "<|img|>"  # what a chat answer is when a picture is wanted
QUESTION_KINDS = ("count", "color", "shape", "where", "yes_no", "bigger", "background", "caption")
CAPTION_QUESTIONS = (
    "what is in this picture?",
    "what is in the picture?",
    "describe this picture",
    "describe the image",
    "what do you see?",
    "Describe this picture.",
)
_DRAW = (
    "draw {0}",
    "draw {0}",
    "draw me {0}",
    "please draw {0}",
    "can you draw {0}?",
    "can you make {0}?",
    "make a picture of {0}",
    "create an image of {0}",
    "generate a picture of {0}",
    "show me {0}",
    "paint {0}",
    "i want a picture of {0}",
)
_SMALL_TALK = (
    ("hello", "hello! i can draw, edit and describe pictures."),
    ("hi", "hello! i can draw, edit and describe pictures."),
    ("who are you?", "i am a small model that draws, edits and describes pictures."),
    ("what can you do?", "i can draw, edit and describe pictures."),
    ("thank you", "you are welcome!"),
    ("thanks", "you are welcome!"),
)


def plain_caption(scene: Scene) -> str:
    """The one full caption of a scene that a describing model should give: sizes, colours, shapes and places.

    Objects are named from top to bottom, then from left to right; after them gizmos, plates and creatures,
    each column by column, since they stand at any height. One fixed wording, so that an answer can be
    compared as text.
    """
    behind = EMPTY_PHRASES[scene.backdrop_kind].format(scene.background)
    ordered = sorted(scene.objects, key=_reading_order)
    parts = [f"{phrase_of(replace(words_of(o), position=None))} {PLAIN_PLACES[o.position]}" for o in ordered]
    parts += [gizmo_phrase(g) for g in sorted(scene.gizmos, key=_column_order)]
    parts += [plate_phrase(p) for p in sorted(scene.plates, key=_column_order)]
    parts += [creature_phrase(c) for c in sorted(scene.creatures, key=_column_order)]
    if not parts:
        return (
            f"an empty {scene.background} background" if scene.backdrop is None else f"nothing but {behind}"
        )
    return f"{join(parts)} {'on' if scene.backdrop_kind == 'plain' else 'in front of'} {behind}"


def questions(scene: Scene, rng: Generator, world: str = "plain") -> list[tuple[str, str]]:
    """One question of each kind that the scene allows, with its answer in one fixed wording."""
    return [(question, answer) for _, question, answer in typed_questions(scene, rng, world)]


def typed_questions(scene: Scene, rng: Generator, world: str = "plain") -> list[tuple[str, str, str]]:
    """As `questions`, each with its kind in front: (kind, question, answer).

    The full world asks more kinds, see `questions.MORE_KINDS`. Where subjects that are no objects show shapes
    too, those shapes are not asked for; in a style or a tone nothing is asked that names a colour.
    Raises: RequestError for an unknown world.
    """
    shapes = shapes_of_objects(scene, world_named(world).shapes)
    asked = _ask_count(scene, rng, shapes)
    if not has_look(scene):
        asked += _ask_named(scene, rng, shapes)
    if world != "plain":
        asked += more_questions(scene, rng)
    if not has_look(scene):
        asked.append(("caption", pick(rng, CAPTION_QUESTIONS), plain_caption(scene)))
    return [(kind, finish_question(question, rng), answer) for kind, question, answer in asked]


def _ask_named(scene: Scene, rng: Generator, shapes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """What is asked with names of colours."""
    asked = _ask_presence(scene, rng, shapes)
    unique = [o for o in scene.objects if sum(p.kind == o.kind for p in scene.objects) == 1]
    if unique:
        obj = unique[int(rng.integers(len(unique)))]
        name = f"the {obj.color} {obj.shape}"
        asked.append(("where", f"where is {name}?", PLAIN_PLACES[obj.position]))
        if obj.shape in shapes and sum(p.shape == obj.shape for p in scene.objects) == 1:
            word = pick(rng, ("color", "colour"))
            asked.append(("color", f"what {word} is the {obj.shape}?", obj.color))
        if not _has_others(scene) and sum(p.color == obj.color for p in scene.objects) == 1:
            asked.append(("shape", f"what shape is the {obj.color} object?", f"a {obj.shape}"))
    if len(unique) > 1:
        asked += _ask_bigger(unique, rng)
    if scene.backdrop is None:
        asked.append(("background", "what color is the background?", scene.background))
    return asked


def chat_turn(rng: Generator, split: str = "train", world: str = "plain") -> tuple[str, Scene | None, str]:
    """One turn of talk: (what the user says, the scene whose picture comes with it or None, the answer).

    About 45 % ask for a drawing and 15 % for an edit of the given picture (the answer is the picture mark),
    35 % ask about the given picture, 5 % are greetings.
    """
    draw = rng.random()
    if draw < 0.45:
        scene = sample_scene(rng, split=split, world=world)
        return finish_question(pick(rng, _DRAW).format(_bare(caption(scene, rng))), rng), None, IMAGE_ANSWER
    if draw < 0.60:
        edit = sample_edit(rng, split=split, world=world)
        return edit.instruction, edit.source, IMAGE_ANSWER
    if draw < 0.95:
        scene = sample_scene(rng, split=split, world=world)
        asked = questions(scene, rng, world)
        question, answer = asked[int(rng.integers(len(asked)))]
        return question, scene, answer
    said, answer = _SMALL_TALK[int(rng.integers(len(_SMALL_TALK)))]
    return finish_question(said, rng), None, answer


def finish_question(text: str, rng: Generator) -> str:
    """The question, now and then with a capital letter; it never ends in two marks."""
    return finish(text, rng).replace("?.", "?").replace("..", ".")


def _ask_count(scene: Scene, rng: Generator, shapes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """How many objects there are, of any kind, of a shape or of a colour; beside others only of a shape."""
    draw, has_others = rng.random(), _has_others(scene)
    if not has_others and (draw < 0.5 or not scene.objects):
        asked = pick(rng, ("how many objects are there?", "how many shapes are there?"))
        number = len(scene.objects)
    elif has_others or draw < 0.75 or has_look(scene):
        present = tuple(o.shape for o in scene.objects if o.shape in shapes)
        if not present:
            return []
        shape = _present_or_any(rng, present, shapes)
        asked, number = f"how many {SHAPE_PLURALS[shape]} are there?", present.count(shape)
    else:
        present = tuple(o.color for o in scene.objects)
        color = _present_or_any(rng, present, tuple(palette.COLORS))
        asked, number = f"how many {color} objects are there?", present.count(color)
    return [("count", asked, NUMBER_WORDS[number])]


def _has_others(scene: Scene) -> bool:
    """Whether the picture shows subjects that may or may not be called objects."""
    return bool(scene.gizmos or scene.plates or scene.creatures)


def _ask_presence(scene: Scene, rng: Generator, shapes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Whether there is an object of a shape and colour."""
    if not shapes:
        return []
    colors = tuple(palette.COLORS)
    objects = tuple(o for o in scene.objects if o.shape in shapes)
    if objects and rng.random() < 0.5:
        obj = objects[int(rng.integers(len(objects)))]
        kind = obj.kind
    elif objects and rng.random() < 0.7:
        # A near miss: right shape or right colour only, so that the answer needs both.
        obj = objects[int(rng.integers(len(objects)))]
        kind = (obj.shape, pick(rng, colors)) if rng.random() < 0.5 else (pick(rng, shapes), obj.color)
    else:
        kind = (pick(rng, shapes), pick(rng, colors))
    article = "an" if kind[1][0] in "aeiou" else "a"
    answer = "yes" if kind in {o.kind for o in objects} else "no"
    return [("yes_no", f"is there {article} {kind[1]} {kind[0]}?", answer)]


def _ask_bigger(unique: list[Object], rng: Generator) -> list[tuple[str, str, str]]:
    i, j = (int(k) for k in rng.permutation(len(unique))[:2])
    a, b = unique[i], unique[j]
    if a.size == b.size:
        return []
    order = tuple(palette.SIZES)
    bigger = a if order.index(a.size) > order.index(b.size) else b
    names = [f"the {o.color} {o.shape}" for o in (a, b)]
    word = pick(rng, ("bigger", "larger"))
    return [("bigger", f"which is {word}, {names[0]} or {names[1]}?", f"the {bigger.color} {bigger.shape}")]


def _present_or_any(rng: Generator, present: tuple[str, ...], every: tuple[str, ...]) -> str:
    return pick(rng, present) if rng.random() < 0.7 else pick(rng, every)


def _reading_order(obj: Object) -> tuple[int, int, float]:
    column, row = palette.POSITIONS[obj.position]
    return tuple(palette.ROWS).index(row), tuple(palette.COLUMNS).index(column), obj.x


def _column_order(subject: Gizmo | Plate | Creature) -> tuple[int, float]:
    """The nearest column from left to right, then the height: rows have no gaps between them here."""
    bands = tuple(palette.COLUMNS.values())
    away = [max(low - subject.x, subject.x - high, 0.0) for low, high in bands]
    return away.index(min(away)), subject.y


def _bare(text: str) -> str:
    text = (text[0].lower() + text[1:]).rstrip(".")
    for opening in (
        "there is ",
        "there are ",
        "a picture of ",
        "a picture with ",
        "an image of ",
        "a drawing of ",
        "draw ",
    ):
        text = text.removeprefix(opening)
    return text
