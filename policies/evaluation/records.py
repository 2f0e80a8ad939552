"""Records of an evaluation: one a prompt, method and budget, with scores, cost and seed.

The gold score comes from a scorer that the search never used; the proxy is the reward model that it
planned against.
"""

import time
from collections.abc import Sequence

from policies.evaluation.cell_files import Fields, Line
from policies.evaluation.gold_scorer import GoldScorer, gold_scores
from policies.evaluation.pooled import Pool, pool_lines, pool_records
from policies.finetuning.samples import Samples
from policies.generation.language_model import Policy
from policies.planning.result import SearchResult
from policies.planning.searcher import SearchPolicy
from rewardmodel.data.conversation import Prompt
from rewardmodel.interface import RewardModel


def best_of_n_records(
    samples: Samples,
    reward_model: RewardModel,
    gold_scorer: GoldScorer | None,
    *,
    counts: Sequence[int],
    seed: int,
    seconds: float,
    policy: Policy | None = None,
) -> list[Line]:
    """Best-of-N at several N from one pool of samples, without bias (each subset counts once).

    Args:
        samples: At least `max(counts)` responses to each prompt.
        reward_model: Chooses.
        gold_scorer: Gives the gold scores, or None.
        counts: The values of N.
        seed: That the samples were drawn with.
        seconds: That sampling took, the whole pool; scoring is measured here and added.
        policy: That sampled them, to count what it was given; None leaves that out.

    Returns:
        One record a prompt and N; its `tokens` are N times the prompt's mean response.

    Raises:
        ValueError: If a score is no finite number.
    """
    began = time.perf_counter()
    lines = pool_lines(samples, reward_model, gold_scorer, policy=policy)
    each = (seconds + time.perf_counter() - began) / len(lines)
    pool = Pool.of([{**line, "seconds": each} for line in lines])
    return pool_records(pool, "best_of_n", counts=counts, seed=seed)


_NUMBER = (int, float)
_MAYBE = (int, float, type(None))
SEARCH_FIELDS: Fields = {
    "prompt": int, "response": str, "response_finished": bool, "gold": _MAYBE, "proxy": _NUMBER,
    "tokens": _NUMBER, "forward_tokens": _MAYBE, "scored_tokens": _NUMBER, "segments": int,
    "num_candidates": int, "log_probability": _MAYBE, "kl_bound": _MAYBE, "seconds": _NUMBER,
}  # fmt: skip
"""The fields of a search's lines."""


def search_lines(
    results: Sequence[SearchResult], gold_scorer: GoldScorer | None, *, first: int = 0
) -> list[Line]:
    """Scores a batch of searched responses: one line a prompt, with its scores and its cost.

    Args:
        results: Of the batch.
        gold_scorer: Gives the gold scores, or None.
        first: Number of the batch's first prompt.

    Raises:
        ValueError: If there is not one finite gold score a response; names the prompt.
    """
    numbers = range(first, first + len(results))
    prompts = [result.prompt for result in results]
    texts = [result.response for result in results]
    ended = [result.response_finished for result in results]
    gold = None
    if gold_scorer is not None:
        gold = gold_scores(gold_scorer, prompts, texts, rows=numbers, finished=ended)
    return [
        {
            "prompt": number,
            "response": result.response,
            "response_finished": result.response_finished,
            "gold": None if gold is None else gold[i],
            "proxy": result.score,
            "tokens": result.tokens,
            "forward_tokens": result.forward_tokens,
            "scored_tokens": result.scored_tokens,
            "segments": result.segments,
            "num_candidates": result.num_candidates,
            "log_probability": result.log_probability,
            "kl_bound": result.kl_bound,
            "seconds": result.seconds,
        }
        for i, (number, result) in enumerate(zip(numbers, results, strict=True))
    ]


def records_of_lines(
    lines: Sequence[Line],
    searcher: SearchPolicy,
    *,
    method: str,
    budget: str,
    seed: int,
) -> list[Line]:
    """The records of a search, from its lines without their texts."""
    return [
        {
            "method": method,
            "budget": budget,
            **{k: v for k, v in line.items() if k not in ("response", "segments")},
            "simulations": searcher.planner.num_simulations
            if searcher.replan
            else line["segments"],
            "seed": seed,
        }
        for line in lines
    ]


def search_records(
    searcher: SearchPolicy,
    prompts: Sequence[Prompt],
    gold_scorer: GoldScorer | None,
    *,
    method: str,
    budget: str,
    seed: int,
    keep_trees: int = 0,
) -> tuple[list[Line], list[SearchResult]]:
    """Searches a response to each prompt and records its scores and cost.

    Args:
        searcher: The searching policy.
        prompts: Prompts.
        gold_scorer: Gives the gold scores, or None.
        method: Name for the records.
        budget: Likewise, a number.
        seed: Of the search.
        keep_trees: For how many prompts to keep the search tree.
    """
    results = searcher.generate(
        prompts, seed=seed, keep_trees=keep_trees, progress=f"{method}, budget {budget}"
    )
    lines = search_lines(results, gold_scorer)
    return records_of_lines(lines, searcher, method=method, budget=budget, seed=seed), results
