"""The networks that learn, behind one `forward`: DDP and FSDP see every call, and every rank calls all.

Ranks that train together must run the same modules in every part: gradients meet module by module. A pack
without references (or without answers) would leave some out; an anchor, a sequence of three tokens whose
output counts nothing, runs them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from og2.data.packing import Answer, Pack
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.transformer import Sequence as TokenSequence
from og2.train.objective import noisy, squared_errors, time_bins
from og2.train.task import Figures


@dataclass(frozen=True)
class FlowInputs:
    """Noisy latents (C, h, w) with their times (B,) in [0, 1], and what they are seen with."""

    texts: list[Tensor]
    references: list[Tensor]
    latents: list[Tensor]
    times: Tensor
    sequences: list[TokenSequence]

    @classmethod
    def of(cls, pack: Pack, times: Tensor, noises: Sequence[Tensor]) -> FlowInputs:
        """A pack at these times (B,), its targets mixed with this noise (C, h, w)."""
        parts = zip(pack.targets, noises, times, strict=True)
        return cls(
            list(pack.texts),
            list(pack.references),
            [noisy(x1, x0, t) for x1, x0, t in parts],
            times,
            [TokenSequence(*sequence) for sequence in pack.sequences],
        )


@dataclass(frozen=True)
class Outputs:
    """Velocities (C, h, w); per answer its summed loss; a zero that hangs on the anchor's modules.

    states: of the target tokens (N, D) after the watched layer, target after target.
    """

    velocities: list[Tensor]
    answers: list[Tensor] = field(default_factory=list)
    anchor: Tensor | None = None
    states: Tensor | None = None


def flow_errors(
    velocities: Sequence[Tensor], pack: Pack, noises: Sequence[Tensor], times: Tensor
) -> tuple[Tensor, Figures]:
    """The squared error of each sample (B,), weighted as the pack says, and figures by time and by task."""
    errors = squared_errors(velocities, pack.targets, noises)
    if pack.weights is not None:
        errors = errors * pack.weights
    figures: Figures = {}
    bins = time_bins(times.tolist())
    for error, target, task, place in zip(errors.detach(), pack.targets, pack.tasks, bins, strict=True):
        for name in (f"loss_t{place}", f"loss_{task}"):
            value, count = figures.get(name, (0.0, 0.0))
            figures[name] = (value + error, count + target.numel())
    return errors, figures


class TrainedNetworks(nn.Module):
    """The transformer and, where answers are trained, the language model.

    `is_anchored`: several ranks train together, see above. `watched`: index of the joint layer whose states
    are wanted.
    """

    def __init__(
        self,
        transformer: OmniGen2Transformer2DModel,
        mllm: Any = None,
        is_anchored: bool = False,
        watched: int | None = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.mllm = mllm
        self.is_anchored = is_anchored
        self._states: Tensor | None = None
        if watched is not None:
            transformer.layers[watched].register_forward_hook(self._watch)

    def forward(self, flow: FlowInputs, answers: Sequence[Answer] = ()) -> Outputs:
        """What the networks say about a pack."""
        anchors = []
        inputs = flow
        if self.is_anchored and not flow.references:
            inputs = self._with_anchor(flow)
        velocities: list[Tensor] = []
        states = None
        if inputs.latents:
            sizes = [(x.shape[-2], x.shape[-1]) for x in inputs.latents]
            prepared = self.transformer.prepare(inputs.texts, inputs.references, sizes, inputs.sequences)
            velocities = self.transformer.velocity(inputs.latents, inputs.times, prepared)
            if self._states is not None:
                (joint,) = prepared.layout().joints
                states, self._states = self._states.index_select(0, joint.target_tokens), None
            anchors += [v.float().sum() for v in velocities[len(flow.latents) :]]
        losses = [self._answer_loss(answer) for answer in answers]
        if self.is_anchored and self.mllm is not None and not answers:
            device = next(self.mllm.parameters()).device
            token = torch.zeros(2, dtype=torch.long, device=device)
            anchors.append(self._answer_loss(Answer(token, token.bool().logical_not())))
        anchor = torch.stack(anchors).sum() * 0.0 if anchors else None
        return Outputs(velocities[: len(flow.latents)], losses, anchor, states)

    def _watch(self, _block: nn.Module, _given: Any, states: Tensor) -> None:
        self._states = states

    def _with_anchor(self, flow: FlowInputs) -> FlowInputs:
        """The inputs with one more sequence: one text token, reference and target of one patch, all zero."""
        model = self.transformer
        like = next(model.parameters())
        side = model.patch_size
        text = torch.zeros(1, model.text_feat_dim, device=like.device, dtype=torch.float32)
        patch = torch.zeros(model.in_channels, side, side, device=like.device, dtype=torch.float32)
        sequence = TokenSequence(len(flow.texts), (0,), len(flow.latents))
        times = torch.cat([flow.times, flow.times.new_full((1,), 0.5)])
        return FlowInputs(
            [*flow.texts, text], [patch], [*flow.latents, patch], times, [*flow.sequences, sequence]
        )

    def _answer_loss(self, answer: Answer) -> Tensor:
        """Cross-entropy of the said tokens, summed, in float32."""
        assert self.mllm is not None
        seen = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
        given = {name: getattr(answer, name) for name in seen}
        inputs: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        inputs |= {"input_ids": answer.input_ids[None], "use_cache": False}
        logits = self.mllm(**inputs).logits[0, :-1][answer.said[1:]]
        return functional.cross_entropy(
            logits.float(), answer.input_ids[1:][answer.said[1:]], reduction="sum"
        )
