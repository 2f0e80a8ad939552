"""Summaries by method and budget, with gains over best-of-N at equal cost.

Records are summarized into cells of one method and budget, with the difference from best-of-N at
equal cost and intervals over seeds, or over the prompts of one seed. P is prompts, L budgets.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policies.evaluation.pooled import Pool
from prefsearch.statistics.best_of_n import best_of_n_kl
from prefsearch.statistics.intervals import Interval
from prefsearch.statistics.seed_intervals import Kind, SeedInterval, interval_over_seeds
from search.evaluation.divergence import kl_lower_bound_from_ranks, kl_lower_bound_values
from search.evaluation.equal_cost import gain_at_equal_cost
from search.evaluation.figures import Curve

BEST_OF_N = "best-of-N"
Cost = Literal["tokens", "model_tokens"]
"""Tokens generated; or tokens that any model was given, policy and reward models together."""
Record = Mapping[str, Any]
Array = NDArray[np.float64]
Runs = dict[Hashable, list[Record]]
"""The records of one method and budget by run, each run's in the order of its prompts."""


@dataclass(frozen=True)
class Cell:
    """One method at one budget, over all prompts of all seeds.

    Intervals are 95 %, over seeds where there are several and otherwise over the prompts of the
    one; each names its own unit.

    Attributes:
        method: Its name.
        budget: N of best-of-N, simulations a decision of a tree search, segments a step of a beam.
        tokens: Mean tokens sampled a prompt.
        gold: Gold score with its interval, or None without a gold scorer; the accuracy where gold
            is right or wrong.
        proxy: Reward-model score, likewise.
        kl: Upper bound on the KL from the policy in nats, `ln N - (N - 1) / N` for best-of-N; None
            where none is known.
        seconds: Mean wall-clock a prompt.
        gain_at_equal_tokens: Gold, or else proxy, above best-of-N at the same generated tokens,
            paired by prompt; None for best-of-N itself and outside its measured range.
        forward_tokens: Mean tokens that the policy was given, or None where not counted.
        scored_tokens: Mean tokens that reward and value models were given.
        model_tokens: Both together, or None.
        gain_at_equal_model_tokens: As `gain_at_equal_tokens`, at equal `model_tokens`.
        pass_at_k: Best-of-N where gold is right or wrong: the chance that any of N is right.
        kl_tight: Best-of-N: an upper bound from the responses' probabilities.
        kl_estimate: Best-of-N: the estimate of Beirami et al. from the same.
        kl_low: Searches: a lower bound, from ranks among the policy's own samples; of one seed
            whose prompts are independent its interval is bootstrapped over prompts.
        finished: Share of the answers that ended by themselves and were not cut off at
            `max_new_tokens`, or None where that was not recorded.
    """

    method: str
    budget: str
    tokens: float
    gold: SeedInterval | None
    proxy: SeedInterval
    kl: float | None
    seconds: float
    gain_at_equal_tokens: SeedInterval | None = None
    forward_tokens: float | None = None
    scored_tokens: float | None = None
    model_tokens: float | None = None
    gain_at_equal_model_tokens: SeedInterval | None = None
    pass_at_k: SeedInterval | None = None
    kl_tight: SeedInterval | None = None
    kl_estimate: SeedInterval | None = None
    kl_low: Interval | None = None
    finished: float | None = None


def _column(records: Sequence[Record], key: str) -> Array | None:
    """One value a prompt, [P] in the records' order; None if a record has none.

    Of `model_tokens` the sum of what the policy and the reward and value models were given.
    """
    if key == "model_tokens":
        forward, scored = _column(records, "forward_tokens"), _column(records, "scored_tokens")
        return None if forward is None or scored is None else forward + scored
    if any(record.get(key) is None for record in records):
        return None
    return np.array([record[key] for record in records], dtype=float)


