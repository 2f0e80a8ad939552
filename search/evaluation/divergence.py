"""Bounds and estimates of KL(search || policy), in nats: how far a search is from its policy.

A search has no density in closed form, so its divergence is bounded. From above by the number of
its samples: a response chosen among K samples is at most K times as likely as under the policy.
From below by the ranks of its scores among the policy's own. For best-of-n there is a form that
is nearly closed. All divergences are of the response given a prompt,
averaged over prompts. P is prompts, N responses in a prompt's pool, C cells of a histogram.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefsearch.statistics.best_of_n import best_of_n_kl
from prefsearch.statistics.intervals import Interval, finite
from prefsearch.statistics.seed_intervals import jackknife_values

Array = NDArray[np.float64]

# Resampled counts are made in blocks of this many numbers, to bound memory at 32 MB.
_BLOCK_VALUES = 4_000_000
# Below this log-probability the closed forms equal their limit at zero in float64 for any
# n < 10^6, and a probability that underflows is never formed.
_NEGLIGIBLE = -60.0
# A cell should hold so many of the P chosen responses if search did nothing: the correction of
# the histogram's bias is a series in one over that number.
_FEWEST_IN_A_CELL = 4
_REMEDY = "leave the prompt out of both"


def segment_kl_bound(candidates_per_segment: ArrayLike) -> float:
    """Upper bound on the KL of a search that picks each segment among K samples: sum of ln K_i.

    Suppose that all candidates are drawn beforehand. A response y can be the answer only if it is
    one of the K_1 * ... * K_m lines through them, each of which is y with the policy's probability
    of y; so q(y) <= K_1 * ... * K_m * policy(y), whatever the search computes, and the KL is at
    most the mean log of that factor. Where answers differ in their number of segments, the mean of
    their bounds bounds the KL. A segment that may be drawn again r times counts K * (1 + r). The
    bound is reached only by searches that never pick twice the same way; best-of-n is `(n - 1) / n`
    below it.

    Args:
        candidates_per_segment: [M] how many independent samples of the policy each segment of the
            answer was picked from.

    Raises:
        ValueError: it is not [M], or a number of candidates is no whole number of at least 1.
    """
    counts = np.asarray(candidates_per_segment, dtype=np.float64)
    if counts.ndim != 1:
        raise ValueError(
            f"candidates_per_segment has shape {list(counts.shape)}, required [M]: one number a "
            "segment"
        )
    wrong = ~(np.isfinite(counts) & (counts >= 1) & (counts == np.floor(counts)))
    if wrong.any():
        where = int(np.argmax(wrong))
        raise ValueError(
            f"candidates_per_segment[{where}] is {counts[where]:g}, required a whole number of at "
            "least 1: a segment that was not chosen counts 1"
        )
    return float(np.log(counts).sum())


def best_of_n_kl_estimate(log_probabilities: ArrayLike, n: int) -> Array:
    """Beirami's estimate of the KL of best-of-n, one value for each chosen response.

    With e the chosen response's probability under the policy and a = (1 - e)^n:
    `a * (ln n - (n-1)/n) + (1 - a) * ln((1 - a) / e)`. Its mean over chosen responses is never
    below the true KL (it exceeds `best_of_n_kl_bound`, which is not, by `-a * (n-1) * ln(1 - e)`
    and more). It may exceed the distribution-free `best_of_n_kl`: for ten equally likely responses
    and n = 4 it is 0.842 where the KL is 0.629, our bound 0.632 and the free bound 0.636. It is
    near where either the chosen responses are rare, or n is so large that the best response is
    nearly always found. It is here to compare with published numbers; report the bound.

    Args:
        log_probabilities: [P] of the responses that best-of-n chose, in nats.
        n: responses among which each was chosen.

    Returns:
        [P]; their mean estimates the KL, `bootstrap_interval` its interval.

    Raises:
        ValueError: n is below 1, or a log-probability is positive or not a number.

    Source: Beirami et al. 2024 (https://arxiv.org/abs/2401.01879), section 4.
    """
    logs, free = _log_probabilities(log_probabilities), best_of_n_kl(n)
    estimate = np.full(logs.shape, free)
    seen = logs > _NEGLIGIBLE
    missed, found = _miss_and_find(logs[seen], n)
    estimate[seen] = missed * free + found * (np.log(found) - logs[seen])
    return estimate


def best_of_n_kl_bound(log_probabilities: ArrayLike, n: int) -> Array:
    """Upper bound on the KL of best-of-n, from the likelihoods of the chosen responses.

    With e the chosen response's probability and a = (1 - e)^n:
    `ln((1 - a) / e) + (n - 1) * a / (1 - a) * ln(1 - e)`, between 0 and `best_of_n_kl(n)`.

    Why it bounds: give each response an interval of length e in [0, 1], ordered by score. Best-of-n
    is the largest of n uniform points, with KL `ln n - (n-1)/n` =: f, of which the KL inside the
    chosen interval is lost. The density n u^(n-1) varies the less inside an interval of length e
    the higher the interval lies, so at least what the topmost such interval would lose is lost:
    D(e) = f minus the expression above. A random choice among equal scores makes an interval of
    all of them, which is longer and loses more; the bound holds. It is exact where the best
    response takes all (n large, or e = 1) and in the limit of rare responses.

    Args:
        log_probabilities: [P] of the responses that best-of-n chose, in nats.
        n: responses among which each was chosen.

    Returns:
        [P]; the bound is on their mean over prompts and draws, not on each.

    Raises:
        ValueError: n is below 1, or a log-probability is positive or not a number.

    Source: ours; the argument refines Beirami et al. 2024, theorem 3.1.
    """
    logs, free = _log_probabilities(log_probabilities), best_of_n_kl(n)
    bound = np.full(logs.shape, free)
    seen = logs > _NEGLIGIBLE
    missed, found = _miss_and_find(logs[seen], n)
    # a * ln(1 - e) is 0 at e = 1, where the logarithm alone is not finite. A log-probability so
    # near 0 that e rounds to 1 is the same case.
    with np.errstate(divide="ignore"):
        rest = np.where(missed > 0, np.log1p(-np.exp(logs[seen])), 0.0)
    value = np.log(found) - logs[seen] + (n - 1) * missed / found * rest
    # For small e two terms of the size of ln n cancel; rounding must not leave the range.
    bound[seen] = np.clip(value, 0.0, free)
    return bound


def kl_lower_bound_from_ranks(
    pool_scores: ArrayLike,
    chosen_scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
    halvings: int | None = None,
) -> Interval:
    """Lower bound on KL(search || policy) from how the search's scores rank among the policy's.

    If the search were the policy, the rank of its score among N fresh samples would be uniform on
    N + 1 places. What is done to a response afterwards can only lose divergence (data processing),
    so for each prompt the KL is at least that of the rank from uniform; pooling the ranks of all
    prompts (the KL is convex) and counting them in cells lose more. The pool must be fresh samples
    of the policy, of which the search saw none: the best of the pool itself always ranks first,
    and the bound would be ln(N + 1) for any search. Any score may be ranked; the reward model
    that the search maximized loses least.

    **Ties.** Among k equal scores a response takes each of the k + 1 places with equal weight, the
    mean over all random orders, which keeps uniform ranks uniform.

    **Cells.** They are fixed beforehand: [0, 1/2), [1/2, 3/4), ... towards the best rank, each
    halved, with edges on whole ranks, as a search crowds its ranks at the top as 1/n. Halving stops
    where a cell is one rank or, if ranks were uniform, would hold fewer than four prompts: 11 cells
    at N = 64, P = 200.

    **Bias.** A histogram's own KL is too large by about (C - 1) / 2P, which Miller and Madow's
    correction takes off with C the cells seen; ties make a histogram calmer, and the correction
    shrinks with its variance. Measured for best-of-n at N = 64, P = 200, against
    the true ln n - (n - 1) / n (standard error 0.002, spread of one estimate in brackets):
    n = 1: +0.001 (0.012) of 0; n = 2: -0.02 (0.04) of 0.193; n = 4: -0.04 (0.06) of 0.636; n = 16:
    -0.12 (0.07) of 1.835; n = 64: -0.42 (0.07) of 3.174. Most of the loss at large n is the
    pool's: with ranks counted apart, 64 samples still hide 0.11 at n = 16 and 0.38 at n = 64, so
    take a pool several times as large as the factor looked for. No estimate exceeds ln(N + 1).

    The interval is the bootstrap's over prompts, reflected about the uncorrected estimate so that
    the resampling's own bias cancels. Estimate and ends may fall below 0 by noise: they are not
    cut off, so that means over runs stay means.

    Args:
        pool_scores: [P, N] scores of policy samples, independent of the search.
        chosen_scores: [P] scores of the search's answers to the same prompts.
        seed: of the resampling.
        confidence: coverage aimed at, in (0, 1); of the bound, not of the KL itself.
        resamples: number of bootstrap estimates.
        halvings: how often the cells halve towards the best rank; None chooses as above.

    Raises:
        ValueError: the shapes disagree, fewer than two prompts, an empty pool, a score that is not
            finite, or an argument out of range.

    Source: Cover and Thomas 2006, theorem 2.7.2 and section 2.8; Miller 1955 (the correction);
    rank histograms as in Talts et al. 2018. Their use as a bound on a search is ours.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, required inside (0, 1), such as 0.95")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, required at least 1")
    cells, widths = _rank_cells(pool_scores, chosen_scores, halvings)  # [P, C], [C]
    prompts = len(cells)
    plain = float(_cell_kl(cells.mean(0), widths))
    squares = cells**2
    estimate = plain - float(_excess(cells.mean(0), squares.mean(0), prompts))
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_VALUES // prompts)
    drawn: list[Array] = []
    for done in range(0, resamples, block):
        rows = min(block, resamples - done)
        counts = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=rows)
        shares = counts @ cells / prompts  # [rows, C]
        excess = _excess(shares, counts @ squares / prompts, prompts)
        drawn.append(_cell_kl(shares, widths) - excess)
    # In the resampled world the truth is `plain`: errors are measured from it.
    tail = (1.0 - confidence) / 2.0
    below_error, above_error = np.quantile(np.concatenate(drawn) - plain, [tail, 1.0 - tail])
    return Interval(estimate, float(estimate - above_error), float(estimate - below_error))


