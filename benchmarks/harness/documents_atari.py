"""Figures of games: UpNDown, CartPole, the true simulator, speed, compiling."""

from collections.abc import Sequence

from benchmarks.harness.documents_numbers import cores_of, digits, interval, listed, span, table
from benchmarks.harness.worker import Json

RANDOM, POLICY, ONE_PROCESS = "random", "policy, sampled", "lightzero, one process"


def _agent(name: str) -> str:
    """An evaluation's name in words."""
    if name == RANDOM:
        return name
    sampled = name.endswith(", sampled")
    base = name.removesuffix(", sampled").removesuffix(", best action")
    base = "the policy alone" if base == "policy" else base
    return f"{base}, {'sampled' if sampled else 'best action'}"


def cpu_in_short(results: Json) -> list[str]:
    """The README's sentence on UpNDown."""
    own, runs = results["over_seeds"], results["runs"]
    headline, gain = results["headline"], results["above"][POLICY][results["headline"]]
    minutes = span((run["training_seconds"] / 60 for run in runs), ".0f")
    return [
        f"In {results['game']}, after {minutes} minutes on {cores_of(results['provenance'])}, "
        f"games of at most {results['most_decisions']:,} decisions bring "
        f"{interval(own[headline], ',.0f')} points with a {headline}; "
        f"{interval(own[POLICY], ',.0f')} by the same network's policy alone and "
        f"{interval(own[RANDOM], ',.0f')} at random (means over {len(runs)} training seeds, "
        f"{_games(results)} games each; the search gains {interval(gain, ',.0f')}; intervals "
        "are Student's over seeds)."
    ]


def cpu(results: Json) -> list[str]:
    """UpNDown: every agent over training seeds."""
    own, runs = results["over_seeds"], results["runs"]
    above = results["above"][POLICY]
    headline = results["headline"]
    rows = [
        [
            f"**{_agent(name)}**" if name == headline else _agent(name),
            interval(found, ",.0f"),
            ", ".join(f"{value:,.0f}" for value in found["by_seed"]),
            interval(above[name], ",.0f", sign=True) if name in above and name != RANDOM else "",
            f"{100 * found['human_normalized']:.0f} %",
        ]
        for name, found in own.items()
    ]
    return [
        f"{runs[0]['decisions']:,} decisions ({runs[0]['frames']:,} frames) and "
        f"{runs[0]['updates']:,} updates in "
        f"{span((run['training_seconds'] / 60 for run in runs), '.0f')} minutes a seed, on "
        f"{cores_of(results['provenance'])}. Then {_games(results)} games of at most "
        f"{results['most_decisions']:,} decisions for each row, on games of each seed's own; "
        f"intervals: {results['interval']}. The row in bold was chosen beforehand, on another "
        "seed.",
        table(("agent", "return", "by seed", "above the policy alone", "of human"), rows),
        "The row in bold is above random by "
        f"{interval(results['above'][RANDOM][headline], ',.0f')}. Beside the policy alone, "
        f"sampled: {results['verdicts'][POLICY]} {results['power']}",
        "![Returns while training and by search budget](results/atari_cpu.png)",
    ]


def _games(results: Json) -> int:
    return len(results["runs"][0]["evaluations"][RANDOM]["returns"])


def cartpole(results: Json) -> list[str]:
    """CartPole: mean length of games while training."""
    rows = [
        [
            f"{row['decisions']:,}",
            *(interval(row[f"{how}_return"], ".0f") for how in ("search", "sampled", "policy")),
            ", ".join(f"{length:.0f}" for length in row["search_return"]["by_seed"]),
        ]
        for row in results["curve"]
    ]
    return [
        f"CartPole, {len(results['by_seed'])} seeds, {results['games']} games an evaluation, "
        "intervals over seeds (Student's t); a game lasts at most 500 steps:\n\n"
        + table(
            (
                "decisions",
                "search, best action",
                "search, drawn",
                "the policy alone",
                "best action, by seed",
            ),
            rows,
        )
    ]


