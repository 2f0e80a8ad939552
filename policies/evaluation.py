"""What test-time search gains: every method over a ladder of budgets, on the same prompts.

Each method leaves one record a prompt and budget: gold and proxy score, tokens, seconds, seed. The
gold score is a judge that the search never saw; the proxy is the reward model that it planned
against. Records are summarised into cells, with intervals over prompts and the difference from
best-of-N at equal cost. P is prompts, L budgets.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policies.collection import Samples
from policies.judges import Judge, judged
from policies.language_model import Policy
from policies.pooled import Pool, pool_lines, pool_records
from policies.search_policy import SearchPolicy
from policies.search_result import SearchResult
from rewardmodel.data.conversation import Prompt
from rewardmodel.interface import RewardModel
from search.evaluation.divergence import kl_lower_bound_from_ranks
from search.evaluation.figures import Curve
from search.evaluation.metrics import (
    Interval,
    best_of_n_kl,
    bootstrap_interval,
    interpolate_at,
    paired_difference,
)

BEST_OF_N = "best-of-N"
Cost = Literal["tokens", "model_tokens"]
"""Tokens generated; or tokens that any model was given, policy and reward models together."""
Record = Mapping[str, Any]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One method at one budget, over all prompts.

    Attributes:
        method: Its name.
        budget: N of best-of-N, simulations a decision of a tree search, width x slots of a beam.
        tokens: Mean tokens sampled a prompt.
        gold: Gold score with its 95 % interval over prompts, or None without a judge; where gold
            is right or wrong, the accuracy.
        proxy: Reward-model score, likewise.
        kl: Upper bound on the KL from the policy in nats, `ln N - (N - 1) / N` for best-of-N; None
            where none is known.
        seconds: Mean wall-clock a prompt.
        gain_at_equal_tokens: Gold (without a judge: proxy) above best-of-N at the same generated
            tokens, paired by prompt; None for best-of-N itself and outside its measured range.
        forward_tokens: Mean tokens that the policy was given, or None where not counted.
        scored_tokens: Mean tokens that reward and value models were given.
        model_tokens: Both together, or None.
        gain_at_equal_model_tokens: As `gain_at_equal_tokens`, at equal `model_tokens`.
        pass_at_k: Best-of-N where gold is right or wrong: the chance that any of N is right.
        kl_tight: Best-of-N: an upper bound that knows the responses' probabilities.
        kl_estimate: Best-of-N: the estimate of Beirami et al. from the same.
        kl_low: Searches: a lower bound, from ranks among the policy's own samples.
        finished: Share of the answers that ended by themselves and were not cut off at
            `max_new_tokens`, or None where that was not recorded.
    """

    method: str
    budget: str
    tokens: float
    gold: Interval | None
    proxy: Interval
    kl: float | None
    seconds: float
    gain_at_equal_tokens: Interval | None = None
    forward_tokens: float | None = None
    scored_tokens: float | None = None
    model_tokens: float | None = None
    gain_at_equal_model_tokens: Interval | None = None
    pass_at_k: Interval | None = None
    kl_tight: Interval | None = None
    kl_estimate: Interval | None = None
    kl_low: Interval | None = None
    finished: float | None = None


