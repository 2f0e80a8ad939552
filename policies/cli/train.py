"""The verbs of `prefsearch policy` that train: sft, value, finetune."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from rich.console import Console

from policies.cli.args import ProposalSettings, SearchModels, SearchSettings, digests_of
from policies.evaluation.cell_files import CellFile, Fields, Line
from policies.finetuning.collection import sample_responses, searched_demonstrations
from policies.generation.language_model import (
    Policy,
    TinyModel,
    Unfinished,
    build_tiny_model,
    fine_tune,
)
from policies.planning.value_head import fit_value_head
from prefsearch.cli.console import PlainConsole
from prefsearch.cli.outputs import Output, settle_outputs
from prefsearch.cli.run_settings import fields_of, settings_of
from prefsearch.config.bounds import Rows, Size, Tokens, Within
from prefsearch.config.checks import require
from prefsearch.distributed import Processes, join_processes
from prefsearch.run.directory import RunDirectory
from prefsearch.storage.files import write_text_atomic
from prefsearch.storage.folders import remove_folder
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.preferences import load_demonstrations
from rewardmodel.data.rows import OnBadRow
from rewardmodel.interface import score_replies
from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.digest import digest_model, digest_rows
from rewardmodel.pretrained.input_format import ChosenFormat
from rewardmodel.pretrained.places import keep_inputs
from rewardmodel.pretrained.tokenization import load_tokenizer
from rewardmodel.training.optim_config import OptimConfig


@dataclass
class SftJob(OptimConfig):
    """Fine-tune a policy on demonstrations, from a pretrained model or a tiny one from scratch.

    Attributes:
        model: Hub id, folder, .gguf file or package:NAME/FOLDER to begin from; null builds a Llama
            of the sizes below.
        dataset: Demonstrations (prompt and completion, messages) or preferences (the chosen reply).
        split: Split of a hub dataset or folder.
        prompt_column: The prompt's column, or several joined by "+".
        completion_column: The completion's column; null looks for completion, response,
            messages, conversations.
        implicit_prompt: Of preferences: take the beginning that chosen and rejected share for the
            prompt, in plain text without turn markers, too.
        limit: Use this many rows; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        vocabulary: From scratch: entries of the tokenizer.
        hidden_size: From scratch: width of the model.
        layers: From scratch: transformer blocks.
        heads: From scratch: attention heads.
        context: From scratch: the most tokens of prompt and response.
        unfinished: What becomes of demonstrations that were cut off, by their column finished or
            since they are longer than max_length: "no_end" learns them without an end token,
            "leave_out" leaves them out. Both are counted.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    model: str | None = None
    # How the loaders' keyword arguments are given to a command where the name is another.
    FLAGS = MappingProxyType({"tokenizer": "model"})

    dataset: str = ""
    split: str = "train"
    prompt_column: str = "prompt"
    completion_column: str | None = None
    implicit_prompt: bool = False
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    vocabulary: Annotated[int, Within(least=1, most=2**24)] = 1024
    hidden_size: Annotated[int, Within(least=1, most=2**16)] = 128
    layers: Annotated[int, Within(least=1, most=1024)] = 3
    heads: Annotated[int, Within(least=1, most=1024)] = 4
    context: Tokens = 256
    unfinished: Unfinished = "no_end"
    out: str = "runs/sft"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        self.size()
        settle_outputs(self)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ())]

    def size(self) -> TinyModel:
        """The sizes of a model from scratch."""
        return TinyModel(self.vocabulary, self.hidden_size, self.layers, self.heads, self.context)


def sft(job: SftJob) -> None:
    """Fine-tunes and saves; see `SftJob`."""
    console = PlainConsole()
    tokenizer = load_tokenizer(job.model) if job.model else None
    data = load_demonstrations(
        job.dataset,
        split=job.split,
        tokenizer=tokenizer,
        keep_messages=tokenizer is not None,
        prompt_column=job.prompt_column,
        completion_column=job.completion_column,
        implicit_prompt=job.implicit_prompt,
        on_bad_row=job.on_bad_row,
        limit=job.limit,
    )
    inputs = {"dataset": digest_rows(data), "model": digest_model(job.model)}
    run = RunDirectory.open(job.out, settings_of(job), resume=job.resume, inputs=inputs)
    folder = run.checkpoints / "model"
    result = run.result("sft")
    if result is None:
        base = job.model
        if base is None:
            base = str(run.checkpoints / "init")
            texts = [p + c for p, c in zip(data["prompt"], data["completion"], strict=True)]
            build_tiny_model(texts, Path(base), size=job.size(), seed=job.seed)
        outcome = fine_tune(
            base,
            data,
            folder,
            optimization=fields_of(OptimConfig, job),
            unfinished=job.unfinished,
            checkpoints=run.path / "trainer",
            keep_checkpoints=True,
        )
        made = [folder] if job.model else [run.checkpoints / "init", folder]
        result = run.finish("sft", outcome, files=made)
    remove_folder(run.path / "trainer")
    _show_unfinished(console, result)
    console.print(f"Loss {result['loss_first']:.3f} -> {result['loss_last']:.3f}. Model: {folder}")


