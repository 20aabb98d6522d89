"""What is asked for and what comes back: Request, Guidance, Result, and the plan between them.

A request says only what its author decided; `resolve` fills the rest from the preset and the model,
`plan` then says everything that will happen: sizes, seeds, times, branches. Both are pure but for the
seed that `resolve` draws where none was given. Weights are never touched here.

Sizes are (height, width) in pixels unless a name says latent.
"""

from __future__ import annotations

import difflib
import hashlib
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from og2 import limits
from og2.errors import RequestError
from og2.limits import SIZE_STEP
from og2.presets import ALIASES, PRESETS, Preset, Profile, read_profile
from og2.sampling.guidance import Branch, Guidance, branches
from og2.sampling.time import custom_steps, shift_factor, time_steps

if TYPE_CHECKING:
    from PIL.Image import Image

    from og2.conditioning.reading import PictureInput

__all__ = ["PRESETS", "Guidance", "Plan", "Profile", "Request", "Result", "plan", "read_profile", "resolve"]

Size = tuple[int, int]
VAE_FACTOR = 8


@dataclass(frozen=True)
class Request:
    """One prompt and how to draw it; None leaves a choice to the preset and the model.

    `input_images`: up to five paths, Pillow pictures, arrays or tensors; `seed`: of the first picture,
    picture i takes seed + i, None or -1 draws one; `timesteps`: times in [0, 1) by hand, unshifted;
    `time_shift`: the shift m by hand; `align_res`: draw at the size of a single reference;
    `numerics`: "official" rounds where the official implementation does; `conditioning`: "chat" shows the
    prompt to the language model in the chat form, with the pictures; `made_by` and `made_in`: hash of the
    model and arithmetic (`Provenance.arithmetic`) that the settings come from, if from a picture.
    Raises: RequestError, in one sentence, for anything that cannot be carried out.
    """

    prompt: str
    negative_prompt: str | None = None
    input_images: tuple[PictureInput, ...] = ()
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    text_guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    cfg_range: tuple[float, float] | None = None
    max_pixels: int | None = None
    max_input_image_side_length: int | None = None
    align_res: bool | None = None
    num_images_per_prompt: int = 1
    scheduler: str | None = None
    seed: int | None = None
    timesteps: tuple[float, ...] | None = None
    time_shift: float | None = None
    max_sequence_length: int | None = None
    numerics: str = "float32"
    preset: str | None = None
    conditioning: str = "prompt"
    made_by: str | None = None
    made_in: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name, value in limits.normalized(self.options()).items():
            object.__setattr__(self, name, value)
        limits.check(self.options())

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Request:
        """A request from loose options under our names or under those users bring from elsewhere.

        A name from elsewhere is read, warned of, and noted. Raises: RequestError for an unknown name,
        with the nearest right one, and for two names of the same thing.
        """
        known = {item.name for item in fields(cls)}
        taken: dict[str, Any] = {}
        notes: list[str] = list(options.get("notes", ()))
        for name, value in options.items():
            right = ALIASES.get(name, name)
            if right not in known:
                near = difflib.get_close_matches(name, [*known, *ALIASES], 1, 0.5)
                raise RequestError(
                    f"{name!r} is not an option; " + (f"did you mean {near[0]!r}?" if near else "see Request")
                )
            if right in taken:
                raise RequestError(f"{right} was given twice, once as {name!r}; give it once")
            if right != name:
                notes.append(f"{name} is read as {right}")
                warnings.warn(notes[-1], UserWarning, stacklevel=2)
            taken[right] = value
        taken["notes"] = tuple(notes)
        return cls(**taken)

    @property
    def guidance(self) -> Guidance:
        """Scales and range together; what was left open counts as off. Image guidance needs references."""
        image = self.image_guidance_scale if self.input_images else None
        start, end = self.cfg_range or (0.0, 1.0)
        return Guidance(_or(self.text_guidance_scale, 1.0), _or(image, 1.0), start, end)

    def options(self) -> dict[str, Any]:
        """The settings by name, without notes."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "notes"}


@dataclass(frozen=True)
class Provenance:
    """What else a picture's bytes depend on: how and where it is computed, given tensors, references read.

    `blocks`: "plain" or "fused". `pack`: "picture" or "batch". `given`: names of tensors given by hand.
    `references`: (name as given or None, sha256 of the upright RGB pixels) each.
    """

    dtype: str = ""
    device: str = ""
    blocks: str = "plain"
    pack: str = "picture"
    given: tuple[str, ...] = ()
    references: tuple[tuple[str | None, str], ...] = ()

    @property
    def arithmetic(self) -> str:
        """What rounds: dtype, blocks and device, in words."""
        return f"{self.dtype} with {self.blocks} blocks on {self.device}"


@dataclass(frozen=True)
class Plan:
    """All that will happen for one request, known before any weight is touched.

    `size` is drawn, `output_size` is delivered (after a bilinear resize where they differ);
    `times` are num_steps + 1 numbers from 0 (noise) to 1 (picture); `branches` has one tuple a step.
    """

    request: Request
    profile: Profile
    size: Size
    output_size: Size
    reference_sizes: tuple[Size, ...]
    seeds: tuple[int, ...]
    times: tuple[float, ...]
    branches: tuple[tuple[Branch, ...], ...]
    notes: tuple[str, ...]
    provenance: Provenance = Provenance()

    @property
    def num_steps(self) -> int:
        """Steps of the solver."""
        return len(self.branches)

    @property
    def num_evaluations(self) -> int:
        """Network evaluations for one picture: the branches of all its steps."""
        return sum(len(step) for step in self.branches)

    @property
    def latent_size(self) -> Size:
        """(h, w) of the latents."""
        return self.size[0] // VAE_FACTOR, self.size[1] // VAE_FACTOR

    @property
    def target_tokens(self) -> int:
        """Tokens of the picture in the transformer."""
        return _tokens(self.size)

    @property
    def reference_tokens(self) -> tuple[int, ...]:
        """Tokens of each reference."""
        return tuple(_tokens(size) for size in self.reference_sizes)

    def num_steps_with(self, branch: Branch) -> int:
        """At how many steps a branch is computed."""
        return sum(branch in step for step in self.branches)


@dataclass(frozen=True)
class Result:
    """What came of a call: pictures in order, and the record of how they were made.

    `images`: Pillow pictures, or arrays (H, W, 3) / tensors (3, H, W) in [0, 1], or latents (C, h, w);
    stacked if all have one size and an array or tensor was asked for. `seeds`: one per picture, None
    where noise was given. `plans`: one per request. `timings`: seconds by stage. `text`: the words of a chat.
    """

    images: Any
    seeds: tuple[int | None, ...] = ()
    notes: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict[str, float])
    text: str | None = None

    @property
    def plan(self) -> Plan | None:
        """The plan of the first request; None if nothing was drawn."""
        return self.plans[0] if self.plans else None

    def plan_of(self, index: int) -> Plan:
        """The plan that picture `index` was made by."""
        owners = [plan for plan in self.plans for _ in plan.seeds]
        return owners[index]


def resolve(request: Request, profile: Profile | None = None) -> Request:
    """The request with every open choice made: by its preset, by the model's native size, by a drawn seed."""
    profile = profile or Profile()
    name = request.preset or _default_preset(request)
    preset: Preset = profile.preset(name)
    chosen = {item.name: getattr(preset, item.name) for item in fields(preset)}
    chosen |= {
        "height": preset.height or profile.native_size,
        "width": preset.width or profile.native_size,
        "max_pixels": _preset_pixels(preset, profile),
        "max_input_image_side_length": profile.max_input_image_side_length,
        "seed": secrets.randbelow(2**31),
    }
    open_choices = {key: value for key, value in chosen.items() if getattr(request, key) is None}
    return replace(request, preset=name, **open_choices)


