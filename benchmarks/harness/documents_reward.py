"""Figures of reward models: a pretrained encoder, training, scoring, real data."""

from collections.abc import Sequence

from benchmarks.harness.documents_numbers import cores_of, interval, listed, span, table
from benchmarks.harness.worker import Json
from policies.evaluation.gain_format import method_name, verdict

MODELS = {
    "reward model": "MiniLM, fine-tuned",
    "bag of words": "bag of words, logistic regression",
    "from scratch": "a transformer from scratch",
    "longer reply": "the longer reply",
}
SCORED = (
    "64 x 256/48",
    "64 x 512/48",
    "16 x 256/48",
    "4 x 256/48",
    "64 x 256/unequal, about 48",
    "64 x 32/256",
    "encoder 16 x 256/48",
)


def pretrained_encoder(results: Json) -> list[str]:
    """A pretrained encoder beside cheap baselines, on pairs that were held out by prompt."""
    found, run, rows = results["run"]["evaluate"], results["run"], results["comparison"]
    pairs = results["pairs"]
    calibration, bias = found["calibration"], found["length_bias"]
    above = {MODELS[name]: row["model_above"] for name, row in rows.items()}
    undecided = [name for name, found in above.items() if found and found["low"] <= 0]
    return [
        f"hh-rlhf harmless-base, {pairs['training']:,} pairs to learn from and "
        f"{pairs['held_out']:,} held out by prompt, {results['settings']['epochs']} epochs; "
        f"training took {run['train']['seconds'] / 60:.1f} minutes, the transformer from "
        f"scratch ({run['scratch']['parameters'] / 1e6:.1f} million weights) "
        f"{run['scratch']['seconds'] / 60:.1f}. 95 % intervals over prompts:",
        table(
            ("", "accuracy", "MiniLM above it, same pairs"),
            [
                [
                    name,
                    interval(rows[key]["accuracy"], ".3f"),
                    interval(rows[key]["model_above"], ".3f", sign=True),
                ]
                for key, name in MODELS.items()
                if key in rows
            ],
        ),
        f"{pairs['held_out']:,} pairs do not decide whether it is ahead of: "
        f"{listed(undecided)}. A temperature of {interval(calibration['temperature'])} takes "
        f"its calibration error from {calibration['ece_before']:.3f} to "
        f"{calibration['ece_after']:.3f} out of fold, its log loss from "
        f"{calibration['log_loss_before']['estimate']:.3f} to "
        f"{calibration['log_loss_after']['estimate']:.3f}. Scores correlate with length by "
        f"{interval(bias['within_prompts'], sign=True)}, people's choices by "
        f"{interval(bias['human'], sign=True)}; it is right on "
        f"{interval(found['accuracy_where_shorter_chosen'], '.3f')} of the pairs whose better "
        f"reply is shorter and on {interval(found['accuracy_where_longer_chosen'], '.3f')} of "
        "the others. With long and short counted alike, accuracy is "
        f"{interval(found['length_control']['balanced_accuracy'], '.3f')}.",
    ]


def training(results: Json) -> list[str]:
    """Training with prompts computed once beside TRL's trainer."""
    cells: Sequence[Json] = results["cells"]
    apart = max(
        side["loss_apart"]
        for row in cells
        for side in row["sides"].values()
        if side["loss_apart"] is not None
    )
    rows = []
    for row in cells:
        prefix, packed = row["sides"]["prefix"], row["sides"]["packed"]
        rows.append(
            [
                row["cell"],
                f"{row['rounds']} × {row['updates']}",
                f"{row['floor']:.2f}",
                interval(prefix["times_trl_sorted"]["cpu"]),
                interval(prefix["times_trl_without_checkpointing"]["cpu"]),
                f"{prefix['times_trl_without_checkpointing']['wall']['median']:.2f}",
                interval(prefix["times_trl"]["cpu"]),
                interval(packed["times_trl_sorted"]["cpu"]),
                interval(packed["times_trl_without_checkpointing"]["cpu"]),
            ]
        )
    steps = [f"{row['gate_steps']} in {row['cell']}" for row in cells]
    memory = [_memory(row) for row in cells if row["sides"]["prefix"]["peak_mib"] is not None]
    return [
        "**Training** pairs a second as multiples of TRL's, by CPU time, on "
        f"{cores_of(results['provenance'])} and {results['settings']['threads']} threads: "
        f"a Llama of the size named, batches of {results['batch']} pairs, float32. Medians and "
        "ranges over rounds. *Rounds × updates* is how often each side was timed and "
        "how many updates one timed sample holds. *At most* is how many times fewer tokens are "
        "computed; what is above it is spared attention, and where lengths vary also rows of "
        "like length side by side, which the column *length-sorted TRL* has on both sides. "
        f"Losses of all sides stay within {apart:.1g} of each other over the steps that were "
        f"compared ({'; '.join(steps)}).",
        table(
            (
                "model, prompt/response",
                "rounds × updates",
                "at most",
                "prefix, to length-sorted TRL",
                "prefix, to TRL without checkpointing",
                "the same by wall time",
                "prefix, to TRL as it comes",
                "packed, to length-sorted TRL",
                "packed, to TRL without checkpointing",
            ),
            rows,
        ),
        "\n".join(memory),
        f"It loses in: {'; '.join(results['lost']) or 'none'}.",
    ]