def summarize(
    records: Sequence[Record], *, seed: int, pool: Pool | Mapping[Hashable, Pool] | None = None
) -> list[Cell]:
    """Summarizes records into cells, best-of-N first, each method by growing budget.

    Records of several seeds carry `run`, which names the seed: each is summarized by itself,
    and the intervals are over seeds. Records may carry `cluster`: prompts of one cluster are no
    independent samples, and runs that share a cluster share what it has brought to their means.

    Args:
        records: Of `policies.evaluation.records`, of one policy or of one a run.
        seed: Of the bootstrap of `kl_low`.
        pool: Samples that no search saw, for the lower bounds on the KL of searches; of several
            runs, one by each run's name.
    """
    groups: dict[tuple[str, str], Runs] = {}
    for record in records:
        cell = groups.setdefault((record["method"], record["budget"]), {})
        cell.setdefault(record.get("run"), []).append(record)
    for runs in groups.values():
        for rows in runs.values():
            rows.sort(key=lambda record: record["prompt"])
    all_gold = all(record["gold"] is not None for record in records)
    target = "gold" if all_gold else "proxy"
    # The pool leaves pass@k where all of its gold scores are 0 or 1.
    right = any(record.get("pass_at_k") is not None for record in records)
    gold_kind: Kind = "share" if right else "score"
    compared: Kind = "any" if right and all_gold else "score"
    sweep = [runs for (method, _), runs in groups.items() if method == BEST_OF_N]
    pools: dict[Hashable, Pool] = {None: pool} if isinstance(pool, Pool) else dict(pool or {})
    cells = []
    for (method, budget), runs in groups.items():
        searched = method != BEST_OF_N
        tokens, proxy = _mean(runs, "tokens"), _over_seeds(runs, "proxy")
        assert tokens is not None
        assert proxy is not None
        cells.append(
            Cell(
                method=method,
                budget=budget,
                tokens=tokens,
                gold=_over_seeds(runs, "gold", kind=gold_kind) if all_gold else None,
                proxy=proxy,
                kl=_mean(runs, "kl_bound") if searched else best_of_n_kl(int(budget)),
                seconds=_mean(runs, "seconds") or 0.0,
                gain_at_equal_tokens=_gain(runs, sweep, target, "tokens", kind=compared)
                if searched
                else None,
                forward_tokens=_mean(runs, "forward_tokens"),
                scored_tokens=_mean(runs, "scored_tokens"),
                model_tokens=_mean(runs, "model_tokens"),
                gain_at_equal_model_tokens=_gain(runs, sweep, target, "model_tokens", kind=compared)
                if searched
                else None,
                pass_at_k=_over_seeds(runs, "pass_at_k", kind="share"),
                kl_tight=_over_seeds(runs, "kl_tight"),
                kl_estimate=_over_seeds(runs, "kl_estimate"),
                kl_low=_kl_low(runs, pools, seed=seed),
                finished=_mean(runs, "response_finished"),
            )
        )
    return sorted(cells, key=lambda cell: (cell.method != BEST_OF_N, cell.method, int(cell.budget)))


def _columns(runs: Runs, key: str) -> list[Array] | None:
    """One value a prompt, [P] a run; None if a record has none."""
    found = [_column(rows, key) for rows in runs.values()]
    known = [column for column in found if column is not None]
    return known if len(known) == len(found) else None


def _mean(runs: Runs, key: str) -> float | None:
    """The mean of the runs' means, as an interval's estimate is."""
    columns = _columns(runs, key)
    return None if columns is None else float(np.mean([column.mean() for column in columns]))


def _over_seeds(runs: Runs, key: str, *, kind: Kind = "score") -> SeedInterval | None:
    """The mean with its interval, or None if a record has no value."""
    columns = _columns(runs, key)
    if columns is None:
        return None
    return interval_over_seeds(columns, clusters=_clusters(runs), kind=kind)


def _clusters(runs: Runs) -> list[list[Hashable]] | None:
    """The cluster of each record's prompt, or None where no record names one."""
    if not any("cluster" in record for rows in runs.values() for record in rows):
        return None
    return [
        [record.get("cluster", (run, record["prompt"])) for record in rows]
        for run, rows in runs.items()
    ]


