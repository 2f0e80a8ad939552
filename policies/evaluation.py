"""What test-time search gains: every method over a ladder of budgets, on the same prompts.

Each method leaves one record a prompt and budget: gold and proxy score, tokens, seconds, seed. The
gold score is a judge that the search never saw; the proxy is the reward model that it planned
against.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from policies.collection import Samples
from policies.language_model import Policy
from policies.search_policy import SearchPolicy, SearchResult
from rewardmodel.interface import RewardModel
from search.evaluation.figures import Curve
from search.evaluation.metrics import (
    Interval,
    best_of_n_expectation,
    best_of_n_kl,
    bootstrap_interval,
    interpolate_at,
    paired_difference,
)

BEST_OF_N = "best-of-N"
Judge = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""Gold scores of B prompts and B responses."""


@dataclass(frozen=True)
class Cell:
    """One method at one budget, over all prompts.

    Attributes:
        method: Its name.
        budget: N of best-of-N, simulations a decision of a tree search, width x slots of a beam.
        tokens: Mean tokens sampled a prompt.
        gold: Gold score with its 95 % interval over prompts, or None without a judge.
        proxy: Reward-model score, likewise.
        kl: Upper bound on the KL from the policy in nats; known for best-of-N alone.
        seconds: Mean wall-clock a prompt.
        gain_at_equal_tokens: Gold (without a judge: proxy) above best-of-N at the same tokens,
            paired by prompt; None for best-of-N itself and outside its measured range.
    """

    method: str
    budget: str
    tokens: float
    gold: Interval | None
    proxy: Interval
    kl: float | None
    seconds: float
    gain_at_equal_tokens: Interval | None = None


def best_of_n_records(
    samples: Samples,
    reward_model: RewardModel,
    judge: Judge | None,
    *,
    counts: Sequence[int],
    seed: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Best-of-N at several N from one pool of samples, without bias (each subset counts once).

    Args:
        samples: At least `max(counts)` responses to each prompt.
        reward_model: Chooses.
        judge: Gold score, or None.
        counts: The values of N.
        seed: That the samples were drawn with.
        seconds: That sampling took, the whole pool; scoring is measured here and added.

    Returns:
        One record a prompt and N; its `tokens` are N times the prompt's mean response.
    """
    began = time.perf_counter()
    prompts, texts = samples.flat()
    shape = (len(samples.prompts), len(samples.texts[0]))
    proxy = reward_model.score(prompts, texts).reshape(shape).numpy()  # [P, N]
    seconds += time.perf_counter() - began
    gold = None if judge is None else np.array(judge(prompts, texts)).reshape(shape)
    tokens = np.array(samples.tokens, dtype=float).mean(1)  # [P]
    records = []
    for n in counts:
        expected_proxy = best_of_n_expectation(proxy, proxy, n)  # [P]
        expected_gold = None if gold is None else best_of_n_expectation(proxy, gold, n)
        for index in range(shape[0]):
            records.append(
                {
                    "method": BEST_OF_N,
                    "budget": str(n),
                    "prompt": index,
                    "gold": None if expected_gold is None else float(expected_gold[index]),
                    "proxy": float(expected_proxy[index]),
                    "tokens": float(n * tokens[index]),
                    "simulations": n,
                    "seconds": seconds * n / shape[1] / shape[0],
                    "seed": seed,
                }
            )
    return records


def search_records(
    searcher: SearchPolicy,
    prompts: Sequence[str],
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
    texts = [result.response for result in results]
    # A judge may return an array: plain numbers go into the records.
    gold = [None] * len(prompts) if judge is None else [float(g) for g in judge(prompts, texts)]
    records = [
        {
            "method": method,
            "budget": budget,
            "prompt": index,
            "gold": gold[index],
            "proxy": result.score,
            "tokens": float(result.tokens),
            "forward_tokens": result.forward_tokens,
            "simulations": searcher.planner.num_simulations if searcher.replan else result.segments,
            "finished": result.finished,
            "seconds": result.seconds,
            "seed": seed,
        }
        for index, result in enumerate(results)
    ]
    return records, results


def _matrix(records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """One value a prompt, in the order of the prompts: [P]."""
    return np.array([r[key] for r in sorted(records, key=lambda r: r["prompt"])], dtype=float)


def summarise(records: Sequence[Mapping[str, Any]], *, seed: int) -> list[Cell]:
    """Summarises records into cells, best-of-N first, each method by growing budget.

    Args:
        records: Of `best_of_n_records` and `search_records`, of one policy.
        seed: Of the bootstrap over prompts.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["method"], record["budget"]), []).append(record)
    judged = all(record["gold"] is not None for record in records)
    target = "gold" if judged else "proxy"
    ladder = sorted(
        (rows for (method, _), rows in groups.items() if method == BEST_OF_N),
        key=lambda rows: _matrix(rows, "tokens").mean(),
    )
    costs = [float(_matrix(rows, "tokens").mean()) for rows in ladder]
    scores = np.stack([_matrix(rows, target) for rows in ladder], 1) if ladder else np.empty(0)
    cells = []
    for (method, budget), rows in groups.items():
        tokens = float(_matrix(rows, "tokens").mean())
        gain = None
        if method != BEST_OF_N and costs and costs[0] <= tokens <= costs[-1]:
            at_equal = interpolate_at(costs, scores, tokens)  # [P]
            gain = paired_difference(_matrix(rows, target), at_equal, seed=seed)
        cells.append(
            Cell(
                method=method,
                budget=budget,
                tokens=tokens,
                gold=bootstrap_interval(_matrix(rows, "gold"), seed=seed) if judged else None,
                proxy=bootstrap_interval(_matrix(rows, "proxy"), seed=seed),
                kl=best_of_n_kl(int(budget)) if method == BEST_OF_N else None,
                seconds=float(_matrix(rows, "seconds").mean()),
                gain_at_equal_tokens=gain,
            )
        )
    return sorted(cells, key=lambda cell: (cell.method != BEST_OF_N, cell.method, int(cell.budget)))


