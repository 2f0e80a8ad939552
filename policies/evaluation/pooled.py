"""Methods that choose among whole responses, measured on one pool of samples a prompt.

What a method would answer with n samples is averaged over all ways to take n of the pool, so one
pool gives every n without bias, and every method sees the same responses. Costs are those of n
samples, not of the pool. P is prompts, N responses in a pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from policies.evaluation.cell_files import Fields, Line
from policies.evaluation.gold_scorer import GoldScorer, gold_scores
from policies.finetuning.samples import Samples
from policies.generation.language_model import Policy
from policies.planning.options import TITLES, MethodName
from policies.planning.voting import VoteRule, vote_expectation
from prefsearch.statistics.best_of_n import best_of_n_expectation, best_of_n_kl, pass_at_k
from rewardmodel.data.conversation import Prompt
from rewardmodel.interface import RewardModel, SessionRewardModel, score_replies
from rewardmodel.models.answers import extract_answer
from rewardmodel.models.functions import UserCodeError
from search.evaluation.divergence import (
    best_of_n_kl_bound,
    best_of_n_kl_estimate,
    segment_kl_bound,
)

Array = NDArray[np.float64]

POOL_FIELDS: Fields = {
    "prompt": int, "texts": list, "tokens": list, "log_probabilities": list, "proxy": list,
    "gold": (list, type(None)), "prompt_tokens": (int, type(None)), "scored_tokens": (int, float),
    "seconds": (int, float),
}  # fmt: skip
"""What the lines of a pool hold, with the `seconds` that whoever writes them adds."""


def pool_lines(
    samples: Samples,
    reward_model: RewardModel,
    gold_scorer: GoldScorer | None,
    *,
    policy: Policy | None = None,
    first: int = 0,
    rows: int = 256,
) -> list[Line]:
    """Scores samples: one line a prompt, with its responses, their scores and cost.

    Args:
        samples: N responses to each prompt.
        reward_model: Gives the proxy scores.
        gold_scorer: Gives the gold scores, or None.
        policy: That sampled them, to count the prompts' tokens; None leaves these out.
        first: Number of the first prompt.
        rows: The most responses that are scored side by side.

    Raises:
        ValueError: If a score is no finite number; the message names the prompt.
    """
    lines = []
    each = len(samples.texts[0]) if samples.texts else 1
    at_once = max(1, rows // each)
    for start in range(0, len(samples.prompts), at_once):
        here = slice(start, start + at_once)
        prompts = [prompt for prompt in samples.prompts[here] for _ in range(each)]
        texts = [text for row in samples.texts[here] for text in row]
        numbers = [first + start + i // each for i in range(len(texts))]
        # A session counts what the reward model reads; it forgets with the batch.
        session = reward_model.session() if isinstance(reward_model, SessionRewardModel) else None
        finished = [ended for row in samples.finished[here] for ended in row]
        try:
            scores = score_replies(session or reward_model, prompts, texts, finished=finished)
        except UserCodeError as error:
            raise UserCodeError(f"prompt {numbers[0]} and those behind it: {error}") from error
        _require_finite(scores, prompts, texts, numbers)
        proxy = scores.tolist()
        gold = None
        if gold_scorer is not None:
            gold = gold_scores(gold_scorer, prompts, texts, rows=numbers, finished=finished)
        scored = session.forward_tokens * each / len(texts) if session is not None else 0.0
        for i, prompt in enumerate(samples.prompts[here]):
            mine = slice(i * each, (i + 1) * each)
            lines.append(
                {
                    "prompt": first + start + i,
                    "texts": samples.texts[start + i],
                    "tokens": samples.tokens[start + i],
                    "log_probabilities": samples.log_probabilities[start + i],
                    "finished": samples.finished[start + i],
                    "proxy": proxy[mine],
                    "gold": None if gold is None else gold[mine],
                    "prompt_tokens": None if policy is None else _length(policy, prompt),
                    "scored_tokens": scored,
                }
            )
    return lines


def _require_finite(
    scores: Tensor, prompts: Sequence[Prompt], texts: Sequence[str], numbers: Sequence[int]
) -> None:
    """Refuses scores that are no numbers, by prompt: no best-of-N would be drawn from them."""
    broken: list[int] = (~scores.isfinite()).nonzero().flatten().tolist()
    if broken:
        row = broken[0]
        raise ValueError(
            f"the reward model scored {scores[row].item()} for the response {texts[row][:80]!r} to "
            f"prompt {numbers[row]}, {str(prompts[row])[:80]!r} ({len(broken)} of {len(scores)} "
            "scores are not finite); required: finite scores. Correct or train the reward model "
            "again"
        )


@dataclass(frozen=True)
class Pool:
    """N samples to each of P prompts, scored.

    Attributes:
        texts: `[p][i]` the i-th response to prompt p.
        proxy: The reward model's scores, [P, N].
        gold: Gold scores, [P, N], or None.
        tokens: Lengths, [P, N], end tokens included.
        log_probabilities: Under the policy, nats, [P, N].
        finished: 1 for responses that ended by themselves, 0 for those cut off, [P, N].
        prompt_tokens: Of the prompts, [P], or None where they were not counted.
        scored_tokens: Given to the reward model for the whole pool, [P]; 0 where not counted.
        seconds: Of sampling and scoring the whole pool, [P].
    """

    texts: list[list[str]]
    proxy: Array
    gold: Array | None
    tokens: Array
    log_probabilities: Array
    finished: Array
    prompt_tokens: Array | None
    scored_tokens: Array
    seconds: Array

    @classmethod
    def of(cls, lines: Sequence[Line]) -> "Pool":
        """Reads the lines of `pool_lines`, each with its `seconds`, ordered by prompt."""

        def column(name: str) -> Array:
            return np.array([line[name] for line in lines], dtype=np.float64)

        has_gold = lines[0]["gold"] is not None
        counted = lines[0]["prompt_tokens"] is not None
        return cls(
            texts=[line["texts"] for line in lines],
            proxy=column("proxy"),
            gold=column("gold") if has_gold else None,
            tokens=column("tokens"),
            log_probabilities=column("log_probabilities"),
            finished=np.array(
                [line.get("finished", [True] * len(line["texts"])) for line in lines], dtype=float
            ),
            prompt_tokens=column("prompt_tokens") if counted else None,
            scored_tokens=column("scored_tokens"),
            seconds=column("seconds"),
        )

    @property
    def binary(self) -> bool:
        """Whether gold is right or wrong: all scores are 0 or 1."""
        return self.gold is not None and bool(np.isin(self.gold, (0.0, 1.0)).all())


def pool_records(
    pool: Pool,
    method: MethodName,
    *,
    counts: Sequence[int],
    seed: int,
    form: str = "auto",
    own_samples: bool = True,
) -> list[Line]:
    """What a method that chooses among whole responses would answer with n of them.

    The policy reads a prompt once and of each response all but its last token; the reward model
    reads the prompt once and each response. A share of n / N of the pool's cost beyond the prompt
    is that of n responses.

    Args:
        pool: At least `max(counts)` responses to each prompt.
        method: One of `policies.planning.methods.POOLED`.
        counts: The values of n.
        seed: That the samples were drawn with.
        form: Of the votes' answers.
        own_samples: Whether the samples were drawn at temperature 1 and without cuts, so that
            their log-probabilities are those they were drawn with.

    Returns:
        One record a prompt and n.
    """
    size = pool.proxy.shape[1]
    length = pool.tokens.mean(1)  # [P]
    scored_prompt = np.zeros(len(length)) if pool.prompt_tokens is None else pool.prompt_tokens
    expected = _expectation(pool, method, form=form, seed=seed)
    records: list[Line] = []
    for n in counts:
        columns: dict[str, Array | None] = {
            "proxy": expected(pool.proxy, n),
            "gold": None if pool.gold is None else expected(pool.gold, n),
            "response_finished": expected(pool.finished, n),
            "tokens": n * length,
            "forward_tokens": None,
            # A reward model that does not count has read nothing, prompts included.
            "scored_tokens": np.where(
                pool.scored_tokens > 0,
                scored_prompt + (pool.scored_tokens - scored_prompt) * n / size,
                0.0,
            ),
            "seconds": pool.seconds * n / size,
        }
        if pool.prompt_tokens is not None:
            columns["forward_tokens"] = pool.prompt_tokens + n * (length - 1)
        if method == "best_of_n":
            columns |= _divergence(pool, n) if own_samples else {}
            if pool.gold is not None and pool.binary:
                columns["pass_at_k"] = pass_at_k(pool.gold, n)
        records += [
            {
                "method": TITLES[method],
                "budget": str(n),
                "prompt": index,
                **{k: None if v is None else float(v[index]) for k, v in columns.items()},
                "kl_bound": best_of_n_kl(n) if method == "best_of_n" else segment_kl_bound([n]),
                "simulations": n,
                "seed": seed,
            }
            for index in range(len(length))
        ]
    return records


def _expectation(
    pool: Pool, method: MethodName, *, form: str, seed: int
) -> Callable[[Array, int], Array]:
    """The expected metric [P] of what a method answers with n of the pool, by metric and n."""
    if method == "best_of_n":
        return lambda metric, n: best_of_n_expectation(pool.proxy, metric, n)
    rule: VoteRule = "majority" if method == "majority" else "weighted"
    answers = [
        [extract_answer(text, form, finished=bool(ended)) for text, ended in zip(*row, strict=True)]
        for row in zip(pool.texts, pool.finished, strict=True)
    ]
    return lambda metric, n: vote_expectation(answers, pool.proxy, metric, n, rule=rule, seed=seed)


def _divergence(pool: Pool, n: int) -> dict[str, Array]:
    """Estimates of the KL of best-of-n from the chosen responses' probabilities, [P] each."""
    logs = np.minimum(pool.log_probabilities, 0.0)
    return {
        name: best_of_n_expectation(pool.proxy, measure(logs, n), n)
        for name, measure in (
            ("kl_estimate", best_of_n_kl_estimate),
            ("kl_tight", best_of_n_kl_bound),
        )
    }


def _length(policy: Policy, prompt: Prompt) -> int:
    return len(policy.encoder.prompt_ids(prompt))
