"""The documents' account of search over text: the demo, what search costs, what it gained."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.documents_numbers import cores_of, interval, listed, span, table
from benchmarks.provenance import NOT_RECORDED
from policies.gain_report import method_name, verdict

Results = Mapping[str, Any]
OUR_VARIANTS = "ours, "  # how names of our sides begin, beside the one that ratios are taken to


def demo(results: Results) -> str:
    """What the demo's seeds came to, pooled."""
    minutes = results["minutes"].values()
    gain, learned = (
        interval(results[key], sign=True)
        for key in ("best_of_16_above_base", "fine_tuned_above_base_without_search")
    )
    cells = [("base", cell) for cell in results["base"]]
    cells += [("fine-tuned", c) for c in results["fine_tuned"] if c["budget"] in ("1", "16")]
    rows = [
        [
            policy,
            method_name(cell),
            f"{cell['tokens']:.0f}",
            interval(cell["gold"]),
            interval(cell["gain_at_equal_tokens"], sign=True),
        ]
        for policy, cell in cells
    ]
    return "\n\n".join(
        [
            f"{results['held_out_prompts']} held-out prompts in all, 95 % intervals over prompts; "
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
                ),
                rows,
            ),
            "A method gains over best-of-N where the last column's interval lies above zero, loses "
            "where it lies below, and is undecided elsewhere. The budget is N for best-of-N, "
            "segments a step for beam search, simulations a decision for tree search.",
        ]
    )


def methods_compared(results: Results) -> str:
    """One sentence: how many methods docs/text_search.md compares, on how many prompts."""
    methods = list(dict.fromkeys(cell["method"] for cell in results["cells"]))
    return (
        "Tree search over text is judged at equal cost in [docs/text_search.md]"
        f"(docs/text_search.md): {len(methods)} methods ({listed(methods)}), "
        f"{results['held_out_prompts']} held-out prompts, gold and proxy, with intervals."
    )


def costs(results: Results, one_thread: Results) -> str:
    """What search over text costs beside other ways to compute the same prefixes."""
    provenance, settings = results["provenance"], results["settings"]
    cells = {row["cell"]: row for row in results["cells"]}
    single = {row["cell"]: row for row in one_thread["cells"]}
    million = results["parameters"] / 1e6
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
    return "\n\n".join(
        [
            f"On {cores_of(provenance)}, {settings['threads']} threads, a random Llama of "
            f"{million:.1f} million weights, the same model, prompts and planner on all sides; CPU "
            f"time as a multiple of ours, medians and ranges over {provenance['rounds']} paired "
            "rounds. *Without the prompts* leaves out what all sides spend on the prompts once; a "
            "dash stands where that was not measured.",
            *tables,
            _ties(cells.values()),
            "Goals set beforehand:\n\n"
            + "\n".join(_goal(goal) for goal in [*results["goals"], *_marked(one_thread)]),
        ]
    )


def _side(found: Results) -> list[str]:
    after = found["times_yardstick_after_prompts"]
    return [
        f"{found['cpu_seconds']:.2f}",
        interval(found["times_yardstick"]),
        "–" if after is None else f"{after:.2f}",
    ]


def _ties(rows: Iterable[Results]) -> str:
    """Where another way is level with ours or ahead of it, by the range over rounds."""
    level, ahead = [], []
    for row in rows:
        for side, found in row["sides"].items():
            if side == row["yardstick"] or side.startswith(OUR_VARIANTS):
                continue
            times = found["times_yardstick"]
            told = f"`{row['cell']}`, {found['title']} ({interval(times)})"
            if times["high"] < 1:
                ahead.append(told)
            elif times["low"] <= 1:
                level.append(told)
    return (
        f"Level with ours, the range over rounds on both sides of one: "
        f"{'; '.join(level) or 'none'}. Ahead of ours: {'; '.join(ahead) or 'none'}."
    )


def _marked(one_thread: Results) -> list[dict[str, Any]]:
    return [{**goal, "goal": f"one thread, {goal['goal']}"} for goal in one_thread["goals"]]


def _goal(goal: Results) -> str:
    low, high = goal["range"]
    met = "met" if goal["met"] else "not met"
    found = goal["found"]
    if isinstance(found, int):
        return f"- {goal['goal']}: {met} ({found:,}, required {low:,})"
    return f"- {goal['goal']}: {met} ({found:.2f} [{low:.2f}, {high:.2f}])"


