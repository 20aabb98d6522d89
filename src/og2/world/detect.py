"""Objects seen in a picture: shape, colour, fill, size, place and mask of what is in front of the background.

Part of the scorer: pixels in, words out; where a word would be a guess it is None and the reason says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from og2.errors import ImageError
from og2.world import palette
from og2.world.background import View, even, share_toward, take_apart, window
from og2.world.outline import Opinion, name_shape
from og2.world.pixels import (
    BoolArray,
    FloatArray,
    closed,
    components,
    dilate,
    distance,
    erode,
    fill_holes,
    medians,
    quantile,
)
from og2.world.rims import find_rim, inside_of, is_thin, without_line
from og2.world.texture import Texture, name_texture
from og2.world.touching import pieces_of
from og2.world.words import Word

# What "nominal radius" means: the area of a shape of nominal radius 1 (for a ring, hole included).
UNIT_AREA: dict[str, float] = {
    "circle": math.pi,
    "square": 3.24,
    "triangle": 2.20,
    "star": 2.11,
    "cross": 2.83,
    "ring": 3.66,
    "hexagon": 3.38,
    "crescent": 2.27,
}
MAX_THINGS = 24
_SPECK_SHARE = 14.0 / 64**2  # smaller things are dirt, not objects
_WIDE_PX = 600  # from this area on, cracks between two tones are up to four pixels wide
_MAX_COLOR_DISTANCE = 24.0
_MIN_COLOR_MARGIN = 7.0
_FAINT = 0.70  # a colour must come this far from the background's toward the one it is named for
_MAX_SPREAD = 11.0
_MIN_INNER_PX = 12
_MAX_TURN = 12.0  # dE across a thing that its hue and chroma may run
_MAX_SHADE = 14.0  # dE that light may take it,
_MAX_SHADE_SHARE = 0.25  # or this share of its distance from black
_BLACK = np.array([16.0, 0.0, 0.0])  # CIELAB's lightness of no light is -16
_ZERO = np.zeros(3)
_SURE_COLOR = 10.0  # lead over the next colour name at which a name is certain


@dataclass(frozen=True)
class Detected:
    """One thing seen in front of the background.

    words: "shape", "color", "fill", "size" and "position", each with its confidence and reason. box: (left,
    top, right, bottom) in pixels of the given picture; area in its pixels; mask: (H, W) at working
    resolution; center: of the box, as fractions of width and height; lab: of the main tone.
    """

    words: dict[str, Word]
    box: tuple[float, float, float, float]
    area: float
    mask: BoolArray
    center: tuple[float, float]
    lab: tuple[float, float, float]

    def __getattr__(self, name: str) -> str | None:
        """The word of that name: `shape`, `color`, `fill`, `size`, `position`."""
        words = self.__dict__.get("words", {})
        if name not in words:
            raise AttributeError(name)
        return words[name].value

    @property
    def confidence(self) -> float:
        """Of the least certain of shape, colour and fill."""
        return min(self.words[name].confidence for name in ("shape", "color", "fill"))

    @property
    def radius(self) -> float | None:
        """Nominal radius in pixels of the given picture; None where the shape is not known."""
        return None if self.shape is None else math.sqrt(self.area / UNIT_AREA[self.shape])

    @property
    def reason(self) -> str:
        """Why words are missing, or ""."""
        return "; ".join(word.reason for word in self.words.values() if word.reason)


@dataclass(frozen=True)
class Reading:
    """All things seen in a picture, or none and the reason why the picture cannot be judged."""

    objects: tuple[Detected, ...]
    view: View | None
    reason: str


def detect(image: Any) -> list[Detected]:
    """The things seen, the largest first; none when the picture is blank or cannot be judged (see `read`)."""
    return list(read(image).objects)


def read(image: Any) -> Reading:
    """The things seen, or why the picture cannot be judged. Never raises."""
    seen, parts = _taken_apart(image)
    if seen.view is None:
        return seen
    return replace(seen, objects=tuple(thing for part in parts for thing in things_in(seen.view, part)))


def glance(image: Any) -> Reading:
    """The same without a look at the things: a reading that holds none. Never raises."""
    return _taken_apart(image)[0]


def _taken_apart(image: Any) -> tuple[Reading, list[BoolArray]]:
    """A reading without things, and the parts of the foreground that are to be looked at."""
    try:
        view = take_apart(image)
    except ImageError as error:
        return Reading((), None, str(error)), []
    parts = parts_of(view)
    if len(parts) > MAX_THINGS:
        return Reading((), view, f"{len(parts)} things: no picture of this world has so many"), []
    return Reading((), view, ""), parts


def parts_of(view: View) -> list[BoolArray]:
    """The connected parts of the foreground that are larger than a speck, the largest first."""
    smallest = _SPECK_SHARE * min(view.mask.shape) ** 2
    return components(fill_gaps(view.mask), smallest=smallest)


def things_in(view: View, part: BoolArray, whole: Detected | None = None) -> list[Detected]:
    """What one connected part is: one thing, or several that touch and are each of known shape and colour.

    whole: what `describe` says of it, if that was asked already.
    """
    whole = whole or describe(view, part)
    if whole.shape is not None and whole.color is not None:
        return [whole]
    smallest = _SPECK_SHARE * min(view.mask.shape) ** 2
    for pieces in pieces_of(view, part):
        if all(piece.sum() >= smallest for piece in pieces):
            found = [describe(view, piece) for piece in pieces]
            if all(thing.shape is not None and thing.color is not None for thing in found):
                return found
    return [whole]


def describe(view: View, part: BoolArray) -> Detected:
    """One part of the foreground in words."""
    around, where = window(view, part)
    part = part[where]
    rim = find_rim(around, part, min(view.mask.shape))
    texture = name_texture(even(around), _inside(around, part, rim))
    coverage = cover(around, part, texture.tones, rim)
    mask = coverage >= 0.5
    if mask.sum() < 4:
        mask, coverage = part, part.astype(np.float64)
    opinion = name_shape(coverage, mask)
    if rim is not None and opinion.shape is None:  # a line may fade into the background: what it encloses
        opinion = _shape_of_body(cover(around, part, texture.tones), opinion)
    # The part may hold soft edge pixels; what is more than half covered is judged for its colour.
    core = _core(around, mask) if rim is None else inside_of(around, mask, rim)
    base, color = _name_color(around, mask, core, texture, rim)
    filled = fill_holes(mask) if opinion.shape == "ring" else mask
    area = float(np.maximum(coverage, filled & ~mask).sum())
    whole = np.zeros_like(view.mask)
    whole[where] = mask
    height, width = whole.shape
    left, top, right, bottom = box_of(whole)
    center = ((left + right) / 2 / width, (top + bottom) / 2 / height)
    words = {
        "shape": Word(opinion.shape, opinion.fit if opinion.shape else 0.0, opinion.reason),
        "color": color,
        "fill": Word(texture.fill, texture.confidence, texture.reason),
        "size": _name_size(opinion.shape, area, min(height, width)),
        "position": _name_position(*center),
    }
    box = (left * view.scale, top * view.scale, right * view.scale, bottom * view.scale)
    return Detected(words, box, area * view.scale**2, whole, center, base)


def box_of(mask: BoolArray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a mask that is not empty, in pixels."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def cover(
    view: View, part: BoolArray, tones: tuple[FloatArray, ...], rim: BoolArray | None = None
) -> FloatArray:
    """How much of each pixel the part covers: its place between the background's and the part's colours, of
    which the line around it, if it has one, is one more."""
    inks = tones if rim is None else (*tones, medians(view.lab[rim]))
    share = np.max([share_toward(view, ink) for ink in inks], axis=0)
    if len(inks) > 1:  # inside, a mix of two inks may look like the background between them
        share = np.where(erode(fill_gaps(part), 1.5 if rim is None else 1.0), 1.0, share)
    if len(tones) > 1:
        share = closed(share, 2 if part.sum() >= _WIDE_PX else 1)
    return np.clip(share, 0.0, 1.0) * dilate(part, 1.5)


def fill_gaps(part: BoolArray) -> BoolArray:
    """The part with cracks of up to two pixels closed."""
    padded = np.zeros((part.shape[0] + 6, part.shape[1] + 6), dtype=np.bool_)
    padded[3:-3, 3:-3] = part
    return erode(dilate(padded, 1.5), 1.5)[3:-3, 3:-3]


def _shape_of_body(coverage: FloatArray, otherwise: Opinion) -> Opinion:
    body = coverage >= 0.5
    opinion = name_shape(coverage, body) if body.any() else otherwise
    return otherwise if opinion.shape is None else opinion


def _inside(view: View, part: BoolArray, rim: BoolArray | None) -> BoolArray:
    """Where the texture of a part is looked for: away from its outline and from the line around it."""
    if rim is not None:
        return inside_of(view, part, rim)
    inner = erode(part, 2.0)
    return inner if inner.sum() >= 0.3 * part.sum() else _core(view, part)


def _core(view: View, part: BoolArray) -> BoolArray:
    core = erode(part, 1.0)
    if core.sum() < 0.25 * part.sum():
        core = part & (view.delta >= quantile(view.delta[part], 0.6))
    return core


def _name_color(
    view: View, part: BoolArray, core: BoolArray, texture: Texture, rim: BoolArray | None
) -> tuple[tuple[float, float, float], Word]:
    """The main tone and its name; of two tones the main one is the one that a name fits best."""
    if texture.fill is None:
        return _as_lab(medians(view.lab[core])), Word(None, 0.0, texture.reason)
    lab = min(texture.tones, key=lambda tone: _ranked(tone)[0][0])
    inner = core if rim is not None or len(texture.tones) > 1 else erode(part, 2.0)
    has_lines = rim is not None and is_thin(part, rim)
    reason = _not_one_color(view, inner if inner.sum() >= _MIN_INNER_PX else core, texture, has_lines)
    if reason:
        return _as_lab(lab), Word(None, 0.0, reason)
    return _as_lab(lab), _color_word(lab, medians(view.background[part]))


def _as_lab(lab: FloatArray) -> tuple[float, float, float]:
    return (float(lab[0]), float(lab[1]), float(lab[2]))


def _not_one_color(view: View, inner: BoolArray, texture: Texture, has_lines: bool) -> str:
    """Why the inside of a part is not of one colour (or of the two tones of its pattern), or "".

    A straight run of colour from one side to the other is light falling on it as long as all channels rise
    and fall together, and not too far. What is left without the run must be near the median.
    has_lines: the line around the part is in its inside too.
    """
    main, *others = texture.tones
    values = even(view)[inner]
    away = without_line(values, main) if has_lines and not others else values - main
    for tone in others:
        other = values - tone
        nearer = distance(away, _ZERO) <= distance(other, _ZERO)
        away = np.where(nearer[:, None], away, other)
    ys, xs = np.nonzero(inner)
    place = np.stack([xs - xs.mean(), ys - ys.mean()], axis=1)
    slopes = np.linalg.lstsq(place.T @ place, place.T @ (away - away.mean(axis=0)), rcond=None)[0]
    run = place @ slopes
    lit = main + _BLACK  # what light scales, from black
    length = math.dist(lit, _ZERO)
    along = run @ lit / length
    shade = 2.0 * quantile(np.abs(along), 0.98)
    turn = 2.0 * quantile(distance(run, along[:, None] * lit / length), 0.98)
    if turn > _MAX_TURN or shade > max(_MAX_SHADE, _MAX_SHADE_SHARE * length):
        return f"its colour runs from one to another ({max(turn, shade):.1f} dE)"
    spread = quantile(distance(away, run), 0.9) if not others else 0.0
    return f"several colours in one object (spread {spread:.1f} dE)" if spread > _MAX_SPREAD else ""


def _ranked(lab: FloatArray) -> list[tuple[float, str]]:
    return sorted((math.dist(lab, prototype), name) for name, prototype in palette.COLORS.items())


def _color_word(lab: FloatArray, behind: FloatArray) -> Word:
    (first, name), (second, rival) = _ranked(lab)[:2]
    if first > _MAX_COLOR_DISTANCE:
        return Word(None, 0.0, f"no colour of this world ({first:.0f} dE from {name})")
    toward = np.asarray(palette.COLORS[name]) - behind
    progress = float((lab - behind) @ toward / max(float(toward @ toward), 1.0))
    if progress < _FAINT:
        return Word(None, 0.0, f"a faint {name} ({progress:.2f} of the way from the background)")
    if second - first < _MIN_COLOR_MARGIN:
        return Word(None, 0.0, f"between two colours ({name} and {rival})")
    return Word(name, min(1.0, (second - first - _MIN_COLOR_MARGIN) / _SURE_COLOR), "")


def _name_size(shape: str | None, area: float, side: int) -> Word:
    if shape is None:
        return Word(None, 0.0, "")
    radius = math.sqrt(area / UNIT_AREA[shape]) / side
    names, edge = tuple(palette.SIZES), 0.0
    for name, larger in pairwise(names):
        edge = (palette.SIZES[name][1] + palette.SIZES[larger][0]) / 2
        if radius < edge:
            return Word(name, min(1.0, (edge - radius) * 64.0), "")
    return Word(names[-1], min(1.0, (radius - edge) * 64.0), "")


def _name_position(x: float, y: float) -> Word:
    (column, across), (row, down) = _band(palette.COLUMNS, x), _band(palette.ROWS, y)
    name = next(name for name, cell in palette.POSITIONS.items() if cell == (column, row))
    return Word(name, min(1.0, min(across, down) / 0.03), "")


def _band(bands: dict[str, tuple[float, float]], value: float) -> tuple[str, float]:
    """The band a value lies in, and how far it is from the next one."""
    names = tuple(bands)
    edges = [(bands[a][1] + bands[b][0]) / 2 for a, b in pairwise(names)]
    index = sum(value >= edge for edge in edges)
    return names[index], min(abs(value - edge) for edge in edges)
