"""Three layouts of groups of responses as tensors, and their scores with a gradient.

A group is a prompt and the responses compared under it. Scores are the same in every layout; they
differ in how often the prompt is computed and in padding:

- `PlainLayout`: a row per response, the prompt in each. Any model.
- `PrefixLayout`: the common prefix of a group in one pass, whose keys and values all its responses
  read, which are one row behind a mask.
- `PackedLayout`: whole groups side by side in long rows, separated by a mask. One pass, no cache
  (so it works with gradient checkpointing), hardly any padding; but attention covers whole rows.

The last two need attention that supports tree masks (`Backbone.shares`) and a score that is one
layer on the last hidden state (`head_of`). Scores are taken from that layer by a hook while the
whole model runs: so wrappers such as `DistributedDataParallel` see an ordinary forward pass, and
the last token is found by its position, not by comparing with the pad id.

Letters: G groups, S responses of all groups, N rows, W columns, M heads.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rewardmodel.prefix_cache.backbone import Backbone

Group = tuple[Sequence[Sequence[int]], int]
"""Token ids of each response with its prompt, and how many tokens they all begin with."""

Tensors = dict[str, Tensor]


class Layout(Protocol):
    """From groups to tensors, and from tensors to scores."""

    name: ClassVar[str]

    def collate(self, groups: Sequence[Group]) -> Tensors:
        """Lays groups out as tensors on the CPU."""
        ...

    def scores(self, model: PreTrainedModel, tensors: Tensors) -> Tensor:
        """Scores of the responses in their order, [S, M].

        Args:
            model: Sequence classifier, perhaps wrapped for several processes.
            tensors: As `collate` made them, on the model's device.
        """
        ...


class TokenScores(AbstractContextManager["TokenScores"]):
    """Records the output of a classifier's last layer in the forward passes inside the block."""

    def __init__(self, head: torch.nn.Module) -> None:
        """Takes the layer."""
        self._head = head
        self._caught: list[Tensor] = []

    def __enter__(self) -> "TokenScores":
        """Registers the hook."""
        self._hook = self._head.register_forward_hook(self._catch)
        return self

    def _catch(self, _module: torch.nn.Module, _inputs: object, outputs: Any) -> None:
        self._caught.append(outputs)

    def __exit__(self, *_: object) -> None:
        """Removes the hook."""
        self._hook.remove()

    def last(self) -> Tensor:
        """Scores of every token of the last pass, float [N, W, M]."""
        return self._caught[-1]


@dataclass(frozen=True)
class PlainLayout:
    """A row per response, padded on the right; see the module.

    Attributes:
        pad_id: Of padding.
        head: The layer whose output at the last token is the score, or None where the model's own
            logits are, as an encoder's.
    """

    name: ClassVar[str] = "plain"

    pad_id: int
    head: torch.nn.Module | None

    def collate(self, groups: Sequence[Group]) -> Tensors:
        """See `Layout`."""
        rows = [sequence for sequences, _ in groups for sequence in sequences]
        lengths = torch.tensor([len(row) for row in rows])
        return {
            "input_ids": _padded(rows, self.pad_id),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
            "last": lengths - 1,
        }

    def scores(self, model: PreTrainedModel, tensors: Tensors) -> Tensor:
        """See `Layout`."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: tensors[name] for name in names if name in tensors}
        if self.head is None:
            return model(**inputs).logits
        with TokenScores(self.head) as caught:
            model(**inputs, use_cache=False)
        rows = torch.arange(len(tensors["last"]), device=tensors["last"].device)
        return caught.last()[rows, tensors["last"]]


@dataclass(frozen=True)
class PrefixLayout:
    """The common prefix of a group once, then its responses behind it; see the module.

    Attributes:
        pad_id: Of padding.
        head: The layer whose output at the last token is the score.
        backbone: Of the same model; makes its masks.
    """

    name: ClassVar[str] = "prefix"

    pad_id: int
    head: torch.nn.Module
    backbone: Backbone

    def collate(self, groups: Sequence[Group]) -> Tensors:
        """See `Layout`; `segments` numbers each group's responses from 1, 0 is padding."""
        rests = [[sequence[count:] for sequence in sequences] for sequences, count in groups]
        rows = [[token for rest in own for token in rest] for own in rests]
        segments = [[k for k, rest in enumerate(own, 1) for _ in rest] for own in rests]
        positions = [
            [count + i for rest in own for i in range(len(rest))]
            for own, (_, count) in zip(rests, groups, strict=True)
        ]
        return {
            "prefix_ids": _padded([sequences[0][:n] for sequences, n in groups], self.pad_id),
            "prefix_lengths": torch.tensor([count for _, count in groups]),
            "input_ids": _padded(rows, self.pad_id),
            "segments": _padded(segments, 0),
            "position_ids": _padded(positions, 0),
            "places": _last_places(rests, max(map(len, rows))),
        }

    def scores(self, model: PreTrainedModel, tensors: Tensors) -> Tensor:
        """See `Layout`."""
        cache = DynamicCache()  # of plain layers: a window is in the mask, not in the cache
        # Causal attention never reaches the right, so the prefixes' padding needs no mask.
        model(input_ids=tensors["prefix_ids"], past_key_values=cache, use_cache=True)
        known, segments = tensors["prefix_lengths"], tensors["segments"]
        columns = torch.arange(tensors["prefix_ids"].shape[1], device=known.device)
        held = columns < known[:, None]  # [N, P]
        positions = torch.cat([columns.expand_as(held), tensors["position_ids"]], 1)
        mask_spec = SegmentMask(
            segments=torch.cat([held.long() - 1, segments], 1),
            positions=positions,
            # All responses attend to their prefix, none to its padding, -1.
            common=torch.cat([held, torch.zeros_like(segments, dtype=torch.bool)], 1),
        )
        mask = self.backbone.attention_mask(mask_spec, segments.shape, end=positions.shape[1])
        options = {"past_key_values": cache, "use_cache": True}
        return _scores_at_places(model, self.head, tensors, mask, **options)


