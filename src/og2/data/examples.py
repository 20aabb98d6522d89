"""From a draw to a sample: the row read, conditions dropped, pictures decoded and brought to their size.

The sizes are those of the project's one resize rule, under the official limits by number of input pictures.
What is dropped or cleaned up is a pure function of (seed, number of the draw). What the cache holds is not
decoded at all. A row that cannot be used becomes `Skipped`, with the reason; nothing takes its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from og2.conditioning.images import fit_image, load_image
from og2.conditioning.templates import render_chat, render_prompt
from og2.data.cache import Cache, content_hash, picture_key, text_key
from og2.data.mix import Draw, Mixture
from og2.data.rows import Example, Row, StoredPicture
from og2.errors import ConfigError, DataError, ImageError, RequestError

Form = Literal["prompt", "chat"]
OFFICIAL_INPUT_PIXELS = (1024 * 1024, 1024 * 1024, 768 * 768, 512 * 512)
MAX_INPUTS = 5

_KINDS_OF_PICTURE = "image|picture|photo|photograph|painting|illustration|drawing|scene"
_VERBS = "shows|depicts|features|displays|portrays|presents|captures|contains|illustrates"
_OPENINGS = re.compile(
    rf"(?:(?:the|this|an?) (?:{_KINDS_OF_PICTURE}) (?:{_VERBS}|is of)|in (?:the|this) "
    rf"(?:{_KINDS_OF_PICTURE}),?)\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ReadConfig:
    """How draws become samples.

    Units: pixels. `max_pixels` is that of targets, `input_pixels` those of inputs when there is one, two, ...
    of them (the last counts for more), `max_side` of both. Chances: `drop_text` that the prompt becomes the
    empty one, `drop_references` that, the text being dropped, the inputs go too; `strip_openings` that a
    caption of task t2i loses an opening like "the image shows"; `chat_share` that a prompt without inputs is
    put in the chat form.
    """

    max_pixels: int = 1024 * 1024
    max_side: int = 2048
    input_pixels: tuple[int, ...] = OFFICIAL_INPUT_PIXELS
    drop_text: float = 0.1
    drop_references: float = 0.5
    strip_openings: float = 0.0
    chat_share: float = 0.0

    def __post_init__(self) -> None:
        chances = ("drop_text", "drop_references", "strip_openings", "chat_share")
        wrong = [f"{name}={getattr(self, name)}" for name in chances if not 0 <= getattr(self, name) <= 1]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)}: a chance is between 0 and 1")
        if not self.input_pixels:
            raise ConfigError("input_pixels is empty; give at least one limit")

    def without_chance(self) -> ReadConfig:
        """The same sizes, with nothing dropped or changed."""
        return replace(self, drop_text=0.0, drop_references=0.0, strip_openings=0.0, chat_share=0.0)


@dataclass(frozen=True)
class SizedPicture:
    """A picture at the size it is encoded at: 8-bit RGB pixels (H, W, 3), or else its cached entry.

    `changes`: what was done to the stored picture to read it, such as greyscale converted to RGB.
    """

    key: str
    pixels: np.ndarray | None = None
    entry: bytes | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A draw, read: the text as the language model is shown it, the pictures at their sizes.

    `form` is that of the text; for a row with an answer the text is the question and `references` are shown
    to the language model. `text_entry` is the cached entry of the text's features.
    """

    draw: int
    row: Row
    text: str
    form: Form
    text_key: str
    text_entry: bytes | None
    references: tuple[SizedPicture, ...]
    target: SizedPicture | None


@dataclass(frozen=True)
class Skipped:
    """A draw that gave no sample: its number, its row and why."""

    draw: int
    id: str
    reason: str


@dataclass(frozen=True)
class CacheKeys:
    """A cache and the hashes of the networks whose results it is asked for."""

    cache: Cache | None
    vae_hash: str = ""
    mllm_hash: str = ""


