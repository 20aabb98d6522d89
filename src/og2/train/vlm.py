"""Trains the mini vision-language model: a small Qwen2.5-VL, on conversations about the world.

Its last hidden states condition the transformer, so two training-only heads ask every text token's state for
that token and the one before it (what was said must stay readable), and others ask the states of picture
tokens what lies there (this makes seeing start early). The heads are not part of the model that is shipped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.conditioning.processor import Processor, load_processor
from og2.conditioning.templates import END_OF_TEXT, IMAGE_PAD
from og2.conditioning.vlm import tokenize
from og2.data import conversations, world_source
from og2.data.conversations import Conversation
from og2.data.mentions import MENTION_WORDS, mentions, naming_tokens
from og2.data.sight import CellWords, cell_labels, missed
from og2.device import DeviceName, chosen_device, half_precision
from og2.errors import ConfigError
from og2.files import replaced
from og2.train.distributed import Parallel, process_group, rank, world_size
from og2.train.loop import RunConfig, train
from og2.train.optim import OptimConfig
from og2.train.task import Part, PartLoss
from og2.train.vlm_model import VlmModelConfig, build_vlm, start_from
from og2.world.spec import Scene, WorldName

logger = logging.getLogger(__name__)
EVAL_SEED = 900_101
RECALLED_EVERY = 4


@dataclass(frozen=True)
class VlmDataConfig:
    """Conversations per step (all ranks), their world and odds of their kinds (see data/conversations.py).

    part: at most so many go through the model together; a rank's are put together by length, to pad less.
    """

    batch: int = 32
    part: int = 6
    world: WorldName = "plain"
    size_px: int = 64
    shares: tuple[float, ...] = (0.55, 0.2, 0.15, 0.1)
    text_files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.part < 1:
            raise ConfigError(f"data.part={self.part}; one conversation or more goes through the model")


@dataclass(frozen=True)
class VlmLossConfig:
    """Weights: of tokens that are not the model's to say, of the two recall heads, of the picture heads.

    recall: every fourth text token is asked; which ones, a conversation's length says.
    mention: of asking words for what they mean in the picture (og2.data.mentions).
    """

    prompt_tokens: float = 0.1
    recall: float = 0.2
    sight: float = 0.5
    mention: float = 0.3


@dataclass(frozen=True)
class VlmRecipe:
    """The recipe `kind: vlm`; `processor` is the folder that the tokenizer recipe wrote.

    start: the folder of a whole model whose language model to go on from instead of fresh weights.
    """

    run: RunConfig
    optim: OptimConfig
    processor: Path
    model: VlmModelConfig = field(default_factory=VlmModelConfig)
    data: VlmDataConfig = VlmDataConfig()
    loss: VlmLossConfig = VlmLossConfig()
    start: Path | None = None
    device: DeviceName = "auto"


def run(recipe: VlmRecipe) -> None:
    """Train (or resume) the vision-language model of `recipe`."""
    with process_group():
        train(make_task(recipe), recipe.run, recipe.optim)


def make_task(recipe: VlmRecipe) -> VlmTask:
    """The recipe's task, fresh."""
    torch.manual_seed(recipe.run.seed)
    return VlmTask(recipe)


class _WithHeads(nn.Module):
    """The model and its training-only heads."""

    def __init__(self, mllm: Qwen2_5_VLForConditionalGeneration, vocabulary: int, sights: int) -> None:
        super().__init__()
        self.mllm = mllm
        width = mllm.lm_head.in_features
        self.recall = nn.Linear(width, 2 * vocabulary)
        self.sight = nn.Linear(width, sights)
        self.mention = nn.Linear(width, sum(MENTION_WORDS.sizes))


@dataclass
class _Batch:
    inputs: dict[str, Tensor]
    said: Tensor  # (B, T) True where the token is the model's to say
    valid: Tensor  # (B, T)
    exchanges: list[list[tuple[str, int, int]]]  # per conversation: (kind, first, end) of each answer
    scenes: list[Scene]
    mentioned: Tensor  # (B, T) True where a token means one thing in the picture
    meanings: Tensor  # (mentioned, kinds of word) what is said of that


