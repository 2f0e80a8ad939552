"""`prefsearch policy sample` and `plan`: responses to prompts.

Under `torchrun` or `accelerate launch` batches of prompts are shared out among the processes; the
responses are those of one process.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policies.cli.args import PlanArgs, SampleArgs
from policies.cli.loading import prompts_for, search_models, searcher_for
from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy
from prefsearch.distributed import Processes, join_processes
from prefsearch.progress import track
from prefsearch.storage.files import write_text_atomic
from rewardmodel.data.conversation import prompt_record
from rewardmodel.data.json_lines import json_lines

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
    done = [(i, work(i)) for i in track(share, label, enabled=processes.main)]
    found = sorted(processes.gather(done), key=lambda batch: batch[0])
    return [row for _, rows in found for row in rows]


def sample(args: SampleArgs) -> None:
    """Samples."""
    processes = join_processes()
    policy = Policy.load(args.policy)
    prompts = prompts_for(args, policy)
    size = args.search_batch_size

    def batch(index: int) -> list[Row]:
        samples = sample_responses(
            policy,
            prompts[index * size : (index + 1) * size],
            args.per_prompt,
            proposal=args.proposal,
            seed=args.seed,
            first=index * size,
            batch_size=args.max_rows,
        )
        return [
            {**prompt_record(prompt), "responses": texts, "finished": finished}
            for prompt, texts, finished in zip(
                samples.prompts, samples.texts, samples.finished, strict=True
            )
        ]

    rows = _all_rows(processes, -(-len(prompts) // size), batch, label="sampling")
    if processes.main:
        write_text_atomic(args.out, json_lines(rows))
        ended = [finished for row in rows for finished in row["finished"]]
        shown = f"{len(rows)} prompts, {sum(ended)} of {len(ended)} responses finished: {args.out}"
        processes.console().print(shown)


@contextlib.contextmanager
def _kept_whole(folder: Path | None) -> Iterator[None]:
    """Empties a folder of trees, which was empty before, if the search that fills it fails."""
    try:
        yield
    except BaseException:
        for path in [] if folder is None or not folder.is_dir() else list(folder.iterdir()):
            path.unlink(missing_ok=True)
        raise


def plan(args: PlanArgs) -> None:
    """Plans."""
    processes = join_processes()
    models = search_models(args)
    prompts = prompts_for(args, models.policy)
    searcher = searcher_for(args, models, args.method, args.budget)
    trees = None if args.save_trees is None else Path(args.save_trees)

    def batch(index: int) -> list[Row]:
        ((_, results),) = searcher.stream(
            prompts, seed=args.seed, batches=[index], keep_trees=args.keep_trees, save_trees=trees
        )
        rows = [{**asdict(result), **prompt_record(result.prompt)} for result in results]
        return [{k: v for k, v in row.items() if k not in left_out} for row in rows]

    left_out = () if args.keep_candidates else ("candidates",)
    with _kept_whole(trees):
        batches = -(-len(prompts) // searcher.batch_size)
        rows = _all_rows(processes, batches, batch, label=args.method)
    if processes.main:
        write_text_atomic(args.out, json_lines(rows))
        tokens = sum(row["tokens"] for row in rows) / len(rows)
        mean = sum(row["score"] for row in rows) / len(rows)
        ended = sum(row["response_finished"] for row in rows)
        shown = (
            f"Mean score {mean:.3f}, {tokens:.0f} tokens a prompt, {ended} of {len(rows)} "
            f"responses finished: {args.out}"
        )
        processes.console().print(shown)
