"""What the demo shows beyond the gains: over-optimization, examples and the fine-tuned policy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.evaluation.cells import BEST_OF_N, Cell, cell_row, summarize
from policies.evaluation.gain_fits import best_of_n_gains
from policies.evaluation.gain_format import interval_of, marked, scope_of
from policies.evaluation.gain_report import (
    BOOTSTRAP_SEED,
    add_gains,
    add_making,
    add_tree,
    records_of,
)
from prefsearch.report.page import Report
from prefsearch.run.directory import RunDirectory
from prefsearch.statistics.best_of_n import best_of_n_kl
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.json_text import json_text
from rewardmodel.synthetic.human import SimulatedHuman
from search.evaluation.figures import Curve, overoptimization

_STEPS = ("sft", "compare", "reward", "reward-few", "improve", "distill", "tuned")


def base_cells(run: RunDirectory) -> list[Cell]:
    """Every method on the base policy, planned against the main reward model."""
    found = records_of(run, policy="sft", reward_model="reward")
    return summarize(found, seed=BOOTSTRAP_SEED)


def closing_rows(run: RunDirectory) -> list[dict[str, Any]]:
    """The rows of the closing table, intervals as {estimate, low, high}."""
    rows = [{"policy": "base", **cell_row(cell)} for cell in base_cells(run)]
    tuned = summarize(records_of(run, policy="tuned"), seed=BOOTSTRAP_SEED)
    rows += [{"policy": "fine-tuned", **cell_row(cell)} for cell in tuned if cell.budget == "1"]
    rows += [{"policy": "fine-tuned", **cell_row(cell)} for cell in tuned if cell.budget == "16"]
    return json.loads(json_text(rows))


def _overoptimization_curves(run: RunDirectory) -> list[Curve]:
    """Gold and proxy gains of best-of-N against KL, for both reward models, in gold units."""
    drawn = []
    for name in ("reward", "reward-few"):
        pairs = (run.result(name) or {})["pairs"]
        records = records_of(run, policy="sft", reward_model=name, method=BEST_OF_N)
        budgets = sorted({int(record["budget"]) for record in records})
        gold, proxy = (best_of_n_gains(records, key) for key in ("gold", "proxy"))
        # A reward model has no unit: its scores are scaled to rise as the gold score does from
        # one sample to the best of two, where the two can hardly disagree yet.
        scale = gold[1].estimate / proxy[1].estimate
        scaled = best_of_n_gains(records, "proxy", scale=scale)
        for key, intervals in (("proxy", scaled), ("gold", gold)):
            drawn.append(
                Curve(
                    label=key,
                    cost=[best_of_n_kl(n) for n in budgets],
                    estimate=[i.estimate for i in intervals],
                    low=[i.low for i in intervals],
                    high=[i.high for i in intervals],
                    panel=f"{pairs} labels",
                )
            )
    return drawn


def _add_overoptimization(report: Report, run: RunDirectory) -> None:
    path = run.figures / "overoptimization.svg"
    overoptimization(
        _overoptimization_curves(run),
        path,
        title="Best-of-N against reward models of many and of few labels",
        y_label="gain over one sample, gold units",
    )
    report.section(
        "The model of the human can be over-optimized",
        "The same responses, chosen by a reward model trained on all labels and by one trained on "
        "few. Where proxy and gold part, the choice exploits the reward model's mistakes (Gao et "
        "al. 2022). Proxies are scaled to agree with gold at N = 2.",
    )
    report.figure(
        path,
        alt="Gain in gold and proxy score of best-of-N against the root of the KL bound, for both "
        "reward models",
        caption="Best-of-N above one sample, paired by prompt; the KL is the upper bound "
        f"ln N - (N - 1) / N. Bands are 95 % intervals {base_cells(run)[0].proxy.scope}.",
    )
    results = {name: run.result(name) or {} for name in ("reward", "reward-few")}
    report.table(
        [
            {
                "pairs": found["pairs"],
                "accuracy": interval_of(found["accuracy"]),
                "longer": interval_of(found["longer_reply_accuracy"]),
            }
            for found in results.values()
        ],
        {
            "pairs": "training pairs",
            "accuracy": "held-out accuracy",
            "longer": "choosing the longer reply",
        },
        caption="agreement with the human's noisy choices on held-out pairs; 95 % intervals over "
        "the pairs' prompts for these models of one seed",
    )


def _add_examples(report: Report, run: RunDirectory, human: SimulatedHuman, searched: Path) -> None:
    pool = json.loads((run.path / "data" / "pool.json").read_text(encoding="utf-8"))
    found = json.loads(searched.read_text(encoding="utf-8"))
    tuned = json.loads((run.path / "data" / "tuned.json").read_text(encoding="utf-8"))
    report.section("Examples", "The first three held-out prompts, not chosen.")
    for index, prompt in enumerate(pool["prompts"][:3]):
        shown = (
            (marked("base policy", pool["finished"][index][0]), pool["texts"][index][0]),
            (marked("tree search", found["finished"][index]), found["responses"][index]),
            (
                marked("fine-tuned, no search", tuned["finished"][index][0]),
                tuned["texts"][index][0],
            ),
        )
        report.examples(
            prompt,
            [(what, text, {"gold": round(human.utility(prompt, text), 2)}) for what, text in shown],
        )


def write_report(
    run: RunDirectory, config: Mapping[str, object], human: SimulatedHuman
) -> dict[str, Any]:
    """Writes `summary.json`, the figures and `report.html`."""
    rows = closing_rows(run)
    results = {name: run.result(name) or {} for name in _STEPS}
    write_json_atomic(run.path / "summary.json", {"rows": rows, "steps": results})
    searched = min(
        (run.path / "data").glob("search-gumbel_muzero-*.json"), key=lambda p: (len(p.name), p.name)
    )
    report = Report(
        "Planning against a learned model of the human",
        subtitle="prefsearch demo: the synthetic task and its simulated human",
    )
    add_gains(report, run, rows, base_cells(run))
    tuned = results["tuned"]
    report.section(
        "Fine-tuned on what search found",
        f"One round: {results['improve']['texts']} training prompts were searched and the policy "
        f"learned from the answers ({results['improve'].get('unfinished', 0)} of them cut off, "
        "which teach no end token). Without search it gains "
        f"{interval_of(tuned['gain_over_base'])} in gold utility over the base policy without "
        f"search (paired by prompt), at {interval_of(tuned['kl_to_base'])} nats of KL from it "
        f"(95 % intervals {scope_of([tuned['gain_over_base']])}).",
    )
    _add_overoptimization(report, run)
    _add_examples(report, run, human, searched)
    add_tree(report, run, searched)
    add_making(report, run, configuration=config, human=human.describe(), steps=results)
    report.write(run.report)
    return {"cells": len(rows)}