def curves(cells: Sequence[Cell]) -> list[Curve]:
    """Score against tokens: a line a method, a panel each for gold (where judged) and proxy."""
    drawn = []
    for panel in ("gold", "proxy"):
        for method in dict.fromkeys(cell.method for cell in cells):
            line = [cell for cell in cells if cell.method == method]
            intervals = [getattr(cell, panel) for cell in line]
            if intervals and all(interval is not None for interval in intervals):
                drawn.append(
                    Curve(
                        label=method,
                        cost=[cell.tokens for cell in line],
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


@torch.inference_mode()
def kl_to(policy: Policy, reference: Policy, samples: Samples, *, batch_size: int = 64) -> Interval:
    """Estimates KL(policy || reference) in nats a response from the policy's own samples.

    The Monte Carlo estimate, the mean of log(policy / reference), with a bootstrap interval over
    prompts. It is of the texts, encoded again and closed by an end token; the rare sample that
    encodes to other tokens than were drawn, or was cut off, counts as if drawn so.

    Args:
        policy: That sampled them, at temperature 1.
        reference: With the same tokenizer.
        samples: Responses of `policy`.
        batch_size: Rows a forward pass.
    """
    prompts, texts = samples.flat()
    encoder = policy.encoder
    ratios = []
    for start in range(0, len(prompts), batch_size):
        pairs = [
            encoder.pair(prompt, text)
            for prompt, text in zip(
                prompts[start : start + batch_size], texts[start : start + batch_size], strict=True
            )
        ]
        width = max(len(p) + len(r) for p, r in pairs)
        ids = torch.zeros(len(pairs), width, dtype=torch.long)
        inside = torch.zeros(len(pairs), width, dtype=torch.bool)
        for line, (prompt, response) in enumerate(pairs):
            ids[line, : len(prompt) + len(response)] = torch.tensor(prompt + response)
            inside[line, len(prompt) : len(prompt) + len(response)] = True
        gaps = torch.zeros(len(pairs))
        for model, sign in ((policy.model, 1), (reference.model, -1)):
            logits = model(input_ids=ids.to(model.device)).logits[:, :-1].float()
            taken = logits.log_softmax(-1).gather(-1, ids[:, 1:, None].to(model.device))[..., 0]
            gaps += sign * (taken.cpu() * inside[:, 1:]).sum(1)
        ratios.append(gaps)
    per_prompt = torch.cat(ratios).reshape(len(samples.prompts), -1).mean(1)
    return bootstrap_interval(per_prompt.numpy(), seed=0)
