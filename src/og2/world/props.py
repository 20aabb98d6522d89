"""Props: gizmos (a body with a pattern, a cap and an emblem) and plates with words on them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.choose import pick
from og2.world.fills import Fill, sample_fill
from og2.world.glyphs import GLYPH_HEIGHT, LETTER_PITCH, LETTERS, MAX_LETTERS, MIN_LETTERS, WORDS
from og2.world.palette import Lab
from og2.world.split import split_of

GIZMO_BODIES: tuple[str, ...] = ("circle", "square", "hexagon")
GIZMO_CAPS: tuple[str, ...] = ("circle", "triangle", "square", "star")
GIZMO_EMBLEMS: tuple[str, ...] = ("circle", "star", "cross", "ring", "triangle", "crescent")
# What one gizmo may differ from another in alone.
GIZMO_PARTS: tuple[str, ...] = ("body", "cap", "emblem", "fill", "cap_lab", "emblem_lab")
CAP_SIZE = (0.38, 0.56)  # nominal radius of the cap, in radii of the body
EMBLEM_SIZE = (0.36, 0.48)
CAP_Y = -1.08  # middle of the cap
PLATE_MARGIN = 2.0  # between the letters and the rim of the plate, in cells
CELL = (0.0140, 0.0185)  # side of one cell of a letter, as a fraction of the picture's side
_MIN_STEP = 32.0


@dataclass(frozen=True)
class Gizmo:
    """A gizmo: shapes, colours and proportions of its three parts, and where it is.

    Units: x, y (middle of the body) and radius as fractions of the side; sizes in radii of the body.
    """

    body: str
    body_color: str
    body_lab: Lab
    fill: Fill | None
    cap: str
    cap_lab: Lab
    cap_size: float
    emblem: str
    emblem_lab: Lab
    emblem_size: float
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Plate:
    """A plate with a word. Units: x, y (its middle) and cell (side of one of a letter's cells): fractions."""

    text: str
    lab: Lab
    ink_lab: Lab
    x: float
    y: float
    cell: float


def sample_gizmo(rng: Generator, x: float, y: float, radius: float, split: str = "train") -> Gizmo:
    """A random gizmo there; about one in ten combinations of its parts' shapes and colour is held out."""
    colors = tuple(name for name in palette.COLORS if name not in ("white", "black"))
    while True:
        body, cap = pick(rng, GIZMO_BODIES), pick(rng, GIZMO_CAPS)
        emblem, color = pick(rng, GIZMO_EMBLEMS), pick(rng, colors)
        if split_of(("gizmo", body, cap, emblem, color)) != split:
            continue
        body_lab = _jitter(rng, palette.COLORS[color])
        fill = sample_fill(rng, pick(rng, palette.FILLS), color, body_lab)
        return Gizmo(
            body=body,
            body_color=color,
            body_lab=body_lab,
            fill=fill,
            cap=cap,
            cap_lab=_color_away(rng, (body_lab,)),
            cap_size=float(rng.uniform(*CAP_SIZE)),
            emblem=emblem,
            emblem_lab=_color_away(rng, (body_lab, fill.lab) if fill else (body_lab,)),
            emblem_size=float(rng.uniform(*EMBLEM_SIZE)),
            x=x,
            y=y,
            radius=radius,
        )


def near_miss_gizmo(rng: Generator, gizmo: Gizmo, part: str) -> Gizmo:
    """Another gizmo that differs in one of GIZMO_PARTS only.

    Raises: RequestError for an unknown part.
    """
    if part in ("body", "cap", "emblem"):
        options = {"body": GIZMO_BODIES, "cap": GIZMO_CAPS, "emblem": GIZMO_EMBLEMS}[part]
        return replace(gizmo, **{part: pick(rng, tuple(o for o in options if o != getattr(gizmo, part)))})
    if part == "fill":
        now = gizmo.fill.kind if gizmo.fill else "flat"
        kind = pick(rng, tuple(f for f in palette.FILLS if f != now))
        return replace(gizmo, fill=sample_fill(rng, kind, gizmo.body_color, gizmo.body_lab))
    if part in ("cap_lab", "emblem_lab"):
        tones = (gizmo.body_lab, getattr(gizmo, part), *((gizmo.fill.lab,) if gizmo.fill else ()))
        return replace(gizmo, **{part: _color_away(rng, tones)})
    raise RequestError(f"part={part!r} is unknown; use one of {', '.join(GIZMO_PARTS)}")


def gizmo_box(gizmo: Gizmo) -> tuple[float, float, float, float]:
    """The box that holds any gizmo of this radius: left, top, right, bottom, fractions."""
    r = gizmo.radius
    return gizmo.x - 1.16 * r, gizmo.y - 1.85 * r, gizmo.x + 1.16 * r, gizmo.y + 1.10 * r


def ink_on(lab: Lab) -> Lab:
    """The colour of letters on a board of that colour: white, or black where it is light."""
    return palette.COLORS["white" if lab[0] < 62.0 else "black"]


def sample_plate(rng: Generator, text: str | None = None, split: str = "train") -> Plate:
    """A random plate somewhere in the picture, with a word of that split or the text given.

    Raises: RequestError when the text is not 2 to 6 capital letters.
    """
    if text is None:
        text = pick(rng, tuple(w for w in WORDS if split_of(("word", w)) == split))
    check_text(text)
    lab = _jitter(rng, palette.COLORS[pick(rng, tuple(palette.COLORS))])
    plate = Plate(text, lab, ink_on(lab), 0.5, 0.5, float(rng.uniform(*CELL)))
    left, top, right, bottom = plate_box(plate)
    half_width, half_height = (
        (right - left) / 2 + palette.EDGE_MARGIN,
        (bottom - top) / 2 + palette.EDGE_MARGIN,
    )
    x, y = float(rng.uniform(half_width, 1 - half_width)), float(rng.uniform(half_height, 1 - half_height))
    return replace(plate, x=x, y=y)


def check_text(text: str) -> None:
    """Raises RequestError when a plate cannot show the text."""
    if not MIN_LETTERS <= len(text) <= MAX_LETTERS or set(text) - set(LETTERS):
        raise RequestError(f"text={text!r}: a plate shows {MIN_LETTERS} to {MAX_LETTERS} capital letters A-Z")


def plate_half_size(plate: Plate) -> tuple[float, float]:
    """Half width and half height of the plate, fractions."""
    width = len(plate.text) * LETTER_PITCH - 1 + 2 * PLATE_MARGIN
    return width * plate.cell / 2, (GLYPH_HEIGHT + 2 * PLATE_MARGIN) * plate.cell / 2


def plate_box(plate: Plate) -> tuple[float, float, float, float]:
    """The plate's box: left, top, right, bottom, fractions."""
    half_width, half_height = plate_half_size(plate)
    return plate.x - half_width, plate.y - half_height, plate.x + half_width, plate.y + half_height


def _color_away(rng: Generator, others: tuple[Lab, ...]) -> Lab:
    """A colour of the palette, white included, that no other tone is near to."""
    names = [n for n, lab in palette.COLORS.items() if min(math.dist(lab, o) for o in others) >= _MIN_STEP]
    return _jitter(rng, palette.COLORS[names[int(rng.integers(len(names)))]])


def _jitter(rng: Generator, lab: Lab) -> Lab:
    for _ in range(60):
        d = rng.normal(0.0, 3.0, 3)
        new = (lab[0] + float(d[0]), lab[1] + float(d[1]), lab[2] + float(d[2]))
        rgb = palette.lab_to_srgb(new)
        if rgb.min() >= -0.01 and rgb.max() <= 1.01 and new[0] >= palette.COLORS["black"][0] - 4:
            return new
    return lab