def kl_lower_bound_values(
    pool_scores: ArrayLike, chosen_scores: ArrayLike, *, halvings: int | None = None
) -> Array:
    """Values [P] whose mean is `kl_lower_bound_from_ranks`, prompt by prompt.

    For intervals over clusters of prompts or over seeds, which need the term of each prompt.
    They are the jackknife's of the uncorrected KL, less the correction, which hardly varies.

    Args:
        pool_scores: [P, N] scores of policy samples, independent of the search.
        chosen_scores: [P] scores of the search's answers to the same prompts.
        halvings: as there.

    Raises:
        ValueError: as there, of the arguments that both have.
    """
    cells, widths = _rank_cells(pool_scores, chosen_scores, halvings)
    excess = float(_excess(cells.mean(0), (cells**2).mean(0), len(cells)))
    return jackknife_values(lambda shares: _cell_kl(shares, widths), cells) - excess


def _rank_cells(
    pool_scores: ArrayLike, chosen_scores: ArrayLike, halvings: int | None
) -> tuple[Array, Array]:
    """Histogram of the ranks of chosen responses by prompt, [P, C], and the cells' widths, [C]."""
    pool = finite(pool_scores, "pool_scores", remedy=_REMEDY)
    chosen = finite(chosen_scores, "chosen_scores", remedy=_REMEDY)
    if pool.ndim != 2 or chosen.shape != pool.shape[:1] or chosen.size < 2 or not pool.shape[1]:
        raise ValueError(
            f"pool_scores has shape {list(pool.shape)} and chosen_scores {list(chosen.shape)}, "
            "required [P, N] and [P] for the same P >= 2 prompts and N >= 1"
        )
    prompts, size = pool.shape
    edges = _cell_edges(size + 1, prompts, halvings)  # [C + 1]
    below = (pool < chosen[:, None]).sum(1)
    tied = (pool == chosen[:, None]).sum(1)
    # Each response spreads over the places [below, below + tied + 1) of N + 1.
    reached = (edges * (size + 1) - below[:, None]) / (tied[:, None] + 1)
    cells = np.diff(np.clip(reached, 0.0, 1.0), axis=1)  # rows sum to 1
    return cells, np.diff(edges)