@dataclass
class ValueJob(ProposalSettings):
    """Fit a value head: the expected final reward of an unfinished response.

    Attributes:
        reward_model: Hub id, folder or package:NAME/FOLDER of a reward model; or a function of
            prompts and responses, python:package.module:name or python:path/to/file.py:name; or
            several of them, ensemble:NAME,NAME.
        input_format: Whether it is given prompt and response as one "text" or as a "pair" of
            segments; "auto" takes what it was trained on, or looks.
        per_prompt: Responses sampled to each prompt to learn from.
        out: Folder for the head.
    """

    reward_model: str = ""
    input_format: ChosenFormat = "auto"
    per_prompt: Size = 4
    out: str = "runs/value"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.reward_model), "reward_model", self.reward_model, "a reward model")
        keep_inputs(self, "dataset", "policy", "reward_model")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, (), replaced=True)]


def value(job: ValueJob) -> None:
    """Fits and saves a value head; see `ValueJob`."""
    policy = Policy.load(job.policy)
    samples = sample_responses(
        policy,
        job.prompts(policy),
        job.per_prompt,
        proposal=job.proposal(),
        seed=job.seed,
        progress="sampling",
    )
    prompts, responses = samples.flat()
    finished = samples.flat_finished()
    reward_model = load_reward_model(job.reward_model, input_format=job.input_format)
    scores = score_replies(reward_model, prompts, responses, finished=finished)
    found = fit_value_head(
        policy,
        job.proposal(),
        prompts,
        responses,
        scores,
        Path(job.out),
        seed=job.seed,
        finished=finished,
    )
    explained = found["explained_variance"]
    shown = "unknown: their targets are all alike" if explained is None else f"{explained:.3f}"
    PlainConsole().print(f"Explained variance on held-out responses {shown}. Head: {job.out}")


@dataclass
class FinetuneJob(SearchSettings, OptimConfig):
    """One round of search-based fine-tuning: search prompts, then learn from what was found.

    Attributes:
        unfinished: What becomes of answers that were cut off at max_new_tokens: "no_end" learns
            them without an end token, "leave_out" leaves them out. Both are counted.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    unfinished: Unfinished = "no_end"
    out: str = "runs/finetune"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        SearchSettings.__post_init__(self)
        settle_outputs(self)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ())]


def finetune(job: FinetuneJob) -> None:
    """Searches, in as many processes as there are, and distils in one; see `FinetuneJob`."""
    processes = join_processes()
    models = job.models()
    prompts = job.prompts(models.policy)
    run = processes.open_run(
        job.out, settings_of(job), resume=job.resume, inputs=digests_of(job, prompts)
    )
    found = run.path / "searched.jsonl"
    if run.result("search") is None:
        lines = _search(job, models, prompts, run, processes)
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
    if run.result("distil") is None:
        outcome = fine_tune(
            job.policy,
            load_demonstrations(str(found), keep_messages=True),
            folder,
            optimization=fields_of(OptimConfig, job),
            unfinished=job.unfinished,
            checkpoints=run.path / "trainer",
            keep_checkpoints=True,
        )
        run.finish("distil", outcome, files=[folder])
    remove_folder(run.path / "trainer")
    _show_unfinished(PlainConsole(), run.result("distil") or {})
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
    job: FinetuneJob,
    models: SearchModels,
    prompts: Sequence[Prompt],
    run: RunDirectory,
    processes: Processes,
) -> list[Line] | None:
    """Searches what is left of the prompts; all lines in the main process."""
    searcher = job.searcher(models, job.method, job.budget)
    cell = CellFile(
        run.path / "data" / "search.jsonl",
        prompts=len(prompts),
        batch_size=searcher.batch_size,
        processes=processes,
        fields=_SEARCHED,
    )

    def batch(index: int) -> list[Line]:
        ((first, results),) = searcher.stream(prompts, seed=job.seed, batches=[index])
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
