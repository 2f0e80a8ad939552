"""`prefsearch reward train`: from preferences to a measured reward model in a run's folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from prefsearch.cli.command_line import for_python
from prefsearch.cli.console import PlainConsole
from prefsearch.cli.outputs import Output, settle_outputs
from prefsearch.cli.run_settings import fields_of, open_run
from prefsearch.config.bounds import ProperFraction, Rows
from prefsearch.config.checks import check_types, require
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.folders import remove_folder
from rewardmodel.cli.columns import ColumnSettings, describe_unused
from rewardmodel.cli.evaluate import measure, show_measures, without_ties
from rewardmodel.data.conversation import TEMPLATE_COLUMNS
from rewardmodel.data.formats.table import FormatName
from rewardmodel.data.preferences import load_demonstrations, load_preferences, split_by_prompt
from rewardmodel.data.rankings import load_rankings, pairs_from_rankings
from rewardmodel.data.report import examine_preferences
from rewardmodel.data.report_page import write_data_report
from rewardmodel.data.rows import ColumnUse, OnBadRow, PreferenceDataError
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.baselines import build_scratch_scorer
from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.checkpoints import read_config
from rewardmodel.pretrained.digest import digest_model, digest_rows
from rewardmodel.pretrained.input_format import ChosenFormat
from rewardmodel.pretrained.tokenization import load_tokenizer
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.model_card import add_evaluation, model_files, push_folder
from rewardmodel.training.optim_config import OptimConfig, Quantization
from rewardmodel.training.reward_model import train_reward_model


@dataclass
class TrainJob(ColumnSettings, OptimConfig, LossConfig):
    """Train a reward model on human comparisons and measure it on held-out prompts.

    Attributes:
        model: What to begin from, a language model or classifier: hub id, folder, .gguf file, or
            package:NAME/FOLDER of an installed package that carries one.
        dataset: Comparisons: hub id, folder, or .json, .jsonl, .jsonl.gz, .parquet, .csv file.
        split: Split of a hub dataset or folder.
        format: What the rows are: auto (told by hub id or columns), plain (columns as they are),
            hh, tldr, ultrafeedback, rewardbench, qa_feedback, scores or rankings.
        whole_rankings: Learn rankings of several responses whole, as `rankings` says, instead of
            pair by pair.
        input_format: Whether the model is given prompt and response as one "text" (messages by its
            chat template) or as a "pair" of segments, as encoders are; "auto" takes what the base
            was trained on, or looks.
        holdout: Share of the prompts kept for measuring.
        limit: Use this many rows; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        reference: Demonstrations whose mean score becomes zero: a dataset of prompts and
            completions, or "chosen" for the chosen replies of the training pairs; null leaves the
            zero where training put it.
        quantize: "8bit" or "4bit" holds the base in bitsandbytes' integers and trains adapters on
            it (QLoRA); needs lora_rank and the extra `qlora`.
        scratch_baseline: Also train a small transformer from random weights on the same pairs, to
            see what the base is worth.
        hub_model_id: Upload the model, with its card, to this hub repository; null keeps it here.
        hub_private: Make that repository private.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    model: str = ""
    dataset: str = ""
    split: str = "train"
    format: FormatName = "auto"
    whole_rankings: bool = False
    holdout: ProperFraction = 0.1
    input_format: ChosenFormat = "auto"
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    reference: str | None = None
    quantize: Quantization = "none"
    scratch_baseline: bool = False
    hub_model_id: str | None = None
    hub_private: bool = True
    out: str = "runs/reward"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.model), "model", self.model, "a hub id, folder or package, by --model")
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        if self.whole_rankings:
            for name, usual in ColumnSettings().columns().items():
                wanted = "unset, since rankings with whole_rankings have no such column"
                as_usual = name == "prompt_column" or getattr(self, name) == usual
                require(as_usual, name, getattr(self, name), wanted)
        if self.quantize != "none":
            require(self.lora_rank > 0, "lora_rank", self.lora_rank, "more than 0 with quantize")
        settle_outputs(self)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ())]


