"""`prefsearch policy sft`, `value` and `finetune`: training of policies and value heads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from policies.cli.args import FinetuneArgs, SftArgs, ValueArgs
from policies.cli.loading import (
    SearchModels,
    digests_of,
    prompts_for,
    search_models,
    searcher_for,
)
from policies.evaluation.cell_files import CellFile, Fields, Line
from policies.finetuning.samples import sample_responses, searched_demonstrations
from policies.generation.language_model import (
    Policy,
    build_tiny_model,
    fine_tune,
)
from policies.planning.value_head import fit_value_head
from prefsearch.cli.console import PlainConsole
from prefsearch.config.settings import run_settings
from prefsearch.distributed import Processes, join_processes
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.folders import remove_folder
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.preferences import load_demonstrations
from rewardmodel.interface import score_replies
from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.digest import digest_model, digest_rows
from rewardmodel.pretrained.tokenization import load_tokenizer


def sft(args: SftArgs) -> None:
    """Fine-tunes and saves."""
    console = PlainConsole()
    tokenizer = load_tokenizer(args.model) if args.model else None
    data = load_demonstrations(
        args.dataset,
        split=args.split,
        tokenizer=tokenizer,
        keep_messages=tokenizer is not None,
        prompt_column=args.prompt_column,
        completion_column=args.completion_column,
        implicit_prompt=args.implicit_prompt,
        on_bad_row=args.on_bad_row,
        limit=args.limit,
    )
    inputs = {"dataset": digest_rows(data), "model": digest_model(args.model)}
    run = RunDirectory.open(args.out, run_settings(args), resume=args.resume, inputs=inputs)
    folder = run.checkpoints / "model"
    result = run.result("sft")
    if result is None:
        base = args.model
        if base is None:
            base = str(run.checkpoints / "init")
            texts = [p + c for p, c in zip(data["prompt"], data["completion"], strict=True)]
            build_tiny_model(texts, Path(base), size=args.size, seed=args.optim.seed)
        outcome = fine_tune(
            base,
            data,
            folder,
            optimization=args.optim,
            unfinished=args.unfinished,
            checkpoints=run.path / "trainer",
            keep_checkpoints=True,
        )
        made = [folder] if args.model else [run.checkpoints / "init", folder]
        result = run.finish("sft", outcome, files=made)
    remove_folder(run.path / "trainer")
    _show_unfinished(console, result)
    console.print(f"Loss {result['loss_first']:.3f} -> {result['loss_last']:.3f}. Model: {folder}")


def value(args: ValueArgs) -> None:
    """Fits and saves a value head."""
    policy = Policy.load(args.policy)
    samples = sample_responses(
        policy,
        prompts_for(args, policy),
        args.per_prompt,
        proposal=args.proposal,
        seed=args.seed,
        progress="sampling",
    )
    prompts, responses = samples.flat()
    finished = samples.flat_finished()
    reward_model = load_reward_model(args.reward_model, input_format=args.input_format)
    scores = score_replies(reward_model, prompts, responses, finished=finished)
    found = fit_value_head(
        policy,
        args.proposal,
        prompts,
        responses,
        scores,
        Path(args.out),
        seed=args.seed,
        finished=finished,
    )
    explained = found["explained_variance"]
    shown = "unknown: their targets are all alike" if explained is None else f"{explained:.3f}"
    PlainConsole().print(f"Explained variance on held-out responses {shown}. Head: {args.out}")


def finetune(args: FinetuneArgs) -> None:
    """Searches, in as many processes as there are, and distills in one."""
    processes = join_processes()
    models = search_models(args)
    prompts = prompts_for(args, models.policy)
    run = processes.open_run(
        args.out, run_settings(args), resume=args.resume, inputs=digests_of(args, prompts)
    )
    found = run.path / "searched.jsonl"
    if run.result("search") is None:
        lines = _search(args, models, prompts, run, processes)
        if lines is not None:
            rows = searched_demonstrations(
                prompts,
                [line["response"] for line in lines],
                [line.get("response_finished", True) for line in lines],
            )
            cut = len(rows) - sum(rows["finished"])
            write_text_atomic(found, json_lines(rows))
            tokens = sum(line["tokens"] for line in lines)
            result = {"texts": len(rows), "unfinished": cut, "tokens": tokens}
            run.finish("search", result, files=[found, run.path / "data" / "search.jsonl"])
    if not processes.leave_main():
        return
    folder = run.checkpoints / "model"
    if run.result("distill") is None:
        outcome = fine_tune(
            args.policy,
            load_demonstrations(str(found), keep_messages=True),
            folder,
            optimization=args.optim,
            unfinished=args.unfinished,
            checkpoints=run.path / "trainer",
            keep_checkpoints=True,
        )
        run.finish("distill", outcome, files=[folder])
    remove_folder(run.path / "trainer")
    _show_unfinished(PlainConsole(), run.result("distill") or {})
    PlainConsole().print(f"Model: {folder}")


def _show_unfinished(console: Console, result: Mapping[str, Any]) -> None:
    """Prints how many demonstrations were cut off, if any were."""
    if result.get("unfinished"):
        given = result["rows"] + result["left_out"]
        became = "were left out" if result["left_out"] else "taught no end token"
        console.print(f"{result['unfinished']} of {given} demonstrations were cut off and {became}")


_SEARCHED: Fields = {
    "prompt": int, "response": str, "response_finished": bool, "score": (int, float), "tokens": int
}  # fmt: skip


def _search(
    args: FinetuneArgs,
    models: SearchModels,
    prompts: Sequence[Prompt],
    run: RunDirectory,
    processes: Processes,
) -> list[Line] | None:
    """Searches what is left of the prompts; all lines in the main process."""
    searcher = searcher_for(args, models, args.method, args.budget)
    cell = CellFile(
        run.path / "data" / "search.jsonl",
        prompts=len(prompts),
        batch_size=searcher.batch_size,
        processes=processes,
        fields=_SEARCHED,
    )

    def batch(index: int) -> list[Line]:
        ((first, results),) = searcher.stream(prompts, seed=args.seed, batches=[index])
        return [
            {
                "prompt": first + i,
                "response": r.response,
                "response_finished": r.response_finished,
                "score": r.score,
                "tokens": r.tokens,
            }
            for i, r in enumerate(results)
        ]

    cell.fill(batch, label="searching")
    return cell.close()
