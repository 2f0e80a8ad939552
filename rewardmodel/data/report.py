"""A report on preference data: counts, labels, lengths, and the effect of a length limit."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from prefsearch.progress import track
from prefsearch.statistics.intervals import Interval, wilson_interval
from rewardmodel.data.conversation import (
    TEMPLATE_COLUMNS,
    Prompt,
    Reply,
    prompts_of,
    replies_of,
)
from rewardmodel.data.labels import chosen_probabilities
from rewardmodel.pretrained.tokenization import TextEncoder

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_PAIR_COLUMNS = ("prompt", "chosen", "rejected", *TEMPLATE_COLUMNS)
_Pair = tuple[Prompt, Reply, Reply]
_CHUNK_ROWS = 10_000
_BINS = 30
Lengths = Mapping[str, Mapping[str, int]]
"""For each text its lengths by quantile, "p5" to "p100"."""


@dataclass(frozen=True)
class TokenLimits:
    """The effect of a length limit on pairs.

    Attributes:
        max_length: Tokens of prompt and response together.
        cut_pairs: Pairs of which at least one side is longer: the prompt is cut from its left.
        cut_responses: Responses too long even alone, which lose their end too.
        cut_response_pairs: Pairs that hold one.
        dropped_by_trl: Pairs that `trl.RewardTrainer` would drop silently, by our token counts: all
            those of which a side is longer.
        lost_tokens_share: Share of all tokens that lie beyond the limit.
    """

    max_length: int
    cut_pairs: int
    cut_responses: int
    cut_response_pairs: int
    dropped_by_trl: int
    lost_tokens_share: float


@dataclass(frozen=True)
class Histogram:
    """Histogram of the lengths of replies; the last bin holds all longer ones.

    Attributes:
        unit: "characters" or "tokens".
        edges: Of the bins, one more than counts.
        chosen: Counts.
        rejected: Counts.
    """

    unit: str
    edges: tuple[float, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True)
class DataReport:
    """Figures of preference pairs before training.

    Attributes:
        pairs: Rows.
        prompts: Distinct prompts.
        ties: Pairs whose chosen_probability is one half.
        soft_labels: Pairs whose chosen_probability is neither one half nor 0 or 1.
        duplicate_pairs: Rows that repeat an earlier row's texts; ties in either order.
        contradictory_pairs: Distinct pairs of replies to one prompt that occur in both orders,
            ties aside.
        identical_pairs: Pairs of which both replies are the same.
        blank_replies: Replies of white space alone.
        longer_chosen: Share of the decided pairs in which chosen is longer in characters, equal
            lengths counting half, with its Wilson interval over pairs; None where all are ties.
        length_correlation: Correlation of the difference of lengths with the label, each pair
            taken in both orders: 1 if only length decides, 0 if it does not matter, below 0 if
            shorter is better; None where nothing varies.
        confidences: Pairs for each confidence; empty where the data have none. Null is "none".
        subsets: Pairs for each subset; empty where the data have none.
        characters: Lengths of prompt, chosen and rejected.
        tokens: The same in tokens, and `longest`, prompt and the longer reply together; None
            without an encoder.
        limits: The effect of the length limit; None without one.
        histogram: Of the lengths of replies, in tokens where they were counted.
        unused_columns: Columns of the source that were not read.
    """

    pairs: int
    prompts: int
    ties: int
    soft_labels: int
    duplicate_pairs: int
    contradictory_pairs: int
    identical_pairs: int
    blank_replies: int
    longer_chosen: Interval | None
    length_correlation: float | None
    confidences: Mapping[str, int]
    subsets: Mapping[str, int]
    characters: Lengths
    tokens: Lengths | None
    limits: TokenLimits | None
    histogram: Histogram
    unused_columns: tuple[str, ...] = ()


def examine_preferences(
    dataset: Dataset,
    *,
    encoder: TextEncoder | None = None,
    unused_columns: Sequence[str] = (),
) -> DataReport:
    """Examines preference pairs: counts, labels and lengths.

    Args:
        dataset: Columns `prompt`, `chosen` and `rejected`, as `load_preferences` returns them;
            optional `chosen_probability`, `confidence` and `subset`.
        encoder: Counts tokens, as in training and scoring, up to its `max_length`.
        unused_columns: Columns of the source that were not read, as `load_preferences` gathers
            them in `columns`.

    Raises:
        ValueError: The dataset is empty.
    """
    if len(dataset) == 0:
        raise ValueError("found no pairs; load at least one before asking for a report.")
    probability = chosen_probabilities(dataset)
    ties = probability == 0.5
    seen: set[_Pair] = set()  # ties in the order of their texts
    decided: set[_Pair] = set()
    prompts: set[Prompt] = set()
    duplicates = blank = identical = 0
    lengths = np.empty((len(dataset), 3))  # [pair, column]
    for index, (prompt, chosen, rejected) in enumerate(_pairs(dataset)):
        swap = bool(ties[index]) and str(chosen) > str(rejected)
        key = (prompt, rejected, chosen) if swap else (prompt, chosen, rejected)
        duplicates += key in seen
        seen.add(key)
        if not ties[index]:
            decided.add(key)
        prompts.add(prompt)
        blank += (not str(chosen).strip()) + (not str(rejected).strip())
        identical += chosen == rejected
        lengths[index] = [len(str(text)) for text in (prompt, chosen, rejected)]
    contradictory = sum((p, r, c) in decided for p, c, r in decided if c != r) // 2
    names = ("prompt", "chosen", "rejected")
    tokens = limits = counted = None
    if encoder is not None:
        counted = _token_lengths(dataset, encoder)
        limit = encoder.max_length
        longest = counted[:, 0] + counted[:, 1:].max(axis=1)
        tokens = _quantiles(np.column_stack([counted, longest]), (*names, "longest"))
        limits = None if limit is None else _limits(counted, limit)
    unit = "characters" if counted is None else "tokens"
    return DataReport(
        pairs=len(dataset),
        prompts=len(prompts),
        ties=int(ties.sum()),
        soft_labels=int((~np.isin(probability, (0.0, 0.5, 1.0))).sum()),
        duplicate_pairs=duplicates,
        contradictory_pairs=contradictory,
        identical_pairs=identical,
        blank_replies=blank,
        longer_chosen=_longer_chosen(lengths, probability),
        length_correlation=length_correlation(lengths[:, 1] - lengths[:, 2], probability),
        confidences=_counts(dataset, "confidence"),
        subsets=_counts(dataset, "subset"),
        characters=_quantiles(lengths, names),
        tokens=tokens,
        limits=limits,
        histogram=_histogram(lengths if counted is None else counted, unit),
        unused_columns=tuple(unused_columns),
    )


def length_correlation(
    difference: NDArray[np.float64], probability: NDArray[np.float64]
) -> float | None:
    """Correlation of a difference of lengths [pair] with the label, whatever the order of pairs.

    A pair (d, p) stands for itself and for (-d, 1 - p), so both means are known (0 and one half).
    In [-1, 1], or None where all lengths are equal or all pairs are ties.
    """
    label = 2 * probability - 1
    scale = float(np.sqrt((difference**2).sum() * (label**2).sum()))
    if scale == 0:
        return None
    return float(np.clip((difference * label).sum() / scale, -1.0, 1.0))


def _pairs(dataset: Dataset) -> Iterator[_Pair]:
    names = [n for n in _PAIR_COLUMNS if n in dataset.column_names]
    rows = dataset.with_format(None).select_columns(names)
    for start in range(0, len(rows), _CHUNK_ROWS):
        part = rows.select(range(start, min(start + _CHUNK_ROWS, len(rows))))
        replies = (replies_of(part, column) for column in ("chosen", "rejected"))
        yield from zip(prompts_of(part), *replies, strict=True)


def _longer_chosen(
    lengths: NDArray[np.float64], probability: NDArray[np.float64]
) -> Interval | None:
    decided = probability != 0.5
    if not decided.any():
        return None
    # With a label below one half the second reply is the better.
    lead = (lengths[:, 1] - lengths[:, 2]) * np.where(probability < 0.5, -1, 1)
    lead = lead[decided]
    return wilson_interval(float((lead > 0).sum() + 0.5 * (lead == 0).sum()), len(lead))


def _counts(dataset: Dataset, column: str) -> dict[str, int]:
    """Pairs for each value, in the order of numbers or of size."""
    if column not in dataset.column_names:
        return {}
    found = Counter(dataset.with_format(None)[column][:])
    if column == "confidence":
        ordered = sorted(found, key=lambda value: (value is None, value or 0))
    else:
        ordered = [value for value, _ in found.most_common()]
    return {
        "none" if v is None else f"{v:g}" if isinstance(v, float) else v: found[v] for v in ordered
    }


def _quantiles(lengths: NDArray[np.float64], names: Sequence[str]) -> dict[str, dict[str, int]]:
    values = np.quantile(lengths, _QUANTILES, axis=0)  # [quantile, column]
    return {
        name: {
            f"p{round(100 * share)}": int(value)
            for share, value in zip(_QUANTILES, values[:, place], strict=True)
        }
        for place, name in enumerate(names)
    }


def _token_lengths(dataset: Dataset, encoder: TextEncoder) -> NDArray[np.float64]:
    """[pair, prompt, chosen, rejected]: tokens, the begin and end tokens counted."""
    counted = np.empty((len(dataset), 3))
    bar = track(_pairs(dataset), "counting tokens", total=len(dataset))
    for index, (prompt, chosen, rejected) in enumerate(bar):
        parts = [encoder.whole(prompt, reply) for reply in (chosen, rejected)]
        shared = min(len(begin) for begin, _ in parts)
        counted[index] = shared, *(len(begin) + len(end) - shared for begin, end in parts)
    return counted


def _limits(counted: NDArray[np.float64], limit: int) -> TokenLimits:
    totals = counted[:, :1] + counted[:, 1:]  # [pair, side]
    over = (totals > limit).any(axis=1)
    # A response must leave the prompt one token, or it is cut itself; see `TextEncoder.fit`.
    alone = counted[:, 1:] >= limit
    return TokenLimits(
        max_length=limit,
        cut_pairs=int(over.sum()),
        cut_responses=int(alone.sum()),
        cut_response_pairs=int(alone.any(axis=1).sum()),
        dropped_by_trl=int(over.sum()),
        lost_tokens_share=float(np.maximum(totals - limit, 0).sum() / totals.sum()),
    )


def _histogram(lengths: NDArray[np.float64], unit: str) -> Histogram:
    replies = lengths[:, 1:]
    # The longest hundredth would squeeze the rest into a few bins.
    top = max(1.0, float(np.quantile(replies, 0.99)))
    edges = np.linspace(0, top, _BINS + 1)
    chosen, rejected = (
        np.histogram(np.minimum(replies[:, side], top), edges)[0] for side in (0, 1)
    )
    return Histogram(
        unit,
        tuple(float(edge) for edge in edges),
        tuple(int(count) for count in chosen),
        tuple(int(count) for count in rejected),
    )
