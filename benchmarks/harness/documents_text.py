"""Figures of search over text: the demo, costs, gains over best-of-N, defaults."""

from collections.abc import Iterable, Sequence

from benchmarks.harness.documents_numbers import cores_of, interval, listed, span, table
from benchmarks.harness.worker import Json
from policies.evaluation.cells import BEST_OF_N
from policies.evaluation.gain_format import gains_of, method_name, scope_of, verdict
from policies.planning.options import TITLES
from prefsearch.statistics.significance import count_verdicts, describe_required_seeds

DIFFERENCES = ("best_of_16_above_base", "fine_tuned_above_base_without_search")
_DEFAULTS = ("gumbel, default", "muzero, default")
SMALLEST = 0.2  # difference of gold utility that is worth deciding
OUR_VARIANTS = "ours, "  # how names of our sides begin, beside the one that ratios are taken to


def demo(results: Json) -> list[str]:
    """The demo's results over seeds."""
    minutes = results["minutes"].values()
    gain, learned = (interval(results[key], sign=True) for key in DIFFERENCES)
    cells = [("base", cell) for cell in results["base"]]
    cells += [("fine-tuned", c) for c in results["fine_tuned"] if c["budget"] in ("1", "16")]
    rows = [
        [
            policy,
            method_name(cell),
            f"{cell['tokens']:.0f}",
            interval(cell["gold"]),
            interval(cell["gain_at_equal_tokens"], sign=True),
            verdict(cell["gain_at_equal_tokens"]) or "–",
        ]
        for policy, cell in cells
    ]
    return [
        f"{results['held_out_prompts']} held-out prompts in all; 95 % intervals "
        f"{scope_of(results[key] for key in DIFFERENCES)}; "
        f"{span(minutes, '.1f')} minutes a seed on {cores_of(results['provenance'])}.",
        f"- Best-of-16 above the base policy in gold utility: **{gain}**.\n"
        f"- Fine-tuned policy above the base policy, both without search: **{learned}**.",
        table(
            (
                "policy",
                "method, budget",
                "tokens a prompt",
                "gold utility",
                "above best-of-N at equal tokens",
                "verdict",
            ),
            rows,
        ),
        "A method gains over best-of-N where the interval lies above zero, loses where it lies "
        f"below, and is undecided elsewhere. {_decided(results['base'])} The budget is N for "
        "best-of-N, segments a step for beam search, simulations a decision for tree search.",
        "![Gold and proxy score against generated tokens](docs/results/demo_gains.png)",
        *_few_labels(results),
    ]


def _few_labels(results: Json) -> list[str]:
    """Gains of best-of-N against a reward model of few labels, with one seed's picture."""
    picture = (
        "![Gain in gold and proxy of best-of-N against its divergence, for reward models of many "
        "and of few labels](docs/results/demo_overoptimization.png)\n\nThe picture is that of the "
        "first seed, its bands are over prompts."
    )
    found = results.get("few_labels")
    if found is None:
        return [picture]
    change = found["change"]
    rows = [
        [f"best-of-{row['budget']}", *(interval(row[key], sign=True) for key in ("proxy", "gold"))]
        for row in found["above_one_sample"]
    ]
    proxy, gold = (_direction(change[key]) for key in ("proxy", "gold"))
    return [
        f"The same responses, chosen by a reward model of {span(found['pairs'], 'd')} labels (its "
        "own score, in its own unit, and gold, both above one sample):",
        table(("chosen", "score of that reward model", "gold utility"), rows),
        f"From best-of-{change['from']} to best-of-{change['to']}, two numbers that were fixed "
        f"beforehand, its score {proxy} ({interval(change['proxy'], sign=True)}) and gold "
        f"{gold} ({interval(change['gold'], sign=True)}).",
        picture,
    ]


def _direction(change: Json) -> str:
    """The direction of a change, if its interval decides it."""
    return {"gains": "rises", "loses": "falls"}.get(
        verdict(change) or "", "changes by what these seeds do not decide"
    )


def methods_compared(results: Json) -> list[str]:
    """One sentence: how many methods docs/text_search.md compares, on how many prompts."""
    methods = list(dict.fromkeys(cell["method"] for cell in results["cells"]))
    return [
        "Tree search over text is compared at equal cost in [docs/text_search.md]"
        f"(docs/text_search.md): {len(methods)} methods ({listed(methods)}), "
        f"{results['held_out_prompts']} held-out prompts, gold and proxy, with intervals."
    ]


