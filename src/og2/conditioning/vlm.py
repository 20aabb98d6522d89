"""The vision-language model at work: features of prompts, with or without pictures, and answers in words.

Each prompt is encoded alone, without padding, so its features never depend on a neighbour. Features are the
last hidden states after the final norm, for every token, system turn included. Sizes: T tokens, F feature
width.
Source: arXiv 2506.18871 and the official implementation.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_utils import PreTrainedModel

from og2.conditioning.processor import Processor, load_processor
from og2.conditioning.templates import (
    END_OF_TEXT,
    IM_END,
    IMAGE_PAD,
    IMG_TRIGGER,
    Turn,
    render_chat,
    render_prompt,
)
from og2.errors import CheckpointError, ImageError, RequestError

__all__ = [
    "Answer",
    "Processor",
    "Sampling",
    "answer",
    "chat_inputs",
    "check_answer",
    "encode_chat",
    "encode_prompt",
    "load_processor",
]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: temperature 0 takes the likeliest token; else drawn from `seed` alone."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """Words for the user, whether a picture was asked for, and whether the answer came to its end."""

    text: str
    wants_image: bool
    is_complete: bool
    num_tokens: int


@torch.no_grad()
def encode_prompt(
    mllm: PreTrainedModel,
    processor: Processor,
    prompt: str,
    max_sequence_length: int | None = None,
) -> Tensor:
    """Features (T, F) of one prompt in the image pipeline's form, unpadded.

    Raises: RequestError if the prompt has more tokens than `max_sequence_length` or than the model was made
    for.
    """
    ids = tokenize(processor, render_prompt(prompt))
    _check_length(len(ids), mllm, max_sequence_length, "the prompt")
    return _features(mllm, {"input_ids": torch.tensor([ids], device=_device(mllm))})


@torch.no_grad()
def encode_chat(
    mllm: PreTrainedModel,
    processor: Processor,
    prompt: str,
    images: Sequence[Image.Image] = (),
    max_sequence_length: int | None = None,
    history: Sequence[Turn] = (),
) -> Tensor:
    """Features (T, F) of one prompt in the chat form; T leaves out the tokens that stand for picture patches.

    The pictures are seen while encoding, so the words carry what is in them; numbering and picture borders
    stay. Features are those of the whole conversation: of `history`, whose pictures come first, and the
    prompt.
    Raises: RequestError for a prompt that is too long or holds picture control tokens.
    """
    inputs = chat_inputs(mllm, processor, prompt, images, history)
    _check_length(inputs["input_ids"].shape[1], mllm, max_sequence_length, "the prompt with its pictures")
    features = _features(mllm, inputs)
    return features[inputs["input_ids"][0] != processor.token_id(IMAGE_PAD)]


@torch.no_grad()
def answer(  # noqa: PLR0913 the one entry for chat; every argument is the user's
    mllm: PreTrainedModel,
    processor: Processor,
    prompt: str,
    images: Sequence[Image.Image] = (),
    max_new_tokens: int = 256,
    sampling: Sampling | None = None,
    on_token: Callable[[str], None] | None = None,
    history: Sequence[Turn] = (),
) -> Answer:
    """What the model says to the prompt, and whether it asks for a picture to be drawn.

    `images` are all pictures of the conversation in order: those of `history` first, the rest go with
    `prompt`. The answer ends at the first end-of-turn, end-of-text or picture token. Words before a picture
    token are kept and the picture is still wanted; the token itself never shows. A vocabulary without the
    picture token never wants one. `on_token` gets each new piece of visible text; raising from it stops the
    run. The checkpoint's own generation settings are kept except for how the next token is drawn
    (`sampling`).
    """
    check_answer(max_new_tokens, sampling or Sampling())
    inputs = chat_inputs(mllm, processor, prompt, images, history)
    length = inputs["input_ids"].shape[1]
    _check_length(length + max_new_tokens, mllm, None, f"the conversation with {max_new_tokens} new tokens")
    stops = {token: processor.token_id(token) for token in (IM_END, IMG_TRIGGER, END_OF_TEXT)}
    stop_ids = [i for i in stops.values() if i is not None]
    streamer = None if on_token is None else _VisibleText(processor, length, stop_ids, on_token)
    warpers = _warpers(sampling or Sampling())
    _bring_weights(mllm)
    generate: Any = mllm.generate  # mixed in by the class of the checkpoint, unknown to the base class
    tokens = generate(
        **inputs,
        generation_config=_generation_config(mllm, stop_ids, max_new_tokens),
        logits_processor=warpers,
        streamer=streamer,
    )[0, length:].tolist()
    ended = bool(tokens) and tokens[-1] in stop_ids
    visible = tokens[:-1] if ended else tokens
    wants_image = ended and tokens[-1] == stops[IMG_TRIGGER]
    return Answer(_decode(processor, visible).strip(), wants_image, ended, len(tokens))


def check_answer(max_new_tokens: int, sampling: Sampling) -> None:
    """Refuses lengths and ways of drawing an answer that cannot be.   Raises: RequestError."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise RequestError(
            f"max_new_tokens={max_new_tokens!r} leaves no answer; give a whole number from 1 up"
        )
    if not sampling.temperature >= 0 or not 0 < sampling.top_p <= 1:
        raise RequestError(
            f"temperature={sampling.temperature} must be at least 0 and top_p={sampling.top_p} in (0, 1]"
        )
    if (
        isinstance(sampling.seed, bool)
        or not isinstance(sampling.seed, int)
        or not 0 <= sampling.seed < 2**64
    ):
        raise RequestError(f"seed={sampling.seed!r} is not a whole number from 0 to 2**64 - 1; use one")


