"""How texts, references and targets become packed token sequences.

A request names its parts once (texts, reference pictures, targets) and says in `Sequence` objects which of
them form a sequence: [text][reference 0][reference 1]...[target]. A `Layout` is everything about these
sequences that does not depend on their values: lengths, rotary tables, and from where each token comes.
It is built once per request.

The refiners work on single pictures. Unless told otherwise, a picture is refined once for all sequences that
show it at the same place (guidance branches); the rotary offset inside one picture is constant and cancels.

Legend: S packed tokens, N packed target tokens, D width, C channels, hw latent size, p patch size.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from og2.errors import RequestError
from og2.model.rope import PositionIds, Rotary, rotary_table, sequence_ids

MAX_REFERENCES = 5
Size = tuple[int, int]


@dataclass(frozen=True)
class Sequence:
    """One sequence: indices of its text, of its references in order, and of its target."""

    text: int
    references: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Parts:
    """Sizes of what a request consists of: text lengths in tokens, pictures in latent pixels (h, w)."""

    text_lengths: tuple[int, ...]
    reference_sizes: tuple[Size, ...]
    target_sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Sharing:
    """Which sequences may share a refined picture.

    `between_sequences`: those of the same target may; `between_targets`: all may (one time for all targets).
    """

    between_sequences: bool = True
    between_targets: bool = False


@dataclass(frozen=True)
class Segments:
    """Packed tokens in segments that attend within themselves."""

    lengths: tuple[int, ...]
    rotary: Rotary
    time_rows: Tensor  # (S,) index of the token's target, whose time it is under


@dataclass(frozen=True)
class RefinedPicture:
    """One picture on its way through a refiner; `slot` is the reference's place, None for a target.

    ids: (tokens, 3) position ids.
    """

    picture: int
    slot: int | None
    target: int
    ids: Tensor


@dataclass(frozen=True)
class Joint:
    """Sequences that run through the joint layers together."""

    sequences: tuple[int, ...]
    segments: Segments
    sources: Tensor  # row of [texts; refined references; refined targets] each token starts from
    targets: Segments  # the target tokens alone
    target_tokens: Tensor  # and their positions in the pack


@dataclass(frozen=True)
class Layout:
    """A set of sequences, ready to run: refiners first, then each joint pack."""

    references: tuple[RefinedPicture, ...]
    reference_segments: Segments | None
    targets: tuple[RefinedPicture, ...]
    target_segments: Segments
    joints: tuple[Joint, ...]


@dataclass(frozen=True)
class LayoutOptions:
    """How to lay out: what is shared, whether all sequences run together, the tables' precision, and which
    position ids tokens have.
    """

    patch_size: int
    axes_dim: tuple[int, int, int]
    sharing: Sharing = Sharing()
    together: bool = True
    rotary_dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    position_ids: PositionIds = sequence_ids


def patchify(latents_Chw: Tensor, patch_size: int) -> Tensor:
    """Tokens (h/p * w/p, p*p*C), row by row; inside a token: row, column, channel, channels fastest."""
    channels, height, width = latents_Chw.shape
    grid = latents_Chw.reshape(channels, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(1, 3, 2, 4, 0).flatten(2).flatten(0, 1)


def unpatchify(tokens: Tensor, size_hw: Size, patch_size: int) -> Tensor:
    """The inverse of patchify: latents (C, h, w) of that size."""
    height, width = size_hw
    grid = tokens.reshape(height // patch_size, width // patch_size, patch_size, patch_size, -1)
    return grid.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)


def check_sequences(parts: Parts, sequences: tuple[Sequence, ...]) -> None:
    """Refuses sequences that name parts that do not exist, or too many references.

    Raises: RequestError.
    """
    if not sequences:
        raise RequestError("no sequence was given; at least one is needed")
    for number, sequence in enumerate(sequences):
        if len(sequence.references) > MAX_REFERENCES:
            raise RequestError(
                f"sequence {number} has {len(sequence.references)} reference pictures; "
                f"at most {MAX_REFERENCES} are allowed"
            )
        named = (
            ("text", (sequence.text,), len(parts.text_lengths)),
            ("reference", sequence.references, len(parts.reference_sizes)),
            ("target", (sequence.target,), len(parts.target_sizes)),
        )
        for what, indices, count in named:
            for index in indices:
                if not 0 <= index < count:
                    raise RequestError(f"sequence {number} names {what} {index}, but there are {count}")


def build_layout(
    parts: Parts, sequences: tuple[Sequence, ...], chosen: tuple[int, ...], options: LayoutOptions
) -> Layout:
    """The layout of the chosen sequences (indices into `sequences`)."""
    return _LayoutBuilder(parts, sequences, chosen, options).build()


class _LayoutBuilder:
    """Collects the refined pictures of the chosen sequences, then places everybody."""

    def __init__(
        self, parts: Parts, sequences: tuple[Sequence, ...], chosen: tuple[int, ...], options: LayoutOptions
    ) -> None:
        self.parts, self.sequences, self.chosen, self.options = parts, sequences, chosen, options
        self.references: dict[Hashable, RefinedPicture] = {}
        self.targets: dict[Hashable, RefinedPicture] = {}
        self._known: dict[Hashable, list[Tensor]] = {}
        self.ids = {index: self._ids(index) for index in chosen}

    def build(self) -> Layout:
        for index in self.chosen:
            self._collect(index)
        references, targets = tuple(self.references.values()), tuple(self.targets.values())
        reference_grids = [self._grid(self.parts.reference_sizes[r.picture]) for r in references]
        target_grids = [self._grid(self.parts.target_sizes[r.picture]) for r in targets]
        self.text_starts = _starts(self.parts.text_lengths)
        self.reference_starts = _starts([h * w for h, w in reference_grids], self.text_starts[-1])
        self.target_starts = _starts([h * w for h, w in target_grids], self.reference_starts[-1])
        packs = [self.chosen] if self.options.together else [(index,) for index in self.chosen]
        return Layout(
            references=references,
            reference_segments=self._picture_segments(references) if references else None,
            targets=targets,
            target_segments=self._picture_segments(targets),
            joints=tuple(self._joint(pack) for pack in packs),
        )

    def _collect(self, index: int) -> None:
        sequence = self.sequences[index]
        _, *reference_ids, target_ids = self.ids[index]
        for slot, picture in enumerate(sequence.references):
            refined = RefinedPicture(picture, slot, sequence.target, reference_ids[slot])
            self.references.setdefault(self._reference_key(index, slot), refined)
        refined = RefinedPicture(sequence.target, None, sequence.target, target_ids)
        self.targets.setdefault(self._target_key(index), refined)

    def _reference_key(self, index: int, slot: int) -> Hashable:
        sequence, sharing = self.sequences[index], self.options.sharing
        if not sharing.between_sequences:
            return index, slot
        return sequence.references[slot], slot, None if sharing.between_targets else sequence.target

    def _target_key(self, index: int) -> Hashable:
        return self.sequences[index].target if self.options.sharing.between_sequences else ("of", index)

    def _grid(self, size_hw: Size) -> Size:
        return size_hw[0] // self.options.patch_size, size_hw[1] // self.options.patch_size

    def _ids(self, index: int) -> list[Tensor]:
        """Those of sequences with equal sizes are made once."""
        sequence, parts = self.sequences[index], self.parts
        grids = [self._grid(parts.reference_sizes[picture]) for picture in sequence.references]
        sizes = (parts.text_lengths[sequence.text], grids, self._grid(parts.target_sizes[sequence.target]))
        key = (sizes[0], tuple(grids), sizes[2])
        if key not in self._known:
            self._known[key] = self.options.position_ids(*sizes)
        return self._known[key]

    def _segments(self, ids: list[Tensor], lengths: list[int], targets: list[int]) -> Segments:
        device, options = self.options.device, self.options
        rotary = rotary_table(torch.cat(ids), options.axes_dim, options.rotary_dtype)
        rows = torch.tensor(targets).repeat_interleave(torch.tensor(lengths))
        moved = Rotary(rotary.cos.to(device), rotary.sin.to(device))
        return Segments(tuple(lengths), moved, rows.to(device))

    def _picture_segments(self, pictures: tuple[RefinedPicture, ...]) -> Segments:
        ids = [picture.ids for picture in pictures]
        return self._segments(ids, [len(part) for part in ids], [picture.target for picture in pictures])

    def _joint(self, pack: tuple[int, ...]) -> Joint:
        ids, lengths, sources, target_ids, target_tokens = [], [], [], [], []
        reference_places = {key: place for place, key in enumerate(self.references)}
        target_places = {key: place for place, key in enumerate(self.targets)}
        start = 0
        for index in pack:
            sequence = self.sequences[index]
            parts = self.ids[index]
            starts = [self.text_starts[sequence.text]]
            for slot in range(len(sequence.references)):
                starts.append(self.reference_starts[reference_places[self._reference_key(index, slot)]])
            starts.append(self.target_starts[target_places[self._target_key(index)]])
            sources += [torch.arange(s, s + len(part)) for s, part in zip(starts, parts, strict=True)]
            ids += parts
            lengths.append(sum(len(part) for part in parts))
            start += lengths[-1]
            target_ids.append(parts[-1])
            target_tokens.append(torch.arange(start - len(parts[-1]), start))
        owners = [self.sequences[index].target for index in pack]
        return Joint(
            sequences=pack,
            segments=self._segments(ids, lengths, owners),
            sources=torch.cat(sources).to(self.options.device),
            targets=self._segments(target_ids, [len(part) for part in target_ids], owners),
            target_tokens=torch.cat(target_tokens).to(self.options.device),
        )


def _starts(lengths: list[int] | tuple[int, ...], first: int = 0) -> list[int]:
    """Where each run of rows begins, and last, where the rows end."""
    starts = [first]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts
