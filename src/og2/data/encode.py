"""Samples into what the transformer trains on: latents of the frozen VAE, features of the language model.

Every picture and every prompt is encoded by itself, so a result never depends on its neighbours, and what the
cache gives is bit for bit what would have been computed. The draw from a posterior is a pure function of
(seed, draw).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from og2.conditioning.images import preprocess
from og2.conditioning.processor import Processor
from og2.conditioning.templates import IM_END
from og2.conditioning.vlm import chat_inputs, encode_chat, encode_prompt, refuse_picture_tokens, tokenize
from og2.data.cache import Cache, tensors_of
from og2.data.examples import CacheKeys, Sample, SizedPicture
from og2.data.packing import Answer, Item
from og2.data.rows import Row
from og2.errors import RequestError

WHOLE_ANSWER = "question, pictures and answer have"


@dataclass(frozen=True)
class Networks:
    """The frozen networks: functions that load VAE and language model, called when one is first needed.

    The hashes say what the cache's entries depend on (og2.data.cache.folder_hash).
    """

    load_vae: Callable[[], AutoencoderKL]
    load_mllm: Callable[[], PreTrainedModel]
    load_processor: Callable[[], Processor]
    vae_hash: str
    mllm_hash: str

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The VAE, loaded once."""
        return self.load_vae().eval().requires_grad_(False)

    @cached_property
    def mllm(self) -> PreTrainedModel:
        """The language model, loaded once."""
        return self.load_mllm().eval()

    @cached_property
    def processor(self) -> Processor:
        """The tokenizer and the picture processor, loaded once."""
        return self.load_processor()


@dataclass(frozen=True)
class EncodeConfig:
    """How samples are encoded.

    `sample_targets`: draw targets from the posterior instead of taking its mean (references always are).
    `max_text_tokens`: longest prompt with its template, or question, pictures and answer, in tokens; None for
    what the language model allows.
    """

    sample_targets: bool = True
    max_text_tokens: int | None = None


class Encoder:
    """Encodes samples, and keeps in the cache what it computes."""

    def __init__(
        self, networks: Networks, config: EncodeConfig, seed: int, cache: Cache | None = None
    ) -> None:
        self.networks, self.config, self.seed, self.cache = networks, config, seed, cache
        self._empty: dict[str, Tensor] = {}

    @property
    def keys(self) -> CacheKeys:
        """What a Reader needs to look into the same cache."""
        return CacheKeys(self.cache, self.networks.vae_hash, self.networks.mllm_hash)

    def item(self, sample: Sample) -> Item:
        """The sample, encoded: float32 on the CPU.   Raises: RequestError, ImageError."""
        row = sample.row
        if sample.target is None:
            return Item(sample.draw, row.id, row.task, answer=self.answer(sample))
        references = tuple(
            self._drawn(picture, sample.draw, 1 + k) for k, picture in enumerate(sample.references)
        )
        target = self._drawn(sample.target, sample.draw, 0, self.config.sample_targets)
        return Item(
            sample.draw, row.id, row.task, self.features(sample).float(), sample.text_key, references, target
        )

    @torch.no_grad()
    def features(self, sample: Sample) -> Tensor:
        """Features (L, F) of the sample's text, in the dtype they were computed in.

        Raises: RequestError for a text that is too long, also where the cache holds it.
        """
        if sample.text_entry is not None:
            held = tensors_of(sample.text_entry)["features"]
            check_length(len(held), self.config.max_text_tokens, f"{sample.row.id}: the prompt has")
            return held
        if not sample.text and sample.text_key in self._empty:
            return self._empty[sample.text_key]
        encode = encode_prompt if sample.form == "prompt" else encode_chat
        networks, limit = self.networks, self.config.max_text_tokens
        found = encode(networks.mllm, networks.processor, sample.text, max_sequence_length=limit).cpu()
        if self.cache:
            self.cache.put("texts", sample.text_key, {"features": found})
        if not sample.text:
            self._empty = {sample.text_key: found}
        return found

    @torch.no_grad()
    def posterior(self, picture: SizedPicture) -> dict[str, Tensor]:
        """What the VAE gives for a picture: `mean`, `std` (C, h, w), and `scaling` (2,).

        Mean and deviation are unscaled, in the dtype they were computed in; `scaling` are the shift and the
        factor between the VAE's latents and the transformer's.
        """
        if picture.entry is not None:
            return tensors_of(picture.entry)
        vae = self.networks.vae
        posterior = vae.encode(_model_range(picture).to(vae.device, vae.dtype)).latent_dist
        scaling = torch.tensor(
            [vae.config.shift_factor or 0.0, vae.config.scaling_factor], dtype=torch.float64
        )
        found = {"mean": posterior.mean[0].cpu(), "std": posterior.std[0].cpu(), "scaling": scaling}
        if self.cache:
            self.cache.put("pictures", picture.key, found)
        return found

    def answer(self, sample: Sample) -> Answer:
        """The question in the chat form with its pictures, and the answer that is to be said.

        Raises: RequestError for one that is too long, or holds picture control tokens.
        """
        networks = self.networks
        refuse_picture_tokens([sample.row.output_text or ""])
        shown = [Image.fromarray(p.pixels) for p in sample.references if p.pixels is not None]
        inputs = chat_inputs(networks.mllm, networks.processor, sample.text, shown)
        question = inputs["input_ids"][0].cpu()
        said = torch.tensor(answer_ids(networks.processor, sample.row))
        limit = self.config.max_text_tokens
        if limit is None:
            limit = networks.mllm.config.get_text_config().max_position_embeddings
        check_length(len(question) + len(said), limit, f"{sample.row.id}: {WHOLE_ANSWER}")
        seen = {name: x.cpu() for name, x in inputs.items() if name != "input_ids"}
        if "mm_token_type_ids" in seen:
            seen["mm_token_type_ids"] = functional.pad(seen["mm_token_type_ids"], (0, len(said)))
        return Answer(
            input_ids=torch.cat([question, said]),
            said=torch.cat([torch.zeros(len(question)), torch.ones(len(said))]).bool(),
            **seen,
        )

    def _drawn(self, picture: SizedPicture, draw: int, slot: int, is_sampled: bool = True) -> Tensor:
        """Scaled latents (C, h, w), float32: a draw from the posterior of picture `slot`, or its mean."""
        posterior = self.posterior(picture)
        latents, (shift, factor) = posterior["mean"].float(), posterior["scaling"].tolist()
        if is_sampled:
            noise = torch.randn(latents.shape, generator=generator_of(self.seed, draw, slot))
            latents = latents + posterior["std"].float() * noise
        return (latents - shift) * factor


def answer_ids(processor: Processor, row: Row) -> list[int]:
    """The tokens that are to be said, the end of the turn among them."""
    return tokenize(processor, f"{row.output_text}{IM_END}\n")


def check_length(length: int, limit: int | None, what: str) -> None:
    """Raises: RequestError that begins with `what` for more tokens than the limit."""
    if limit is not None and length > limit:
        raise RequestError(
            f"{what} {length} tokens; the limit is {limit}; shorten it, or raise max_text_tokens"
        )


def generator_of(*words: int) -> torch.Generator:
    """Random numbers that follow from these whole numbers, and from nothing else."""
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _model_range(picture: SizedPicture) -> Tensor:
    assert picture.pixels is not None
    pixels = Image.fromarray(picture.pixels)
    return preprocess(pixels, pixels.width * pixels.height)