def train(job: TrainJob) -> None:
    """Trains, measures and saves; under `torchrun` or `accelerate launch` in several processes."""
    columns = ColumnUse()
    training, held_out, learned = _load(job, columns)
    reference = _reference(job, training)
    inputs = {
        "model": digest_model(job.model),
        "dataset": digest_rows([*training, *held_out]),
        "reference": None if reference is None else digest_rows(reference),
    }
    run, processes = open_run(job, inputs)
    main = processes.is_main_process
    folder = run.checkpoints / "model"
    console = PlainConsole(quiet=not main)
    if columns.unused:
        console.print(describe_unused(columns))
    if run.result("train") is None:
        if main:
            report = examine_preferences(training, unused_columns=columns.unused)
            write_data_report(report, run.path / "data")
        outcome = train_reward_model(
            job.model,
            learned,
            folder,
            optimization=fields_of(OptimConfig, job),
            objective=fields_of(LossConfig, job),
            reference=reference,
            quantize=job.quantize,
            input_format=job.input_format,
            checkpoints=run.path / "trainer",
            keep_checkpoints=True,
            facts={
                "base": job.model,
                "hub_model_id": job.hub_model_id,
                "dataset": job.dataset,
                "split": job.split,
                "held_out": len(held_out),
            },
        )
        if main:
            run.finish("train", outcome, files=model_files(folder))
    if main:
        remove_folder(run.path / "trainer")
    if job.scratch_baseline and run.result("scratch") is None:  # all processes train it, too
        _train_from_scratch(job, learned, held_out, run, processes)
    if not main:
        return
    result = run.result("evaluate")
    if result is None:
        reward_model = load_reward_model(str(folder), max_length=job.max_length)
        found = measure(reward_model, training, held_out, seed=job.seed, calibrate=True)
        if job.scratch_baseline:
            scratch: Any = run.result("scratch")
            found["baselines"]["from scratch"] = scratch["accuracy"]
        add_evaluation(folder, found)
        result = run.finish("evaluate", found, files=[folder])
    if job.hub_model_id and run.result("push") is None:
        url = push_folder(folder, job.hub_model_id, private=job.hub_private)
        run.finish("push", {"url": url})
        console.print(f"Uploaded: {url}")
    show_measures(console, result)
    console.print(f"Model: {folder}")


def _load(job: TrainJob, columns: ColumnUse) -> tuple[Dataset, Dataset, Dataset]:
    """Pairs to train on, pairs held out, and what is learned: the former, or their rankings."""
    options: dict[str, Any] = {
        "split": job.split,
        "format": job.format,
        "tokenizer": load_tokenizer(job.model),
        "keep_messages": True,
        "on_bad_row": job.on_bad_row,
        "limit": job.limit,
        "columns": columns,
    }
    if job.whole_rankings:
        rankings = load_rankings(job.dataset, prompt_column=job.prompt_column, **options)
        ranked, held_out = split_by_prompt(rankings, holdout=job.holdout, seed=job.seed)
        return pairs_from_rankings(ranked), pairs_from_rankings(held_out), ranked
    data = load_preferences(job.dataset, **options, **job.columns())
    training, held_out = split_by_prompt(data, holdout=job.holdout, seed=job.seed)
    return training, held_out, training


def _reference(job: TrainJob, training: Dataset) -> Dataset | None:
    """The demonstrations whose mean score becomes zero."""
    if job.reference is None:
        return None
    if job.reference == "chosen":
        kept = without_ties(training)
        names = {"chosen": "completion", "chosen_finished": "finished"}
        kept = kept.rename_columns({a: b for a, b in names.items() if a in kept.column_names})
        wanted = {"prompt", "completion", "finished", *TEMPLATE_COLUMNS}
        return kept.select_columns([name for name in kept.column_names if name in wanted])
    try:
        return load_demonstrations(job.reference, keep_messages=True, on_bad_row=job.on_bad_row)
    except PreferenceDataError as error:  # the columns that flags name are the dataset's
        raise for_python(error) from error


def _train_from_scratch(
    job: TrainJob,
    learned: Dataset,
    held_out: Dataset,
    run: RunDirectory,
    processes: PartialState,
) -> None:
    """Measures a small transformer that knew nothing before these pairs, the step "scratch"."""
    with processes.main_process_first():  # the first builds it, the others find it
        base = build_scratch_scorer(job.model, run.path / "scratch" / "base", seed=job.seed)
    folder = run.path / "scratch" / "model"
    trained = read_config(str(run.checkpoints / "model"))  # which is read as the base was
    # Random weights want larger steps than a pretrained base.
    optimization = OptimConfig(
        epochs=3,
        learning_rate=1e-3,
        batch_size=job.batch_size,
        max_length=job.max_length,
        weight_decay=0.01,
        warmup_ratio=0.1,
        seed=job.seed,
    )
    outcome = train_reward_model(
        str(base),
        learned,
        folder,
        optimization=optimization,
        objective=fields_of(LossConfig, job),
        input_format=trained["input_format"]["name"],
    )
    if not processes.is_main_process:
        return
    scratch: Any = load_reward_model(str(folder), max_length=job.max_length)
    found = evaluate_reward_model(scratch, held_out, seed=job.seed)
    result = {
        "accuracy": asdict(found.accuracy),
        "parameters": sum(weight.numel() for weight in scratch.model.parameters()),
        "folder": str(Path(folder).relative_to(run.path)),
        **{name: outcome[name] for name in ("updates", "seconds", "loss_last")},
    }
    run.finish("scratch", result)
