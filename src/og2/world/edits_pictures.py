"""Edits of creatures, plates, backdrops and whole pictures."""

from __future__ import annotations

from dataclasses import replace

from numpy.random import Generator

from og2.world import palette
from og2.world.casting import Room, place_creature, place_plate, with_text
from og2.world.choose import pick, pick_by_odds
from og2.world.creatures import EYE_GAP, RANGES, with_pose
from og2.world.edit_words import Edit, reference, say, words_of
from og2.world.edits_objects import distinct_scene
from og2.world.glyphs import WORDS
from og2.world.language import EMPTY_PHRASES
from og2.world.requirements import CreatureRequirement, EditRequirements
from og2.world.scenes import Scene, World, empty_scene, place_object
from og2.world.split import split_of

WHITE: palette.Lab = (100.0, 0.0, 0.0)
_EYE_FACTOR = 1.4
_COMPANY_SHARE = 0.4
# How a creature is asked to take a pose; left and right are the viewer's.
POSE_ORDERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("arm", "up"): ("raise the creature's arm on the {0}", "make the creature lift its arm on the {0}"),
    ("arm", "out"): (
        "make the creature stretch out its arm on the {0}",
        "let the arm on the {0} point to the side",
    ),
    ("arm", "down"): ("lower the creature's arm on the {0}", "let the arm on the {0} hang down"),
    ("mouth", "open"): ("make the creature open its mouth", "open the creature's mouth"),
    ("mouth", "closed"): ("make the creature close its mouth", "close the creature's mouth"),
    ("facing", "left"): ("turn the creature to the left", "make the creature face left"),
    ("facing", "right"): ("turn the creature to the right", "make the creature face right"),
    ("facing", "front"): ("turn the creature to the front", "make the creature face us"),
    ("gaze", "left"): ("make the creature look to the left", "move the creature's eyes to the left"),
    ("gaze", "right"): ("make the creature look to the right", "move the creature's eyes to the right"),
    ("gaze", "front"): ("make the creature look straight ahead", "make the creature's eyes look at us"),
}
_BACKGROUND = (
    "change the background to {0}",
    "replace the background with {0}",
    "put everything in front of {0}",
    "make the background {0}",
)
_STYLES: dict[str, tuple[str, ...]] = {
    "outline": ("turn it into a line drawing", "draw only the outlines"),
    "pixelated": ("pixelate the picture", "turn it into pixel art"),
    "halftone": ("make it look like a halftone print", "turn it into printed dots"),
    "sepia": ("make it a sepia photograph", "turn the picture sepia"),
}
_TONES: dict[str, tuple[str, ...]] = {
    "night": ("make it night", "show the same at night"),
    "warm": ("make the colors warmer", "give the picture a warm tone"),
    "cool": ("make the colors cooler", "give the picture a cool tone"),
    "high contrast": ("raise the contrast", "give the picture a high contrast"),
    "faded": ("fade the colors", "make the picture look faded"),
}
_TEXT = (
    'change the word "{0}" to "{1}"',
    'replace "{0}" with "{1}" on the sign',
    'make the sign say "{1}" instead of "{0}"',
)
_EXTRACT = (
    "cut out {0} and put it on white",
    "extract {0} onto a white background",
    "keep only {0}, on plain white",
)


def make_motion(rng: Generator, split: str, world: World) -> Edit | None:
    """A creature takes another pose in one word."""
    source = creature_scene(rng, split, world)
    if source is None:
        return None
    creature = source.creatures[0]
    word = pick(rng, tuple(palette.POSE_WORDS))
    now = getattr(creature.pose, word)
    value = pick(rng, tuple(v for v in palette.POSE_WORDS[word] if v != now))
    new = with_pose(rng, creature, {word: value})
    rule = EditRequirements("motion", creature=replace(CreatureRequirement(), **{word: value}))
    text = pose_order(rng, word, value)
    return Edit("motion", source, replace(source, creatures=(new,)), say(text, rng), rule)


def pose_order(rng: Generator, word: str, value: str) -> str:
    """An order to take a pose in one word: "raise the creature's arm on the left"."""
    part = "arm" if word.endswith("arm") else word
    return pick(rng, POSE_ORDERS[(part, value)]).format(word.removesuffix("_arm"))


