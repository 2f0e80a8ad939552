"""The figure of `benchmarks/atari/cpu.py`: returns during training, and by search budget."""

# pyright: reportUnknownMemberType=false
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.worker import Json
from prefsearch.report.plotting import FAINT, PALETTE, label_text, open_canvas


def budget_curves(
    runs: Sequence[Json], path: str | os.PathLike[str], *, title: str
) -> tuple[Path, Path]:
    """Draws, beside each other, returns while training and the trained agent's by search budget.

    Actions are sampled everywhere, from what the search found or from the policy.

    Args:
        runs: One a training seed, each with a `curve` of evaluations and final `evaluations` by
            name, "search, N simulations, sampled" among them.
        path: Where to write; PNG and SVG.
        title: Over the figure.

    Returns:
        Paths of the PNG and the SVG.
    """
    with open_canvas(9.6, 4.4) as (figure, save):
        left, right = figure.subplots(1, 2)
        budgets: list[int] = []
        for rank, run in enumerate(runs):
            color = PALETTE[rank % len(PALETTE)]
            label = f"training seed {run['training_seed']}"
            rows = [row for row in run["curve"] if "sampled_return" in row]
            frames = [row["frames"] for row in rows]
            low = [row["sampled_return"]["low"] for row in rows]
            high = [row["sampled_return"]["high"] for row in rows]
            left.fill_between(frames, low, high, color=color, alpha=0.15, linewidth=0)
            means = [row["sampled_return"]["estimate"] for row in rows]
            left.plot(frames, means, color=color, marker="o", markersize=4, label=label)
            points = sorted(
                (value["simulations"], value["interval"])
                for name, value in run["evaluations"].items()
                if name.startswith("search") and name.endswith("sampled")
            )
            budgets = [budget for budget, _ in points]
            errors = [
                [at["estimate"] - at["low"] for _, at in points],
                [at["high"] - at["estimate"] for _, at in points],
            ]
            right.errorbar(
                budgets,
                [at["estimate"] for _, at in points],
                yerr=errors,
                color=color,
                marker="o",
                markersize=4,
                capsize=2,
            )
            policy = run["evaluations"]["policy, sampled"]["interval"]["estimate"]
            right.axhline(policy, color=color, linestyle="--", linewidth=1)
        chance = runs[0]["evaluations"]["random"]["interval"]["estimate"]
        for axis in (left, right):
            axis.axhline(chance, color=FAINT, linestyle=":", linewidth=1.2)
        left.set_xlabel("thousand emulator frames of training")
        left.xaxis.set_major_formatter(lambda frames, _: f"{frames / 1000:g}")
        left.set_ylabel("return of a game, 95 % over each seed's games")
        left.set_title("on the way", fontsize="medium")
        left.legend()
        right.set_xscale("log", base=2)
        right.set_xticks(budgets, [str(budget) for budget in budgets])
        right.set_xlabel("simulations a decision")
        right.set_title("trained; dashed: the policy alone, dotted: random", fontsize="medium")
        figure.suptitle(label_text(title))
        return save(path)