def plan(
    request: Request, profile: Profile | None = None, picture_sizes: Sequence[Size] | None = None
) -> Plan:
    """Everything that will happen for a request, its open choices made.

    `picture_sizes`: of the input pictures as given, upright; read from the pictures if not passed.
    Raises: RequestError, ImageError.
    """
    from og2.conditioning.sizes import fit_size

    profile = profile or Profile()
    chosen = resolve(request, profile)
    given = picture_sizes if picture_sizes is not None else _picture_sizes(chosen)
    side, pixels = chosen.max_input_image_side_length, chosen.max_pixels
    assert side is not None
    assert pixels is not None
    references = tuple(fit_size(*size, pixels, side) for size in given)
    output, is_aligned = _output_size(chosen, references)
    size = output if is_aligned else fit_size(*output, pixels)
    steps = _steps(chosen, profile, size)
    guidance, num_steps = chosen.guidance, len(steps) - 1
    needed = tuple(branches(guidance, i, num_steps, bool(references)) for i in range(num_steps))
    seed = chosen.seed
    assert seed is not None
    return Plan(
        request=chosen,
        profile=profile,
        size=size,
        output_size=output,
        reference_sizes=references,
        seeds=tuple(seed + i for i in range(chosen.num_images_per_prompt)),
        times=steps,
        branches=needed,
        notes=(
            *chosen.notes,
            *_notes(request, chosen, profile, size, output, list(zip(given, references, strict=True))),
        ),
    )


