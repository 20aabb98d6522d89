"""What a request may ask for: the limits, and one clear sentence for whatever goes past them.

Every check looks at the fields of a `Request` by name, as its author wrote them; None is a choice left
open and passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

from og2.errors import RequestError
from og2.presets import PRESETS, SCHEDULER_ALIASES
from og2.sampling.guidance import Guidance
from og2.sampling.time import custom_steps

Asked = Mapping[str, Any]

MAX_REFERENCES = 5
MAX_STEPS = 1000
MAX_SIDE = 16384
MAX_IMAGES = 256
MAX_SEED = 2**63 - 1
SIZE_STEP = 16
SCHEDULERS = ("euler", "euler-stochastic", "dpmsolver++")
NUMERICS = ("float32", "official")
CONDITIONING = ("prompt", "chat")
_WHOLE = frozenset(
    {
        *("height", "width", "num_inference_steps", "num_images_per_prompt", "seed", "max_pixels"),
        *("max_input_image_side_length", "max_sequence_length"),
    }
)
_SCALES = frozenset({"text_guidance_scale", "image_guidance_scale", "time_shift"})
_LISTS = frozenset({"cfg_range", "timesteps"})


def normalized(asked: Asked) -> dict[str, Any]:
    """Changes that make one wish one request: tuples, plain numbers, -1 as no seed, one scheduler name.

    Numbers may come in whatever has `tolist`, such as an array or a tensor.
    """
    pictures = asked["input_images"]
    if not _is_list(pictures):
        pictures = () if pictures is None else (pictures,)
    changes: dict[str, Any] = {"input_images": _tuple(pictures)}
    for name, value in asked.items():
        if name in _LISTS and hasattr(value, "tolist"):
            value = changes[name] = value.tolist()
        if name in _WHOLE and _is_number(value, Integral):
            changes[name] = int(value)
        elif name in _SCALES and _is_number(value, Real):
            changes[name] = float(value)
        elif name in _LISTS and _is_list(value):
            changes[name] = tuple(float(item) if _is_number(item, Real) else item for item in _tuple(value))
    if asked["seed"] == -1:
        changes["seed"] = None
    if isinstance(asked["scheduler"], str):
        changes["scheduler"] = SCHEDULER_ALIASES.get(asked["scheduler"], asked["scheduler"])
    return changes


def check(asked: Asked) -> None:
    """Refuses what cannot be carried out. Raises: RequestError."""
    _check_words(asked)
    _check_pictures(asked)
    _check_numbers(asked)
    _check_guidance(asked)


def _check_words(asked: Asked) -> None:
    if not isinstance(asked["prompt"], str) or not asked["prompt"].strip():
        raise RequestError(f"prompt={asked['prompt']!r} is empty; say in words what to draw")
    if asked["negative_prompt"] is not None and not isinstance(asked["negative_prompt"], str):
        raise RequestError(
            f"negative_prompt={asked['negative_prompt']!r} is not a text; give a string or None"
        )
    choices = (
        ("scheduler", SCHEDULERS),
        ("numerics", NUMERICS),
        ("conditioning", CONDITIONING),
        ("preset", tuple(PRESETS)),
    )
    for name, allowed in choices:
        value = asked[name]
        if value is not None and value not in allowed:
            raise RequestError(f"{name}={value!r} is unknown; use one of {', '.join(allowed)}")


def _check_pictures(asked: Asked) -> None:
    count = len(asked["input_images"])
    if count > MAX_REFERENCES:
        raise RequestError(f"{count} input pictures were given; the model knows at most {MAX_REFERENCES}")
    for index, picture in enumerate(asked["input_images"]):
        if picture is None:
            raise RequestError(f"input picture {index + 1} is None; leave it out")


def _check_numbers(asked: Asked) -> None:
    _check_count(asked, "num_inference_steps", 1, MAX_STEPS)
    _check_count(asked, "num_images_per_prompt", 1, MAX_IMAGES)
    for side in ("height", "width"):
        _check_count(asked, side, SIZE_STEP, MAX_SIDE)
    _check_count(asked, "max_input_image_side_length", SIZE_STEP, MAX_SIDE)
    _check_count(asked, "max_pixels", SIZE_STEP**2, MAX_SIDE**2)
    _check_count(asked, "max_sequence_length", 1, 2**20)
    _check_count(asked, "seed", 0, MAX_SEED - MAX_IMAGES)
    m = asked["time_shift"]
    if m is not None and not (isinstance(m, float) and math.isfinite(m) and 0.01 <= m <= 100):
        raise RequestError(f"time_shift={m!r} is out of range; use 0.01 to 100 (1 is no shift)")
    if asked["timesteps"] is not None:
        _check_times(asked["timesteps"])
    if asked["align_res"] is not None and not isinstance(asked["align_res"], bool):
        raise RequestError(f"align_res={asked['align_res']!r} is not True or False")


def _check_times(times: object) -> None:
    if not _is_list(times) or not all(isinstance(t, float) for t in _tuple(times)):
        raise RequestError(f"timesteps={times!r} is not a list of numbers in [0, 1)")
    if len(_tuple(times)) > MAX_STEPS:
        raise RequestError(f"timesteps has {len(_tuple(times))} entries; use at most {MAX_STEPS}")
    custom_steps(_tuple(times))


def _check_guidance(asked: Asked) -> None:
    ends: Any = (0.0, 1.0) if asked["cfg_range"] is None else asked["cfg_range"]
    if not _is_list(ends) or len(_tuple(ends)) != 2:
        raise RequestError(f"cfg_range={ends!r} needs two numbers, a start and an end within [0, 1]")
    scales = (asked["text_guidance_scale"], asked["image_guidance_scale"])
    text, image = (1.0 if scale is None else scale for scale in scales)
    Guidance(text, image, *_tuple(ends))


def _check_count(asked: Asked, name: str, low: int, high: int) -> None:
    value = asked[name]
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name}={value!r} is not a whole number from {low} to {high}; use one")


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _tuple(value: object) -> tuple[Any, ...]:
    """A list or tuple as a tuple."""
    return tuple(cast("Sequence[Any]", value))