def _cell_edges(places: int, prompts: int, halvings: int | None) -> Array:
    """Edges [C + 1] of the cells in [0, 1], on multiples of one place."""
    if halvings is None:
        halvings = max(1, int(math.log2(max(2, min(places, prompts // _FEWEST_IN_A_CELL)))))
    if not 1 <= halvings <= 50:
        raise ValueError(
            f"halvings is {halvings}, required 1 to 50; None fits it to the pool and the prompts"
        )
    tops = 1.0 - 0.5 ** np.arange(halvings + 1)  # 0, 1/2, 3/4, ...
    middles = (tops[:-1] + tops[1:]) / 2
    wanted = np.concatenate([tops, middles, [1.0]])
    return np.unique(np.round(wanted * places)) / places


def _cell_kl(shares: Array, widths: Array) -> Array:
    """KL of cell shares [..., C] from the cells' widths [C]: [...]."""
    ratios = np.where(shares > 0, shares, widths) / widths
    return (shares * np.log(ratios)).sum(-1)


def _excess(shares: Array, squares: Array, prompts: int) -> Array:
    """By how much a histogram overstates its KL, to first order: half of sum Var(share) / share.

    Args:
        shares: [..., C] mean mass of each cell.
        squares: [..., C] mean squared mass, equal to `shares` where no mass is spread over cells;
            the sum is then the number of cells seen less one, as Miller and Madow have it.
        prompts: over how many the means are.

    Returns:
        [...], in nats.
    """
    seen = np.where(shares > 0, shares, 1.0)
    return (squares / seen - shares).sum(-1) / (2.0 * prompts)


def _miss_and_find(logs: Array, n: int) -> tuple[Array, Array]:
    """Probabilities (1 - e)^n and 1 - (1 - e)^n that n samples miss or hold a response."""
    with np.errstate(divide="ignore"):
        log_missed = n * np.log1p(-np.exp(logs))  # -inf at e = 1
    return np.exp(log_missed), -np.expm1(log_missed)


def _log_probabilities(values: ArrayLike) -> Array:
    logs = np.asarray(values, dtype=np.float64)
    wrong = ~(logs <= 0)
    if wrong.any():
        where = np.unravel_index(int(np.argmax(wrong)), logs.shape)
        raise ValueError(
            f"log_probabilities{[int(i) for i in where] if where else ''} is {logs[where]}, "
            "required at most 0: pass log-probabilities in nats, of whole responses"
        )
    return logs
