"""Conversations about the mini-world, to teach the mini language model.

Conversation i of a source is a pure function of (seed, i). Kinds:
  pictures  several questions about one picture, the full caption among them
  prompts   a prompt alone, in the image pipeline's form (nothing is answered)
  readings  questions about a caption given in words, without any picture
  chat      one turn of talk: requests to draw or edit (answered by `<|img|>`), questions, greetings
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from og2.conditioning.templates import DEFAULT_NEGATIVE_PROMPT, Turn, render_chat, render_prompt
from og2.data.world_source import item_rng
from og2.world.spec import (
    CAPTION_QUESTIONS,
    Scene,
    caption,
    chat_turn,
    plain_caption,
    sample_edit,
    sample_scene,
    typed_questions,
)

MAX_TURNS = 3
KINDS = ("pictures", "prompts", "readings", "chat")


@dataclass(frozen=True)
class Exchange:
    """One question with its answer; `kind` names the sort of question (for evaluation)."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Exchanges about at most one picture; `prompt` is set instead of exchanges for a prompt alone."""

    kind: str
    scene: Scene | None
    exchanges: tuple[Exchange, ...] = ()
    prompt: str | None = None

    def pieces(self) -> list[tuple[str, bool]]:
        """The whole text in order, as (piece, whether it is the model's to say)."""
        if self.prompt is not None:
            return [(render_prompt(self.prompt), False)]
        pieces, written, history = [], "", []
        for exchange in self.exchanges:
            pictures = int(self.scene is not None and not history)
            text = render_chat(exchange.question, pictures, history=history)
            pieces += [(text[len(written) :], False), (exchange.answer + "<|im_end|>\n", True)]
            written = text + exchange.answer + "<|im_end|>\n"
            history.append(Turn(exchange.question, exchange.answer, pictures))
        return pieces


def conversation(seed: int, index: int, shares: Sequence[float], texts: Sequence[str] = ()) -> Conversation:
    """Conversation `index`; `shares`: odds of KINDS; `texts`: other sentences, now and then the prompt."""
    rng = item_rng(seed, index)
    kind = KINDS[int(rng.choice(len(KINDS), p=shares))]
    if kind == "pictures":
        return _about_picture(rng)
    if kind == "prompts":
        return Conversation(kind, None, prompt=_prompt(rng, texts))
    if kind == "readings":
        return _reading(rng)
    said, scene, answer = chat_turn(rng)
    return Conversation(kind, scene, (Exchange("chat", said, answer),))


def questions_about(scene: Scene, rng: Generator) -> list[Exchange]:
    """One exchange of each kind of question that the scene allows."""
    return [Exchange(kind, question, answer) for kind, question, answer in typed_questions(scene, rng)]


def _about_picture(rng: Generator) -> Conversation:
    scene = sample_scene(rng)
    asked = questions_about(scene, rng)
    order = [int(i) for i in rng.permutation(len(asked))][:MAX_TURNS]
    if rng.random() < 0.5:
        question = CAPTION_QUESTIONS[int(rng.integers(len(CAPTION_QUESTIONS)))]
        chosen = [
            Exchange("caption", question, plain_caption(scene)),
            *(asked[i] for i in order[: MAX_TURNS - 2]),
        ]
    else:
        chosen = [asked[i] for i in order]
    return Conversation("pictures", scene, tuple(chosen))


def _prompt(rng: Generator, texts: Sequence[str]) -> str:
    draw = rng.random()
    if draw < 0.06:
        return ""
    if draw < 0.10:
        return DEFAULT_NEGATIVE_PROMPT
    if draw < 0.16 and texts:
        return texts[int(rng.integers(len(texts)))]
    if draw < 0.55:
        return sample_edit(rng).instruction
    return caption(sample_scene(rng), rng)


def _reading(rng: Generator) -> Conversation:
    scene = sample_scene(rng)
    text = caption(scene, rng, full=True).rstrip(".")
    # Captions do not always say the background and never ask for themselves back.
    asked = [e for e in questions_about(scene, rng) if e.kind not in ("caption", "background")]
    first, *others = [asked[int(i)] for i in rng.permutation(len(asked))][:MAX_TURNS]
    opening = Exchange(f"read_{first.kind}", f"{text}. {first.question}", first.answer)
    return Conversation(
        "readings", None, (opening, *(Exchange(f"read_{e.kind}", e.question, e.answer) for e in others))
    )