class VlmTask:
    """The language model as the loop sees it."""

    kinds = ("tokens", "recall", "sight", "mention")

    def __init__(self, recipe: VlmRecipe) -> None:
        self.recipe = recipe
        if recipe.data.batch < world_size():
            raise ConfigError(
                f"data.batch={recipe.data.batch}; each of {world_size()} ranks needs a conversation"
            )
        self.processor = load_processor(recipe.processor)
        self.vocabulary = len(self.processor.tokenizer)
        self.mllm = build_vlm(recipe.model, self.processor)
        if recipe.start is not None:
            start_from(self.mllm, self.processor, recipe.start)
        self.device = chosen_device(recipe.device)
        if self.device.type == "cpu":
            # Measured there: the fused kernel's backward costs more than the whole of plain attention.
            self.mllm.set_attn_implementation("eager")
        self.cell_words = CellWords.of(recipe.data.world)
        self.names = naming_tokens(self.processor)
        self.module = _WithHeads(self.mllm, self.vocabulary, sum(self.cell_words.sizes)).to(self.device)
        self.parallel = Parallel(self.module)
        self.texts = [
            t for path in recipe.data.text_files for t in path.read_text(encoding="utf-8").splitlines()
        ]

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        """This rank's share of the step's conversations: every one is some rank's."""
        del generator
        first, count = step * self.recipe.data.batch, self.recipe.data.batch
        own = range(first + rank(), first + count, world_size())
        talks = sorted(self._talks(self.recipe.run.seed, own), key=lambda pair: len(pair[1].ids))
        num_parts = math.ceil(len(talks) / self.recipe.data.part)
        bounds = [len(talks) * i // num_parts for i in range(num_parts + 1)]
        return [self._part(self._batch(talks[start:end])) for start, end in pairwise(bounds)]

    def _part(self, batch: _Batch) -> Part:
        is_picture = batch.inputs["input_ids"] == self.mllm.config.image_token_id
        counts = {
            "tokens": self._weights(batch).sum().item(),
            "recall": float(self._recalled(batch).sum()),
            "sight": float(is_picture.sum() * len(self.cell_words.sizes)),
            "mention": float(batch.meanings.numel()),
        }
        return Part(counts, lambda: self._loss(batch, counts))

    def _loss(self, batch: _Batch, counts: Mapping[str, float]) -> PartLoss:
        """Next-token losses and the heads' losses, each summed over what `counts` counts."""
        loss, ids = self.recipe.loss, batch.inputs["input_ids"]
        with half_precision(self.device):
            states = self._states(batch)
            is_next = batch.valid[:, 1:]
            logits = self.mllm.lm_head(states[:, :-1][is_next])
            tokens = functional.cross_entropy(logits.float(), ids[:, 1:][is_next], reduction="none")
            recall = self._recall_loss(states, batch)
            sight = self._sight_loss(states, batch)
            meant = self.module.mention(states[batch.mentioned]).float()
            mention = missed(meant, batch.meanings, MENTION_WORDS)
        said = batch.said[:, 1:][is_next].float()
        answers = (tokens.detach() * said).sum().item()
        return PartLoss(
            {
                "tokens": (tokens * self._weights(batch)).sum(),
                "recall": loss.recall * recall,
                "sight": loss.sight * sight,
                "mention": loss.mention * mention,
            },
            {
                "answer_loss": (answers, said.sum().item()),
                "recall_loss": (recall.item(), counts["recall"]),
                "sight_loss": (sight.item(), counts["sight"]),
                "mention_loss": (mention.item(), counts["mention"]),
            },
        )

    def _weights(self, batch: _Batch) -> Tensor:
        """Of every next token, in the order of `batch.valid`: 1 where it is the model's to say."""
        said = batch.said[:, 1:][batch.valid[:, 1:]].float()
        return said + self.recipe.loss.prompt_tokens * (1.0 - said)

    def _recalled(self, batch: _Batch) -> Tensor:
        """Tokens (B, T - 1) of text after text: a fourth of them is what the recall heads are asked for."""
        is_text = batch.valid & (batch.inputs["input_ids"] != self.mllm.config.image_token_id)
        places = torch.arange(is_text.shape[1] - 1, device=is_text.device)
        is_asked = (places + batch.valid.sum(dim=1, keepdim=True)) % RECALLED_EVERY == 0
        return is_text[:, 1:] & is_text[:, :-1] & is_asked

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        """Share of answers that greedy decoding would give exactly, by kind, on unseen conversations."""
        del step, module
        right: dict[str, list[float]] = {}
        for first in range(0, 160, 32):
            batch = self._batch(self._talks(EVAL_SEED, range(first, first + 32)))
            with half_precision(self.device):
                states = self._states(batch)
                best = self.mllm.lm_head(states).argmax(dim=-1)
            hits = best[:, :-1] == batch.inputs["input_ids"][:, 1:]
            for row, exchanges in enumerate(batch.exchanges):
                for kind, start, end in exchanges:
                    right.setdefault(kind, []).append(float(hits[row, start - 1 : end - 1].all()))
        return {f"exact_{kind}": sum(values) / len(values) for kind, values in sorted(right.items())}

    def export(self, folder: Path, module: nn.Module) -> None:
        """transformers' layout, without the training-only heads."""
        del module
        replaced(folder, self.mllm.save_pretrained)

    def _states(self, batch: _Batch) -> Tensor:
        return self.mllm.model(**batch.inputs, use_cache=False).last_hidden_state

    def _recall_loss(self, states: Tensor, batch: _Batch) -> Tensor:
        ids, chosen = batch.inputs["input_ids"], self._recalled(batch)
        own, before = self.module.recall(states[:, 1:][chosen]).float().chunk(2, dim=-1)
        return _summed(own, ids[:, 1:][chosen]) + _summed(before, ids[:, :-1][chosen])

    def _sight_loss(self, states: Tensor, batch: _Batch) -> Tensor:
        if not batch.scenes:
            return states.new_zeros(())
        seen = states[batch.inputs["input_ids"] == self.mllm.config.image_token_id]
        cells = self.recipe.data.size_px // (self.recipe.model.patch_size_px * self.recipe.model.merge_size)
        labels = torch.cat([cell_labels(scene, cells, self.cell_words) for scene in batch.scenes])
        return missed(self.module.sight(seen).float(), labels.to(self.device), self.cell_words)

    def _talks(self, seed: int, indices: Sequence[int]) -> list[tuple[Conversation, _Row]]:
        data = self.recipe.data
        talks = [conversations.conversation(seed, i, data.shares, self.texts, data.world) for i in indices]
        cells = (data.size_px // (self.recipe.model.patch_size_px * self.recipe.model.merge_size)) ** 2
        return [(talk, tokenize_conversation(talk, self.processor, cells)) for talk in talks]

    def _batch(self, talks: Sequence[tuple[Conversation, _Row]]) -> _Batch:
        rows = [row for _, row in talks]
        pad = self.processor.token_id(END_OF_TEXT)
        length = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), length), pad)
        said, valid, mentioned = torch.zeros(3, len(rows), length, dtype=torch.bool)
        meanings = []
        for i, (talk, row) in enumerate(talks):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            said[i, : len(row.ids)] = torch.tensor(row.said)
            valid[i, : len(row.ids)] = True
            if len(talk.scenes) == 1:
                for place, meaning in mentions(row.ids, talk.scenes[0], self.names):
                    mentioned[i, place] = True
                    meanings.append(meaning)
        inputs = {"input_ids": ids, "attention_mask": valid.long()}
        scenes = [scene for talk, _ in talks for scene in talk.scenes]
        if scenes:
            inputs |= self._picture_inputs(scenes)
            inputs["mm_token_type_ids"] = (ids == self.mllm.config.image_token_id).int()
        here = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        answers = [row.answers for row in rows]
        kinds = len(MENTION_WORDS.words)
        meant = torch.stack(meanings) if meanings else torch.zeros(0, kinds, dtype=torch.long)
        said, valid, mentioned, meant = (x.to(self.device) for x in (said, valid, mentioned, meant))
        return _Batch(here, said, valid, answers, scenes, mentioned, meant)

    def _picture_inputs(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        pixels = world_source.pictures(scenes, self.recipe.data.size_px)
        model = self.recipe.model
        grid = self.recipe.data.size_px // model.patch_size_px
        return {
            "pixel_values": vision_patches(pixels, model.patch_size_px, model.merge_size),
            "image_grid_thw": torch.tensor([[1, grid, grid]]).repeat(len(scenes), 1),
        }


def _summed(logits: Tensor, ids: Tensor) -> Tensor:
    return functional.cross_entropy(logits, ids, reduction="sum")


@dataclass
class _Row:
    ids: list[int]
    said: list[bool]
    answers: list[tuple[str, int, int]]


def tokenize_conversation(talk: Conversation, processor: Processor, num_picture_tokens: int) -> _Row:
    """Token ids with picture marks expanded, which of them the model says, and where each answer lies."""
    pad = processor.token_id(IMAGE_PAD)
    row = _Row([], [], [])
    answered = 0
    for text, is_said in talk.pieces():
        ids = [
            j for i in tokenize(processor, text) for j in ([pad] * num_picture_tokens if i == pad else [i])
        ]
        start = len(row.ids)
        row.ids += ids
        row.said += [is_said] * len(ids)
        if is_said:
            row.answers.append((talk.exchanges[answered].kind, start, len(row.ids)))
            answered += 1
    return row


def vision_patches(pixels: Tensor, patch_px: int, merge: int) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] as the Qwen2-VL processor cuts them: (patches, 3 * 2 * patch * patch).

    Patches of one merged token follow one another; each picture counts as two equal frames.
    """
    batch, channels, height, width = pixels.shape
    rows, columns = height // (patch_px * merge), width // (patch_px * merge)
    grid = pixels.reshape(batch, channels, rows, merge, patch_px, columns, merge, patch_px)
    patches = grid.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, channels, 1, patch_px * patch_px)
    return patches.expand(-1, -1, 2, -1).reshape(len(patches), -1)
