"""Choosing among finished responses to a prompt, by their scores and by the answers they state.

Best-of-n trusts the scores, a majority vote trusts agreement (self-consistency), a weighted vote
both: every response votes for its answer, with a weight that grows with its score. P is prompts, N
responses in a prompt's pool, n those that vote, M votes held side by side.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefsearch.statistics.best_of_n import best_of_n_expectation
from rewardmodel.models.answers import extract_answer, normalize_answer

VoteRule = Literal["best", "majority", "weighted"]
VoteWeight = Literal["softmax", "score"]
Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

NO_ANSWER = -1
# Votes are held in blocks of this many responses, to bound memory.
_BLOCK_VALUES = 2_000_000
# Sums of the same weights in another order differ by rounding; so close is a tie.
_TIE = 1e-12


def choose(
    texts: Sequence[str],
    scores: Sequence[float],
    *,
    rule: VoteRule,
    form: str = "auto",
    weight: VoteWeight = "softmax",
    temperature: float = 1.0,
    finished: Sequence[bool] | None = None,
) -> int:
    """Chooses one of n responses to a prompt.

    A response that states no answer votes for nothing; where none states one, the best score wins.
    Of the answers with the most votes, the one whose best response scores higher wins, and of the
    responses that state it, the one that scores highest is chosen; the first where scores tie.

    Args:
        texts: n responses.
        scores: [n], higher is better.
        rule: `"best"` takes the highest score, whatever it answers. `"majority"` gives every
            response one vote (self-consistency, Wang et al. 2023,
            https://arxiv.org/abs/2203.11171), `"weighted"` a weight (Li et al. 2023,
            https://arxiv.org/abs/2206.02336; weights by softmax are ours).
        form: How answers are read; see `rewardmodel.models.answers.extract_answer`.
        weight: Of a weighted vote. `"softmax"` is exp(score / temperature), right for scores of
            which only differences mean something, such as a reward model's, which may be negative.
            `"score"` is the score itself, right for probabilities such as a process reward model's
            (search-and-learn's weighted best-of-n).
        temperature: Of the softmax, in the scores' unit: towards 0 best-of-n among the responses
            with answers, towards infinity the majority.
        finished: Of each response whether it is whole; None takes all for whole. Of others the
            answer is what they state before they break off, see `extract_answer`.

    Returns:
        The place of the chosen response.

    Raises:
        ValueError: If there is no response, a score is not finite, or negative as a weight, or an
            option is not allowed.
    """
    values = _finite(scores, "scores")[None]  # [1, n]
    if values.shape != (1, len(texts)) or not texts:
        raise ValueError(
            f"found {len(texts)} responses and scores of shape {list(values.shape[1:])}; required: "
            "at least one response, and one score each"
        )
    _check_options(values, rule, weight, temperature)
    if rule == "best":
        return int(values.argmax())
    whole = [True] * len(texts) if finished is None else finished
    answers = [extract_answer(text, form, finished=f) for text, f in zip(texts, whole, strict=True)]
    numbers = _number_answers(answers)[None]
    weights = _weights(values, numbers, rule, weight, temperature)
    return int(_elect(numbers, values, weights)[0])


def vote_expectation(
    answers: Sequence[Sequence[str | None]],
    scores: ArrayLike,
    metric: ArrayLike,
    n: int,
    *,
    rule: VoteRule,
    weight: VoteWeight = "softmax",
    temperature: float = 1.0,
    draws: int = 2000,
    seed: int,
) -> Array:
    """Expected metric of what n responses choose, from a pool of N >= n to each prompt.

    The mean over subsets of n responses, drawn from the pool without replacement: all of them
    where there are at most `draws`, otherwise `draws` random ones, whose mean has a standard error
    of at most half the metric's range over the square root of `draws`. Either way without bias for
    a fresh vote of n. The rule `"best"` is always exact and breaks ties at random. The same seed
    draws the same subsets for a prompt's place, whatever the rule: rules compared are paired.

    Args:
        answers: [P][N] as `extract_answer` finds them, None for no answer; normalized here.
        scores: [P, N] that weigh and choose.
        metric: [P, N] what is reported of the chosen, such as whether its answer is right.
        n: Responses that vote, 1 <= n <= N.
        rule: As in `choose`, like `weight` and `temperature`.
        weight: Of a weighted vote.
        temperature: Of the softmax.
        draws: The most subsets of a pool that are looked at.
        seed: Of the subsets.

    Returns:
        [P], in the metric's unit.

    Raises:
        ValueError: If the shapes differ, a number is not finite, or an option is out of range.
    """
    values, gains = _finite(scores, "scores"), _finite(metric, "metric")
    widths = sorted({len(row) for row in answers})
    if values.ndim != 2 or gains.shape != values.shape or len(answers) != len(values):
        raise ValueError(
            f"found answers to {len(answers)} prompts, scores of shape {list(values.shape)} and a "
            f"metric of shape {list(gains.shape)}; required: the same [P, N]"
        )
    prompts, pool = values.shape
    if widths not in ([], [pool]):
        raise ValueError(f"found pools of {widths} answers; required: {pool} each, as of scores")
    if not 1 <= n <= pool:
        raise ValueError(
            f"n is {n} and each pool holds {pool} responses; required: 1 <= n <= {pool}. Draw more"
        )
    if draws < 1:
        raise ValueError(f"draws is {draws}; required: at least 1 subset")
    _check_options(values, rule, weight, temperature)
    if rule == "best":
        return best_of_n_expectation(values, gains, n)
    expected = np.empty(prompts)
    for prompt, row in enumerate(answers):
        numbers = _number_answers(row)  # [N]
        total, count = 0.0, 0
        for places in _subsets(pool, n, draws, seed=(seed, prompt)):  # [M, n]
            voters, voted = values[prompt][places], numbers[places]
            weights = _weights(voters, voted, rule, weight, temperature)
            chosen = np.take_along_axis(places, _elect(voted, voters, weights)[:, None], axis=1)
            total += float(gains[prompt][chosen].sum())
            count += len(places)
        expected[prompt] = total / count
    return expected


def _number_answers(answers: Sequence[str | None]) -> Numbers:
    """One number for equal answers, `NO_ANSWER` for none: [N]."""
    known: dict[str, int] = {}
    return np.array(
        [
            NO_ANSWER if answer is None else known.setdefault(normalize_answer(answer), len(known))
            for answer in answers
        ],
        dtype=np.int64,
    )


def _weights(
    scores: Array, numbers: Numbers, rule: VoteRule, weight: VoteWeight, temperature: float
) -> Array:
    """What each response's vote counts, in each of M votes: [M, n], not negative."""
    if rule == "majority":
        return np.ones_like(scores)
    if weight == "score":
        return scores
    # Relative to the best that votes, so that not all weights vanish.
    voting = np.where(numbers == NO_ANSWER, -np.inf, scores)
    best = voting.max(axis=1, keepdims=True)
    return np.exp((voting - np.where(np.isfinite(best), best, 0.0)) / temperature)


def _elect(numbers: Numbers, scores: Array, weights: Array) -> Numbers:
    """Holds M votes: the place of the response that each chooses.

    Args:
        numbers: [M, n] answers.
        scores: [M, n].
        weights: [M, n], not negative.

    Returns:
        [M] places in [0, n).
    """
    votes = len(numbers)
    columns = int(numbers.max()) + 2  # column 0 is no answer
    cells = np.arange(votes)[:, None] * columns + numbers + 1  # [M, n]
    tally = np.bincount(cells.ravel(), weights.ravel(), minlength=votes * columns)
    # No answer wins where there is nothing else: below all sums, above answers that nobody gave.
    tally[::columns] = -1.0
    held = tally[cells]  # [M, n] votes for each response's answer
    most = held.max(axis=1, keepdims=True)
    tied = held >= most - _TIE * np.abs(most)
    return np.where(tied, scores, -np.inf).argmax(axis=1)


def _subsets(pool: int, n: int, draws: int, *, seed: tuple[int, int]) -> Iterator[Numbers]:
    """Blocks [M, n] of subsets of a pool, each in rising order: all, or so many random ones."""
    block = max(1, _BLOCK_VALUES // pool)
    if math.comb(pool, n) <= draws:
        every = combinations(range(pool), n)
        while some := list(islice(every, block)):
            yield np.array(some, dtype=np.int64)
        return
    generator = np.random.default_rng(seed)
    for done in range(0, draws, block):
        keys = generator.random((min(block, draws - done), pool))
        yield np.sort(np.argpartition(keys, n - 1, axis=1)[:, :n], axis=1)


def _check_options(scores: Array, rule: VoteRule, weight: VoteWeight, temperature: float) -> None:
    for name, value, allowed in (
        ("rule", rule, ("best", "majority", "weighted")),
        ("weight", weight, ("softmax", "score")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: found {value!r}; required: one of {', '.join(allowed)}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: found {temperature}; required: a positive number")
    if rule == "weighted" and weight == "score" and scores.min(initial=0.0) < 0:
        raise ValueError(
            f'weight: found "score" with a score of {scores.min():g}; required: no negative score, '
            'since a vote would count against its answer. Use weight="softmax"'
        )


def _finite(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        where = [int(i) for i in np.unravel_index(int(np.argmin(finite)), array.shape)]
        raise ValueError(
            f"{name}{where} is {array[tuple(where)]}; required: finite numbers. Leave the failed "
            "responses out"
        )
    return array