def costs(results: Json, one_thread: Json) -> list[str]:
    """Costs of search over text beside other ways to compute the same prefixes."""
    provenance, settings = results["provenance"], results["settings"]
    cells = {row["cell"]: row for row in results["cells"]}
    single = {row["cell"]: row for row in one_thread["cells"]}
    million = results["parameters"] / 1e6
    of_one_thread = [
        {**goal, "goal": f"one thread, {goal['goal']}"} for goal in one_thread["goals"]
    ]
    tables = []
    for name, row in cells.items():
        beside = single.get(name)
        head = ["", "CPU s", "times ours", "without the prompts"]
        head += ["one thread, times ours", "without the prompts"] if beside else []
        rows = []
        for side, found in row["sides"].items():
            line = [found["title"], *_side(found)]
            if beside:
                line += _side(beside["sides"][side])[1:] if side in beside["sides"] else ["–", "–"]
            rows.append(line)
        tables.append(f"`{name}`: {row['title']}\n\n{table(head, rows)}")
    return [
        f"On {cores_of(provenance)}, {settings['threads']} threads, a random Llama of "
        f"{million:.1f} million weights, the same model, prompts and planner on all sides; CPU "
        f"time as a multiple of ours, medians and ranges over {provenance['rounds']} paired "
        "rounds. *Without the prompts* leaves out what all sides spend on the prompts once; a "
        "dash stands where that was not measured.",
        *tables,
        _ties(cells.values()),
        "Goals set beforehand:\n\n" + "\n".join(map(_goal, [*results["goals"], *of_one_thread])),
    ]


def _side(found: Json) -> list[str]:
    after = found["times_yardstick_after_prompts"]
    return [
        f"{found['cpu_seconds']:.2f}",
        interval(found["times_yardstick"]),
        "–" if after is None else f"{after:.2f}",
    ]


def _ties(rows: Iterable[Json]) -> str:
    """Where another way is level with ours or ahead of it, by the range over rounds."""
    level, ahead = [], []
    for row in rows:
        for side, found in row["sides"].items():
            if side == row["yardstick"] or side.startswith(OUR_VARIANTS):
                continue
            times = found["times_yardstick"]
            shown = f"`{row['cell']}`, {found['title']} ({interval(times)})"
            if times["high"] < 1:
                ahead.append(shown)
            elif times["low"] <= 1:
                level.append(shown)
    return (
        f"Level with ours, the range over rounds on both sides of one: "
        f"{'; '.join(level) or 'none'}. Ahead of ours: {'; '.join(ahead) or 'none'}."
    )


def _goal(goal: Json) -> str:
    low, high = goal["range"]
    met = "met" if goal["met"] else "not met"
    found = goal["found"]
    if isinstance(found, int):
        return f"- {goal['goal']}: {met} ({found:,}, required {low:,})"
    return f"- {goal['goal']}: {met} ({found:.2f} [{low:.2f}, {high:.2f}])"


def gains(results: Json) -> list[str]:
    """Every method of search over text at equal cost, in the synthetic task."""
    cells: Sequence[Json] = results["cells"]
    rows = []
    for cell in cells:
        divergence = []
        if cell["kl_low"] is not None:
            divergence.append(f"at least {cell['kl_low']['estimate']:.1f}")
        if cell["kl"] is not None:
            divergence.append(f"at most {cell['kl']:.1f}")
        rows.append(
            [
                method_name(cell),
                f"{cell['tokens']:.0f}",
                f"{cell['model_tokens']:.0f}",
                _with_fit(cell, results),
                interval(cell["gold"]),
                interval(cell["gain_at_equal_tokens"], sign=True),
                interval(cell["gain_at_equal_model_tokens"], sign=True),
                ", ".join(divergence),
            ]
        )
    return [
        f"{results['held_out_prompts']} held-out prompts in all; 95 % intervals "
        f"{scope_of(cell['gold'] for cell in cells)}; none stands where the runs did not keep "
        "each seed's figure. The columns of differences are gold above best-of-N of the same "
        "cost, paired by prompt. *Tokens models read* are those that policy and reward model "
        "were given. *With the value head* adds what it took to sample, score and read the "
        "responses that the head was fitted to, divided among the evaluated prompts; the "
        "differences do not charge it. The last column bounds how far the answers are from the "
        "policy's own.",
        table(
            (
                "method, budget",
                "generated tokens",
                "tokens models read",
                "with the value head, generated / read",
                "gold utility",
                "at equal generated tokens",
                "at equal tokens read",
                "KL, nats",
            ),
            rows,
        ),
        _fitting(results),
        *_verdicts(cells),
        _last_doubling(cells),
        "![Gold and proxy score against generated tokens](results/text_gains_tokens.png)",
    ]


def _with_fit(cell: Json, results: Json) -> str:
    """Tokens generated and read with a prompt's share of what fitting the value head took."""
    tokens, read = cell["tokens"], cell["model_tokens"]
    if cell["method"] != BEST_OF_N:
        unit = "token" if cell["method"] == TITLES["controlled_decoding"] else "sentence"
        for heads in results["value_heads"].values():
            tokens += heads["samples"]["generated_tokens"] / results["held_out_prompts"]
            fitting = heads["samples"]["read_tokens"] + heads[unit]["read_tokens"]
            read += fitting / results["held_out_prompts"]
    return f"{tokens:.0f} / {read:.0f}"


