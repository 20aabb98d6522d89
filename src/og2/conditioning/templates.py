"""The strings around a prompt: the image pipeline's form, the chat form, and the texts that go with them.

The image pipeline shows the prompt alone, without an assistant turn; chat numbers the pictures and ends with
an open assistant turn. Both are written out here rather than taken from a tokenizer's chat template, because
the network was trained on exactly these characters. Source: the official implementation (arXiv 2506.18871
describes the model).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SYSTEM = "You are a helpful assistant that generates high-quality images based on user instructions."
IMG_TRIGGER = "<|img|>"
IMAGE_PAD = "<|image_pad|>"
IM_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
DEFAULT_NEGATIVE_PROMPT = (
    "(((deformed))), blurry, over saturation, bad anatomy, disfigured, poorly drawn face, mutation, mutated, "
    "(extra_limb), (ugly), (poorly drawn hands), fused fingers, messy drawing, broken legs censor, censored, "
    "censor_bar"
)
"""Negative prompt of the command line and the web page; the Python call's own default is an empty one."""

_PICTURE = "<|vision_start|>" + IMAGE_PAD + "<|vision_end|>"


@dataclass(frozen=True)
class Turn:
    """One finished exchange of a conversation: what the user said, with how many pictures, and the answer."""

    user: str
    assistant: str
    num_images: int = 0


def render_prompt(prompt: str) -> str:
    """The prompt as the image pipeline shows it: system turn, user turn, trailing newline, no answer.

    Nothing is stripped or escaped: control tokens typed by the user are read as control tokens.
    """
    return _turn("system", SYSTEM) + _turn("user", prompt)


def render_chat(prompt: str, num_images: int, assistant: bool = True, history: Sequence[Turn] = ()) -> str:
    """The prompt as chat shows it: pictures numbered from 1 before the words, then an open assistant turn.

    Pictures are numbered through the whole conversation, in order; `num_images` counts those of the last
    turn. `assistant=False` leaves the assistant turn out.
    """
    text, shown = _turn("system", SYSTEM), 0
    for turn in history:
        text += _turn("user", _pictures(shown, turn.num_images) + turn.user)
        text += _turn("assistant", turn.assistant)
        shown += turn.num_images
    text += _turn("user", _pictures(shown, num_images) + prompt)
    return text + "<|im_start|>assistant\n" if assistant else text


def _turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}{IM_END}\n"


def _pictures(already_shown: int, count: int) -> str:
    return "".join(f"<img{already_shown + k + 1}>: {_PICTURE}" for k in range(count))
