"""Tokenizing human comparisons: one row per prompt and the responses compared under it.

The common prefix of a group's sequences, usually the prompt, is counted so that it can be computed
once. Nothing is dropped for its length: prompts are cut from their left, and counted.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value, concatenate_datasets

from prefsearch.progress import track
from rewardmodel.data.chat_template import common_prefix_length
from rewardmodel.data.conversation import Prompt, Reply, prompt_of, reply_of
from rewardmodel.data.parsing.finished import PAIR_COLUMNS
from rewardmodel.pretrained.tokenization import TextEncoder
from rewardmodel.training.loss_config import LossConfig

_logger = logging.getLogger(__name__)

_FEATURES = {
    "sequences": List(List(Value("int32"))),
    "shared": Value("int32"),
    "length": Value("int32"),
    "ranks": List(Value("int32")),
    "probability": Value("float64"),
    "margin": Value("float64"),
    "seconds": List(Value("int32")),
}
_CHUNK_ROWS = 10_000


@dataclass(frozen=True)
class ComparisonCounts:
    """Counts of the comparisons that were tokenized.

    Attributes:
        groups: Rows to train on.
        responses: Responses in them.
        ties: Rows that are a tie.
        dropped_ties: Ties left out because `ties` is "drop".
        cut: Rows in which a prompt was cut to the length limit.
        cut_responses: Rows in which a response alone is over the limit and lost its end.
        tokens: Of all responses, each with its prompt.
        repeated_tokens: How many of them are not computed where prompts are shared.
    """

    groups: int
    responses: int
    ties: int
    dropped_ties: int
    cut: int
    cut_responses: int
    tokens: int
    repeated_tokens: int


def tokenize_comparisons(
    dataset: Dataset, encoder: TextEncoder, objective: LossConfig, *, seed: int
) -> tuple[Dataset, ComparisonCounts]:
    """Tokenizes preference pairs or rankings.

    Args:
        dataset: Pairs (`prompt`, `chosen`, `rejected`, optionally `chosen_probability` and
            `margin`) or rankings (`prompt`, `responses`, `ranks`).
        encoder: The model's tokenization, with its length limit.
        objective: The treatment of ties, and the number of heads.
        seed: Of the heads' resamples.

    Returns:
        Rows of `sequences`, the token ids of each response with its prompt (of a pair the chosen
        one first); `seconds`, where their second segments begin, if there are token types;
        `shared`, the length of their common prefix; `length`, the tokens to compute where it is
        shared; the labels: `probability` and, where there is one, `margin`, or `ranks`; and
        `head_weights` where there are several heads that resample. And the counts.

    Raises:
        ValueError: No row, a label out of range, or all ties.
    """
    if len(dataset) == 0:
        raise ValueError("no preference pairs to train on; required: at least 1")
    ranked = "responses" in dataset.column_names
    limit = encoder.max_length or 2**30
    count = dict.fromkeys(ComparisonCounts.__dataclass_fields__, 0)
    rows: list[dict[str, Any]] = []
    parts: list[Dataset] = []
    groups = _ranked_groups(dataset) if ranked else _paired_groups(dataset)
    bar = track(groups, "tokenizing", total=len(dataset))
    for prompt, responses, finished, labels in bar:
        tied = _is_tie(labels)
        if tied and objective.ties == "drop":
            count["dropped_ties"] += 1
            continue
        marked = list(zip(responses, finished, strict=True))
        texts = [encoder.whole(prompt, response, finished=ended) for response, ended in marked]
        fitted = [
            encoder.cut(ids, prompt, response, finished=ended)
            for ids, (response, ended) in zip(texts, marked, strict=True)
        ]
        sequences = [begin + end for begin, end in fitted]
        shared = shared_length(sequences)
        longest = max(len(begin) + len(end) for begin, end in texts)
        longest_response = max(len(end) for _, end in texts)
        tokens = sum(map(len, sequences))
        repeated = (len(sequences) - 1) * shared
        row = {"sequences": sequences, "shared": shared, "length": tokens - repeated, **labels}
        if encoder.has_token_types:
            row["seconds"] = [len(begin) for begin, _ in fitted]
        rows.append(row)
        count["groups"] += 1
        count["responses"] += len(sequences)
        count["ties"] += tied
        count["cut"] += longest > limit
        count["cut_responses"] += longest_response > limit
        count["tokens"] += tokens
        count["repeated_tokens"] += repeated
        if len(rows) == _CHUNK_ROWS:
            parts.append(_to_arrow(rows))
            rows = []
    if rows:
        parts.append(_to_arrow(rows))
    counts = ComparisonCounts(**count)
    if counts.groups == counts.ties:
        raise ValueError(
            f"all {len(dataset)} comparisons are ties, so there is no preference to learn; "
            "required: some rows in which one response is better. Check the label column "
            "(chosen_probability, ranks)"
        )
    if counts.cut:
        _logger.warning(
            "%d of %d comparisons are longer than %d tokens and were cut (the prompt first, from "
            "its left; in %d a response alone is too long)",
            *(counts.cut, counts.groups, encoder.max_length, counts.cut_responses),
        )
    made = concatenate_datasets(parts)
    if objective.heads > 1 and objective.head_bootstrap:
        # Resampling with replacement, as weights: how often each head's resample holds a row.
        draw = np.random.default_rng(seed)
        held = draw.multinomial(len(made), [1 / len(made)] * len(made), size=objective.heads)
        made = made.add_column("head_weights", held.T.astype(np.float32).tolist())
    return made, counts


def _to_arrow(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Moves rows into Arrow, chunk by chunk, where a token takes four bytes instead of forty."""
    features = Features({name: _FEATURES[name] for name in rows[0]})
    return Dataset.from_dict(
        {name: [row[name] for row in rows] for name in features}, features=features
    )


