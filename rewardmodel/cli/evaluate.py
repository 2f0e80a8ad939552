"""`prefsearch reward evaluate`: what a reward model is worth on preference pairs or a benchmark."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console

from prefsearch.cli.console import PlainConsole
from prefsearch.config.settings import flatten
from prefsearch.run.files import environment
from prefsearch.statistics.intervals import Interval
from prefsearch.storage.files import write_json_atomic
from rewardmodel.cli.model_args import RewardEvaluateArgs
from rewardmodel.data.conversation import prompts_of, replies_of
from rewardmodel.data.preferences import load_preferences, split_by_prompt
from rewardmodel.data.rewardbench import load_reward_bench, load_reward_bench_2
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.agreement import evaluate_agreement
from rewardmodel.evaluation.baselines import bag_of_words_accuracy, longer_reply_accuracy
from rewardmodel.evaluation.batch_invariance import measure_batch_invariance
from rewardmodel.evaluation.benchmarks.reward_bench2 import evaluate_reward_bench2
from rewardmodel.evaluation.benchmarks.rewardbench import RewardBenchScore, evaluate_reward_bench
from rewardmodel.evaluation.length.edits import edit_accuracy, load_edits
from rewardmodel.evaluation.length.probes import truncation_probe
from rewardmodel.evaluation.report import EvaluationRecord, write_evaluation
from rewardmodel.interface import RewardModel, UncertainRewardModel
from rewardmodel.models.loading import load_reward_model

logger = logging.getLogger(__name__)
_INVARIANCE_PAIRS = 16


def evaluate(args: RewardEvaluateArgs) -> None:
    """Measures a saved reward model."""
    console = PlainConsole()
    chosen: dict[str, Any] = (
        {} if args.input_format == "auto" else {"input_format": args.input_format}
    )
    reward_model = load_reward_model(args.model, max_length=args.max_length, **chosen)
    record = EvaluationRecord(settings=flatten(args), environment=environment())
    edits = load_edits(args.edits, on_bad_row=args.on_bad_row) if args.edits else None
    if args.benchmark == "pairs":
        training, data = _pairs(args, _tokenizer_of(reward_model))
        if edits is not None and training is not None:
            edits = _without_prompts_of(training, edits, f"edits in {args.edits}")
        record = _on_pairs(args, reward_model, record, training, data)
    else:
        record = _on_benchmark(args, reward_model, record)
    if edits is not None:
        record = dataclasses.replace(
            record, edits=edit_accuracy(reward_model, edits, seed=args.seed)
        )
    if args.out and Path(args.out).suffix == ".json":
        write_json_atomic(args.out, {"settings": record.settings, **_flat(record)})
    elif args.out:
        page = write_evaluation(record, args.out, title=f"Reward model {Path(args.model).name}")
        console.print(f"Report: {page}")
    if record.pairs is not None:
        show_measures(console, _flat(record), held_out=args.holdout > 0)
    _show_others(console, record)


def measure(
    reward_model: RewardModel,
    training: Dataset | None,
    held_out: Dataset,
    *,
    seed: int,
    calibrate: bool = False,
) -> dict[str, Any]:
    """Held-out accuracy with its intervals, beside the baselines, as plain values."""
    found = asdict(evaluate_reward_model(reward_model, held_out, seed=seed, calibrated=calibrate))
    baselines = measure_baselines(training, held_out, seed=seed)
    found["baselines"] = {name: asdict(value) for name, value in baselines.items()}
    return found


def measure_baselines(
    training: Dataset | None, held_out: Dataset, *, seed: int
) -> dict[str, Interval]:
    """Accuracy of the longer reply, and of a bag of words where there is something to learn from.

    Ties have no better reply, so neither baseline sees them.
    """
    held_out = without_ties(held_out)
    found = {"longer reply": longer_reply_accuracy(held_out)}
    training = None if training is None else without_ties(training)
    if training is not None and len(training) > 0:
        found["bag of words"] = bag_of_words_accuracy(training, held_out, seed=seed).accuracy
    return found


def without_ties(dataset: Dataset) -> Dataset:
    """The pairs with a better reply."""
    if "chosen_probability" not in dataset.column_names:
        return dataset
    kept = [row for row, label in enumerate(dataset["chosen_probability"][:]) if label != 0.5]
    return dataset.select(kept)


def show_measures(console: Console, result: Mapping[str, Any], *, held_out: bool = True) -> None:
    """Prints accuracy and baselines.

    Args:
        console: Where to.
        result: Of `measure`.
        held_out: Whether the pairs are known not to have been trained on.
    """
    rows = {"reward model": result["accuracy"], **result["baselines"]}
    ties = result.get("tied_labels", 0)
    apart = f", {ties} ties left out" if ties else ""
    what = "Held-out accuracy" if held_out else "Accuracy"
    console.print(f"{what} on {result['pairs']} pairs{apart} (95 % intervals over prompts):")
    for name, value in rows.items():
        low, high = value["low"], value["high"]
        console.print(f"  {name:<14} {value['estimate']:.3f} [{low:.3f}, {high:.3f}]")
    console.print(f"  log loss {result['log_loss']['estimate']:.3f}, ECE {result['ece']:.3f}")


def _on_pairs(
    args: RewardEvaluateArgs,
    reward_model: RewardModel,
    record: EvaluationRecord,
    training: Dataset | None,
    data: Dataset,
) -> EvaluationRecord:
    """Measures on preference pairs what the arguments ask for."""
    if args.probes:  # first: what is wrong with the replies is said before all is scored
        record = dataclasses.replace(
            record, probe=truncation_probe(reward_model, data, seed=args.seed)
        )
    pairs = evaluate_reward_model(reward_model, data, seed=args.seed, calibrated=args.calibrate)
    record = dataclasses.replace(
        record, pairs=pairs, baselines=measure_baselines(training, data, seed=args.seed)
    )
    if isinstance(reward_model, UncertainRewardModel):
        record = dataclasses.replace(record, agreement=evaluate_agreement(reward_model, data))
    if args.check_batches:
        rows = data.select(range(min(_INVARIANCE_PAIRS, len(data))))
        record = dataclasses.replace(
            record,
            invariance=measure_batch_invariance(
                reward_model,
                [*prompts_of(rows), *prompts_of(rows)],
                [*replies_of(rows, "chosen"), *replies_of(rows, "rejected")],
                seed=args.seed,
            ),
        )
    return record


def _pairs(args: RewardEvaluateArgs, tokenizer: Any) -> tuple[Dataset | None, Dataset]:
    """Pairs for the baseline to learn from, and those to measure on."""
    data = load_preferences(
        args.dataset,
        tokenizer=tokenizer,
        keep_messages=True,
        **{**args.rows(), "split": args.split or "train"},
    )
    if args.holdout:
        return split_by_prompt(data, holdout=args.holdout, seed=args.seed)
    if args.training_dataset:
        training = load_preferences(
            args.training_dataset,
            tokenizer=tokenizer,
            keep_messages=True,
            on_bad_row=args.on_bad_row,
            **args.columns(),
        )
        return _without_prompts_of(data, training, f"pairs in {args.training_dataset}"), data
    return None, data


def _without_prompts_of(others: Dataset, dataset: Dataset, what: str) -> Dataset:
    """The rows whose prompt is not among the others': what is learned is not measured on.

    Raises:
        ValueError: There are none.
    """
    prompts = set(prompts_of(others))
    kept = [row for row, prompt in enumerate(prompts_of(dataset)) if prompt not in prompts]
    if not kept:
        raise ValueError(
            f"all {len(dataset)} {what} have prompts that are both learned from and measured on; "
            "required are others. Give another file, or leave it out."
        )
    if len(kept) < len(dataset):
        logger.warning(
            "left out %d of %d %s, whose prompts would be both learned from and measured on",
            *(len(dataset) - len(kept), len(dataset), what),
        )
    return dataset.select(kept)


def _on_benchmark(
    args: RewardEvaluateArgs, reward_model: RewardModel, record: EvaluationRecord
) -> EvaluationRecord:
    """Scores RewardBench by its own rules."""
    options: dict[str, Any] = {
        "tokenizer": _tokenizer_of(reward_model),
        "keep_messages": True,
        "on_bad_row": args.on_bad_row,
        "limit": args.limit,
    }
    if args.split is not None:
        options["split"] = args.split
    if args.benchmark == "rewardbench":
        rows = load_reward_bench(args.dataset, **options)
        return dataclasses.replace(record, benchmark=evaluate_reward_bench(reward_model, rows))
    rows = load_reward_bench_2(args.dataset, **options)
    return dataclasses.replace(record, benchmark=evaluate_reward_bench2(reward_model, rows))


def _tokenizer_of(reward_model: Any) -> Any:
    """The tokenizer whose chat template renders prompts; of an ensemble the first member's."""
    tokenizer = getattr(getattr(reward_model, "encoder", None), "tokenizer", None)
    members = () if tokenizer is not None else getattr(reward_model, "members", ())
    return next((t for t in map(_tokenizer_of, members) if t is not None), tokenizer)


