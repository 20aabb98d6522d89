"""Trains the mini tokenizer and writes the published `processor/` folder.

Byte-level BPE with the pre-tokeniser of Qwen2 (any text can be written), on the world's sentences, the fixed
texts around prompts, and a little general English. Special tokens are those of Qwen2.5-VL and `<|img|>`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from og2.conditioning.processor import make_image_processor
from og2.conditioning.templates import DEFAULT_NEGATIVE_PROMPT, END_OF_TEXT, IM_END, IMG_TRIGGER, SYSTEM
from og2.data.conversations import conversation
from og2.data.world_source import item_rng
from og2.errors import ConfigError
from og2.world.spec import WorldName, caption, chat_turn, questions, sample_edit, sample_scene

logger = logging.getLogger(__name__)
FULL_TALK = (0.3, 0.3, 0.0, 0.1, 0.3)
"""Odds of the conversations (`conversations.KINDS`) that a tokenizer of the full world reads."""

PRE_TOKENIZER = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
SPECIAL_TOKENS = (
    *(END_OF_TEXT, "<|im_start|>", IM_END, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *(
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
    ),
    *("<|image_pad|>", "<|video_pad|>"),
)
ADDED_TOKENS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "{% set shown = namespace(images=0) %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set shown.images = shown.images + 1 %}"
    "<img{{ shown.images }}>: <|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class TokenizerRecipe:
    """The recipe `kind: tokenizer`.   Units: counts of sentences; patch_size and sides in pixels.

    world: of the full one, as many conversations of all kinds are read as scenes are asked about.
    picture_px: side of the largest square picture that the language model is shown; smallest_px: of the
    smallest, half of that if None. Others are resized to fit (Qwen2-VL's rule, which keeps the aspect).
    """

    folder: Path
    seed: int
    vocab_size: int
    num_captions: int
    num_edits: int
    num_questions: int
    text_files: tuple[Path, ...]
    repeat_texts: int
    patch_size: int
    merge_size: int
    picture_px: int
    world: WorldName = "plain"
    smallest_px: int | None = None


def run(recipe: TokenizerRecipe) -> None:
    """Train the tokenizer and write tokenizer and picture-processor files into `recipe.folder`."""
    tokenizer = train_bpe(sentences(recipe), recipe.vocab_size)
    write_processor(tokenizer, recipe)
    logger.info("tokenizer of %d tokens written to %s", tokenizer.get_vocab_size(), recipe.folder)


def sentences(recipe: TokenizerRecipe) -> Iterator[str]:
    """The training text: world sentences, each also after a space, and the fixed texts several times."""
    for index in range(recipe.num_captions):
        rng = item_rng(recipe.seed, index)
        yield caption(sample_scene(rng, world=recipe.world), rng)
        yield chat_turn(rng, world=recipe.world)[0]
    for index in range(recipe.num_edits):
        yield sample_edit(item_rng(recipe.seed + 1, index), world=recipe.world).instruction
    for index in range(recipe.num_questions):
        rng = item_rng(recipe.seed + 2, index)
        for question, answer in questions(sample_scene(rng, world=recipe.world), rng, recipe.world):
            yield question
            yield answer
        if recipe.world == "full":
            talk = conversation(recipe.seed + 3, index, FULL_TALK, world="full")
            yield from [talk.prompt or "", *(e.question for e in talk.exchanges)]
            yield from (e.answer for e in talk.exchanges)
    fixed = [
        f"system\n{SYSTEM}",
        "user\n",
        "assistant\n",
        "<img1>: <img2>: <img3>: ",
        DEFAULT_NEGATIVE_PROMPT,
    ]
    for path in recipe.text_files:
        try:
            fixed += path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(
                f"text_files: cannot read {path}: {error.strerror}; run from the project's root"
            ) from error
    for _ in range(recipe.repeat_texts):
        yield from fixed


def train_bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens, special tokens included and numbered last, as in Qwen2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZER), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    num_special = len(SPECIAL_TOKENS) + len(ADDED_TOKENS) + 1
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - num_special,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([*SPECIAL_TOKENS, *ADDED_TOKENS, IMG_TRIGGER])
    return tokenizer


def write_processor(tokenizer: Tokenizer, recipe: TokenizerRecipe) -> None:
    """tokenizer.json, vocab.json, merges.txt and the JSON files around them, and preprocessor_config.json."""
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    added = {token: tokenizer.token_to_id(token) for token in (*SPECIAL_TOKENS, *ADDED_TOKENS, IMG_TRIGGER)}
    _write_json(folder / "added_tokens.json", added)
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    others = [token for token in (*SPECIAL_TOKENS[1:], IMG_TRIGGER) if token != IM_END]
    specials = {
        "additional_special_tokens": others,
        "eos_token": {"content": IM_END, **plain},
        "pad_token": {"content": END_OF_TEXT, **plain},
    }
    _write_json(folder / "special_tokens_map.json", specials)
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": t, "special": True, **plain} for t, i in added.items()},
        "additional_special_tokens": others,
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": IM_END,
        "errors": "replace",
        "model_max_length": 1024,
        "pad_token": END_OF_TEXT,
        "padding_side": "right",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    smallest = recipe.picture_px // 2 if recipe.smallest_px is None else recipe.smallest_px
    make_image_processor(
        {
            "patch_size": recipe.patch_size,
            "merge_size": recipe.merge_size,
            "temporal_patch_size": 2,
            "min_pixels": smallest**2,
            "max_pixels": recipe.picture_px**2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
    ).save_pretrained(folder)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