def shared_length(sequences: list[list[int]]) -> int:
    """Length of the common prefix of sequences, leaving each at least one token of its own."""
    first, *others = sequences
    agreed = min(common_prefix_length(first, other) for other in others)
    return min(agreed, *(len(sequence) - 1 for sequence in sequences))


Group = tuple[Prompt, list[Reply], list[bool], dict[str, Any]]
"""A prompt, the responses under it, whether each is finished, and what was said of them."""


def _paired_groups(dataset: Dataset) -> Iterator[Group]:
    """Pairs, the better response first."""
    has_margin = "margin" in dataset.column_names
    row: Any
    for number, row in enumerate(dataset.with_format(None)):
        probability = row.get("chosen_probability")
        probability = 1.0 if probability is None else float(probability)
        if not 0 <= probability <= 1:
            raise ValueError(
                f"row {number}: chosen_probability is {probability}; required: in [0, 1], 0.5 for "
                "a tie. Mend the data, or load it with rewardmodel.load_preferences, which checks"
            )
        replies = [reply_of(row["chosen"]), reply_of(row["rejected"])]
        # A reply that was cut off is read without an end token, as when it is scored.
        finished = [row.get(name) is not False for name in PAIR_COLUMNS]
        if probability < 0.5:
            replies, finished, probability = replies[::-1], finished[::-1], 1 - probability
        labels: dict[str, Any] = {"probability": probability}
        if has_margin:
            labels["margin"] = _margin(row["margin"], number)
        yield prompt_of(row), replies, finished, labels


def _margin(value: Any, number: int) -> float:
    if value is None or not np.isfinite(value):
        raise ValueError(
            f"row {number}: the margin is {value}; required: a finite number in every row. Fill it "
            "or remove the column"
        )
    return float(value)


def _ranked_groups(dataset: Dataset) -> Iterator[Group]:
    row: Any
    for number, row in enumerate(dataset.with_format(None)):
        responses, ranks = row["responses"], row["ranks"]
        if len(responses) != len(ranks) or len(responses) < 2 or min(ranks) < 1:
            raise ValueError(
                f"row {number}: found {len(responses)} responses with the ranks {ranks}; required: "
                "at least two responses, each with a rank from 1 on. Load rankings with "
                "rewardmodel.load_rankings, which checks them"
            )
        marked = row.get("finished") or [True] * len(ranks)
        finished = [value is not False for value in marked]
        yield prompt_of(row), list(responses), finished, {"ranks": list(ranks)}


def _is_tie(labels: Mapping[str, Any]) -> bool:
    """Whether all responses are labeled equally good."""
    return labels.get("probability") == 0.5 or len(set(labels.get("ranks", (1, 2)))) == 1