def _fitting(results: Json) -> str:
    """Quality and cost of the value heads."""
    heads = list(results["value_heads"].values())
    explained = [
        f"{span(own[unit]['explained_variance'] for own in heads)} ({title})"
        for unit, title in (("sentence", "at sentences' ends"), ("token", "at every token"))
    ]

    def total(part: str, key: str = "read_tokens") -> str:
        return f"{sum(own[part][key] for own in heads):,}"

    minutes = sum(own["step_seconds"] for own in heads) / 60
    responses = span((own["sentence"]["responses"] for own in heads), ",.0f")
    return (
        "Searches take the value of unfinished text from a head on the policy's hidden states, "
        f"fitted in each seed to the reward model's scores of {responses} responses to training "
        f"prompts. Over all seeds that took {minutes:.1f} minutes; sampling and scoring: "
        f"{total('samples', 'generated_tokens')} tokens generated, {total('samples')} read; the "
        f"head at sentences' ends: {total('sentence')} read; that at every token, of controlled "
        f"decoding: {total('token')} read. They explain {listed(explained)} of the scores' "
        "variance on held-out responses."
    )


def _last_doubling(cells: Sequence[Json]) -> str:
    """How much the reward model's score and gold rise between best-of-N's largest budgets."""
    before, last = [cell for cell in cells if cell["method"] == BEST_OF_N][-2:]
    proxy, gold = (last[key]["estimate"] - before[key]["estimate"] for key in ("proxy", "gold"))
    return (
        f"From {method_name(before)} to {method_name(last)} the reward model's score rises by "
        f"{proxy:+.2f}, gold by {gold:+.2f}."
    )


def _verdicts(cells: Sequence[Json]) -> list[str]:
    """For each cost that has intervals over seeds: cells that gain or lose."""
    costs = {
        "gain_at_equal_tokens": "At equal generated tokens",
        "gain_at_equal_model_tokens": "At equal tokens read",
    }
    found = []
    for key, title in costs.items():
        if gains_of([{"policy": "base", **cell} for cell in cells], key):
            named = {
                word: [method_name(cell) for cell in cells if verdict(cell[key]) == word]
                for word in ("gains", "loses")
            }
            found.append(
                f"**{title}**, each taken by itself: above best-of-N: "
                f"{'; '.join(named['gains']) or 'none'}. Below it: "
                f"{'; '.join(named['loses']) or 'none'}. {_decided(cells, key)}"
            )
    return found


def planner_defaults(results: Json) -> list[str]:
    """Effects of the defaults of tree search over samples, on toys and on training prompts."""
    toys = [cell for cell in results["toys"] if cell["toy"] == "all"]
    budgets = list(dict.fromkeys(cell["budget"] for cell in toys))
    names = list(dict.fromkeys(cell["toy"] for cell in results["toys"]))[1:]
    regret = table(
        ("regret, simulations", *map(str, budgets)),
        [
            [name, *(f"{cell['answered']:.3f}" for cell in toys if cell["variant"] == name)]
            for name in dict.fromkeys(cell["variant"] for cell in toys)
        ],
    )
    gains = table(
        ("less regret than before, simulations", *map(str, budgets)),
        [
            [
                name,
                *(
                    _bounds(cell["answered_gain"], ".3f")
                    for cell in toys
                    if cell["variant"] == name
                ),
            ]
            for name in _DEFAULTS
        ],
    )
    parts = [
        f"Mean regret of the answer over {len(names)} kinds of enumerable prompts "
        f"({results['toy_prompts']} prompts), as a share of the best response's lead over the mean "
        "response; below it what the defaults gained over Gumbel MuZero's numbers of self-play and "
        "over c₁ = 5, paired by prompt, 95 % bootstrap intervals over prompts:",
        regret,
        gains,
    ]
    if results["world"]:
        parts += [
            f"In the synthetic task, {results['world_prompts']} training prompts, one policy, the "
            "simulated human itself as reward model; gains as above:",
            table(
                ("planner", "simulations", "gold utility", "gain", "tokens a prompt"),
                [
                    [
                        cell["variant"],
                        str(cell["budget"]),
                        f"{cell['gold']:.2f}",
                        _bounds(cell["gain"], ".2f") if cell["variant"] in _DEFAULTS else "",
                        f"{cell['tokens']:.0f}",
                    ]
                    for cell in results["world"]
                ],
            ),
        ]
    return parts


def _bounds(found: Sequence[float], form: str) -> str:
    """A gain, given as estimate and bounds."""
    return interval(dict(zip(("estimate", "low", "high"), found, strict=True)), form, sign=True)


def _decided(cells: Sequence[Json], key: str = "gain_at_equal_tokens") -> str:
    """Counts of decided comparisons, and the seeds that would decide the others."""
    compared = gains_of([{"policy": "base", **cell} for cell in cells], key)
    required = describe_required_seeds(compared, difference=SMALLEST)
    return f"{count_verdicts(compared)} {required}".rstrip()