def best_of_n_records(
    samples: Samples,
    reward_model: RewardModel,
    judge: Judge | None,
    *,
    counts: Sequence[int],
    seed: int,
    seconds: float,
    policy: Policy | None = None,
) -> list[dict[str, Any]]:
    """Best-of-N at several N from one pool of samples, without bias (each subset counts once).

    Args:
        samples: At least `max(counts)` responses to each prompt.
        reward_model: Chooses.
        judge: Gold score, or None.
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
    lines = pool_lines(samples, reward_model, judge, policy=policy)
    each = (seconds + time.perf_counter() - began) / len(lines)
    pool = Pool.of([{**line, "seconds": each} for line in lines])
    return pool_records(pool, "best_of_n", counts=counts, seed=seed)


def search_lines(
    results: Sequence[SearchResult], judge: Judge | None, *, first: int = 0
) -> list[dict[str, Any]]:
    """Judges a batch of searched responses: one line a prompt, with what it is worth and cost.

    Args:
        results: Of the batch.
        judge: Gold score, or None.
        first: Number of the batch's first prompt.

    Raises:
        ValueError: If the judge does not give one finite number a response; names the prompt.
    """
    numbers = range(first, first + len(results))
    prompts = [result.prompt for result in results]
    texts = [result.response for result in results]
    ended = [result.response_finished for result in results]
    gold = None
    if judge is not None:
        gold = judged(judge, prompts, texts, rows=numbers, finished=ended)
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
            "finished": result.finished,
            "log_probability": result.log_probability,
            "kl_bound": result.kl_bound,
            "seconds": result.seconds,
        }
        for i, (number, result) in enumerate(zip(numbers, results, strict=True))
    ]


def records_of_lines(
    lines: Sequence[Mapping[str, Any]],
    searcher: SearchPolicy,
    *,
    method: str,
    budget: str,
    seed: int,
) -> list[dict[str, Any]]:
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
    judge: Judge | None,
    *,
    method: str,
    budget: str,
    seed: int,
    keep_trees: int = 0,
) -> tuple[list[dict[str, Any]], list[SearchResult]]:
    """Searches a response to each prompt and records what it is worth.

    Args:
        searcher: The searching policy.
        prompts: Prompts.
        judge: Gold score, or None.
        method: Name for the records.
        budget: Likewise, a number.
        seed: Of the search.
        keep_trees: For how many prompts to keep the search tree.
    """
    results = searcher.generate(
        prompts, seed=seed, keep_trees=keep_trees, progress=f"{method}, budget {budget}"
    )
    lines = search_lines(results, judge)
    return records_of_lines(lines, searcher, method=method, budget=budget, seed=seed), results


def _column(records: Sequence[Record], key: str) -> Array | None:
    """One value a prompt, [P] in the order of the prompts; None if a record has none."""
    if any(record.get(key) is None for record in records):
        return None
    ordered = sorted(records, key=lambda record: record["prompt"])
    return np.array([record[key] for record in ordered], dtype=float)


def _cost(records: Sequence[Record], cost: Cost) -> Array | None:
    """What each prompt cost, [P], or None where it was not counted."""
    if cost == "tokens":
        return _column(records, "tokens")
    forward, scored = _column(records, "forward_tokens"), _column(records, "scored_tokens")
    return None if forward is None or scored is None else forward + scored


def summarise(records: Sequence[Record], *, seed: int, pool: Pool | None = None) -> list[Cell]:
    """Summarises records into cells, best-of-N first, each method by growing budget.

    Args:
        records: Of `best_of_n_records` and `search_records`, of one policy.
        seed: Of the bootstrap over prompts.
        pool: Samples that no search saw, for the lower bounds on the KL of searches.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["method"], record["budget"]), []).append(record)
    judged_all = all(record["gold"] is not None for record in records)
    target = "gold" if judged_all else "proxy"
    ladder = [rows for (method, _), rows in groups.items() if method == BEST_OF_N]

    def interval(rows: Sequence[Record], key: str) -> Interval | None:
        values = _column(rows, key)
        return None if values is None else bootstrap_interval(values, seed=seed)

    def mean(values: Array | None) -> float | None:
        return None if values is None else float(values.mean())

    cells = []
    for (method, budget), rows in groups.items():
        searched = method != BEST_OF_N
        tokens, proxy = _column(rows, "tokens"), _column(rows, "proxy")
        assert tokens is not None
        assert proxy is not None
        # A search leaves `finished`; votes choose among the pool's own responses.
        ranked = pool is not None and "finished" in rows[0]
        cells.append(
            Cell(
                method=method,
                budget=budget,
                tokens=float(tokens.mean()),
                gold=interval(rows, "gold") if judged_all else None,
                proxy=bootstrap_interval(proxy, seed=seed),
                kl=mean(_column(rows, "kl_bound")) if searched else best_of_n_kl(int(budget)),
                seconds=float(np.mean([row["seconds"] for row in rows])),
                gain_at_equal_tokens=_gain(rows, ladder, target, "tokens", seed=seed)
                if searched
                else None,
                forward_tokens=mean(_column(rows, "forward_tokens")),
                scored_tokens=mean(_column(rows, "scored_tokens")),
                model_tokens=mean(_cost(rows, "model_tokens")),
                gain_at_equal_model_tokens=_gain(rows, ladder, target, "model_tokens", seed=seed)
                if searched
                else None,
                pass_at_k=interval(rows, "pass_at_k"),
                kl_tight=interval(rows, "kl_tight"),
                kl_estimate=interval(rows, "kl_estimate"),
                kl_low=kl_lower_bound_from_ranks(pool.proxy, proxy, seed=seed)
                if pool is not None and ranked
                else None,
                finished=mean(_column(rows, "response_finished")),
            )
        )
    return sorted(cells, key=lambda cell: (cell.method != BEST_OF_N, cell.method, int(cell.budget)))


def _gain(
    rows: Sequence[Record],
    ladder: Sequence[Sequence[Record]],
    target: str,
    cost: Cost,
    *,
    seed: int,
) -> Interval | None:
    """Score above best-of-N at equal cost, paired by prompt; None beyond what was measured."""
    spent, reached = _cost(rows, cost), _column(rows, target)
    steps = [(_cost(step, cost), _column(step, target)) for step in ladder]
    known = [(c, s) for c, s in steps if c is not None and s is not None]
    if spent is None or reached is None or not known:
        return None
    known.sort(key=lambda step: float(step[0].mean()))
    costs = [float(c.mean()) for c, _ in known]
    if not costs[0] <= spent.mean() <= costs[-1]:
        return None
    scores = np.stack([s for _, s in known], 1)  # [P, L]
    at_equal = interpolate_at(costs, scores, float(spent.mean()))  # [P]
    return paired_difference(reached, at_equal, seed=seed)


def best_of_n_scores(records: Sequence[Record], key: str) -> Array:
    """Scores of best-of-N, [P, L] in the order of prompts and growing N; `key` is gold or proxy."""
    groups: dict[int, list[Record]] = {}
    for record in records:
        if record["method"] == BEST_OF_N:
            groups.setdefault(int(record["budget"]), []).append(record)
    columns = [_column(groups[n], key) for n in sorted(groups)]
    return np.stack([column for column in columns if column is not None], 1)


def curves(cells: Sequence[Cell], *, cost: Cost = "tokens") -> list[Curve]:
    """Score against cost: a line a method, a panel each for gold (where judged) and proxy."""
    drawn = []
    for panel in ("gold", "proxy"):
        for method in dict.fromkeys(cell.method for cell in cells):
            line = [cell for cell in cells if cell.method == method]
            costs = [getattr(cell, cost) for cell in line]
            intervals = [getattr(cell, panel) for cell in line]
            if all(value is not None for value in (*costs, *intervals)):
                drawn.append(
                    Curve(
                        label=method,
                        cost=costs,
                        estimate=[i.estimate for i in intervals],
                        low=[i.low for i in intervals],
                        high=[i.high for i in intervals],
                        panel=panel,
                    )
                )
    return drawn


def cell_row(cell: Cell) -> dict[str, Any]:
    """A cell as plain values for a JSON file."""
    return asdict(cell)