def picture_hash(picture: Image) -> str:
    """sha256 of an RGB picture's size and pixels, whatever file or format they came in."""
    digest = hashlib.sha256(f"{picture.width}x{picture.height} {picture.mode}\n".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()


def _default_preset(request: Request) -> str:
    return ("t2i", "edit")[len(request.input_images)] if len(request.input_images) < 2 else "in-context"


def _preset_pixels(preset: Preset, profile: Profile) -> int:
    asked = (preset.height or 0) * (preset.width or 0)
    return max(profile.max_pixels, asked)


def _steps(request: Request, profile: Profile, size: Size) -> tuple[float, ...]:
    if request.timesteps is not None:
        return custom_steps(request.timesteps)
    assert request.num_inference_steps is not None
    latent_pixels = (size[0] // VAE_FACTOR) * (size[1] // VAE_FACTOR)
    factor = request.time_shift
    if factor is None and profile.dynamic_time_shift:
        factor = shift_factor(latent_pixels, profile.time_shift_base_res)
    return time_steps(request.num_inference_steps, None, factor=factor)


def _output_size(request: Request, references: Sequence[Size]) -> tuple[Size, bool]:
    """The size to deliver, and whether a single reference decided it."""
    if request.align_res and len(references) == 1:
        return references[0], True
    assert request.height is not None
    assert request.width is not None
    return (request.height, request.width), False


def _notes(
    asked: Request,
    chosen: Request,
    profile: Profile,
    size: Size,
    output: Size,
    pictures: Sequence[tuple[Size, Size]],
) -> list[str]:
    notes: list[str] = []
    if asked.made_by and profile.model_hash and asked.made_by != profile.model_hash:
        notes.append(
            f"the settings come from a picture by model {asked.made_by}, this is {profile.model_hash}; "
            "the picture will be another"
        )
    if (asked.height or asked.width) and chosen.align_res and len(pictures) == 1:
        notes.append(
            f"align_res draws at the reference's size {_hw(size)}; height and width are not used, "
            "pass align_res=False to use them"
        )
    if size != output:
        notes.append(
            f"the picture is drawn at {_hw(size)} and resized to {_hw(output)}: {_why(output, chosen)}"
        )
    for index, (given, used) in enumerate(pictures):
        if given != used:
            notes.append(f"reference {index + 1} of {_hw(given)} is used at {_hw(used)}")
    return notes


def _why(output: Size, request: Request) -> str:
    assert request.max_pixels is not None
    if output[0] * output[1] > request.max_pixels:
        return f"max_pixels={request.max_pixels}"
    sides = [
        f"{low} or {low + SIZE_STEP} for {side}"
        for side in output
        if (low := side // SIZE_STEP * SIZE_STEP) != side
    ]
    return f"sides are drawn in multiples of {SIZE_STEP}; {' and '.join(sides)} would need no resize"


def _hw(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _tokens(size: Size) -> int:
    return (size[0] // SIZE_STEP) * (size[1] // SIZE_STEP)


def _picture_sizes(request: Request) -> list[Size]:
    if not request.input_images:
        return []
    from og2.conditioning.reading import load_image

    pictures = [load_image(source)[0] for source in request.input_images]
    return [(picture.height, picture.width) for picture in pictures]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
