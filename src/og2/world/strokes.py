"""A scene as a list of strokes in painting order: what the renderer paints, one figure and one paint each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from og2.world.backdrops import Backdrop
from og2.world.creatures import (
    ARM_THICKNESS,
    EAR_ANGLE_DEG,
    EYE_Y,
    FACE_SHIFT,
    HAND_RADIUS,
    LEG_THICKNESS,
    MOUTH_Y,
    SHOULDER_Y,
    SPOT_SLOTS,
    TAIL_LENGTH,
    Creature,
)
from og2.world.fills import Fill
from og2.world.glyphs import LETTERS
from og2.world.palette import Lab
from og2.world.props import CAP_Y, Gizmo, Plate, plate_half_size
from og2.world.scenes import Object, Scene
from og2.world.shapes import outline_box

Box = tuple[float, float, float, float]
NUM_PARAMS = 15
FAR = 99.0
_IVORY: Lab = (94.0, -1.0, 12.0)
_WHITE: Lab = (99.0, 0.0, 0.0)
_DARK: Lab = (14.0, 3.0, 1.0)
_TONGUE: Lab = (52.0, 58.0, 28.0)
_LIMB_STEP = -7.0  # limbs are a little darker than the body
_TREE_STEP = -7.0  # trees are darker than the ground
_BODY_SHADING = 0.16
_TAIL_THICKNESS = 0.085


@dataclass(frozen=True)
class Stroke:
    """One figure in one paint.

    figure: a name of `distances`, or "text". x, y: its anchor, as fractions of width and height; offset: from
    there to its origin, and box: (left, top, right, bottom) of all it paints, both from the anchor as
    fractions of the shorter side; radius: its unit, likewise. turn: radians. params: as the figure wants.
    """

    figure: str
    x: float
    y: float
    radius: float
    box: Box
    lab: Lab
    offset: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    params: tuple[float, ...] = ()
    fill: Fill | None = None
    shading: float = 0.0


def strokes_of(scene: Scene) -> list[Stroke]:
    """All strokes of a scene, the first painted first."""
    found = tree_strokes(scene.backdrop) if scene.backdrop else []
    found += [object_stroke(o) for o in scene.objects]
    for gizmo in scene.gizmos:
        found += gizmo_strokes(gizmo)
    for plate in scene.plates:
        found += plate_strokes(plate)
    for creature in scene.creatures:
        found += creature_strokes(creature)
    return found


def painted_box(subject: Creature | Gizmo) -> Box:
    """The box of what is painted of a subject in its pose: left, top, right, bottom, fractions."""
    strokes = creature_strokes(subject) if isinstance(subject, Creature) else gizmo_strokes(subject)
    return (
        min(s.x + s.box[0] for s in strokes),
        min(s.y + s.box[1] for s in strokes),
        max(s.x + s.box[2] for s in strokes),
        max(s.y + s.box[3] for s in strokes),
    )


def tree_strokes(backdrop: Backdrop) -> list[Stroke]:
    """The trees of a landscape, a little below the horizon; part of the backdrop, so not in front of it."""
    return [
        Stroke(
            "fir",
            x,
            backdrop.horizon + 0.02,
            height,
            (-0.4 * height, -height, 0.4 * height, 0.0),
            (backdrop.labs[1][0] + _TREE_STEP, backdrop.labs[1][1], backdrop.labs[1][2]),
        )
        for x, height in backdrop.trees
    ]


def object_stroke(obj: Object) -> Stroke:
    """An object is one figure."""
    box = outline_box(obj.shape, obj.radius, obj.rotation)
    return Stroke(
        obj.shape,
        obj.x,
        obj.y,
        obj.radius,
        box,
        obj.lab,
        turn=obj.rotation,
        fill=obj.fill,
        shading=obj.shading,
    )


def gizmo_strokes(gizmo: Gizmo) -> list[Stroke]:
    """Cap, body, emblem."""
    r = gizmo.radius

    def part(shape: str, y: float, size: float, lab: Lab) -> Stroke:
        left, top, right, bottom = outline_box(shape, size * r, 0.0)
        box = (left, top + y * r, right, bottom + y * r)
        return Stroke(shape, gizmo.x, gizmo.y, size * r, box, lab, offset=(0.0, y * r))

    body = Stroke(
        gizmo.body,
        gizmo.x,
        gizmo.y,
        r,
        outline_box(gizmo.body, r, 0.0),
        gizmo.body_lab,
        fill=gizmo.fill,
        shading=0.07,
    )
    return [
        part(gizmo.cap, CAP_Y, gizmo.cap_size, gizmo.cap_lab),
        body,
        part(gizmo.emblem, 0.0, gizmo.emblem_size, gizmo.emblem_lab),
    ]


def plate_strokes(plate: Plate) -> list[Stroke]:
    """The board and the letters."""
    half_width, half_height = plate_half_size(plate)
    box = (-half_width, -half_height, half_width, half_height)
    cell = plate.cell
    size = (half_width / cell, half_height / cell, 1.4)
    letters = tuple(float(LETTERS.index(letter)) for letter in plate.text)
    return [
        Stroke("plate", plate.x, plate.y, cell, box, plate.lab, params=size),
        Stroke("text", plate.x, plate.y, cell, box, plate.ink_lab, params=(float(len(letters)), *letters)),
    ]


def creature_strokes(creature: Creature) -> list[Stroke]:
    """Ears, legs, arms, tail and horns behind the body; spots, eyes and mouth on it."""
    a = math.sqrt(creature.anatomy.body_aspect)
    b = 1.0 / a
    return [*_behind(creature, a, b), *_body(creature, a, b), *_face(creature, a, b)]


def _stroke(creature: Creature, figure: str, box: Box, lab: Lab, params: tuple[float, ...]) -> Stroke:
    r = creature.radius
    scaled = (box[0] * r, box[1] * r, box[2] * r, box[3] * r)
    return Stroke(figure, creature.x, creature.y, r, scaled, lab, params=params)


def _behind(creature: Creature, a: float, b: float) -> list[Stroke]:
    anatomy = creature.anatomy
    tilt = math.radians(EAR_ANGLE_DEG)
    base_x, base_y = a * math.sin(tilt), -b * math.cos(tilt)
    dx, dy = math.sin(0.6 * tilt), -math.cos(0.6 * tilt)
    half = (anatomy.ear_length + 0.2) / 2.0
    x, y = base_x + dx * (anatomy.ear_length - half), base_y + dy * (anatomy.ear_length - half)
    reach_x, reach_y = x + dx * half + anatomy.ear_width, y + dy * half - anatomy.ear_width * 0.6
    box = (-reach_x, reach_y, reach_x, 0.0)
    limb_lab = (anatomy.body_lab[0] + _LIMB_STEP, anatomy.body_lab[1], anatomy.body_lab[2])
    end = b * 0.94 + anatomy.leg_length
    leg_x = 0.42 * a
    legs = (-leg_x - 0.3, 0.6 * b, leg_x + 0.3, end + LEG_THICKNESS + 0.06)
    found = [
        _stroke(creature, "pair", box, limb_lab, (x, y, dx, dy, anatomy.ear_width, half)),
        _stroke(
            creature, "pair", box, anatomy.second_lab, (x, y, dx, dy, anatomy.ear_width * 0.55, half * 0.66)
        ),
        _stroke(creature, "pair_of_legs", legs, limb_lab, (leg_x, 0.7 * b, end, LEG_THICKNESS)),
        _stroke(creature, "pair", legs, anatomy.second_lab, (leg_x + 0.05, end + 0.06, 0.0, 1.0, 0.23, 0.13)),
        *(_arm(creature, side, a, limb_lab) for side in (-1.0, 1.0)),
        _tail(creature, a, b),
    ]
    if anatomy.horn_count:
        wide = 0.28 * (anatomy.horn_count - 1) / 2 + 0.15
        params = (float(anatomy.horn_count), 0.28, 0.135, -0.75 * b, -b - 0.32)
        found.append(_stroke(creature, "spikes", (-wide, -b - 0.38, wide, -0.7 * b), _IVORY, params))
    return found


def _arm(creature: Creature, side: float, a: float, lab: Lab) -> Stroke:
    pose, length = creature.pose, creature.anatomy.arm_length
    angle = pose.left_angle if side < 0 else pose.right_angle
    dx, dy = side * math.cos(angle), -math.sin(angle)
    start = (side * 0.82 * a, SHOULDER_Y)
    length += 0.08 * a
    end = (start[0] + dx * length, start[1] + dy * length)
    reach = HAND_RADIUS + 0.02
    box = (
        min(start[0], end[0]) - reach,
        min(start[1], end[1]) - reach,
        max(start[0], end[0]) + reach,
        max(start[1], end[1]) + reach,
    )
    arm = _stroke(creature, "limb", box, lab, (length, ARM_THICKNESS, HAND_RADIUS))
    r = creature.radius
    return Stroke(**{**vars(arm), "offset": (start[0] * r, start[1] * r), "turn": math.atan2(dy, dx)})


def _tail(creature: Creature, a: float, b: float) -> Stroke:
    """An arc of one length that starts at the side, outward and a little down, and bends upward."""
    side = -1.0 if creature.pose.facing == "right" else 1.0
    angle = 0.5 + 3.9 * creature.anatomy.tail_curl
    radius = TAIL_LENGTH / angle
    along, up = (side * 0.94, 0.34), (side * 0.34, -0.94)
    start = (side * 0.74 * a, 0.52 * b)
    center = (start[0] + radius * up[0], start[1] + radius * up[1])
    points = [
        (
            center[0] + radius * (along[0] * math.sin(t) - up[0] * math.cos(t)),
            center[1] + radius * (along[1] * math.sin(t) - up[1] * math.cos(t)),
        )
        for t in (angle * k / 12 for k in range(13))
    ]
    pad = _TAIL_THICKNESS + 0.03
    box = (
        min(p[0] for p in points) - pad,
        min(p[1] for p in points) - pad,
        max(p[0] for p in points) + pad,
        max(p[1] for p in points) + pad,
    )
    half = angle / 2
    middle = tuple(along[i] * math.sin(half) - up[i] * math.cos(half) for i in (0, 1))
    params = (radius, math.sin(half), math.cos(half), _TAIL_THICKNESS)
    tail = _stroke(creature, "arc", box, creature.anatomy.second_lab, params)
    r = creature.radius
    turn = math.atan2(-middle[0], middle[1])
    return Stroke(**{**vars(tail), "offset": (center[0] * r, center[1] * r), "turn": turn})


def _body(creature: Creature, a: float, b: float) -> list[Stroke]:
    anatomy = creature.anatomy
    body = _stroke(creature, "ellipse", (-a, -b, a, b), anatomy.body_lab, (a, b))
    found = [Stroke(**{**vars(body), "shading": _BODY_SHADING})]
    if anatomy.spot_count:
        params = [anatomy.spot_size]
        for i, (x, y) in enumerate(SPOT_SLOTS):
            params += [x * a, y * b] if i < anatomy.spot_count else [FAR, FAR]
        box = (-0.75 * a, 0.2 * b, 0.75 * a, b)
        found.append(_stroke(creature, "discs", box, anatomy.second_lab, tuple(params)))
    return found


def _face(creature: Creature, a: float, b: float) -> list[Stroke]:
    anatomy, pose, r = creature.anatomy, creature.pose, creature.radius
    signs = {"left": -1.0, "front": 0.0, "right": 1.0}
    x = signs[pose.facing] * FACE_SHIFT * a
    look = signs[pose.gaze] * 0.42 * anatomy.eye_size
    size, apart, y = anatomy.eye_size, anatomy.eye_separation / 2, EYE_Y * b
    box = (x - apart - size, y - size, x + apart + size, y + size)

    def at(stroke: Stroke, dx: float, dy: float = 0.0) -> Stroke:
        return Stroke(**{**vars(stroke), "offset": (dx * r, dy * r)})

    found = [
        at(_stroke(creature, "pair_of_discs", box, lab, (apart, y + dy, radius)), x + dx)
        for lab, dx, dy, radius in (
            (_WHITE, 0.0, 0.0, size),
            (_DARK, look, 0.0, 0.54 * size),
            (_WHITE, look - 0.16 * size, -0.18 * size, 0.17 * size),
        )
    ]
    mouth = (x - 0.24, MOUTH_Y * b - 0.18, x + 0.24, MOUTH_Y * b + 0.18)
    if pose.mouth == "closed":
        smile = (0.19, math.sin(0.95), math.cos(0.95), 0.045)
        return [*found, at(_stroke(creature, "arc", mouth, _DARK, smile), x, MOUTH_Y * b - 0.14)]
    return [
        *found,
        at(_stroke(creature, "ellipse", mouth, _DARK, (0.20, 0.145)), x, MOUTH_Y * b),
        at(_stroke(creature, "ellipse", mouth, _TONGUE, (0.12, 0.065)), x, MOUTH_Y * b + 0.06),
    ]