def _memory(row: Json) -> str:
    peaks = {name: side["peak_mib"] for name, side in row["sides"].items()}
    return (
        f"- Peak memory at {row['cell']}: {peaks['prefix']:.0f} MiB with prompts computed once, "
        f"{peaks['packed']:.0f} packed, {peaks['plain']:.0f} with every response's own prompt; TRL "
        f"{peaks['trl, no checkpointing']:.0f}, with its checkpointing {peaks['trl']:.0f}."
    )


def scoring(results: Json) -> list[str]:
    """Scoring many responses to one prompt beside plain forward passes."""
    cells = {row["cell"].partition(" ")[2]: row for row in results["cells"]}
    rows = []
    for name in SCORED:
        if name not in cells:
            continue
        row = cells[name]
        times = row["sides"]["ours"]["times"]
        rows.append(
            [
                name.replace(" x ", " × "),
                str(row["rounds"]),
                f"{row['floor']:.2f}",
                *(
                    interval(times[side]["cpu"]) if side in times else "cannot"
                    for side in ("plain", "sorted", "own cache")
                ),
            ]
        )
    goal = next((row for row in results["cells"] if row["goal_cell"]), results["cells"][0])
    own = goal["sides"]["ours"]["times"]["plain"]
    peaks = [goal["sides"][side]["peak_mib"] for side in ("ours", "plain")]
    memory = "" if None in peaks else f", {peaks[0]:.0f} MiB against {peaks[1]:.0f}"
    parameters = span((row["parameters"] / 1e6 for row in results["cells"]), ".1f")
    lost = {
        side: sum(f"as fast as {side} times" in line for line in results["lost"])
        for side in ("plain", "sorted", "own cache")
    }
    return [
        f"**Scoring** at {goal['cell']} (responses x prompt/response tokens): "
        f"{interval(own['cpu'])} times as fast as plain forward passes by CPU time, "
        f"{own['wall']['median']:.2f} by wall time{memory}. Models of {parameters} million "
        f"weights, float32, {results['settings']['threads']} threads; medians and ranges over "
        f"rounds, scores equal to {results['gate']:g}. {len(results['cells'])} cells were "
        "measured; these are how many times as fast ours is:",
        table(
            (
                "responses × prompt/response",
                "rounds",
                "at most",
                "than plain",
                "than length-sorted",
                "than one shared cache written by hand",
            ),
            rows,
        ),
        f"By one of the two clocks it loses to a shared cache written by hand in "
        f"{lost['own cache']} cells, to length-sorted passes in {lost['sorted']}, to plain "
        f"ones in {lost['plain']}:\n\n" + "\n".join(f"- {line}" for line in results["lost"]),
    ]


def real_data(results: Json) -> list[str]:
    """The path of docs/real_data.sh on human preferences."""
    reward, policy = results["reward_model"], results["policy"]
    pairs = results["pairs"]
    cells: Sequence[Json] = results["cells"]
    ahead = [
        method_name(cell) for cell in cells if verdict(cell["gain_at_equal_tokens"]) == "gains"
    ]
    return [
        table(
            (f"on {pairs['held_out']} held-out pairs", "accuracy, 95 % interval"),
            [
                ["reward model", interval(reward["accuracy"], ".3f")],
                ["choosing the longer reply", interval(reward["longer_reply"], ".3f")],
                ["bag of words, logistic regression", interval(reward["bag_of_words"], ".3f")],
            ],
        ),
        f"The reward model saw {pairs['training']:,} pairs once. It is right on "
        f"{interval(reward['accuracy_where_shorter_chosen'], '.3f')} of the pairs where the "
        "shorter reply was chosen and on "
        f"{interval(reward['accuracy_where_longer_chosen'], '.3f')} of the others.",
        table(
            (
                f"on {results['prompts']} held-out prompts",
                "tokens a prompt",
                "reward-model score",
                "above best-of-N at equal tokens",
            ),
            [
                [
                    method_name(cell),
                    f"{cell['tokens']:.0f}",
                    interval(cell["proxy"]),
                    interval(cell["gain_at_equal_tokens"], sign=True),
                ]
                for cell in cells
            ],
        ),
        "Search raises the score it plans against. Ahead of best-of-N at equal tokens: "
        f"{listed(ahead)}. The policy's loss ends at {policy['loss_last']:.1f} nats "
        f"a token. Of the first {results['limit']} held-out prompts, those too long for its "
        f"context were left out; {policy['cut']:,} of "
        f"{policy['rows']:,} training conversations were cut from the left.",
    ]
