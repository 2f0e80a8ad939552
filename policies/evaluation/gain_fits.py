"""Divergence of searches from the policy, and laws fitted to curves of gains.

A fit summarizes the budgets that were measured and is drawn over these alone; one that the data do
not bear out is shown as refused, with the reason.
"""

import contextlib
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from policies.evaluation.cells import (
    BEST_OF_N,
    Array,
    Cell,
    Record,
    best_of_n_clusters,
    best_of_n_scores,
)
from prefsearch.report.page import Report
from prefsearch.run.directory import RunDirectory
from prefsearch.statistics.intervals import Interval
from prefsearch.statistics.seed_intervals import SeedInterval, interval_over_seeds
from search.evaluation.figures import Curve, overoptimization
from search.evaluation.scaling import (
    BestOfNFit,
    FitRefusedError,
    best_of_n_coefficients,
    fit_best_of_n,
    fit_log_linear,
)

_DIVERGENCE = {
    "method": "method, budget",
    "low": "lower bound by ranks",
    "tight": "upper bound by probabilities",
    "kl": "upper bound",
    "estimate": "estimate by probabilities",
}
_FITS = {
    "method": "method",
    "score": "score",
    "law": "law",
    "value": "fitted",
    "r_squared": "r²",
    "range": "measured range",
}


def fit_rows(cells: Sequence[Cell], records: Sequence[Record]) -> list[dict[str, object]]:
    """Fits every method's curve: score over log tokens, and best-of-N's over its KL.

    Args:
        cells: Of one policy.
        records: That the cells summarize; intervals of the best-of-N law are over their seeds, or
            over the prompts of one.

    Returns:
        A row a method, score and law. `value` is the fit in words, or why it was refused.
    """
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        line = [cell for cell in cells if cell.method == method]
        for score in ("gold", "proxy"):
            intervals: list[Interval | None] = [getattr(cell, score) for cell in line]
            means = [interval.estimate for interval in intervals if interval is not None]
            if len(means) == len(line):
                rows.append({"method": method, "score": score, **_log_linear(line, means)})
                if method == BEST_OF_N:
                    scores = best_of_n_scores(records, score)
                    found = _best_of_n(line, scores, best_of_n_clusters(records))
                    rows.append({"method": method, "score": score, **found})
    return rows


def add_divergence(report: Report, cells: Sequence[Cell], names: Sequence[str]) -> None:
    """Adds the section on how far each method goes from the policy.

    Args:
        report: The page.
        cells: Of one policy.
        names: Of the cells, as other tables call them.
    """
    report.section(
        "How far from the policy",
        "The KL divergence of a method's answers from the policy's own, in nats a response. A "
        "search has no density to compute it from, so it is bracketed. From above by what was "
        "drawn: an answer picked among K samples, or step by step among K each, is at most so many "
        "times as likely as under the policy. From below by how the answers' proxy scores rank "
        "among fresh samples of the policy, with a 95 % interval over seeds or over the prompts of "
        "one; no such bound exceeds the log of the pool's size plus one. For best-of-N, "
        "ln N − (N − 1)/N is exact unless responses repeat; the bound and the estimate (Beirami "
        "et al. 2024) by probabilities know how likely the chosen responses were. Ranked tokens, "
        "as in controlled decoding, are no samples, so no bound holds for a search over them.",
    )
    rows = [
        {
            "method": name,
            "low": _rounded(cell.kl_low),
            "tight": _rounded(cell.kl_tight),
            "kl": cell.kl,
            "estimate": _rounded(cell.kl_estimate),
        }
        for name, cell in zip(names, cells, strict=True)
    ]
    report.table(rows, _DIVERGENCE, caption="KL from the policy, nats a response")