class Reader:
    """Reads draws of a mixture; may be sent to another process."""

    def __init__(self, mixture: Mixture, config: ReadConfig, keys: CacheKeys | None = None) -> None:
        self.mixture, self.config = mixture, config
        self.keys = keys or CacheKeys(None)

    def __call__(self, number: int) -> Sample | Skipped:
        """As `read`; what worker processes do."""
        return self.read(number)

    def read(self, number: int) -> Sample | Skipped:
        """Draw `number` as a sample, or why it cannot be one."""
        return self.read_row(self.mixture.draw(number))

    def describe(self, number: int) -> str:
        """Which row draw `number` is."""
        draw = self.mixture.draw(number)
        return f"draw {number}, row {self.mixture.sources[draw.source].row_id(draw.index)}"

    def read_row(self, draw: Draw) -> Sample | Skipped:
        """The row of `draw` as a sample, or why it cannot be one."""
        source = self.mixture.sources[draw.source]
        name = source.row_id(draw.index)
        try:
            return self.sample(source.example(draw.index), draw)
        except (DataError, RequestError) as error:
            reason = str(error)
            return Skipped(draw.number, name, reason if name in reason else f"{name}: {reason}")

    def sample(self, example: Example, draw: Draw) -> Sample:
        """The sample that draw `draw` makes of an example.   Raises: DataError, ImageError, RequestError."""
        row, rng = example.row, np.random.default_rng((self.mixture.seed, draw.number))
        if row.output_text is not None:
            shown = self._inputs(row, example.input_pictures, cached=False)
            return Sample(draw.number, row, row.instruction, "chat", "", None, shown, None)
        if example.output_picture is None:
            raise DataError(f"{row.id} has no output picture")
        text, form, pictures = self._conditions(example, rng)
        references = self._inputs(row, pictures)
        target = self._sized(row.output_image or "", example.output_picture, self.config.max_pixels)
        return self.with_text(Sample(draw.number, row, "", form, "", None, references, target), text, form)

    def with_text(self, sample: Sample, text: str, form: Form) -> Sample:
        """The sample with another text in that form, and what the cache knows about it."""
        rendered = render_prompt(text) if form == "prompt" else render_chat(text, 0)
        key = text_key(rendered, self.keys.mllm_hash)
        entry = self.keys.cache.get("texts", key) if self.keys.cache else None
        return replace(sample, text=text, form=form, text_key=key, text_entry=entry)

    def texts(self, row: Row) -> list[tuple[str, Form]]:
        """All that draws of a row with a picture to learn can be asked to show the language model."""
        texts, forms = [row.instruction], list[Form](["prompt"])
        if row.task == "t2i" and self.config.strip_openings:
            texts.append(without_opening(row.instruction))
        if not row.input_images and self.config.chat_share:
            forms.append("chat")
        found: list[tuple[str, Form]] = [(text, form) for text in dict.fromkeys(texts) for form in forms]
        return [*found, ("", "prompt")] if self.config.drop_text else found

    def _conditions(self, example: Example, rng: Generator) -> tuple[str, Form, tuple[StoredPicture, ...]]:
        """Prompt, its form, and input pictures of one draw; chances do not disturb each other."""
        drop_text, drop_references, strip, chat = rng.random(4).tolist()
        config, prompt, pictures = self.config, example.row.instruction, example.input_pictures
        if drop_text < config.drop_text:
            return "", "prompt", () if drop_references < config.drop_references else pictures
        if example.row.task == "t2i" and strip < config.strip_openings:
            prompt = without_opening(prompt)
        return prompt, "chat" if not pictures and chat < config.chat_share else "prompt", pictures

    def _inputs(
        self, row: Row, pictures: tuple[StoredPicture, ...], cached: bool = True
    ) -> tuple[SizedPicture, ...]:
        if len(pictures) > MAX_INPUTS:
            raise DataError(f"{len(pictures)} input pictures; at most {MAX_INPUTS} are allowed")
        limits = self.config.input_pixels
        limit = limits[min(len(pictures), len(limits)) - 1]
        named = zip(row.input_images, pictures, strict=bool(pictures))
        return tuple(self._sized(name, picture, limit, cached) for name, picture in named)

    def _sized(self, name: str, stored: StoredPicture, max_pixels: int, cached: bool = True) -> SizedPicture:
        """The picture of that name at its size; where the cache knows it, without decoding it."""
        limits = (max_pixels, self.config.max_side)
        key = picture_key(content_hash(stored), limits, self.keys.vae_hash)
        entry = self.keys.cache.get("pictures", key) if self.keys.cache and cached else None
        if entry is not None:
            return SizedPicture(key, entry=entry)
        try:
            picture, notes = load_image(stored)
            pixels = np.asarray(fit_image(picture, *limits))
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error
        return SizedPicture(key, pixels, changes=tuple(note.partition(": ")[2] for note in notes))


def without_opening(caption: str) -> str:
    """The caption without an opening such as "The image shows", its first letter then a capital one."""
    found = _OPENINGS.match(caption)
    rest = caption[found.end() :] if found else ""
    return rest[0].upper() + rest[1:] if rest else caption
