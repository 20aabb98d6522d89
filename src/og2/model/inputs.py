"""What the transformer accepts: the official call's inputs taken apart, and every shape checked.

Legend: B batch, T text tokens, F text feature width, C latent channels, (h, w) latent size, p patch size.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch
from torch import Tensor

from og2.errors import RequestError
from og2.model.packing import MAX_REFERENCES


def targets_per_sample(hidden_states: Tensor | list[Tensor]) -> list[Tensor]:
    """Latents (C, h, w), one per sample."""
    if isinstance(hidden_states, Tensor) and hidden_states.ndim != 4:
        raise RequestError(
            f"hidden_states has shape {tuple(hidden_states.shape)}; (batch, channels, h, w) is needed"
        )
    if len(hidden_states) == 0:
        raise RequestError("hidden_states holds no sample; at least one is needed")
    return list(hidden_states)


def texts_per_sample(features: Tensor, mask: Tensor, batch_size: int) -> list[Tensor]:
    """Valid text features (T, F), one per sample; what the mask leaves out is never looked at."""
    if features.ndim != 3 or features.shape[0] != batch_size:
        raise RequestError(
            f"text_hidden_states has shape {tuple(features.shape)}; "
            f"({batch_size}, tokens, features) is needed"
        )
    if mask.shape != features.shape[:2]:
        raise RequestError(
            f"text_attention_mask has shape {tuple(mask.shape)}; {tuple(features.shape[:2])} is needed"
        )
    valid = mask.bool()
    lengths = valid.sum(dim=1)
    expected = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]
    if not torch.equal(valid, expected):
        raise RequestError("text_attention_mask must mark the first tokens of each text; pad on the right")
    return [text[:length] for text, length in zip(features, lengths.tolist(), strict=True)]


def references_per_sample(
    references: Many[Many[Tensor] | None] | None, batch_size: int
) -> list[list[Tensor]]:
    """Reference latents of every sample; an empty list where there are none."""
    if references is None:
        return [[] for _ in range(batch_size)]
    if len(references) != batch_size:
        raise RequestError(
            f"ref_image_hidden_states has {len(references)} entries for {batch_size} samples; "
            "give each sample a list, or None"
        )
    taken = [list(pictures) if pictures is not None else [] for pictures in references]
    for number, pictures in enumerate(taken):
        if len(pictures) > MAX_REFERENCES:
            raise RequestError(
                f"sample {number} has {len(pictures)} reference pictures; "
                f"at most {MAX_REFERENCES} are allowed"
            )
    return taken


def check_text(texts: list[Tensor], feature_width: int) -> None:
    """Refuses texts that are missing, empty, or of the wrong width."""
    if not texts:
        raise RequestError("no text was given; at least one is needed")
    for number, text in enumerate(texts):
        if text.ndim != 2 or text.shape[1] != feature_width:
            raise RequestError(
                f"text {number} has shape {tuple(text.shape)}; (tokens, {feature_width}) is needed"
            )
        if len(text) == 0:
            raise RequestError(f"text {number} has no token; even an empty prompt has those of its template")


def check_latents(
    what: str,
    latents: list[Tensor],
    num_channels: int,
    patch_size: int,
    sizes: tuple[tuple[int, int], ...] | None = None,
) -> None:
    """Refuses latents with wrong channels or sizes that patches cannot cover; `sizes` are those announced."""
    if sizes is not None and len(latents) != len(sizes):
        raise RequestError(f"{len(latents)} {what} were given for {len(sizes)} targets")
    for number, picture in enumerate(latents):
        if picture.ndim != 3 or picture.shape[0] != num_channels:
            raise RequestError(
                f"{what} {number} has shape {tuple(picture.shape)}; ({num_channels}, height, width) is needed"
            )
        check_size(f"{what} {number}", (picture.shape[1], picture.shape[2]), patch_size)
        if sizes is not None and tuple(picture.shape[1:]) != tuple(sizes[number]):
            raise RequestError(
                f"{what} {number} is {tuple(picture.shape[1:])}, but {sizes[number]} was announced"
            )


def check_size(what: str, size: tuple[int, int], patch_size: int) -> None:
    """Refuses a latent size that is empty or not a multiple of the patch size."""
    for name, length in zip(("height", "width"), size, strict=True):
        if length < patch_size or length % patch_size:
            low, high = length // patch_size * patch_size, (length // patch_size + 1) * patch_size
            allowed = f"{low} or {high}" if low else f"{high}"
            raise RequestError(
                f"{what} has latent {name} {length}, "
                f"not a multiple of the patch size {patch_size}; use {allowed}"
            )


def check_times(t: Tensor, num_targets: int, one_time: bool) -> Tensor:
    """Times (R,): one row if t is one number for all targets, else one per target."""
    if t.ndim == 0:
        return t[None]
    if t.shape == (1,) and (one_time or num_targets == 1):
        return t
    if one_time:
        raise RequestError(f"t has shape {tuple(t.shape)}, but one time for all targets was promised")
    if t.ndim != 1 or len(t) not in (1, num_targets):
        raise RequestError(f"t has shape {tuple(t.shape)}; one number or {num_targets} are needed")
    return t