def _kl_low(runs: Runs, pools: Mapping[Hashable, Pool], *, seed: int) -> Interval | None:
    """The lower bound of a search, or None for what is no search or has no pool."""
    # A search leaves its number of candidates, as `finished` in records made before; votes choose
    # among the pool's own responses.
    if not all(
        run in pools and not rows[0].keys().isdisjoint(("num_candidates", "finished"))
        for run, rows in runs.items()
    ):
        return None
    ranked: list[tuple[Array, Array]] = []
    for run, rows in runs.items():
        proxy = _column(rows, "proxy")
        assert proxy is not None
        ranked.append((pools[run].proxy, proxy))
    clusters = _clusters(runs)
    independent = clusters is None or len(set(clusters[0])) == len(clusters[0])
    if len(ranked) == 1 and independent:
        return kl_lower_bound_from_ranks(*ranked[0], seed=seed)
    values = [kl_lower_bound_values(*one) for one in ranked]
    return interval_over_seeds(values, clusters=clusters, kind="score")


def _gain(
    runs: Runs, sweep: Sequence[Runs], target: str, cost: Cost, *, kind: Kind
) -> SeedInterval | None:
    """Score above best-of-N at equal cost, each run held against its own best-of-N.

    None beyond what was measured, be it in one run only: to leave that run out would choose among
    seeds by what they cost.
    """
    gains = []
    for run, rows in runs.items():
        spent, reached = _column(rows, cost), _column(rows, target)
        steps = [step[run] for step in sweep if run in step]
        known = [(_column(step, cost), _column(step, target)) for step in steps]
        pairs = [(c, s) for c, s in known if c is not None and s is not None]
        if spent is None or reached is None or not pairs:
            return None
        _require_same_prompts(rows, steps)
        gain = gain_at_equal_cost(
            spent, reached, np.stack([c for c, _ in pairs], 1), np.stack([s for _, s in pairs], 1)
        )
        if gain is None:
            return None
        gains.append(gain)
    return interval_over_seeds(gains, clusters=_clusters(runs), kind=kind)


def _require_same_prompts(rows: Sequence[Record], steps: Sequence[Sequence[Record]]) -> None:
    """Refuses to pair records of different prompts."""
    for step in steps:
        if [r["prompt"] for r in step] != [r["prompt"] for r in rows]:
            raise ValueError(
                f"{rows[0]['method']}, {rows[0]['budget']} has records of {len(rows)} prompts and "
                f"{step[0]['method']}, {step[0]['budget']} of {len(step)}, not the same ones: a "
                "gain is paired by prompt, so evaluate all methods on the same prompts"
            )


def best_of_n_scores(records: Sequence[Record], key: str) -> dict[Hashable, Array]:
    """Scores of best-of-N by run, [P, L] in the order of prompts and growing N; gold or proxy."""
    found = ((run, [_column(s, key) for s in steps]) for run, steps in _sweeps(records).items())
    return {run: np.stack([c for c in cs if c is not None], 1) for run, cs in found}


def best_of_n_clusters(records: Sequence[Record]) -> list[list[Hashable]] | None:
    """The clusters of the prompts of `best_of_n_scores`, by run; None where no record has one."""
    return _clusters({run: steps[0] for run, steps in _sweeps(records).items()})


def _sweeps(records: Sequence[Record]) -> dict[Hashable, list[list[Record]]]:
    """Records of best-of-N by run and growing N, each in the order of prompts."""
    groups: dict[Hashable, dict[int, list[Record]]] = {}
    for record in sorted(records, key=lambda record: record["prompt"]):
        if record["method"] == BEST_OF_N:
            steps = groups.setdefault(record.get("run"), {})
            steps.setdefault(int(record["budget"]), []).append(record)
    return {run: [group[n] for n in sorted(group)] for run, group in groups.items()}


def curves(cells: Sequence[Cell], *, cost: Cost = "tokens") -> list[Curve]:
    """Score against cost: a line a method, a panel each for gold (where scored) and proxy."""
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