@dataclass(frozen=True)
class PackedLayout:
    """Whole groups side by side in long rows; see the module.

    Attributes:
        pad_id: Of padding.
        head: The layer whose output at the last token is the score.
        backbone: Of the same model; makes its masks.
        row_tokens: Length of a row; that of the longest group, if it is more.
    """

    name: ClassVar[str] = "packed"

    pad_id: int
    head: torch.nn.Module
    backbone: Backbone
    row_tokens: int

    def collate(self, groups: Sequence[Group]) -> Tensors:
        """See `Layout`; `groups` numbers the groups of a row from 1, `segments` the responses."""
        sizes = [sum(map(len, seqs)) - (len(seqs) - 1) * shared for seqs, shared in groups]
        bins = first_fit(sizes, max(self.row_tokens, *sizes))
        names = ("ids", "groups", "segments", "positions")
        rows: dict[str, list[list[int]]] = {name: [] for name in names}
        place: dict[tuple[int, int], tuple[int, int]] = {}
        for line, members in enumerate(bins):
            row: dict[str, list[int]] = {name: [] for name in names}
            for own, group in enumerate(members, 1):
                sequences, shared = groups[group]
                parts = [sequences[0][:shared], *(sequence[shared:] for sequence in sequences)]
                for segment, part in enumerate(parts):
                    start = shared if segment else 0
                    row["ids"] += part
                    row["groups"] += [own] * len(part)
                    row["segments"] += [segment] * len(part)
                    row["positions"] += range(start, start + len(part))
                    place[group, segment] = (line, len(row["ids"]) - 1)
            for name in names:
                rows[name].append(row[name])
        width = max(map(len, rows["ids"]))
        places = [
            place[group, segment]
            for group, (sequences, _) in enumerate(groups)
            for segment in range(1, len(sequences) + 1)
        ]
        return {
            "input_ids": _padded(rows["ids"], self.pad_id),
            "groups": _padded(rows["groups"], 0),
            "segments": _padded(rows["segments"], 0),
            "position_ids": _padded(rows["positions"], 0),
            "places": torch.tensor([line * width + column for line, column in places]),
        }

    def scores(self, model: PreTrainedModel, tensors: Tensors) -> Tensor:
        """See `Layout`."""
        groups, segments = tensors["groups"], tensors["segments"]
        mask_spec = SegmentMask(
            segments=segments,
            positions=tensors["position_ids"],
            common=segments == 0,
            groups=groups,
        )
        mask = self.backbone.attention_mask(mask_spec, groups.shape, end=groups.shape[1])
        return _scores_at_places(model, self.head, tensors, mask, use_cache=False)


@dataclass(frozen=True)
class SegmentMask:
    """Attention to the common part of the group and to the own segment, causally.

    All columns of the cache and the new ones; the new tokens are the last.

    Attributes:
        segments: int [N, end].
        positions: int [N, end], of each token in its own text.
        common: bool [N, end], True where all segments of a group may attend.
        groups: int [N, end], or None where a row holds one group.
    """

    segments: Tensor
    positions: Tensor
    common: Tensor
    groups: Tensor | None = None

    def visible(self, shape: torch.Size, *, end: int, window: int | None) -> Tensor:
        """True where attention is allowed, bool [N, W, end]."""
        first = end - shape[1]
        own = self.segments[:, first:, None]
        seen = self.common[:, None] | (self.segments[:, None] == own)
        here = self.positions[:, first:, None]
        seen &= self.positions[:, None] <= here
        if self.groups is not None:
            seen &= self.groups[:, None] == self.groups[:, first:, None]
        if window is not None:
            seen &= self.positions[:, None] > here - window
        return seen


def _scores_at_places(
    model: Any, head: torch.nn.Module, tensors: Tensors, mask: Any, **options: Any
) -> Tensor:
    """Runs masked rows; scores [S, M] at `places`, the responses' last tokens."""
    with TokenScores(head) as caught:
        model(
            input_ids=tensors["input_ids"],
            attention_mask=mask,
            position_ids=tensors["position_ids"],
            **options,
        )
    return caught.last().flatten(0, 1)[tensors["places"]]


def first_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Packs items into bins of size `room`, the largest first, each into the first bin that fits.

    Returns the items' indices by bin.

    Source: first-fit decreasing, Johnson 1973: at most 11/9 of the fewest bins, and a few.
    """
    bins: list[list[int]] = []
    left: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        at = next((b for b, free in enumerate(left) if free >= sizes[item]), None)
        if at is None:
            at = len(bins)
            bins.append([])
            left.append(room)
        bins[at].append(item)
        left[at] -= sizes[item]
    return bins


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of numbers, filled up on the right, int64 [N, W] with W at least 1."""
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _last_places(parts: Sequence[Sequence[Sequence[int]]], width: int) -> Tensor:
    """Flat places of the last token of every part of every row [N, width], in order, int64 [S]."""
    places = []
    for line, row in enumerate(parts):
        ends = torch.tensor([len(part) for part in row]).cumsum(0) - 1
        places.append(line * width + ends)
    return torch.cat(places)