def true_simulator(results: Json) -> list[str]:
    """Planning with the emulator itself."""
    rows = {(row["game"], row["player"]): row for row in results["summary"]}
    games = list(dict.fromkeys(row["game"] for row in results["summary"]))
    lines = []
    for game in games:
        if any((game, player) not in rows for player in ("planning", "greedy", "random")):
            continue
        row = rows[game, "planning"]
        low, high = row["score_range"]
        lines.append(
            [
                game,
                f"{row['goal']:,.0f}",
                f"{row['score']:,.0f} [{low:,.0f}, {high:,.0f}]",
                f"{row['human_normalized']:.1f}",
                f"{rows[game, 'greedy']['score']:,.0f}",
                f"{rows[game, 'random']['score']:,.0f}",
                f"{row['mean_planning_frames'] / 1e6:.2f} M",
                f"{row['mean_cpu_seconds']:.0f}",
                f"{row['games_over']} of {row['seeds']}",
            ]
        )
    skips = {cell["settings"]["frame_skip"] for cell in results["cells"]}
    return [
        table(
            (
                "game",
                "goal",
                "planning, mean [range]",
                "of human",
                "one step ahead",
                "random",
                "emulated frames",
                "CPU seconds a game",
                "games played to their end",
            ),
            lines,
        ),
        f"A move lasts {listed(sorted(skips))} frames here, not 4, so *of human* is a reading "
        "aid and no entry for a table.",
    ]


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


SPEED_ROWS = (
    ("play", "lightzero", "play with a search for every decision"),
    ("search", "lightzero", "large searches as reanalysis makes them"),
    ("update", "lightzero", "updates"),
    ("environment", "lightzero", "environments alone, beside theirs in processes"),
    ("environment", ONE_PROCESS, "the same, beside theirs in one process"),
)


def speed(results: Json) -> list[str]:
    """Rates beside LightZero, and where the time of our own training goes."""
    cells: Sequence[Json] = results["cells"]
    threads = list(dict.fromkeys(cell["settings"]["threads"] for cell in cells))
    rows = []
    for kind, side, title in SPEED_ROWS:
        line = [title]
        for count in threads:
            found = [
                cell["sides"][side]["ours_over_this_rate"]["median"]
                for cell in cells
                if (cell["settings"]["kind"], cell["settings"]["threads"]) == (kind, count)
                and side in cell.get("sides", {})
            ]
            line.append(f"{span(found)} ({len(found)} cells)" if found else "–")
        rows.append(line)
    return [
        "LightZero with its own code, sides in turn, networks of the same plan. Ours over "
        "theirs, of rates in the same round; each cell is a median over "
        f"{results['settings']['rounds']} rounds, and the range is over cells.",
        table(("", *map(_threads, threads)), rows),
        f"Lost: {'; '.join(results['lost']) or 'none'}.",
        *_profiles(cells),
    ]


def _profiles(cells: Sequence[Json]) -> list[str]:
    """Profile of a training run: where its time goes; nothing where it was not measured."""
    profiles = {cell["settings"]["threads"]: cell["profile"] for cell in cells if "profile" in cell}
    if not profiles:
        return []
    heads = list(map(_threads, profiles))
    first = next(iter(profiles.values()))["parts"]
    rates = [profile["updates"] / profile["seconds"] for profile in profiles.values()]
    shares = [
        [part, *(f"{100 * p['parts'][part] / p['seconds']:.1f} %" for p in profiles.values())]
        for part in sorted(first, key=lambda part: -first[part])
    ]
    updates = (f"{rate:.1f} with {head}" for rate, head in zip(rates, heads, strict=True))
    return [
        "Where a second of training `ale_cpu` goes, batches made in turn with updates (in a run "
        "they overlap):",
        table(("", *heads), shares),
        f"Updates a second here: {listed(updates)}.",
    ]


def compiling(results: Json) -> list[str]:
    """Gains of `torch.compile`."""
    rows = []
    for cell in results["cells"].values():
        changed = ", ".join(f"{key} {value}" for key, value in cell["changed"].items())
        first = cell["first_round_seconds"]
        rows.append(
            [
                f"`{cell['config']}`" + (f", {changed}" if changed else ""),
                *(
                    f"{part['plain_over_compiled']:.2f} "
                    f"[{part['range'][0]:.2f}, {part['range'][1]:.2f}]"
                    for part in cell["parts"].values()
                ),
                f"{digits(first['compiled'])} s, {digits(first['plain'])} without",
            ]
        )
    parts = next(iter(results["cells"].values()))["parts"]
    settings = results["settings"]
    return [
        f"Time without it over time with it, on {results['device']} with "
        f"{_threads(settings['threads'])}, batches in turn with "
        f"updates; medians and ranges over {settings['rounds']} rounds:",
        table(("", *parts, "first round, compiling"), rows),
    ]
