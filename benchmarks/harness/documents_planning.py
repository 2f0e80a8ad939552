"""Figures of the planning core: times beside peers, several leaves a step."""

from collections.abc import Sequence

from benchmarks.harness.documents_numbers import cores_of, digits, span, table
from benchmarks.harness.worker import Json

OURS, MCTX, LIGHTZERO = "prefsearch", "mctx", "lightzero"
SHOWN = (
    # Trees, actions, simulations; both algorithms
    (256, 18, 200),
    (256, 18, 50),
    (1024, 18, 50),
    (16, 64, 200),
    (1, 18, 50),
)
SHOWN_GUMBEL = ((1, 18, 800), (1, 6, 16))


def planning_core(results: Json) -> list[str]:
    """The table of chosen cells, and how many comparisons are lost."""
    cells = {
        (row["algorithm"], row["batch"], row["actions"], row["simulations"]): row
        for row in results["cells"]
    }
    keys = [(algorithm, *shape) for shape in SHOWN for algorithm in ("muzero", "gumbel")]
    keys += [("gumbel", *shape) for shape in SHOWN_GUMBEL]
    rounds = results["provenance"]["rounds"]
    rows = []
    for key in keys:
        row = cells.get(key)
        if row is None or "median" not in row["sides"][OURS]:
            continue
        ours = row["sides"][OURS]
        spread = f"{digits(ours['median'])} [{digits(ours['min'])}, {digits(ours['max'])}]"
        rows.append(
            [
                *map(str, key),
                spread + _rounds(ours, rounds, " ({})"),
                *(_peer(row, peer, rounds) for peer in (MCTX, LIGHTZERO)),
            ]
        )
    return [
        "Against mctx (XLA) and LightZero's C++ trees, the same small model on all sides, "
        f"timed in turn in one run on {cores_of(results['provenance'])}, compilation apart; "
        f"{len(results['cells'])} cells in all. Milliseconds a search, medians of {rounds} "
        "rounds [range]; in brackets how many times as long as ours. A side that needed "
        f"more than {results['settings']['budget_seconds']:g} seconds for a cell has fewer "
        "rounds, and the table states how many:",
        table(
            ("search", "trees", "actions", "simulations", "prefsearch", "mctx", "LightZero"), rows
        ),
        _losses(results),
        "![Batched tree search, ms over simulations](docs/results/planning_core.png)",
    ]


def _rounds(side: Json, usual: int, form: str) -> str:
    """The number of rounds where it is not the usual one."""
    count = len(side["milliseconds"])
    return "" if count == usual else form.format(f"{count} round{'s' * (count > 1)}")


def _peer(row: Json, peer: str, rounds: int) -> str:
    side = row["sides"].get(peer, {})
    if "median" not in side:
        return "skipped"
    few = _rounds(side, rounds, ", {}")
    return f"{digits(side['median'])} ({row['ratios'][peer]['of_medians']:.2g}×{few})"


def _losses(results: Json) -> str:
    """How many comparisons are lost, and where mctx is ahead."""
    comparisons = [ratio for row in results["cells"] for ratio in row["ratios"].values()]
    losses: Sequence[Json] = results["losses"]
    small = [loss for loss in losses if " B1 " in loss["cell"] or loss["cell"].endswith(" S16")]
    single = [
        1 / row["ratios"][MCTX]["of_medians"]
        for row in results["cells"]
        if (row["algorithm"], row["batch"]) == ("gumbel", 1)
        and row["simulations"] <= 50
        and MCTX in row["ratios"]
    ]
    ahead = (
        ""
        if not single
        else "With one tree and up to 50 simulations mctx's Gumbel search is "
        f"{span(single, '.1f')} times as fast. "
    )
    return (
        f"Ours loses {len(losses)} of {len(comparisons)} comparisons "
        f"({sum(not loss['decided'] for loss in losses)} of them within the rounds' range), "
        f"{len(small)} of them with one tree or with 16 simulations: what is left there is the "
        "price of calling torch and Python once a simulation, which XLA does not pay. "
        f"{ahead}LightZero's Gumbel search is not the published algorithm, hence a reference for "
        "speed only."
    )


def leaves_per_step(results: Json) -> list[str]:
    """Time and regret of several leaves a step."""
    settings = results["settings"]
    speed = {(row["planner"], row["leaves_per_step"]): row for row in results["time"]}
    regret = {(row["planner"], row["leaves_per_step"]): row for row in results["regret"]}
    rows = []
    for key, fast in speed.items():
        mean, low, high = regret[key]["regret"]
        rows.append(
            [
                key[0],
                str(key[1]),
                f"{fast['milliseconds']:.1f} [{fast['range'][0]:.1f}, {fast['range'][1]:.1f}]",
                f"{fast['times_as_fast']:.2f}",
                f"{mean:.3f} [{low:.3f}, {high:.3f}]",
            ]
        )
    return [
        "`leaves_per_step` is for one tree and a large network. Time: a network of 64 channels "
        f"of 6 × 6 on the CPU, {settings['simulations']} simulations, medians over "
        f"{settings['rounds']} rounds [range]. Regret: {settings['worlds']:,} random MDPs "
        "at the same number of simulations, 95 % intervals over MDPs:",
        table(("search", "leaves a step", "ms a search", "times as fast", "regret"), rows),
    ]
