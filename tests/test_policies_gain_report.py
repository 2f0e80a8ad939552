"""Reports say what lost, what was refused and what nobody measured."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policies.evaluation.cells import cell_row, summarize
from policies.evaluation.gain_fits import best_of_n_gains, fit_rows
from policies.evaluation.gain_format import method_name, scope_of, show_interval, verdict
from policies.evaluation.gain_report import add_costs, add_gains
from policies.evaluation.pooled import Pool
from prefsearch.report.page import Report
from prefsearch.run.directory import RunDirectory
from prefsearch.statistics.best_of_n import best_of_n_kl
from prefsearch.statistics.intervals import wilson_interval
from prefsearch.statistics.seed_intervals import interval_over_seeds


def record(method: str, budget: int, prompt: int, score: float, tokens: float) -> dict[str, Any]:
    return {
        "method": method, "budget": str(budget), "prompt": prompt, "gold": score, "proxy": score,
        "tokens": tokens, "forward_tokens": 2 * tokens, "scored_tokens": tokens, "seconds": 0.1,
    }  # fmt: skip


def best_of_n_rows(scores: dict[int, float]) -> list[dict[str, Any]]:
    return [
        record("best-of-N", n, p, score + 0.1 * p, 100 * n)
        for n, score in scores.items()
        for p in range(3)
    ]


RISING = best_of_n_rows({1: 0.0, 2: 1.0, 4: 2.0, 8: 3.0})


def page_of(rows: list[dict[str, Any]], folder: Path) -> str:
    run = RunDirectory.open(folder, {}, resume=False)
    cells = summarize(rows, seed=0)
    shown = [{"policy": "policy", **cell_row(cell)} for cell in cells]
    report = Report("x")
    add_gains(report, run, shown, cells)
    add_costs(report, run, shown, cells)
    return report.html()


def test_a_method_that_loses_is_in_every_table_with_its_loss(tmp_path: Path) -> None:
    losing = [record("MCTS", 4, p, -1.0, 200) for p in range(3)]
    winning = [record("beam search", 4, p, 9.0 + 0.2 * p, 200) for p in range(3)]
    beyond = [record("DVTS", 4, p, 5.0, 9000) for p in range(3)]
    page = page_of(RISING + losing + winning + beyond, tmp_path / "run")
    for name, word in (("MCTS, 4", "loses"), ("beam search, 4", "gains")):
        rows = [row for row in page.split("<tr>") if f">{name}<" in row]
        assert len(rows) == 2, "of gains and of costs"
        assert all(f">{word}<" in row for row in rows)
    unknown = [row for row in page.split("<tr>") if ">DVTS, 4<" in row]
    assert all("loses" not in row and "gains" not in row for row in unknown)
    for name in ("gains", "gains_model_tokens"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 1000


def test_records_without_counted_reading_draw_no_second_figure(
    tmp_path: Path, undrawn: None
) -> None:
    rows = [{k: v for k, v in r.items() if k != "forward_tokens"} for r in RISING]
    page_of(rows, tmp_path / "run")
    assert not (tmp_path / "run" / "figures" / "gains_model_tokens.png").exists()


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.2, "gains"), (-0.2, -0.1, "loses"), (-0.1, 0.1, "is undecided")],
)
def test_an_interval_is_put_in_a_word(low: float, high: float, word: str) -> None:
    assert verdict({"estimate": (low + high) / 2, "low": low, "high": high}) == word
    assert verdict(None) is None


def two_seeds() -> list[dict[str, Any]]:
    """A second seed whose every score lies 5 higher and whose MCTS gains 1.0 instead of 0.5."""
    rows = [{**row, "run": "a"} for row in RISING]
    rows += [{**row, "run": "b", "gold": row["gold"] + 5, "proxy": row["proxy"] + 5}
             for row in RISING]  # fmt: skip
    for run, score in (("a", 1.5), ("b", 7.0)):
        # Prompts come in any order.
        for p in (2, 0, 1):
            rows.append({**record("MCTS", 4, p, score + 0.1 * p, 200), "run": run})
    return rows


def test_seeds_are_held_against_their_own_best_of_n_and_weigh_the_same() -> None:
    cells = {(cell.method, cell.budget): cell for cell in summarize(two_seeds(), seed=0)}
    gain = cells["MCTS", "4"].gain_at_equal_tokens
    assert gain.by_seed == pytest.approx((0.5, 1.0))
    half = stats.t.ppf(0.975, 1) * 0.25
    assert (gain.low, gain.high) == pytest.approx((0.75 - half, 0.75 + half))
    proxy = cells["best-of-N", "2"].proxy
    assert (proxy.by_seed, proxy.unit) == (pytest.approx((1.1, 6.1)), "seeds")
    assert proxy.scope == "over 2 seeds of 3 prompts"


def test_runs_of_unlike_numbers_of_prompts_weigh_the_same_in_costs_as_in_scores() -> None:
    rows = [{**record("best-of-N", 1, p, 1.0, 100.0), "run": "a"} for p in range(4)]
    rows += [{**record("best-of-N", 1, p, 4.0, 400.0), "run": "b"} for p in range(2)]
    (cell,) = summarize(rows, seed=0)
    assert cell.proxy.estimate == 2.5
    assert (cell.tokens, cell.forward_tokens) == (250.0, 500.0)


def test_records_without_a_cluster_share_none_with_another_run() -> None:
    rows = [{**record("best-of-N", 1, p, float(p**2), 100.0), "run": run}
            for run in "ab" for p in range(3)]  # fmt: skip
    for row in rows[:3]:
        row["cluster"] = f"x{row['prompt']}"
    rows[3]["cluster"] = "x0"
    (cell,) = summarize(rows, seed=0)
    assert cell.proxy.shared == 1, "the one that both runs name"
    for row in rows[:3]:
        del row["cluster"]
    (cell,) = summarize(rows, seed=0)
    assert cell.proxy.shared == 0


def test_a_share_of_right_answers_has_wilsons_interval() -> None:
    rows = [{**record("best-of-N", 1, p, 1.0, 100.0), "pass_at_k": 1.0} for p in range(8)]
    (cell,) = summarize(rows, seed=0)
    assert cell.gold is not None
    assert cell.pass_at_k is not None
    wilson = wilson_interval(8, 8)
    for found in (cell.gold, cell.pass_at_k):
        assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
    assert cell.proxy.unknown, "scores that happen to be 1"
    assert show_interval(cell_row(cell)["proxy"]) == "1.00"


def test_equal_seeds_and_equal_gains_decide_nothing(tmp_path: Path) -> None:
    rows = [*RISING, *(record("MCTS", 4, p, 9.0 + 0.1 * p, 200) for p in range(3))]
    for made in (rows, [{**row, "run": run} for row in rows for run in "ab"]):
        cell = next(cell for cell in summarize(made, seed=0) if cell.method == "MCTS")
        assert verdict(cell_row(cell)["gain_at_equal_tokens"]) == "is undecided"
        assert cell.gain_at_equal_tokens.p_value == 1.0


def test_a_caption_names_equal_values_where_all_are() -> None:
    equal, varying = interval_over_seeds([[2.0] * 3]), interval_over_seeds([[1.0, 2.0, 4.0]])
    assert scope_of([equal, varying]) == varying.scope
    assert "all values are equal" not in varying.scope
    assert scope_of([equal, None]).endswith("all values are equal, so the interval is unknown")


def test_prompts_of_one_cluster_count_once_in_scores_and_gains() -> None:
    rows = [{**row, "cluster": row["prompt"] // 2} for row in RISING]
    rows += [{**record("MCTS", 4, p, 2.0 + p**2, 200), "cluster": p // 2} for p in range(3)]
    found = summarize(rows, seed=0)
    cell = next(cell for cell in found if cell.method == "MCTS")
    assert cell.gold is not None
    for interval in (cell.gold, cell.proxy, cell.gain_at_equal_tokens):
        assert (interval.clusters, interval.degrees) == ((2,), 1)
    assert "in 2 clusters of one seed" in cell.gain_at_equal_tokens.scope
    # Over seeds on the same clusters, what these bring to both is added.
    both = [{**row, "run": run} for row in rows for run in "ab"]
    gain = next(cell for cell in summarize(both, seed=0) if cell.method == "MCTS")
    assert gain.gain_at_equal_tokens.shared == 2
    assert gain.gain_at_equal_tokens.standard_error > 0


def test_records_of_other_prompts_are_not_paired() -> None:
    rows = RISING + [record("MCTS", 4, p, 1.0, 200) for p in range(3, 6)]
    with pytest.raises(ValueError, match="evaluate all methods on the same prompts"):
        summarize(rows, seed=0)


def test_a_seed_that_best_of_n_does_not_reach_leaves_no_gain() -> None:
    rows = [row for row in two_seeds() if row["method"] == "best-of-N"]
    rows += [{**record("MCTS", 4, p, 1.0, t), "run": run}
             for run, t in (("a", 200), ("b", 9000)) for p in range(3)]  # fmt: skip
    cell = next(cell for cell in summarize(rows, seed=0) if cell.method == "MCTS")
    assert cell.gain_at_equal_tokens is None, "to drop the dear seed would be to choose"


def pool_of(scores: Iterable[Iterable[float]]) -> Pool:
    """Eight samples to a prompt, with scores of the reward model."""
    rest = {
        "texts": [""] * 8, "gold": None, "tokens": [1] * 8, "log_probabilities": [0.0] * 8,
        "prompt_tokens": None, "scored_tokens": 0, "seconds": 0.0,
    }  # fmt: skip
    return Pool.of([{**rest, "proxy": list(row)} for row in scores])


def test_each_seeds_answers_are_ranked_among_its_own_samples() -> None:
    # Answers of every seed lie in the middle of its own pool, and far beyond the other's.
    rows = [{**record("MCTS", 4, p, level, 200), "run": run, "finished": True}
            for run, level in (("a", 0.0), ("b", 100.0)) for p in range(40)]  # fmt: skip
    pools = {run: pool_of([[level + i - 3.5 for i in range(8)]] * 40)
             for run, level in (("a", 0.0), ("b", 100.0))}  # fmt: skip
    (cell,) = summarize(rows, seed=0, pool=pools)
    alone = summarize([row for row in rows if row["run"] == "a"], seed=0, pool=pools)[0]
    assert cell.kl_low.estimate == pytest.approx(alone.kl_low.estimate)
    assert cell.kl_low.unit == "seeds"
    assert cell.kl_low.prompts == (40, 40)


def test_the_lower_bound_of_the_kl_counts_shared_prompts_and_clusters() -> None:
    generator = np.random.default_rng(0)
    rows, pools = [], {}
    for run in "ab":
        scores = generator.normal(size=(40, 8))
        pools[run] = pool_of(scores)
        # Answers to the prompts of even number are good in both runs.
        rows += [{**record("MCTS", 4, p, 2.0 * (p % 2) + generator.normal(), 200), "run": run,
                  "finished": True, "cluster": p} for p in range(40)]  # fmt: skip
    (cell,) = summarize(rows, seed=0, pool=pools)
    assert cell.kl_low.shared == 40
    assert cell.kl_low.shared_error > 0
    alone = [{**row, "cluster": row["prompt"] // 4} for row in rows if row["run"] == "a"]
    (one,) = summarize(alone, seed=0, pool=pools)
    assert one.kl_low.clusters == (10,)
    assert one.kl_low.estimate == pytest.approx(cell.kl_low.by_seed[0])


def test_gains_over_one_sample_are_paired_by_prompt_and_none_for_one_sample() -> None:
    gains = best_of_n_gains(RISING, "gold")
    assert [g.estimate for g in gains] == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-9)
    assert gains[3].unknown, "the same at every prompt"
    # Levels differ by seed, gains do not.
    over = best_of_n_gains(two_seeds(), "gold", scale=2.0)
    assert over[1].by_seed == pytest.approx((2.0, 2.0))
    assert over[1].scope.startswith("over 2 seeds of 3 prompts; the seeds do not differ")


def test_a_page_of_one_seed_names_what_is_unknown(tmp_path: Path, undrawn: None) -> None:
    mcts = [record("MCTS", 4, p, -1.0, 200) for p in range(3)]
    page = page_of(RISING + mcts, tmp_path / "one")
    assert page.count("over 3 prompts of one seed; nothing is known of other seeds") >= 4
    assert "1 comparison, each at 95 %: 0 gain, 1 lose, 0 undecided" in page
    page = page_of(two_seeds(), tmp_path / "two")
    assert page.count("over 2 seeds of 3 prompts") >= 4
    assert "nothing is known" not in page


def fits_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = fit_rows(summarize(rows, seed=0), rows)
    return {(row["method"], row["score"], row["law"]): row for row in found}


def test_laws_are_fitted_where_there_are_points_enough_and_refused_elsewhere() -> None:
    two = [record("MCTS", n, p, 1.0, 50 * n) for n in (2, 4) for p in range(3)]
    fits = fits_of(RISING + two)
    line = fits["best-of-N", "gold", "a + b ln(tokens)"]
    assert line["value"] == "+1.000 a doubling"
    assert line["range"] == "100 to 800 tokens"
    assert line["r_squared"] == 1
    refused = fits["MCTS", "proxy", "a + b ln(tokens)"]
    assert refused["value"].startswith("refused: found 2 distinct cost(s)")
    assert refused["range"] is None
    assert ("MCTS", "gold", "d (α − β d)") not in fits, "the law is best-of-N's"


def test_over_optimization_has_a_peak_and_its_absence_is_a_refusal() -> None:
    budgets = (1, 2, 4, 8, 16, 64)
    distance = {n: best_of_n_kl(n) ** 0.5 for n in budgets}
    falling = best_of_n_rows({n: d * (2.0 - d) for n, d in distance.items()})
    found = fits_of(falling)["best-of-N", "gold", "d (α − β d)"]["value"]
    assert found.startswith("α 2 [2, 2], β 1 [1, 1]; peak +1.000 at n = ")
    assert found.endswith("within the range")
    straight = best_of_n_rows({n: 2.0 * d for n, d in distance.items()})
    found = fits_of(straight)["best-of-N", "gold", "d (α − β d)"]["value"]
    assert "peak refused" in found or "β may be 0" in found


def test_methods_are_named_with_their_budgets() -> None:
    named = [method_name({"method": m, "budget": b}) for m, b in (("best-of-N", "1"),
             ("best-of-N", "4"), ("weighted best-of-N", "4"))]  # fmt: skip
    assert named == ["no search", "best-of-4", "weighted best-of-N, 4"]
    assert json.dumps(cell_row(summarize(RISING, seed=0)[0])), "cells go into JSON"
