"""The verbs of `prefsearch policy` that answer prompts: sample and plan.

Both may be started by `accelerate launch` or `torchrun`: batches of prompts are then dealt to the
processes, and the answers are those of one process.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from policies.cli.args import ProposalSettings, SearchSettings
from policies.finetuning.collection import sample_responses
from policies.generation.language_model import Policy
from prefsearch.cli.outputs import Output
from prefsearch.config.bounds import CountOrZero, Size
from prefsearch.config.checks import require
from prefsearch.distributed import Processes, join_processes
from prefsearch.storage.files import write_text_atomic
from rewardmodel.data.conversation import prompt_record
from rewardmodel.data.json_lines import json_lines
from rewardmodel.pretrained.places import keep_inputs

Row = dict[str, Any]


def _all_rows(
    processes: Processes, count: int, work: Callable[[int], Sequence[Row]], *, label: str
) -> list[Row]:
    """Rows of all batches, in order, in the main process; none in the others.

    Args:
        processes: Who does them.
        count: How many batches there are.
        work: Makes a batch's rows, by its number.
        label: Of the progress bar.
    """
    share = processes.share(count)
    done = [(i, work(i)) for i in track(share, label, transient=True, disable=processes.quiet)]
    found = sorted(processes.gather(done), key=lambda batch: batch[0])
    return [row for _, rows in found for row in rows]


@dataclass
class SampleJob(ProposalSettings):
    """Sample whole responses of a policy, several to a prompt.

    Attributes:
        per_prompt: Responses to each prompt.
        out: JSON lines of prompt, responses, and whether each is finished or was cut off at
            max_new_tokens.
    """

    per_prompt: Size = 4
    out: str = "runs/samples.jsonl"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        keep_inputs(self, "dataset", "policy")

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out)]


def sample(job: SampleJob) -> None:
    """Samples; see `SampleJob`."""
    processes = join_processes()
    policy = Policy.load(job.policy)
    prompts = job.prompts(policy)
    size = job.search_batch_size

    def batch(index: int) -> list[Row]:
        samples = sample_responses(
            policy,
            prompts[index * size : (index + 1) * size],
            job.per_prompt,
            proposal=job.proposal(),
            seed=job.seed,
            first=index * size,
            batch_size=job.max_rows,
        )
        return [
            {**prompt_record(prompt), "responses": texts, "finished": finished}
            for prompt, texts, finished in zip(
                samples.prompts, samples.texts, samples.finished, strict=True
            )
        ]

    rows = _all_rows(processes, -(-len(prompts) // size), batch, label="sampling")
    if processes.main:
        write_text_atomic(job.out, json_lines(rows))
        ended = [finished for row in rows for finished in row["finished"]]
        shown = f"{len(rows)} prompts, {sum(ended)} of {len(ended)} responses finished: {job.out}"
        processes.console().print(shown)


@dataclass
class PlanJob(SearchSettings):
    """Answer prompts with the best responses that a search finds.

    Attributes:
        keep_candidates: Whether to write all finished responses that the search saw, with scores.
        keep_trees: For how many of the first prompts to keep the search tree.
        save_trees: New or empty folder for all search trees, which `prefsearch tree show` opens;
            null saves none.
        out: JSON lines of prompt, response, score and cost.
    """

    keep_candidates: bool = False
    keep_trees: CountOrZero = 0
    save_trees: str | None = None
    out: str = "runs/planned.jsonl"

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        keep_inputs(self, "dataset", "policy", "reward_model", "value_head", "reference")
        if self.save_trees is not None:
            folder = Path(self.save_trees)
            free = folder.is_dir() and not any(folder.iterdir())
            wanted = "a new or empty folder, so that no older trees lie between the new ones"
            require(free or not folder.exists(), "save_trees", self.save_trees, wanted)

    def outputs(self) -> list[Output]:
        """What it writes."""
        trees = [] if self.save_trees is None else [Output("save_trees", self.save_trees, ())]
        return [Output("out", self.out), *trees]


@contextlib.contextmanager
def _kept_whole(folder: Path | None) -> Iterator[None]:
    """Empties a folder of trees, which was empty before, if the search that fills it fails."""
    try:
        yield
    except BaseException:
        for path in [] if folder is None or not folder.is_dir() else list(folder.iterdir()):
            path.unlink(missing_ok=True)
        raise


def plan(job: PlanJob) -> None:
    """Plans; see `PlanJob`."""
    processes = join_processes()
    models = job.models()
    prompts = job.prompts(models.policy)
    searcher = job.searcher(models, job.method, job.budget)
    trees = None if job.save_trees is None else Path(job.save_trees)

    def batch(index: int) -> list[Row]:
        ((_, results),) = searcher.stream(
            prompts, seed=job.seed, batches=[index], keep_trees=job.keep_trees, save_trees=trees
        )
        rows = [{**asdict(result), **prompt_record(result.prompt)} for result in results]
        return [{k: v for k, v in row.items() if k not in left_out} for row in rows]

    left_out = () if job.keep_candidates else ("candidates",)
    with _kept_whole(trees):
        batches = -(-len(prompts) // searcher.batch_size)
        rows = _all_rows(processes, batches, batch, label=job.method)
    if processes.main:
        write_text_atomic(job.out, json_lines(rows))
        tokens = sum(row["tokens"] for row in rows) / len(rows)
        mean = sum(row["score"] for row in rows) / len(rows)
        ended = sum(row["response_finished"] for row in rows)
        shown = (
            f"Mean score {mean:.3f}, {tokens:.0f} tokens a prompt, {ended} of {len(rows)} "
            f"responses finished: {job.out}"
        )
        processes.console().print(shown)
