"""Comparisons as token ids: the ids that are scored later, nothing dropped, everything counted."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer
from rewardmodel.training.batching.comparisons import shared_length, tokenize_comparisons
from rewardmodel.training.batching.length_sampler import LengthGroupedOrder
from rewardmodel.training.loss_config import LossConfig

PROMPT = "Write a short story about the baker, the bell and the lake.\n"
GOOD, BAD = "The baker found the bell at the lake.", "That was all."


@pytest.fixture(scope="module")
def encoder(policy_folder: Path) -> TextEncoder:
    return TextEncoder(load_tokenizer(str(policy_folder)), 100)


def dataset(**columns: list[Any]) -> Dataset:
    count = len(next(iter(columns.values()))) if columns else 1
    base = {"prompt": [PROMPT] * count, "chosen": [GOOD] * count, "rejected": [BAD] * count}
    return Dataset.from_dict({**base, **columns})


def tokenized(data: Dataset, encoder: TextEncoder, **options: Any) -> Any:
    return tokenize_comparisons(data, encoder, LossConfig(**options), seed=0)


def test_a_pair_has_the_ids_that_are_scored_and_shares_its_prompt(encoder: TextEncoder) -> None:
    rows, counts = tokenized(dataset(), encoder)
    assert rows[0]["sequences"] == [encoder.joined(PROMPT, GOOD), encoder.joined(PROMPT, BAD)]
    shared = rows[0]["shared"]
    assert shared == len(encoder.prompt_ids(PROMPT)) + 1  # both replies begin with "Th"
    assert rows[0]["length"] == sum(map(len, rows[0]["sequences"])) - shared
    assert (counts.groups, counts.cut, counts.repeated_tokens) == (1, 0, shared)
    assert rows[0]["probability"] == 1
    assert "margin" not in rows.column_names


def test_the_likelier_reply_comes_first(encoder: TextEncoder) -> None:
    data = dataset(chosen_probability=[0.2, 0.5, None], margin=[0.1, 0.2, 0.3])
    rows, counts = tokenized(data, encoder)
    assert rows["probability"] == [0.8, 0.5, 1.0]
    assert rows[0]["sequences"][0] == encoder.joined(PROMPT, BAD)
    assert rows["margin"] == [0.1, 0.2, 0.3]
    assert counts.ties == 1


def test_ties_that_teach_nothing_are_left_out_and_counted(encoder: TextEncoder) -> None:
    rows, counts = tokenized(dataset(chosen_probability=[0.5, 1.0]), encoder, ties="drop")
    assert (len(rows), counts.groups, counts.dropped_ties) == (1, 1, 1)


@pytest.mark.parametrize("ties", ["half", "drop", "rao_kupper"])
def test_ties_alone_are_nothing_to_learn_from(encoder: TextEncoder, ties: str) -> None:
    with pytest.raises(ValueError, match="all 2 comparisons are ties, so there is no preference"):
        tokenized(dataset(chosen_probability=[0.5, 0.5]), encoder, ties=ties)


def test_rankings_keep_all_responses_and_their_ranks(encoder: TextEncoder) -> None:
    data = Dataset.from_dict(
        {"prompt": [PROMPT], "responses": [[BAD, GOOD, "A bell."]], "ranks": [[2, 1, 2]]}
    )
    rows, counts = tokenized(data, encoder)
    assert [len(own) for own in rows["sequences"]] == [3]
    assert rows["ranks"] == [[2, 1, 2]]
    assert counts.responses == 3
    with pytest.raises(ValueError, match="all 1 comparisons are ties"):
        tokenized(data.map(lambda row: {"ranks": [1, 1, 1]}), encoder)
    with pytest.raises(ValueError, match=r"row 0: found 3 responses with the ranks \[1, 2\]"):
        tokenized(data.map(lambda row: {"ranks": [1, 2]}), encoder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("chosen_probability", 1.5, r"row 1: chosen_probability is 1.5; required: in \[0, 1\]"),
        ("chosen_probability", float("nan"), "row 1: chosen_probability is nan"),
        ("margin", float("inf"), "row 1: the margin is inf; required: a finite number"),
        ("margin", None, "row 1: the margin is None"),
    ],
)
def test_a_label_out_of_range_is_named(
    encoder: TextEncoder, column: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tokenized(dataset(**{column: [0.9, value]}), encoder)


def test_a_long_prompt_is_cut_from_its_left_and_counted(encoder: TextEncoder) -> None:
    data = dataset(prompt=[PROMPT * 20, PROMPT], chosen=[GOOD, GOOD * 20])
    rows, counts = tokenized(data, encoder)
    assert (counts.groups, counts.cut, counts.cut_responses) == (2, 2, 1)
    assert max(len(ids) for own in rows["sequences"] for ids in own) == 100
    assert rows[0]["sequences"][0][-len(encoder.response_ids(GOOD)) :] == encoder.response_ids(GOOD)
    # Chosen and rejected are cut at different places, so they have nothing in common.
    assert rows[0]["shared"] == 0


def test_an_empty_response_is_its_end_token(encoder: TextEncoder) -> None:
    rows, _ = tokenized(dataset(rejected=[""]), encoder)
    assert rows[0]["sequences"][1] == [*encoder.prompt_ids(PROMPT), encoder.end_id]
    assert rows[0]["shared"] == len(encoder.prompt_ids(PROMPT))


def test_what_is_shared_leaves_every_sequence_a_token() -> None:
    assert shared_length([[1, 2, 3], [1, 2, 3, 4]]) == 2
    assert shared_length([[1, 2, 3], [1, 2, 4], [1, 5]]) == 1
    assert shared_length([[1], [2, 3]]) == 0


def test_every_head_resamples_the_rows(encoder: TextEncoder) -> None:
    data = dataset(chosen_probability=[1.0] * 50)
    rows, _ = tokenized(data, encoder, heads=4)
    sums = [sum(own[head] for own in rows["head_weights"]) for head in range(4)]
    assert sums == [50] * 4
    assert len({tuple(own) for own in rows["head_weights"]}) > 3
    again, _ = tokenized(data, encoder, heads=4)
    assert again["head_weights"] == rows["head_weights"]
    alike, _ = tokenized(data, encoder, heads=4, head_bootstrap=False)
    assert "head_weights" not in alike.column_names


def test_an_epoch_holds_every_row_once_with_like_lengths_together() -> None:
    lengths = [(i * 7919) % 997 for i in range(1003)]
    order = LengthGroupedOrder(lengths, rows=8, seed=3, grouped=True)
    first = list(order)
    assert sorted(first) == list(range(1003))
    assert lengths[first[0]] == max(lengths[i] for i in first[:400])
    spread = [max(b) - min(b) for b in batches([lengths[i] for i in first], 8)]
    assert sum(spread) / len(spread) < 60  # of a range of 997
    assert list(order) == first
    order.set_epoch(1)
    second = list(order)
    assert sorted(second) == list(range(1003))
    assert second != first
    plain = list(LengthGroupedOrder(lengths, rows=8, seed=3, grouped=False))
    assert sorted(plain) == list(range(1003))
    assert sum(max(b) - min(b) for b in batches([lengths[i] for i in plain], 8)) > 5 * sum(spread)


def batches(values: list[int], size: int) -> list[list[int]]:
    return [values[i : i + size] for i in range(0, len(values), size)]