def make_retouch(rng: Generator, split: str, world: World) -> Edit | None:
    """A creature loses its spots, or its eyes become larger or smaller."""
    source = creature_scene(rng, split, world)
    if source is None:
        return None
    creature = source.creatures[0]
    anatomy = creature.anatomy
    what = pick(rng, ("spots", "larger", "smaller"))
    if what == "spots":
        if anatomy.spot_count == 0:
            return None
        new = replace(anatomy, spot_count=0)
        forms = ("remove the spots from the creature", "give the creature a clear skin without spots")
        rule = EditRequirements("retouch", creature=CreatureRequirement(spots=0))
    else:
        factor = _EYE_FACTOR if what == "larger" else 1.0 / _EYE_FACTOR
        size = anatomy.eye_size * factor
        low, high = RANGES["eye_size"]
        if not low <= size <= 1.15 * high:  # below, a core is a pixel or two wide at 128 px
            return None
        apart = max(anatomy.eye_separation, 2.0 * size + EYE_GAP)
        new = replace(anatomy, eye_size=size, eye_separation=apart)
        forms = (f"give the creature {what} eyes", f"make the creature's eyes {what}")
        rule = EditRequirements("retouch", factor=factor, creature=CreatureRequirement())
    target = replace(source, creatures=(replace(creature, anatomy=new),))
    return Edit("retouch", source, target, say(pick(rng, forms), rng), rule)


def make_text(rng: Generator, split: str, world: World) -> Edit | None:
    """A plate says another word; an object stands beside it where there is room for both words."""
    source = place_plate(rng, empty_scene(rng, world))
    if source is None:
        return None
    plate = source.plates[0]
    text = pick(rng, tuple(w for w in WORDS if split_of(("word", w)) == split and w != plate.text))
    new = with_text(plate, text)
    if new is None:
        return None
    both = _with_company(rng, replace(source, plates=(plate, new)), world)
    source = replace(both, plates=(plate,))
    said = pick(rng, _TEXT).format(plate.text, text)
    rule = EditRequirements("text", old_text=plate.text, text=text)
    return Edit("text", source, replace(source, plates=(new,)), say(said, rng), rule)


def make_background(rng: Generator, split: str, world: World) -> Edit | None:
    """Another backdrop behind the same subjects."""
    source = _any_scene(rng, split, world)
    if source is None:
        return None
    while True:
        new = empty_scene(rng, world, pick_by_odds(rng, world.backdrops))
        # A gradient looks the same from either end.
        old_ends, new_ends = (sorted(scene.background.split(" to ")) for scene in (source, new))
        if (new.backdrop_kind, new_ends) != (source.backdrop_kind, old_ends):
            break
    target = replace(
        source, background=new.background, background_lab=new.background_lab, backdrop=new.backdrop
    )
    text = pick(rng, _BACKGROUND).format(EMPTY_PHRASES[new.backdrop_kind].format(new.background))
    rule = EditRequirements("background", background=new.background, backdrop=new.backdrop_kind)
    return Edit("background", source, target, say(text, rng), rule)


def make_style(rng: Generator, split: str, world: World) -> Edit | None:
    """The whole picture in another manner of drawing."""
    source = _any_scene(rng, split, world)
    style = pick(rng, palette.STYLES)
    text = say(pick(rng, _STYLES[style]), rng)
    rule = EditRequirements("style", style=style)
    return source and Edit("style", source, replace(source, style=style), text, rule)


def make_tone(rng: Generator, split: str, world: World) -> Edit | None:
    """The whole picture in other light."""
    source = _any_scene(rng, split, world)
    tone = pick(rng, palette.TONES)
    text = say(pick(rng, _TONES[tone]), rng)
    return source and Edit(
        "tone", source, replace(source, tone=tone), text, EditRequirements("tone", tone=tone)
    )


def make_extract(rng: Generator, split: str, world: World) -> Edit | None:
    """One subject alone on white, where it was."""
    if rng.random() < 0.5:
        source = creature_scene(rng, split, world)
        if source is None:
            return None
        kept, name = Scene((), "white", WHITE, creatures=source.creatures), "the creature"
        rule = EditRequirements("extract", creature=CreatureRequirement())
    else:
        source = distinct_scene(rng, world, split)
        index = int(rng.integers(len(source.objects)))
        obj = source.objects[0 if split == "test" else index]  # of a test scene the first is held out
        if obj.color == "white":
            return None
        kept, name = Scene((obj,), "white", WHITE), reference(obj, source, rng)
        rule = EditRequirements("extract", words_of(obj))
    return Edit("extract", source, kept, say(pick(rng, _EXTRACT).format(name), rng), rule)


def creature_scene(rng: Generator, split: str, world: World) -> Scene | None:
    """One creature, four times in ten with an object beside it."""
    crowd = 2 if rng.random() < _COMPANY_SHARE else 1
    scene = place_creature(rng, empty_scene(rng, world), Room(crowd), split=split)
    return _with_company(rng, scene, world) if scene and crowd > 1 else scene


def _any_scene(rng: Generator, split: str, world: World) -> Scene | None:
    return creature_scene(rng, split, world) if rng.random() < 0.4 else distinct_scene(rng, world, split)


def _with_company(rng: Generator, scene: Scene, world: World) -> Scene:
    """The scene with a small object, where there is room."""
    return place_object(rng, scene, 3, world=world) or scene