def gains(results: Results) -> str:
    """Every method of search over text at equal cost, in the embedded world."""
    cells: Sequence[Results] = results["cells"]
    fit = _fit(results)
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
                _with_fit(cell, fit),
                interval(cell["gold"]),
                interval(cell["gain_at_equal_tokens"], sign=True),
                interval(cell["gain_at_equal_model_tokens"], sign=True),
                ", ".join(divergence),
            ]
        )
    return "\n\n".join(
        [
            f"{results['held_out_prompts']} held-out prompts in all, 95 % intervals over prompts. "
            "The columns of differences are gold above best-of-N of the same cost, paired by "
            "prompt. *Tokens models read* are those that policy and reward model were given. "
            "*With the value head* adds what sampling, scoring and reading the responses that the "
            "head was fitted to cost, divided among the evaluated prompts; the differences do not "
            "charge it. The last column bounds how far the answers are from the policy's own.",
            table(
                (
                    "method, budget",
                    "generated tokens",
                    "tokens models read",
                    "with the value head",
                    "gold utility",
                    "at equal generated tokens",
                    "at equal tokens read",
                    "KL, nats",
                ),
                rows,
            ),
            _fitting(results, fit),
            _verdicts(cells, "gain_at_equal_tokens", "At equal generated tokens"),
            _verdicts(cells, "gain_at_equal_model_tokens", "At equal tokens read"),
            _last_doubling(cells),
        ]
    )


def _fit(results: Results) -> dict[str, float] | None:
    """The heads' fitting, summed over seeds: tokens and seconds; None if not recorded."""
    costs = [heads.get("cost") for heads in results["value_heads"].values()]
    if not all(costs):
        return None
    names = ("generated_tokens", "read_tokens", "seconds")
    sums: dict[str, float] = {name: sum(cost[name] for cost in costs) for name in names}
    return {**sums, "prompts": results["held_out_prompts"]}


def _with_fit(cell: Results, fit: Mapping[str, float] | None) -> str:
    if cell["method"] == "best-of-N":
        return f"{cell['model_tokens']:.0f}"
    if fit is None:
        return NOT_RECORDED
    return f"{cell['model_tokens'] + fit['read_tokens'] / fit['prompts']:.0f}"


def _fitting(results: Results, fit: Mapping[str, float] | None) -> str:
    heads = results["value_heads"].values()
    fits = [head for own in heads for name, head in own.items() if name in ("sentence", "token")]
    explained = span((head["explained_variance"] for head in fits), ".2f")
    responses = span((head["responses"] for head in fits), ",.0f")
    cost = (
        f"what that cost in tokens was {NOT_RECORDED}"
        if fit is None
        else f"over all seeds that generated {fit['generated_tokens']:,.0f} tokens and read "
        f"{fit['read_tokens']:,.0f}, in {fit['seconds'] / 60:.1f} minutes"
    )
    return (
        "Searches take the value of unfinished text from a head on the policy's hidden states, "
        f"fitted in each seed to the reward model's scores of {responses} responses to training "
        f"prompts; {cost}. The heads explain {explained} of the scores' variance on held-out "
        "responses."
    )


def _last_doubling(cells: Sequence[Results]) -> str:
    """How much the reward model's score and gold rise between best-of-N's largest budgets."""
    before, last = [cell for cell in cells if cell["method"] == "best-of-N"][-2:]
    proxy, gold = (last[key]["estimate"] - before[key]["estimate"] for key in ("proxy", "gold"))
    return (
        f"From {method_name(before)} to {method_name(last)} the reward model's score rises by "
        f"{proxy:+.2f}, gold by {gold:+.2f}."
    )


def _verdicts(cells: Sequence[Results], key: str, title: str) -> str:
    """Which cells gain, lose, or are undecided, by their intervals."""
    found: dict[str, list[str]] = {"gains": [], "loses": [], "is undecided": []}
    for cell in cells:
        word = verdict(cell[key])
        if word is not None:
            found[word].append(method_name(cell))
    return (
        f"**{title}**: above best-of-N: {'; '.join(found['gains']) or 'none'}. "
        f"Below it: {'; '.join(found['loses']) or 'none'}. "
        f"Undecided: {'; '.join(found['is undecided']) or 'none'}."
    )
