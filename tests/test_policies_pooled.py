"""What n of a pool's responses are worth and cost, by pools small enough to count by hand."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from policies.evaluation.pooled import Pool, pool_lines, pool_records
from policies.finetuning.samples import Samples

POOL = Pool(
    texts=[["answer: 1", "answer: 2", "answer: 2"], ["answer: 1", "answer: 1", "none"]],
    proxy=np.array([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]]),
    gold=np.array([[0.25, 0.0, 1.0], [1.0, 0.0, 0.5]]),
    tokens=np.array([[4.0, 6.0, 8.0], [1.0, 2.0, 3.0]]),
    log_probabilities=np.log([[0.5, 0.25, 0.125], [0.5, 0.25, 0.2]]),
    finished=np.ones((2, 3)),
    prompt_tokens=np.array([10.0, 20.0]),
    scored_tokens=np.array([40.0, 26.0]),
    seconds=np.array([3.0, 6.0]),
)


def by_prompt(method: Any, n: int, pool: Pool = POOL, **options: Any) -> list[dict[str, Any]]:
    return pool_records(pool, method, counts=[n], seed=7, **options)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_the_mean_over_all_ways_to_take_n(n: int) -> None:
    records = by_prompt("best_of_n", n)
    assert [record["prompt"] for record in records] == [0, 1]
    for record, proxy, gold in zip(records, POOL.proxy, POOL.gold, strict=True):  # type: ignore
        best = [max(some, key=lambda i: proxy[i]) for some in itertools.combinations(range(3), n)]
        assert record["proxy"] == pytest.approx(np.mean([proxy[i] for i in best]))
        assert record["gold"] == pytest.approx(np.mean([gold[i] for i in best]))
        assert (record["method"], record["budget"]) == ("best-of-N", str(n))
        assert (record["simulations"], record["seed"]) == (n, 7)
        assert record["kl_bound"] == pytest.approx(math.log(n) - (n - 1) / n)
        assert "pass_at_k" not in record, "gold is not right or wrong"


def test_n_responses_cost_their_share_beyond_the_prompt() -> None:
    first, second = by_prompt("best_of_n", 2)
    # Mean lengths are 6 and 2; the policy reads all of a response but its last token.
    assert (first["tokens"], second["tokens"]) == (12.0, 4.0)
    assert (first["forward_tokens"], second["forward_tokens"]) == (10 + 2 * 5, 20 + 2 * 1)
    assert (first["scored_tokens"], second["scored_tokens"]) == (10 + 30 * 2 / 3, 20 + 6 * 2 / 3)
    assert (first["seconds"], second["seconds"]) == (2.0, 4.0)
    whole = by_prompt("best_of_n", 3)
    assert [record["scored_tokens"] for record in whole] == [40.0, 26.0]
    assert [record["seconds"] for record in whole] == [3.0, 6.0]


def test_what_was_not_counted_is_left_out() -> None:
    uncounted = replace(POOL, prompt_tokens=None, gold=None)
    for record in by_prompt("best_of_n", 1, uncounted):
        assert record["forward_tokens"] is None
        assert record["gold"] is None
        assert "pass_at_k" not in record
    assert by_prompt("best_of_n", 1, uncounted)[0]["scored_tokens"] == pytest.approx(40 / 3)
    silent = replace(POOL, scored_tokens=np.array([0.0, 26.0]))
    assert [r["scored_tokens"] for r in by_prompt("best_of_n", 3, silent)] == [0.0, 26.0]


def test_votes_bound_their_divergence_by_the_pool_and_read_answers_by_form() -> None:
    first, second = by_prompt("majority", 3)
    assert (first["gold"], second["gold"]) == (1.0, 0.0), "the best-scored of the commonest answer"
    assert first["kl_bound"] == pytest.approx(math.log(3))
    assert "kl_tight" not in first
    assert "kl_estimate" not in first
    # exp(3) outweighs exp(1) + exp(2).
    assert [r["gold"] for r in by_prompt("weighted", 3)] == [0.25, 0.0]
    # None of them is in a box, so the best score wins.
    assert [r["gold"] for r in by_prompt("majority", 3, form="boxed")] == [0.25, 0.0]


def test_only_gold_of_zeros_and_ones_is_right_or_wrong() -> None:
    assert not POOL.binary
    assert not replace(POOL, gold=None).binary
    right = replace(POOL, gold=np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert right.binary
    assert [r["pass_at_k"] for r in by_prompt("best_of_n", 2, right)] == pytest.approx([2 / 3, 0.0])
    assert "pass_at_k" not in by_prompt("majority", 2, right)[0]
    assert not replace(right, gold=np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])).binary


def test_log_probabilities_above_zero_are_rounding() -> None:
    rounded = replace(POOL, log_probabilities=POOL.log_probabilities + 1e-9)
    certain = replace(POOL, log_probabilities=np.full((2, 3), 1e-6))
    assert by_prompt("best_of_n", 2, rounded)[0]["kl_tight"] == pytest.approx(
        by_prompt("best_of_n", 2)[0]["kl_tight"], abs=1e-6
    )
    assert by_prompt("best_of_n", 2, certain)[0]["kl_tight"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 3, 256])
def test_batches_of_scoring_keep_prompts_responses_and_numbers_together(rows: int) -> None:
    texts = [["a", "bb"], ["ccc", "dddd"], ["eeeee", "ffffff"]]
    prompts = ["p0", "p1", "p2"]
    ids = [[[1] * len(text) for text in row] for row in texts]
    logs = [[-float(len(text)) for text in row] for row in texts]
    samples = Samples(prompts, texts, ids, logs)
    seen: list[int] = []

    class Length:
        def score(self, prompts: Any, responses: Any) -> torch.Tensor:
            seen.append(len(responses))
            return torch.tensor(
                [10.0 * int(p[1]) + len(r) for p, r in zip(prompts, responses, strict=True)]
            )

    def judge(prompts: Any, responses: Any) -> list[float]:
        return [float(len(p) + len(r)) for p, r in zip(prompts, responses, strict=True)]

    lines = pool_lines(samples, Length(), judge, first=5, rows=rows)
    assert [line["prompt"] for line in lines] == [5, 6, 7]
    assert [line["proxy"] for line in lines] == [[1.0, 2.0], [13.0, 14.0], [25.0, 26.0]]
    assert [line["gold"] for line in lines] == [[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
    assert [line["texts"] for line in lines] == texts
    assert [line["tokens"] for line in lines] == [[1, 2], [3, 4], [5, 6]]
    assert [line["log_probabilities"] for line in lines] == logs
    assert {line["scored_tokens"] for line in lines} == {0.0}
    assert {line["prompt_tokens"] for line in lines} == {None}
    # At least one prompt's responses at once, and no more than `rows` where they fit.
    assert seen == ([6] if rows == 256 else [2, 2, 2])