def add_fits(
    report: Report, run: RunDirectory, cells: Sequence[Cell], records: Sequence[Record]
) -> None:
    """Adds the section on fitted laws, with best-of-N over its KL drawn; see `fit_rows`."""
    scope = cells[0].proxy.scope
    report.section(
        "Fitted laws",
        "Two laws, fitted to means over prompts: a score that grows by the same step with every "
        "doubling of generated tokens; and for best-of-N, gain = d (α − β d) with d the root of "
        "the KL (Gao et al. 2022), whose peak shows where more samples begin to harm. They hold "
        "for the measured range only. A law that needs more points, or has no peak, is refused. "
        f"Intervals are 95 %, {scope}.",
    )
    report.table(fit_rows(cells, records), _FITS, caption="fits, and fits that were refused")
    target = "gold" if all(cell.gold is not None for cell in cells) else "proxy"
    line = [cell for cell in cells if cell.method == BEST_OF_N]
    if len(line) < 2:
        return
    intervals = best_of_n_gains(records, target)
    curve = Curve(
        label=target,
        cost=[cell.kl or 0.0 for cell in line],
        estimate=[i.estimate for i in intervals],
        low=[i.low for i in intervals],
        high=[i.high for i in intervals],
        panel=BEST_OF_N,
    )
    fits: dict[tuple[str, str], BestOfNFit] = {}
    with contextlib.suppress(FitRefusedError):  # shown in the table
        fits[BEST_OF_N, target] = fit_best_of_n(curve.cost, curve.estimate)
    path = run.figures / "best_of_n.svg"
    overoptimization(
        [curve], path, title="Best-of-N against its distance from the policy", fits=fits
    )
    last = float(np.asarray(curve.estimate)[-1])
    report.figure(
        path,
        alt=f"The {target} score of best-of-{line[-1].budget} lies {last:+.2f} from one sample's",
        caption="Gain over one sample, paired by prompt; dotted: the fitted law, over the measured "
        f"range. Bands are 95 % intervals {scope}.",
    )


def best_of_n_gains(
    records: Sequence[Record], key: str, *, scale: float = 1.0
) -> list[SeedInterval]:
    """Best-of-N above one sample, paired by prompt: an interval for each N in growing order.

    Args:
        records: Of best-of-N among others, at N = 1, too.
        key: Which score, gold or proxy.
        scale: What gains are multiplied by.
    """
    scores = best_of_n_scores(records, key)
    gains = [scale * (one - one[:, :1]) for one in scores.values()]  # [P, L] each
    clusters = best_of_n_clusters(records)
    return [
        interval_over_seeds([gain[:, step] for gain in gains], clusters=clusters, kind="score")
        for step in range(gains[0].shape[1])
    ]


def _rounded(interval: Interval | None) -> Interval | None:
    """An interval to the milli-nat; where prompts hardly differ it would be shown to the 12th."""
    if interval is None:
        return None
    return Interval(*(round(v, 3) for v in (interval.estimate, interval.low, interval.high)))


def _log_linear(line: Sequence[Cell], means: Sequence[float]) -> dict[str, object]:
    law = "a + b ln(tokens)"
    try:
        fit = fit_log_linear([cell.tokens for cell in line], means)
    except FitRefusedError as error:
        return {"law": law, "value": f"refused: {error}", "r_squared": None, "range": None}
    return {
        "law": law,
        "value": f"{fit.slope * math.log(2):+.3f} a doubling",
        "r_squared": None if math.isnan(fit.r_squared) else round(fit.r_squared, 3),
        "range": f"{fit.lowest:.0f} to {fit.highest:.0f} tokens",
    }


def _best_of_n(
    line: Sequence[Cell],
    scores: Mapping[Hashable, Array],
    clusters: Sequence[Sequence[Hashable]] | None,
) -> dict[str, object]:
    """Fits the law to each seed's per-prompt scores [P, L] of best-of-N at the cells' budgets."""
    law = "d (α − β d)"
    kl = [cell.kl or 0.0 for cell in line]
    try:
        fit = fit_best_of_n(kl, np.mean([one.mean(0) for one in scores.values()], axis=0))
        fitted = [best_of_n_coefficients(kl, one) for one in scores.values()]  # [2, P] each
    except FitRefusedError as error:
        return {"law": law, "value": f"refused: {error}", "r_squared": None, "range": None}
    alpha, beta = (
        interval_over_seeds([one[i] for one in fitted], clusters=clusters, kind="score")
        for i in (0, 1)
    )
    try:
        peak = fit.peak()
        where = "a guess beyond the range" if peak.extrapolated else "within the range"
        note = f"peak {peak.gain:+.3f} at n = {peak.best_of_n:.0f}, {where}"
        if beta.low <= 0:
            note += "; β may be 0, and then there is none"
    except FitRefusedError as error:
        note = f"peak refused: {error}"
    return {
        "law": law,
        "value": f"α {_rounded(alpha)}, β {_rounded(beta)}; {note}",
        "r_squared": None if math.isnan(fit.r_squared) else round(fit.r_squared, 3),
        "range": f"KL 0 to {fit.farthest**2:.2f} nats",
    }
