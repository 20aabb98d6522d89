"""Conversations about the mini-world, to teach the mini language model.

Conversation i of a source is a pure function of (seed, i). Kinds:
  pictures  several questions about one picture, the full caption among them
  prompts   a prompt alone, in the image pipeline's form (nothing is answered)
  readings  questions about a caption given in words, without any picture
  chat      one turn of talk: requests to draw or edit (answered by `<|img|>`), questions, greetings
  critiques a prompt and a picture that may miss it: what is wrong, and how to mend it

Of the full world some conversations are about the plain one, as they always were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from og2.conditioning.templates import DEFAULT_NEGATIVE_PROMPT, Turn, render_chat, render_prompt
from og2.data.world_pictures import PictureView, view_scene
from og2.data.world_source import WorldOptions, critique, item_rng
from og2.world.spec import (
    CAPTION_QUESTIONS,
    IMAGE_ANSWER,
    Scene,
    WorldName,
    caption,
    chat_turn,
    plain_caption,
    sample_edit,
    sample_incontext,
    sample_prompt,
    sample_scene,
    typed_questions,
)

MAX_TURNS = 3
FULL_TURNS = 5
KINDS = ("pictures", "prompts", "readings", "chat", "critiques")
PLAIN_SHARE = 0.25
"""Of the full world's conversations, those about the plain one."""
CONTEXT_SHARE = 0.15
"""Of the full world's chat and prompts, in-context requests."""
MAX_REFERENCES = 2
_SHOWN = PictureView(1.0, 2, kinds={"drawing": 0.5, "context": 0.35, "edit": 0.15})
_READ_KINDS = ("count", "yes_no", "where", "color", "shape", "none")
"""Questions of the full world that its captions of objects always answer."""


@dataclass(frozen=True)
class Exchange:
    """One question with its answer; `kind` names the sort of question (for evaluation)."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Exchanges about the pictures of `scenes`; `prompt` is set instead of exchanges for a prompt alone."""

    kind: str
    scenes: tuple[Scene, ...]
    exchanges: tuple[Exchange, ...] = ()
    prompt: str | None = None

    def pieces(self) -> list[tuple[str, bool]]:
        """The whole text in order, as (piece, whether it is the model's to say)."""
        if self.prompt is not None:
            return [(render_prompt(self.prompt), False)]
        pieces, written, history = [], "", []
        for exchange in self.exchanges:
            pictures = 0 if history else len(self.scenes)
            text = render_chat(exchange.question, pictures, history=history)
            pieces += [(text[len(written) :], False), (exchange.answer + "<|im_end|>\n", True)]
            written = text + exchange.answer + "<|im_end|>\n"
            history.append(Turn(exchange.question, exchange.answer, pictures))
        return pieces


def conversation(
    seed: int, index: int, shares: Sequence[float], texts: Sequence[str] = (), world: WorldName = "plain"
) -> Conversation:
    """Conversation `index`; `shares`: odds of KINDS; `texts`: other sentences, now and then the prompt."""
    rng = item_rng(seed, index)
    kind = KINDS[int(rng.choice(len(shares), p=shares))]
    if world == "full" and rng.random() < PLAIN_SHARE:
        world = "plain"
    if kind == "pictures":
        return _about_picture(rng) if world == "plain" else _about_full_picture(rng)
    if kind == "prompts":
        return Conversation(kind, (), prompt=_prompt(rng, texts, world))
    if kind == "readings":
        return _reading(rng, world)
    if kind == "critiques":
        said, scenes, _, answer = critique(rng, WorldOptions(world=world))
        return Conversation(kind, scenes, (Exchange("critique", said, answer or ""),))
    if world == "full" and rng.random() < CONTEXT_SHARE:
        said, scenes = _in_context(rng)
        return Conversation(kind, scenes, (Exchange("chat", said, IMAGE_ANSWER),))
    said, scene, answer = chat_turn(rng, world=world)
    return Conversation(kind, () if scene is None else (scene,), (Exchange("chat", said, answer),))


def questions_about(scene: Scene, rng: Generator, world: WorldName = "plain") -> list[Exchange]:
    """One exchange of each kind of question that the scene allows."""
    return [Exchange(kind, question, answer) for kind, question, answer in typed_questions(scene, rng, world)]


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
    return Conversation("pictures", (scene,), tuple(chosen))


def _about_full_picture(rng: Generator) -> Conversation:
    """Kinds begin with "full", as in the benchmark; a caption, where there is one (not in a style or a tone),
    comes last, so that nothing is read from it."""
    scene = view_scene(_SHOWN, rng)
    found = questions_about(scene, rng, "full")
    asked, captions = ([e for e in found if (e.kind == "caption") == is_last] for is_last in (False, True))
    chosen = [asked[int(i)] for i in rng.permutation(len(asked))][:FULL_TURNS]
    if rng.random() < 0.5:
        chosen = [*chosen[: FULL_TURNS - len(captions) - 1], *captions]
    named = (Exchange(f"full_{e.kind}", e.question, e.answer) for e in chosen)
    return Conversation("pictures", (scene,), tuple(named))


def _prompt(rng: Generator, texts: Sequence[str], world: WorldName) -> str:
    draw = rng.random()
    if draw < 0.06:
        return ""
    if draw < 0.10:
        return DEFAULT_NEGATIVE_PROMPT
    if draw < 0.16 and texts:
        return texts[int(rng.integers(len(texts)))]
    if world == "full" and rng.random() < CONTEXT_SHARE:
        return _in_context(rng)[0]
    if draw < 0.55:
        return sample_edit(rng, world=world).instruction
    if world == "full" and draw < 0.85:
        return sample_prompt(rng).text
    return caption(sample_scene(rng, world=world), rng)


def _in_context(rng: Generator) -> tuple[str, tuple[Scene, ...]]:
    """An in-context request with few references, and these."""
    while True:
        made = sample_incontext(rng)
        if len(made.references) <= MAX_REFERENCES:
            return made.instruction, made.references


def _reading(rng: Generator, world: WorldName) -> Conversation:
    scene = sample_scene(rng, world=world)
    text = caption(scene, rng, full=True).rstrip(".")
    # Captions do not always say the background and never ask for themselves back.
    asked = [e for e in questions_about(scene, rng, world) if e.kind not in ("caption", "background")]
    if world == "full":
        asked = [e for e in asked if e.kind in _READ_KINDS]
    first, *others = [asked[int(i)] for i in rng.permutation(len(asked))][:MAX_TURNS]
    opening = Exchange(f"read_{first.kind}", f"{text}. {first.question}", first.answer)
    return Conversation(
        "readings", (), (opening, *(Exchange(f"read_{e.kind}", e.question, e.answer) for e in others))
    )
