"""The arguments of the pipeline's call taken apart: one request per prompt, and the tensors that go with it.

A list of prompts makes a batch; every other option is then one value for all, or a list with one value
per prompt. Here is no default and no network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from og2.conditioning.images import to_pil
from og2.conditioning.templates import Turn
from og2.errors import RequestError
from og2.presets import ALIASES
from og2.request import Plan, Request, Result

Pack = Literal["picture", "batch"]
OutputType = Literal["pil", "np", "pt", "latent"]
EMBEDS_PROMPT = "(prompt given as embeddings)"
_TENSORS = ("latents", "reference_noise", "generator", "prompt_embeds", "negative_prompt_embeds")
_SETTINGS = (
    *("pack", "together", "on_step", "callback_on_step_end", "callback_on_step_end_tensor_inputs"),
    *("step_func", "verbose", "attention_kwargs"),
)
_PER_PROMPT_TUPLES = ("cfg_range", "timesteps")


@dataclass(frozen=True)
class Inputs:
    """What is given for one request beside its settings; None is made by the pipeline.

    `latents`: initial noise (C, h, w) per picture. `reference_noise`: the standard-normal draw (C, h, w)
    of each reference. `generators`: one per picture, in place of its seed. `prompt_embeds` and
    `negative_prompt_embeds`: features (T, F). `history`: the turns before the prompt of a chat.
    """

    latents: tuple[Tensor, ...] | None = None
    reference_noise: tuple[Tensor, ...] | None = None
    generators: tuple[torch.Generator, ...] | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    history: tuple[Turn, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What was given by hand."""
        return tuple(item.name for item in fields(self) if getattr(self, item.name) is not None)

    @property
    def has_own_noise(self) -> bool:
        """Whether the initial noise does not come from the request's seed."""
        return self.latents is not None or self.generators is not None


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step: step and num_steps of this pack, the share of the whole call done.

    `pictures` are the numbers of the pack's pictures in the call; `latents` their states (C, h, w);
    `time` is the t just reached by the first of them.
    """

    step: int
    num_steps: int
    pictures: tuple[int, ...]
    num_pictures: int
    latents: list[Tensor]
    time: float
    share: float


OnStep = Callable[[Progress], "bool | list[Tensor] | None"]


@dataclass(frozen=True)
class Settings:
    """How a call runs, whatever it draws.

    `pack`: "picture" computes every picture by itself, so its bytes depend on nothing else in the call;
    "batch" computes pictures together. `together`: whether a picture's guidance branches run in one
    forward or one after another. `on_step` may return False to cancel, or latents to go on with.
    """

    output_type: OutputType = "pil"
    pack: Pack = "picture"
    together: bool = True
    on_step: OnStep | None = None

    def __post_init__(self) -> None:
        allowed = {"output_type": ("pil", "np", "pt", "latent"), "pack": ("picture", "batch")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                came = getattr(self, name)
                raise RequestError(f"{name}={came!r} is unknown; use one of {', '.join(values)}")
        if not isinstance(self.together, bool):
            raise RequestError(f"together={self.together!r}; use True or False")


def requests_of(options: Mapping[str, Any]) -> tuple[list[Request], list[Inputs]]:
    """One request and its tensors per prompt, from the options of one call; None leaves one open.

    Raises: RequestError for lists that do not fit the prompts, and for whatever a request refuses.
    """
    given = {name: value for name, value in options.items() if value is not None}
    tensors = {name: given.pop(name, None) for name in _TENSORS}
    embeds = _features(tensors["prompt_embeds"], given.pop("prompt_attention_mask", None))
    negative = _features(tensors["negative_prompt_embeds"], given.pop("negative_prompt_attention_mask", None))
    names = [name for name in ("prompt", "instruction") if name in given]
    if not names and embeds:
        names, given = ["prompt"], {**given, "prompt": [EMBEDS_PROMPT] * len(embeds)}
    if not names:
        raise RequestError("no prompt was given; say in words what to draw")
    prompts = given.pop(names[0])
    is_batch = isinstance(prompts, (list, tuple))
    prompts = list(prompts) if is_batch else [prompts]
    if not prompts:
        raise RequestError("prompt is an empty list; give at least one")
    spread = {name: _spread(name, value, len(prompts), is_batch) for name, value in given.items()}
    requests = []
    for i, prompt in enumerate(prompts):
        own = {name: values[i] for name, values in spread.items() if values[i] is not None}
        requests.append(Request.from_options({"prompt": prompt, **own}))
    requests = _follow_seeds(requests, isinstance(given.get("seed"), (list, tuple)))
    return requests, _inputs(requests, tensors, embeds, negative)


def given_pictures(value: Any) -> list[Any]:
    """The pictures of one prompt: given as one, as a list, or as such a list in a list; None is none."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        return [value]
    if len(value) == 1 and (value[0] is None or isinstance(value[0], (list, tuple))):
        return given_pictures(value[0])
    return list(value)


