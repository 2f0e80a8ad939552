"""`prefsearch reward train`: from preferences to a measured reward model in a run's folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from prefsearch.cli.command_line import for_python
from prefsearch.config.settings import run_settings
from prefsearch.distributed import Processes, join_processes
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.folders import remove_folder
from rewardmodel.cli.data import show_unused
from rewardmodel.cli.evaluate import measure, show_measures, without_ties
from rewardmodel.cli.model_args import RewardTrainArgs
from rewardmodel.data.conversation import TEMPLATE_COLUMNS
from rewardmodel.data.preferences import load_demonstrations, load_preferences, split_by_prompt
from rewardmodel.data.rankings import load_rankings, pairs_from_rankings
from rewardmodel.data.report import examine_preferences
from rewardmodel.data.report_page import write_data_report
from rewardmodel.data.rows import ColumnUse, PreferenceDataError
from rewardmodel.evaluation.accuracy import evaluate_reward_model
from rewardmodel.evaluation.baselines import build_scratch_scorer
from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.checkpoints import read_config
from rewardmodel.pretrained.digest import digest_model, digest_rows
from rewardmodel.pretrained.tokenization import load_tokenizer
from rewardmodel.training.model_card import add_evaluation, model_files, push_folder
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model


def train(args: RewardTrainArgs) -> None:
    """Trains, measures and saves; under `torchrun` or `accelerate launch` in several processes."""
    columns = ColumnUse()
    training, held_out, learned = _load(args, columns)
    reference = _reference(args, training)
    inputs = {
        "model": digest_model(args.model),
        "dataset": digest_rows([*training, *held_out]),
        "reference": None if reference is None else digest_rows(reference),
    }
    processes = join_processes(training=True)
    run = processes.open_run(args.out, run_settings(args), resume=args.resume, inputs=inputs)
    main, console = processes.main, processes.console()
    folder = run.checkpoints / "model"
    show_unused(console, columns)
    if run.result("train") is None:
        if main:
            report = examine_preferences(training, unused_columns=columns.unused)
            write_data_report(report, run.path / "data")
        outcome = train_reward_model(
            args.model,
            learned,
            folder,
            optimization=args.optim,
            objective=args.loss,
            reference=reference,
            load_in_4bit=args.load_in_4bit,
            load_in_8bit=args.load_in_8bit,
            input_format=args.input_format,
            checkpoints=run.path / "trainer",
            keep_checkpoints=True,
            facts={
                "base": args.model,
                "hub_model_id": args.hub_model_id,
                "dataset": args.dataset,
                "split": args.split,
                "held_out": len(held_out),
            },
        )
        if main:
            run.finish("train", outcome, files=model_files(folder))
    if main:
        remove_folder(run.path / "trainer")
    if args.scratch_baseline and run.result("scratch") is None:  # all processes train it, too
        _train_from_scratch(args, learned, held_out, run, processes)
    if not main:
        return
    result = run.result("evaluate")
    if result is None:
        reward_model = load_reward_model(str(folder), max_length=args.optim.max_length)
        found = measure(reward_model, training, held_out, seed=args.optim.seed, calibrate=True)
        if args.scratch_baseline:
            scratch: Any = run.result("scratch")
            found["baselines"]["from scratch"] = scratch["accuracy"]
        add_evaluation(folder, found)
        result = run.finish("evaluate", found, files=[folder])
    if args.hub_model_id and run.result("push") is None:
        url = push_folder(folder, args.hub_model_id, private=args.hub_private)
        run.finish("push", {"url": url})
        console.print(f"Uploaded: {url}")
    show_measures(console, result)
    console.print(f"Model: {folder}")


def _load(args: RewardTrainArgs, columns: ColumnUse) -> tuple[Dataset, Dataset, Dataset]:
    """Pairs to train on, pairs held out, and what is learned: the former, or their rankings."""
    options: dict[str, Any] = {
        "tokenizer": load_tokenizer(args.model),
        "keep_messages": True,
        "columns": columns,
    }
    if args.listwise:
        for name in ("split", "format", "on_bad_row", "limit", "prompt_column"):
            options[name] = getattr(args, name)
        rankings = load_rankings(args.dataset, **options)
        ranked, held_out = split_by_prompt(rankings, holdout=args.holdout, seed=args.optim.seed)
        return pairs_from_rankings(ranked), pairs_from_rankings(held_out), ranked
    data = load_preferences(args.dataset, **options, **args.rows())
    training, held_out = split_by_prompt(data, holdout=args.holdout, seed=args.optim.seed)
    return training, held_out, training


def _reference(args: RewardTrainArgs, training: Dataset) -> Dataset | None:
    """The demonstrations whose mean score becomes zero."""
    if args.reference is None:
        return None
    if args.reference == "chosen":
        kept = without_ties(training)
        names = {"chosen": "completion", "chosen_finished": "finished"}
        kept = kept.rename_columns({a: b for a, b in names.items() if a in kept.column_names})
        wanted = {"prompt", "completion", "finished", *TEMPLATE_COLUMNS}
        return kept.select_columns([name for name in kept.column_names if name in wanted])
    try:
        return load_demonstrations(args.reference, keep_messages=True, on_bad_row=args.on_bad_row)
    except PreferenceDataError as error:  # the columns that flags name are the dataset's
        raise for_python(error) from error


def _train_from_scratch(
    args: RewardTrainArgs,
    learned: Dataset,
    held_out: Dataset,
    run: RunDirectory,
    processes: Processes,
) -> None:
    """Measures a small transformer that knew nothing before these pairs, the step "scratch"."""
    base = run.path / "scratch" / "base"
    processes.on_main(lambda: build_scratch_scorer(args.model, base, seed=args.optim.seed))
    folder = run.path / "scratch" / "model"
    trained = read_config(str(run.checkpoints / "model"))  # which is read as the base was
    # Random weights want larger steps than a pretrained base.
    optimization = OptimConfig(
        epochs=3,
        learning_rate=1e-3,
        batch_size=args.optim.batch_size,
        max_length=args.optim.max_length,
        weight_decay=0.01,
        warmup_ratio=0.1,
        seed=args.optim.seed,
    )
    outcome = train_reward_model(
        str(base),
        learned,
        folder,
        optimization=optimization,
        objective=args.loss,
        input_format=trained["input_format"]["name"],
    )
    if not processes.main:
        return
    scratch: Any = load_reward_model(str(folder), max_length=args.optim.max_length)
    found = evaluate_reward_model(scratch, held_out, seed=args.optim.seed)
    result = {
        "accuracy": asdict(found.accuracy),
        "parameters": sum(weight.numel() for weight in scratch.model.parameters()),
        "folder": str(Path(folder).relative_to(run.path)),
        **{name: outcome[name] for name in ("updates", "seconds", "loss_last")},
    }
    run.finish("scratch", result)