def tokenize(processor: Processor, text: str) -> list[int]:
    """The token ids of a rendered text, special tokens recognised, nothing added or cut."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"the prompt holds a character that is not valid text: {error.reason}") from error
    return processor.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def _features(mllm: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    out = mllm(**inputs, output_hidden_states=True, use_cache=False, logits_to_keep=1, return_dict=True)
    return out.hidden_states[-1][0]


def _device(mllm: PreTrainedModel) -> torch.device:
    """Where the model's inputs belong: its own device, or where an offload hook brings each part to run."""
    for module in mllm.modules():
        place = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if place is not None:
            return torch.device(place)
        group = _group_hook(module)
        if group is not None:
            return group.config.onload_device
    return mllm.device


def _bring_weights(mllm: PreTrainedModel) -> None:
    """What offload hooks do before `forward`: generation looks at the pictures before it calls that."""
    for hook in (getattr(mllm, "_hf_hook", None), _group_hook(mllm)):
        if hook is not None:
            hook.pre_forward(mllm)


def _group_hook(module: torch.nn.Module) -> Any:
    return getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).get("group_offloading")


def _check_length(length: int, mllm: PreTrainedModel, asked: int | None, what: str) -> None:
    built_for = mllm.config.get_text_config().max_position_embeddings
    limit = built_for if asked is None else min(asked, built_for)
    if length > limit:
        raise RequestError(
            f"{what} is {length} tokens long, system turn included; the limit is {limit}; shorten it, or "
            f"raise max_sequence_length (the model allows {built_for})"
        )


def chat_inputs(
    mllm: PreTrainedModel,
    processor: Processor,
    prompt: str,
    images: Sequence[Image.Image] = (),
    history: Sequence[Turn] = (),
) -> dict[str, Tensor]:
    """What the language model's forward takes for one chat prompt, the assistant turn open.

    input_ids (1, T) with picture marks expanded; with pictures also pixel_values, image_grid_thw and, where
    the library knows it, mm_token_type_ids.
    Raises: RequestError, ImageError for what cannot be shown; CheckpointError for parts that do not fit.
    """
    pad = processor.token_id(IMAGE_PAD)
    if pad is None or pad != mllm.config.image_token_id:
        raise CheckpointError(
            f"the tokenizer numbers {IMAGE_PAD} as {pad}, the language model's config.json expects "
            f"{mllm.config.image_token_id}; use the processor that belongs to this model"
        )
    last = len(images) - sum(turn.num_images for turn in history)
    if last < 0:
        raise RequestError(f"the history speaks of more pictures than the {len(images)} given")
    refuse_picture_tokens([prompt, *(part for turn in history for part in (turn.user, turn.assistant))])
    ids = tokenize(processor, render_chat(prompt, last, history=history))
    if not images:
        return {"input_ids": torch.tensor([ids], device=_device(mllm))}
    return _with_pictures(mllm, processor, ids, images)


def count_chat_tokens(processor: Processor, prompt: str, images: Sequence[Image.Image] = ()) -> int:
    """Tokens of one chat prompt with its pictures, as `chat_inputs` makes them, without a language model.

    Raises: RequestError, ImageError as it does.
    """
    refuse_picture_tokens([prompt])
    length = len(tokenize(processor, render_chat(prompt, len(images))))
    if not images:
        return length
    return length - len(images) + sum(_picture_counts(_seen(processor, images), processor))