def named_pictures(value: Any, options: Mapping[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
    """The name that pictures were given under, the pictures, and the other options.

    Raises: RequestError if they were given under two names.
    """
    names = [name for name in options if ALIASES.get(name) == "input_images"]
    if len(names) > 1 or (names and given_pictures(value)):
        raise RequestError(f"input_images was given twice, once as {names[-1]!r}; give it once")
    rest = {name: option for name, option in options.items() if name not in names}
    name = names[0] if names else "input_images"
    return name, given_pictures(options.get(name, value)), rest


def check_noise(noise: Tensor, expected: tuple[int, ...], name: str) -> Tensor:
    """The tensor, if it has the expected shape. Raises: RequestError naming both shapes."""
    if tuple(noise.shape) != expected:
        raise RequestError(f"{name} has shape {tuple(noise.shape)}; {expected} is needed here")
    return noise


def settings_of(
    pipeline: object, output_type: OutputType, options: Mapping[str, Any]
) -> tuple[Settings, dict[str, Any]]:
    """How the call runs, and the options that are left to say what it draws."""
    rest = {name: value for name, value in options.items() if name not in _SETTINGS}
    if options.get("attention_kwargs"):
        raise RequestError("attention_kwargs is not used by this model; leave it out")
    tensors = tuple(options.get("callback_on_step_end_tensor_inputs") or ("latents",))
    if tensors != ("latents",):
        raise RequestError(f"callback_on_step_end_tensor_inputs={list(tensors)}; only ['latents'] is there")
    calls = [options.get("on_step")]
    if options.get("callback_on_step_end") is not None:
        calls.append(_diffusers_callback(pipeline, options["callback_on_step_end"]))
    if options.get("step_func") is not None:
        calls.append(_official_callback(options["step_func"]))
    on_step = _chained([call for call in calls if call is not None])
    given = {name: options[name] for name in ("pack", "together") if options.get(name) is not None}
    return Settings(output_type, **given, on_step=on_step), rest


class Clock:
    """Seconds spent in each stage of one call."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.timings: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - start

    def finish(self) -> dict[str, float]:
        return {**self.timings, "total_s": time.perf_counter() - self.start}


def result_of(
    plan: Plan,
    inputs: Inputs,
    pictures: Sequence[Tensor],
    output_type: OutputType,
    timings: Mapping[str, float],
) -> Result:
    """The result of one request, from its finished pictures (3, H, W)."""
    seeds = tuple(None if inputs.has_own_noise else seed for seed in plan.seeds)
    return Result(delivered(pictures, output_type), seeds, plan.notes, (plan,), timings)


def delivered(pictures: Sequence[Tensor], output_type: OutputType) -> Any:
    """Pictures (3, H, W) in the form asked for: Pillow pictures, one array or tensor, or a list of them."""
    if output_type == "pil":
        return [to_pil(picture[None])[0] for picture in pictures]
    if output_type == "np":
        return _stacked([picture.permute(1, 2, 0).numpy() for picture in pictures], np.stack)
    return _stacked(list(pictures), torch.stack)


def joined(results: Sequence[Result], output_type: OutputType) -> Result:
    """The results of all requests of one call as one."""
    if len(results) == 1:
        return results[0]
    pictures = [picture for result in results for picture in result.images]
    if output_type != "pil":
        pictures = _stacked(pictures, np.stack if output_type == "np" else torch.stack)
    notes = [f"prompt {i + 1}: {note}" for i, result in enumerate(results) for note in result.notes]
    return Result(
        pictures,
        tuple(seed for result in results for seed in result.seeds),
        tuple(notes),
        tuple(plan for result in results for plan in result.plans),
        results[0].timings,
    )


def needs_negative(plan: Plan) -> bool:
    """Whether any step computes a branch with the negative prompt."""
    return any(len(step) > 1 for step in plan.branches)


def _stacked(items: list[Any], stack: Callable[[list[Any]], Any]) -> Any:
    return stack(items) if len({tuple(item.shape) for item in items}) == 1 else items


def _diffusers_callback(pipeline: object, callback: Callable[..., Any]) -> OnStep:
    """A callback(pipeline, step, time, {"latents": (B, C, h, w)}) -> dict as an OnStep."""

    def on_step(progress: Progress) -> list[Tensor] | None:
        given = {"latents": _stacked(progress.latents, torch.stack)}
        returned = callback(pipeline, progress.step, progress.time, given)
        return list(returned["latents"]) if isinstance(returned, dict) and "latents" in returned else None

    return on_step


def _official_callback(step_func: Callable[[int, int], Any]) -> OnStep:
    def on_step(progress: Progress) -> None:
        step_func(progress.step, progress.num_steps)

    return on_step


def _chained(calls: list[OnStep]) -> OnStep | None:
    """One callback for several: the first that cancels does; latents that one returns go to the next."""
    if len(calls) < 2:
        return calls[0] if calls else None

    def on_step(progress: Progress) -> bool | list[Tensor] | None:
        for call in calls:
            answer = call(progress)
            if answer is False:
                return False
            if isinstance(answer, list):
                progress = replace(progress, latents=answer)
        return progress.latents

    return on_step


def _spread(name: str, value: Any, count: int, is_batch: bool) -> list[Any]:
    """The value of every prompt: its own where a list was given, else the one for all."""
    if name in ("input_images", "image", "images"):
        return _spread_pictures(value, count, is_batch)
    is_list = isinstance(value, (list, tuple))
    if is_list and name in _PER_PROMPT_TUPLES:
        is_list = bool(value) and (value[0] is None or isinstance(value[0], (list, tuple)))
    if not is_list:
        return [value] * count
    if len(value) != count:
        raise RequestError(
            f"{name} has {len(value)} values for {count} prompts; give one for all, or one each"
        )
    return list(value)


def _spread_pictures(value: Any, count: int, is_batch: bool) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        value = [value]
    is_nested = any(item is None or isinstance(item, (list, tuple)) for item in value)
    if not is_batch or (count == 1 and not is_nested):
        return [given_pictures(value)]
    if len(value) != count:
        raise RequestError(
            f"input_images has {len(value)} entries for {count} prompts; "
            "give each prompt a list of pictures, or None"
        )
    return list(value)


def _follow_seeds(requests: list[Request], one_each: bool) -> list[Request]:
    """One seed for a batch is that of its first picture: prompt b starts where prompt b - 1 ended."""
    if one_each or len(requests) == 1 or requests[0].seed is None:
        return requests
    start, followed = requests[0].seed, []
    for request in requests:
        followed.append(replace(request, seed=start))
        start += request.num_images_per_prompt
    return followed


def _inputs(
    requests: Sequence[Request],
    tensors: Mapping[str, Any],
    embeds: list[Tensor] | None,
    negative: list[Tensor] | None,
) -> list[Inputs]:
    pictures = [request.num_images_per_prompt for request in requests]
    references = [len(request.input_images) for request in requests]
    generators = tensors["generator"]
    if isinstance(generators, torch.Generator):
        generators = [generators] * sum(pictures)
    latents = _shares("latents", _unbatched(tensors["latents"]), pictures)
    noise = _shares("reference_noise", _unbatched(tensors["reference_noise"]), references)
    drawn = _shares("generator", generators, pictures)
    for name, features in (("prompt_embeds", embeds), ("negative_prompt_embeds", negative)):
        _shares(name, features, [1] * len(requests))
    return [
        Inputs(
            latents[i], noise[i], drawn[i], embeds[i] if embeds else None, negative[i] if negative else None
        )
        for i in range(len(requests))
    ]


def _shares(name: str, items: Sequence[Any] | None, counts: Sequence[int]) -> list[tuple[Any, ...] | None]:
    if items is None:
        return [None] * len(counts)
    if len(items) != sum(counts):
        raise RequestError(f"{name} has {len(items)} entries; {sum(counts)} are needed, in order")
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [tuple(items[a : a + n]) for a, n in zip(starts, counts, strict=True)]


def _unbatched(tensors: Tensor | Sequence[Tensor] | None) -> list[Tensor] | None:
    if tensors is None:
        return None
    if isinstance(tensors, Tensor) and tensors.ndim == 3:
        tensors = tensors[None]
    return [item[0] if item.ndim == 4 and item.shape[0] == 1 else item for item in tensors]


def _features(embeds: Tensor | Sequence[Tensor] | None, mask: Tensor | None) -> list[Tensor] | None:
    """Features (T, F) per prompt: of a tensor (B, T, F) the rows that the mask keeps."""
    if embeds is None:
        return None
    if isinstance(embeds, Tensor) and embeds.ndim == 2:
        embeds = embeds[None]
    if mask is None:
        return list(embeds)
    return [features[keep.bool()] for features, keep in zip(embeds, mask, strict=True)]
