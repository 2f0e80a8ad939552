"""`prefsearch reward evaluate`: what a reward model is worth on preference pairs or a benchmark."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from rich.console import Console

from prefsearch.cli.console import PlainConsole
from prefsearch.cli.outputs import Output
from prefsearch.config.bounds import FractionBelowOne, Rows, Seed, Tokens
from prefsearch.config.checks import check_types, require
from prefsearch.run.directory import environment
from prefsearch.statistics.metrics import Interval
from prefsearch.storage.files import write_json_atomic
from rewardmodel.cli.columns import ColumnSettings
from rewardmodel.data.conversation import prompts_of, replies_of
from rewardmodel.data.formats.table import FormatName
from rewardmodel.data.preferences import load_preferences, split_by_prompt
from rewardmodel.data.reward_bench import load_reward_bench, load_reward_bench_2
from rewardmodel.data.rows import OnBadRow
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.agreement import evaluate_agreement
from rewardmodel.evaluation.baselines import bag_of_words_accuracy, longer_reply_accuracy
from rewardmodel.evaluation.batch_invariance import measure_batch_invariance
from rewardmodel.evaluation.benchmarks.reward_bench import RewardBenchScore, evaluate_reward_bench
from rewardmodel.evaluation.benchmarks.reward_bench2 import evaluate_reward_bench2
from rewardmodel.evaluation.length.edits import edit_accuracy, load_edits
from rewardmodel.evaluation.length.probes import truncation_probe
from rewardmodel.evaluation.report import EvaluationRecord, write_evaluation
from rewardmodel.interface import RewardModel, UncertainRewardModel
from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.input_format import ChosenFormat
from rewardmodel.pretrained.places import keep_inputs

logger = logging.getLogger(__name__)
_INVARIANCE_PAIRS = 16


@dataclass
class EvaluateJob(ColumnSettings):
    """Measure a reward model on preference pairs or on RewardBench.

    Attributes:
        model: A trained reward model or ensemble: hub id, folder or package:NAME/FOLDER.
        dataset: Preference pairs, as for `train`; or RewardBench, where `benchmark` says so.
        split: Split of a hub dataset or folder; null takes "train", of a benchmark its own.
        format: What the rows are, as for `train`: auto, plain or a format's name.
        benchmark: "pairs" measures on preference pairs; "rewardbench" and "rewardbench2" score
            that benchmark by its own rules.
        holdout: Measure on this share of the prompts, the same that `train` held out with the same
            seed; 0 measures on all.
        training_dataset: Pairs for the bag-of-words baseline to learn from, where `holdout` is 0,
            in the same columns; those of prompts that are measured on are left out.
        calibrate: Also fit a temperature, and say what it mends on prompts it was not fitted to.
        edits: Human edits: rows of prompt, original and edited, or qa-feedback's corrections. Those
            of prompts that `holdout` or `training_dataset` leaves to training are left out.
        probes: Also score replies with their last sentence removed and repeated.
        check_batches: Also score texts alone and in batches, and report the largest difference.
        seed: Of the split and the bootstrap.
        max_length: Tokens of prompt and response together; null takes the model's context.
        input_format: Whether the model is given prompt and response as one "text" (messages by its
            chat template) or as a "pair" of segments, as encoders are; "auto" takes what it was
            trained on, or looks.
        limit: Use this many pairs; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        out: Folder for report.html, evaluation.json and figures, or a .json file for the figures
            alone.
    """

    model: str = ""
    dataset: str = ""
    split: str | None = None
    format: FormatName = "auto"
    benchmark: Literal["pairs", "rewardbench", "rewardbench2"] = "pairs"
    holdout: FractionBelowOne = 0.0
    training_dataset: str | None = None
    calibrate: bool = False
    edits: str | None = None
    probes: bool = False
    check_batches: bool = False
    seed: Seed = 0
    max_length: Tokens | None = None
    input_format: ChosenFormat = "auto"
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    out: str | None = None

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.model), "model", self.model, "a hub id, folder or package, by --model")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        require(
            not (self.holdout and self.training_dataset),
            "training_dataset",
            self.training_dataset,
            "unset where holdout is not 0, whose other prompts are learned from",
        )
        if self.benchmark != "pairs":
            for name in ("holdout", "training_dataset", "calibrate", "probes", "check_batches"):
                value = getattr(self, name)
                require(not value, name, value, f"unset, for benchmark is {self.benchmark}")
            for name, usual in {"format": "auto", **ColumnSettings().columns()}.items():
                value = getattr(self, name)
                require(value == usual, name, value, f"unset, for benchmark is {self.benchmark}")
        keep_inputs(self, "training_dataset", "edits", "model", "dataset")

    def outputs(self) -> list[Output]:
        """What it writes."""
        if self.out is None:
            return []
        alone = Path(self.out).suffix == ".json"
        return [Output("out", self.out, None if alone else ("evaluation.json", "report.html"))]


def evaluate(job: EvaluateJob) -> None:
    """Measures a saved reward model; see `EvaluateJob`."""
    console = PlainConsole()
    chosen: dict[str, Any] = (
        {} if job.input_format == "auto" else {"input_format": job.input_format}
    )
    reward_model = load_reward_model(job.model, max_length=job.max_length, **chosen)
    record = EvaluationRecord(settings=asdict(job), environment=environment())
    edits = load_edits(job.edits, on_bad_row=job.on_bad_row) if job.edits else None
    if job.benchmark == "pairs":
        training, data = _pairs(job, _tokenizer_of(reward_model))
        if edits is not None and training is not None:
            edits = _without_prompts_of(training, edits, f"edits in {job.edits}")
        record = _on_pairs(job, reward_model, record, training, data)
    else:
        record = _on_benchmark(job, reward_model, record)
    if edits is not None:
        record = dataclasses.replace(
            record, edits=edit_accuracy(reward_model, edits, seed=job.seed)
        )
    if job.out and Path(job.out).suffix == ".json":
        write_json_atomic(job.out, {"settings": record.settings, **_flat(record)})
    elif job.out:
        page = write_evaluation(record, job.out, title=f"Reward model {Path(job.model).name}")
        console.print(f"Report: {page}")
    if record.pairs is not None:
        show_measures(console, _flat(record), held_out=job.holdout > 0)
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
    job: EvaluateJob,
    reward_model: RewardModel,
    record: EvaluationRecord,
    training: Dataset | None,
    data: Dataset,
) -> EvaluationRecord:
    """Measures on preference pairs all that the job asks for."""
    if job.probes:  # first: what is wrong with the replies is said before all is scored
        record = dataclasses.replace(
            record, probe=truncation_probe(reward_model, data, seed=job.seed)
        )
    pairs = evaluate_reward_model(reward_model, data, seed=job.seed, calibrated=job.calibrate)
    record = dataclasses.replace(
        record, pairs=pairs, baselines=measure_baselines(training, data, seed=job.seed)
    )
    if isinstance(reward_model, UncertainRewardModel):
        record = dataclasses.replace(record, agreement=evaluate_agreement(reward_model, data))
    if job.check_batches:
        rows = data.select(range(min(_INVARIANCE_PAIRS, len(data))))
        record = dataclasses.replace(
            record,
            invariance=measure_batch_invariance(
                reward_model,
                [*prompts_of(rows), *prompts_of(rows)],
                [*replies_of(rows, "chosen"), *replies_of(rows, "rejected")],
                seed=job.seed,
            ),
        )
    return record


def _pairs(job: EvaluateJob, tokenizer: Any) -> tuple[Dataset | None, Dataset]:
    """Pairs for the baseline to learn from, and those to measure on."""
    data = load_preferences(
        job.dataset,
        split=job.split or "train",
        format=job.format,
        tokenizer=tokenizer,
        keep_messages=True,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
        **job.columns(),
    )
    if job.holdout:
        return split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    if job.training_dataset:
        training = load_preferences(
            job.training_dataset,
            tokenizer=tokenizer,
            keep_messages=True,
            on_bad_row=job.on_bad_row,
            **job.columns(),
        )
        return _without_prompts_of(data, training, f"pairs in {job.training_dataset}"), data
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
    job: EvaluateJob, reward_model: RewardModel, record: EvaluationRecord
) -> EvaluationRecord:
    """Scores RewardBench by its own rules."""
    options: dict[str, Any] = {
        "tokenizer": _tokenizer_of(reward_model),
        "keep_messages": True,
        "on_bad_row": job.on_bad_row,
        "limit": job.limit,
    }
    if job.split is not None:
        options["split"] = job.split
    if job.benchmark == "rewardbench":
        rows = load_reward_bench(job.dataset, **options)
        return dataclasses.replace(record, benchmark=evaluate_reward_bench(reward_model, rows))
    rows = load_reward_bench_2(job.dataset, **options)
    return dataclasses.replace(record, benchmark=evaluate_reward_bench2(reward_model, rows))


def _tokenizer_of(reward_model: Any) -> Any:
    """By whose template a bare question is a message, of an ensemble its first member's."""
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