def refuse_picture_tokens(texts: Iterable[str]) -> None:
    """Raises: RequestError for a text with tokens that stand for patches of a picture."""
    if any(token in text for text in texts for token in (IMAGE_PAD, "<|video_pad|>")):
        raise RequestError(f"the text holds the control token {IMAGE_PAD} or <|video_pad|>; leave it out")


def _seen(processor: Processor, images: Sequence[Image.Image]) -> Any:
    """The pictures as the language model is shown them."""
    try:
        return processor.image_processor(images=list(images), return_tensors="pt")
    except ValueError as error:
        raise ImageError(f"a picture cannot be shown to the language model: {error}") from error


def _picture_counts(seen: Any, processor: Processor) -> list[int]:
    """How many tokens stand for each picture."""
    return (seen["image_grid_thw"].prod(dim=-1) // processor.image_processor.merge_size**2).tolist()


def _with_pictures(
    mllm: PreTrainedModel,
    processor: Processor,
    ids: list[int],
    images: Sequence[Image.Image],
) -> dict[str, Tensor]:
    vision, made_by = mllm.config.vision_config, processor.image_processor
    if (vision.patch_size, vision.spatial_merge_size) != (made_by.patch_size, made_by.merge_size):
        raise CheckpointError(
            f"the picture processor cuts patches of {made_by.patch_size} px, merged {made_by.merge_size}; "
            f"the language model expects {vision.patch_size} and {vision.spatial_merge_size}"
        )
    seen, pad = _seen(processor, images), mllm.config.image_token_id
    counts = iter(_picture_counts(seen, processor))
    ids = [i for token in ids for i in ([pad] * next(counts) if token == pad else [token])]
    input_ids = torch.tensor([ids], device=_device(mllm))
    inputs = {
        "input_ids": input_ids,
        "pixel_values": seen["pixel_values"].to(input_ids.device, mllm.dtype),
        "image_grid_thw": seen["image_grid_thw"].to(input_ids.device),
    }
    if "mm_token_type_ids" in inspect.signature(mllm.forward).parameters:
        inputs["mm_token_type_ids"] = (input_ids == pad).int()
    return inputs


def _generation_config(mllm: PreTrainedModel, stop_ids: list[int], max_new_tokens: int) -> Any:
    config = copy.deepcopy(mllm.generation_config)
    config.update(do_sample=False, temperature=1.0, top_p=1.0, top_k=50, num_beams=1, use_cache=True)
    config.update(max_new_tokens=max_new_tokens, max_length=None, return_dict_in_generate=False)
    config.update(eos_token_id=stop_ids, pad_token_id=stop_ids[0])
    return config


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    if sampling.temperature == 0:
        return LogitsProcessorList()
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*warpers, _SeededDraw(sampling.seed)])


class _SeededDraw(LogitsProcessor):
    """Adds Gumbel noise, so that the largest score is a draw from the softmax, by a generator of its own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        uniform = torch.rand(scores.shape, generator=self.generator, dtype=torch.float64).clamp_min(1e-300)
        gumbel = -torch.log(-torch.log(uniform))
        return scores.float() + gumbel.float().to(scores.device)


class _VisibleText(BaseStreamer):
    """Hands each finished piece of visible text to a callback: no stop tokens, no half characters."""

    def __init__(
        self, processor: Processor, prompt_length: int, stop_ids: list[int], on_token: Callable[[str], None]
    ) -> None:
        self.processor, self.stop_ids, self.on_token = processor, stop_ids, on_token
        self.to_skip, self.tokens, self.shown = prompt_length, [], 0

    def put(self, value: Tensor) -> None:
        for token in value.flatten().tolist():
            if self.to_skip > 0:
                self.to_skip -= 1
            elif token not in self.stop_ids:
                self.tokens.append(token)
                self._show(is_last=False)

    def end(self) -> None:
        self._show(is_last=True)

    def _show(self, is_last: bool) -> None:
        text = _decode(self.processor, self.tokens)
        if len(text) > self.shown and (is_last or not text.endswith("\ufffd")):
            self.on_token(text[self.shown :])
            self.shown = len(text)


def _decode(processor: Processor, tokens: list[int]) -> str:
    return str(
        processor.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
