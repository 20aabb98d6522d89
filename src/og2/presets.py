"""The one table of task presets, what a checkpoint says about itself, and the names users bring along.

Python, command line and everything later take their defaults from here. A checkpoint folder may hold
an `og2.json` with its native size and its own values for a preset; without one it is taken for the
published model. Nothing here loads weights or torch.

og2.json: {"name": str, "native_size": px, "max_pixels": px, "max_input_image_side_length": px,
"presets": {preset name: {setting: value}}}; every key may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from og2.config import build
from og2.errors import CheckpointError, ConfigError, RequestError

T = TypeVar("T")

PROFILE_FILE = "og2.json"
LONG_NEGATIVE = (
    "(((deformed))), blurry, over saturation, bad anatomy, disfigured, poorly drawn face, mutation, mutated, "
    "(extra_limb), (ugly), (poorly drawn hands), fused fingers, messy drawing, broken legs censor, censored, "
    "censor_bar"
)


@dataclass(frozen=True)
class Preset:
    """Settings of a task; None for a size means the model's native one."""

    num_inference_steps: int = 50
    text_guidance_scale: float = 4.0
    image_guidance_scale: float = 1.0
    cfg_range: tuple[float, float] = (0.0, 1.0)
    scheduler: str = "euler"
    align_res: bool = True
    negative_prompt: str = ""
    time_shift: float | None = None
    height: int | None = None
    width: int | None = None


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # The authors' example commands: text to picture at 4.0, editing at 5.0 and 2.0, 50 steps each.
        "t2i": Preset(),
        "edit": Preset(text_guidance_scale=5.0, image_guidance_scale=2.0),
        # The authors advise 2.5 to 3.0 for subjects taken from references; the scene sets the size.
        "in-context": Preset(text_guidance_scale=5.0, image_guidance_scale=2.5, align_res=False),
        # Few steps, guidance on the first part only: the authors' advice for speed.
        "fast": Preset(num_inference_steps=30, scheduler="dpmsolver++", cfg_range=(0.0, 0.8)),
        # The defaults of the official Python call and of the official command.
        "official-call": Preset(num_inference_steps=28),
        "official-command": Preset(
            text_guidance_scale=5.0, image_guidance_scale=2.0, negative_prompt=LONG_NEGATIVE
        ),
        # Benchmarks of the paper (arXiv 2506.18871) as the authors' scripts and answers state them.
        "geneval": Preset(height=1024, width=1024),
        "gedit": Preset(text_guidance_scale=5.0, image_guidance_scale=1.5, time_shift=3.0),
        "imgedit": Preset(text_guidance_scale=5.0, image_guidance_scale=2.0),
        "omnicontext": Preset(
            text_guidance_scale=5.0,
            image_guidance_scale=2.0,
            align_res=False,
            negative_prompt=LONG_NEGATIVE,
            height=1024,
            width=1024,
        ),
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "image": "input_images",
        "images": "input_images",
        "instruction": "prompt",
        "guidance_scale": "text_guidance_scale",
        "true_cfg_scale": "text_guidance_scale",
        "img_guidance_scale": "image_guidance_scale",
        "guidance_scale_2": "image_guidance_scale",
        "num_inference_step": "num_inference_steps",
        "max_input_image_pixels": "max_pixels",
        "num_images": "num_images_per_prompt",
        "solver": "scheduler",
    }
)
SCHEDULER_ALIASES: Mapping[str, str] = MappingProxyType(
    {"dpmsolver": "dpmsolver++", "dpm++": "dpmsolver++", "stochastic": "euler-stochastic"}
)


@dataclass(frozen=True)
class Profile:
    """What a checkpoint is made for. Sizes in pixels; `config` is the transformer's, if it was read.

    `dynamic_time_shift` and `time_shift_base_res` (the side in px that needs no shift) are those of its
    scheduler.
    `model_hash` names the weights in picture metadata; empty until they are loaded.
    """

    name: str = "omnigen2"
    native_size: int = 1024
    max_pixels: int = 1024 * 1024
    max_input_image_side_length: int = 1024
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    dynamic_time_shift: bool = True
    time_shift_base_res: int = 320
    config: Mapping[str, Any] | None = None
    model_hash: str = ""

    def preset(self, name: str) -> Preset:
        """A row of the table with this model's own values over it. Raises: RequestError for a wrong name."""
        if name not in PRESETS:
            raise RequestError(f"preset={name!r} is unknown; use one of {', '.join(PRESETS)}")
        return build(Preset, {**asdict(PRESETS[name]), **self.presets.get(name, {})}, f"presets.{name}")


@dataclass(frozen=True)
class _Own:
    """What og2.json may hold."""

    name: str | None = None
    native_size: int = 1024
    max_pixels: int | None = None
    max_input_image_side_length: int | None = None
    presets: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def __post_init__(self) -> None:
        for name, values in self.presets.items():
            if name not in PRESETS:
                raise ConfigError(f"presets.{name} is unknown; known: {', '.join(PRESETS)}")
            build(Preset, values, f"presets.{name}")


@dataclass(frozen=True)
class _Shift:
    """What of scheduler_config.json is read."""

    dynamic_time_shift: bool = True
    time_shift_base_res: int = 320


def read_profile(folder: Path) -> Profile:
    """The profile of a checkpoint folder, from its JSON files alone.

    Raises: CheckpointError for an og2.json that is not JSON, names unknown keys or presets, or has values of
    the wrong type.
    """
    place = folder / "scheduler" / "scheduler_config.json"
    read = {key: value for key, value in _read_json(place).items() if key in _Shift.__annotations__}
    shift = _built(_Shift, read, place)
    own = _built(_Own, _read_json(folder / PROFILE_FILE), folder / PROFILE_FILE)
    side = own.max_input_image_side_length
    return Profile(
        name=folder.name if own.name is None else own.name,
        native_size=own.native_size,
        max_pixels=own.native_size**2 if own.max_pixels is None else own.max_pixels,
        max_input_image_side_length=own.native_size if side is None else side,
        presets=own.presets,
        config=_read_json(folder / "transformer" / "config.json") or None,
        **asdict(shift),
    )


def profile_json(profile: Profile) -> dict[str, Any]:
    """The content of og2.json that brings this profile back."""
    return {
        "name": profile.name,
        "native_size": profile.native_size,
        "max_pixels": profile.max_pixels,
        "max_input_image_side_length": profile.max_input_image_side_length,
        "presets": {name: dict(values) for name, values in profile.presets.items()},
    }


def scheduler_json(profile: Profile) -> dict[str, Any]:
    """The content of scheduler_config.json in the published layout."""
    content = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "dynamic_time_shift": profile.dynamic_time_shift,
    }
    if profile.time_shift_base_res != 320:
        content["time_shift_base_res"] = profile.time_shift_base_res
    return content


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); restore the file or remove it") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(read).__name__}")
    return cast("dict[str, Any]", read)


def _built(cls: type[T], tree: Mapping[str, Any], path: Path) -> T:
    try:
        return build(cls, tree, path.name)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; restore the file or mend it") from error
