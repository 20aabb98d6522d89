"""Questions about scenes with their answers, and chat turns that teach when to answer with a picture."""

from __future__ import annotations

from dataclasses import replace

from numpy.random import Generator

from og2.world import palette
from og2.world.choose import pick
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
from og2.world.questions import PLAIN_PLACES, creature_phrase, gizmo_phrase, more_questions, plate_phrase
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

    Objects are named from top to bottom, then from left to right, in one fixed wording, so that an answer
    can be compared as text.
    """
    behind = EMPTY_PHRASES[scene.backdrop_kind].format(scene.background)
    ordered = sorted(scene.objects, key=_reading_order)
    parts = [f"{phrase_of(replace(words_of(o), position=None))} {PLAIN_PLACES[o.position]}" for o in ordered]
    parts += [gizmo_phrase(g) for g in scene.gizmos] + [plate_phrase(p) for p in scene.plates]
    parts += [creature_phrase(c) for c in scene.creatures]
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

    The full world asks more kinds, see `questions.MORE_KINDS`.   Raises: RequestError for an unknown world.
    """
    shapes = world_named(world).shapes
    asked = [("count", *_ask_count(scene, rng, shapes)), ("yes_no", *_ask_presence(scene, rng, shapes))]
    unique = [o for o in scene.objects if sum(p.kind == o.kind for p in scene.objects) == 1]
    if unique:
        obj = unique[int(rng.integers(len(unique)))]
        name = f"the {obj.color} {obj.shape}"
        asked.append(("where", f"where is {name}?", PLAIN_PLACES[obj.position]))
        if sum(p.shape == obj.shape for p in scene.objects) == 1:
            word = pick(rng, ("color", "colour"))
            asked.append(("color", f"what {word} is the {obj.shape}?", obj.color))
        if sum(p.color == obj.color for p in scene.objects) == 1:
            asked.append(("shape", f"what shape is the {obj.color} object?", f"a {obj.shape}"))
    if len(unique) > 1:
        asked += _ask_bigger(unique, rng)
    if scene.backdrop is None:
        asked.append(("background", "what color is the background?", scene.background))
    if world != "plain":
        asked += more_questions(scene, rng)
    asked.append(("caption", pick(rng, CAPTION_QUESTIONS), plain_caption(scene)))
    return [(kind, finish_question(question, rng), answer) for kind, question, answer in asked]


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
    """The question, now and then with a capital letter; a question mark is never followed by a full stop."""
    return finish(text, rng).replace("?.", "?")


def _ask_count(scene: Scene, rng: Generator, shapes: tuple[str, ...]) -> tuple[str, str]:
    draw = rng.random()
    if draw < 0.5 or not scene.objects:
        return pick(rng, ("how many objects are there?", "how many shapes are there?")), NUMBER_WORDS[
            len(scene.objects)
        ]
    if draw < 0.75:
        shape = _present_or_any(rng, tuple(o.shape for o in scene.objects), shapes)
        answer = NUMBER_WORDS[sum(o.shape == shape for o in scene.objects)]
        return f"how many {SHAPE_PLURALS[shape]} are there?", answer
    color = _present_or_any(rng, tuple(o.color for o in scene.objects), tuple(palette.COLORS))
    return f"how many {color} objects are there?", NUMBER_WORDS[sum(o.color == color for o in scene.objects)]


def _ask_presence(scene: Scene, rng: Generator, shapes: tuple[str, ...]) -> tuple[str, str]:
    colors = tuple(palette.COLORS)
    if scene.objects and rng.random() < 0.5:
        obj = scene.objects[int(rng.integers(len(scene.objects)))]
        kind = obj.kind
    elif scene.objects and rng.random() < 0.7:
        # A near miss: right shape or right colour only, so that the answer needs both.
        obj = scene.objects[int(rng.integers(len(scene.objects)))]
        kind = (obj.shape, pick(rng, colors)) if rng.random() < 0.5 else (pick(rng, shapes), obj.color)
    else:
        kind = (pick(rng, shapes), pick(rng, colors))
    article = "an" if kind[1][0] in "aeiou" else "a"
    return f"is there {article} {kind[1]} {kind[0]}?", "yes" if kind in {
        o.kind for o in scene.objects
    } else "no"


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
