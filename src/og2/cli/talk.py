"""`og2 describe` and `og2 chat`: words about pictures, and a conversation that can end in a picture."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from og2.cli import loading, outputs, settings
from og2.errors import Og2Error, RequestError
from og2.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from og2.conditioning.templates import Turn
    from og2.pipeline import OmniGen2Pipeline
    from og2.request import Result

DEFAULT_FOLDER = "chat"
MAX_NEW_TOKENS = 256
HELP = """\
Type a question, or what to draw. A drawn picture begins the conversation anew, with it in view:
go on with "make it blue" or a question about it. Lines that begin with a slash:
  /image FILE   show the model one more picture
  /new          forget the conversation and its pictures
  /help         these lines
  /quit         end (so does Ctrl-D)"""


def describe(given: Mapping[str, Any]) -> None:
    """Prints what the model says about the pictures."""
    start = time.perf_counter()
    decided, notes = _decided(given)
    pictures, left_out = settings.pictures_of(decided.get("pictures", ()))
    if not pictures:
        raise RequestError("og2 describe needs a picture: og2 describe a.png")
    question = decided.get("question")
    if question is not None and not question.strip():
        raise RequestError("--question is empty; ask something, or leave it out for a description")
    loaded, changes = _read(pictures)
    notes += [*left_out, *changes]
    pipe = _load(decided)
    from og2.conditioning.vlm import answer
    from og2.pipeline import DESCRIBE

    words = _Words(None if decided.get("json") else sys.stdout)
    asked = question or DESCRIBE
    said = answer(
        pipe.mllm,
        pipe.processor,
        asked,
        loaded,
        decided.get("max_new_tokens", MAX_NEW_TOKENS),
        _sampling(decided),
        words.put,
    )
    if not said.is_complete:
        notes.append("the answer was cut; --max-new-tokens makes room")
    if said.wants_image:
        notes.append("the model would answer with a picture; og2 chat draws it")
    if decided.get("json"):
        took = round(time.perf_counter() - start, 4)
        print(
            json.dumps(
                {
                    "text": said.text,
                    "pictures": pictures,
                    "question": asked,
                    "seed": decided.get("seed"),
                    "notes": notes,
                    "timings": {"total_s": took},
                    "model": decided.get("model") or "mini",
                }
            )
        )
        return
    words.end(said.text)
    for note in notes:
        loading.say(f"note: {note}", decided)


def chat(given: Mapping[str, Any]) -> None:
    """Reads lines until the end of input; answers each in words or with a picture written to a file."""
    decided, notes = _decided(given)
    decided["output"] = outputs.folder_of(decided.get("output", DEFAULT_FOLDER))
    pictures, left_out = settings.pictures_of(decided.get("input", ()))
    talk = Conversation(_load(decided), decided)
    for note in [*notes, *left_out]:
        loading.say(f"note: {note}", decided)
    for picture in pictures:
        talk.show(picture)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        loading.say(HELP, decided)
    for line in _lines(is_terminal):
        command, _, rest = line.partition(" ")
        if command in ("/quit", "/exit"):
            return
        try:
            talk.turn(line) if not line.startswith("/") else talk.command(command, rest.strip())
        except Og2Error as error:
            if not is_terminal:
                raise
            sys.stderr.write(f"og2: {error}\n")


@dataclass
class Conversation:
    """The turns and pictures so far, and what to answer with."""

    pipe: OmniGen2Pipeline
    decided: Mapping[str, Any]
    history: list[Turn] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    num_new: int = 0

    def show(self, picture: str) -> None:
        """The picture goes with the next words."""
        _read([picture])
        self.pictures.append(picture)
        self.num_new += 1

    def command(self, name: str, rest: str) -> None:
        """Carries out a line that begins with a slash."""
        if name == "/image" and rest:
            self.show(rest)
        elif name == "/new":
            self._begin([])
        elif name == "/help":
            print(HELP)
        else:
            raise RequestError(f"{name} is not a command; /help lists them")

    def turn(self, prompt: str) -> None:
        """Answers one line and remembers it."""
        from og2.conditioning.templates import Turn

        words = _Words(sys.stdout)
        seed = {"seed": self.decided["seed"]} if "seed" in self.decided else {}
        limit = self.decided.get("max_new_tokens", MAX_NEW_TOKENS)
        result = self.pipe.chat(
            prompt, self.pictures, limit, _sampling(self.decided), words.put, self.history, **seed
        )
        words.end(result.text or "")
        for note in result.notes:
            loading.say(f"note: {note}", self.decided)
        if len(result.images):
            self._begin([str(file) for file in self._save(result)])
        else:
            self.history.append(Turn(prompt, result.text or "", self.num_new))
            self.num_new = 0

    def _begin(self, pictures: list[str]) -> None:
        """A conversation anew, with these pictures in view."""
        self.history, self.pictures, self.num_new = [], pictures, len(pictures)

    def _save(self, result: Result) -> list[Path]:
        from og2.png import write_png

        seeds = [seed or 0 for seed in result.seeds]
        files = outputs.plan_outputs(self.decided["output"], seeds)
        for index, (file, picture) in enumerate(zip(files, result.images, strict=True)):
            outputs.make_ready([file], picture.width * picture.height)
            write_png(file, picture, result, index)
            print(f"[{file}  seed {seeds[index]}  {picture.width}x{picture.height}]", flush=True)
        return files


class _Words:
    """Shows an answer while it is written."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.has_shown = stream, False

    def put(self, piece: str) -> None:
        if self.stream is not None and piece:
            self.stream.write(piece)
            self.stream.flush()
            self.has_shown = True

    def end(self, text: str) -> None:
        if not self.has_shown and text:
            self.put(text)
        if self.has_shown:
            self.put("\n")


def _decided(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the user decided, and a note on a seed that was drawn, as drawing does it for -1.

    Raises: ConfigError; RequestError for a seed that drawing would refuse.
    """
    decided = settings.gather(given)
    if "seed" not in decided:
        return decided, []
    seed = Request("any", seed=decided["seed"]).seed
    decided["seed"] = secrets.randbelow(2**31) if seed is None else seed
    return decided, [f"seed {decided['seed']}"] if seed is None else []


def _load(decided: Mapping[str, Any]) -> OmniGen2Pipeline:
    loading.quiet_libraries()
    from og2.conditioning.vlm import Sampling, check_answer

    check_answer(decided.get("max_new_tokens", MAX_NEW_TOKENS), _sampling(decided) or Sampling())
    loading.model_folder(decided.get("model"))
    where = loading.target(decided)
    loading.say_model(decided)
    return loading.load(decided, where)


def _read(pictures: Sequence[str]) -> tuple[list[Image], list[str]]:
    """The pictures, and remarks on what was converted; before the networks, so a bad one is refused early."""
    from og2.conditioning.reading import load_image

    read = [load_image(picture) for picture in pictures]
    return [picture for picture, _ in read], [note for _, notes in read for note in notes]


def _sampling(decided: Mapping[str, Any]) -> Any:
    """Likeliest words without a seed; drawn from it with one."""
    if "seed" not in decided:
        return None
    from og2.conditioning.vlm import Sampling

    return Sampling(temperature=0.7, top_p=0.9, seed=decided["seed"])


def _lines(is_terminal: bool) -> Iterable[str]:
    while True:
        try:
            with settings.utf8("the line"):
                line = input("> " if is_terminal else "").strip()
        except EOFError:
            return
        if line:
            yield line