def _flat(record: EvaluationRecord) -> dict[str, Any]:
    """What was measured, the figures on pairs at the top, as `measure` gives them."""
    found: dict[str, Any] = {} if record.pairs is None else asdict(record.pairs)
    if record.pairs is not None:
        found["baselines"] = {name: asdict(value) for name, value in record.baselines.items()}
    for name in ("benchmark", "agreement", "edits", "probe", "invariance"):
        value = getattr(record, name)
        if value is not None:
            found[name] = asdict(value)
    return found


def _show_others(console: Console, record: EvaluationRecord) -> None:
    """Prints what was measured beside plain accuracy, a line each."""
    if record.pairs is not None and record.pairs.calibration is not None:
        found = record.pairs.calibration
        bound = "" if found.identified else " (at its bound: not known)"
        console.print(
            f"  temperature {found.temperature}{bound}, ECE with it {found.ece_after:.3f}"
        )
    if record.agreement is not None:
        console.print(f"  members agree on {record.agreement.mean_agreement:.3f} of the pairs")
    if record.edits is not None:
        shorter = record.edits.accuracy_where_shorter
        console.print(f"  edits preferred {record.edits.accuracy}, those that shorten {shorter}")
    if record.probe is not None:
        console.print(
            f"  falls when cut {record.probe.cut_falls}, rises on filler "
            f"{record.probe.filler_rises}"
        )
    if record.invariance is not None:
        console.print(f"  alone and in a batch: within {record.invariance.max_difference:.2g}")
    if record.benchmark is None:
        return
    score = record.benchmark.score
    name = "RewardBench" if isinstance(record.benchmark, RewardBenchScore) else "RewardBench 2"
    if score is None:
        console.print(f"{name}: incomplete, without {', '.join(record.benchmark.missing)}")
    else:
        console.print(f"{name}: {score:.3f}")
    if isinstance(record.benchmark, RewardBenchScore):
        for section, value in record.benchmark.sections.items():
            console.print(f"  {section:<14} {value:.3f}")
    for subset in record.benchmark.subsets:
        console.print(f"  {subset.subset:<22} {subset.accuracy} ({subset.rows})")
    ties = getattr(record.benchmark, "ties", None)
    if ties is not None:
        console.print(f"  {'Ties':<22} {ties.score:.3f} ({ties.rows})")
