"""Runs an evaluation cell by cell, resumable and distributed over processes.

A cell is one method at one budget over all prompts; the pool of samples, from which every method
that chooses among whole responses is measured, is one more. A cell that is done is a step of the
run, and its records are the run's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policies.evaluation.cell_files import CellFile, Fields, Line, read_lines
from policies.evaluation.clusters import with_clusters
from policies.evaluation.gold_scorer import GoldScorer
from policies.evaluation.pooled import POOL_FIELDS, Pool, pool_lines, pool_records
from policies.evaluation.records import SEARCH_FIELDS, records_of_lines, search_lines
from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.options import TITLES, MethodName, seed_name
from policies.planning.searcher import SearchPolicy
from prefsearch.distributed import Processes
from prefsearch.run.directory import RunDirectory, step_seed
from prefsearch.run.files import REMEDY, DamagedRunError
from prefsearch.storage.files import write_json_atomic
from rewardmodel.data.conversation import Prompt, plain
from rewardmodel.interface import RewardModel

POOL = "pool"


@dataclass(frozen=True)
class Measurement:
    """An evaluation under way.

    Attributes:
        run: Where it is kept.
        prompts: All prompts.
        clusters: Of each prompt, for the intervals; see `policies.evaluation.clusters`.
        gold_scorer: Gives the gold scores, or None.
        seed: Of the run; every cell has its own by its name.
        batch_size: Prompts a batch.
        processes: Who shares the work.
    """

    run: RunDirectory
    prompts: Sequence[Prompt]
    clusters: Sequence[str]
    gold_scorer: GoldScorer | None
    seed: int
    batch_size: int
    processes: Processes

    def measure_pool(
        self,
        policy: Policy,
        reward_model: RewardModel,
        *,
        size: int,
        proposal: Proposal,
        methods: Sequence[MethodName],
        counts: Sequence[int],
        form: str,
        rows: int,
    ) -> None:
        """Samples a pool and measures all methods that choose from it, unless that is done.

        Args:
            policy: Samples.
            reward_model: Chooses.
            size: Responses to each prompt.
            proposal: How responses are sampled.
            methods: Some of `policies.planning.methods.POOLED`.
            counts: Their budgets.
            form: Of the votes' answers.
            rows: The most responses that are sampled side by side.

        Raises:
            DamagedRunError: If a line of an earlier start is not as it was written.
        """
        if self.run.result(POOL) is not None:
            return
        seed = step_seed(self.seed, POOL)

        def batch(index: int) -> list[Line]:
            began = time.perf_counter()
            first = index * self.batch_size
            samples = sample_responses(
                policy,
                self.prompts[first : first + self.batch_size],
                size,
                proposal=proposal,
                seed=seed,
                first=first,
                batch_size=rows,
            )
            lines = pool_lines(
                samples, reward_model, self.gold_scorer, policy=policy, first=first, rows=rows
            )
            seconds = (time.perf_counter() - began) / len(lines)
            return [{**line, "seconds": seconds} for line in lines]

        cell = self._cell(POOL, POOL_FIELDS, size)
        cell.fill(batch, label="samples")
        lines = cell.close()
        if lines is None:
            return
        plain = proposal.temperature == 1 and not proposal.top_k and proposal.top_p == 1
        records = [
            record
            for method in methods
            for record in pool_records(
                Pool.of(lines),
                method,
                # A vote of one is one sample, as best-of-1 is.
                counts=[n for n in counts if n > 1 or method == "best_of_n"],
                seed=seed,
                form=form,
                own_samples=plain and not proposal.min_new_tokens,
            )
        ]
        records = with_clusters(records, self.clusters)
        self.run.finish(
            POOL,
            {"responses": len(self.prompts) * size},
            records=records,
            files=[
                path
                for path in (cell_path(self.run, POOL), prompts_path(self.run))
                if path.is_file()
            ],
        )

    def measure_search(self, searcher: SearchPolicy, method: MethodName, budget: int) -> None:
        """Searches all prompts with one method at one budget, unless that is done."""
        name = f"search-{method}-{budget}"
        if self.run.result(name) is not None:
            return
        seed = step_seed(self.seed, seed_name(method, budget))

        def batch(index: int) -> list[Line]:
            ((first, results),) = searcher.stream(
                self.prompts, seed=seed, batches=[index], keep_trees=1
            )
            lines = search_lines(results, self.gold_scorer, first=first)
            # In the line, so that line and tree are kept or lost together.
            lines[0]["tree"] = results[0].tree
            return lines

        cell = self._cell(name, SEARCH_FIELDS)
        cell.fill(batch, label=f"{TITLES[method]}, budget {budget}")
        lines = cell.close()
        if lines is not None:
            tree = self.run.path / "data" / f"{name}.tree.json"
            if lines[0].get("tree") is not None:
                write_json_atomic(tree, {"tree": lines[0]["tree"]})
            records = records_of_lines(
                lines, searcher, method=TITLES[method], budget=str(budget), seed=seed
            )
            records = with_clusters(records, self.clusters)
            self.run.finish(
                name,
                {"prompts": len(self.prompts)},
                records=records,
                files=[path for path in (cell_path(self.run, name), tree) if path.is_file()],
            )

    def _cell(self, name: str, fields: Fields, length: int | None = None) -> CellFile:
        return CellFile(
            cell_path(self.run, name),
            prompts=len(self.prompts),
            batch_size=self.batch_size,
            processes=self.processes,
            fields=fields,
            length=length,
        )


def prompts_path(run: RunDirectory) -> Path:
    """The file of an evaluation's prompts."""
    return run.path / "data" / "prompts.json"


def keep_prompts(run: RunDirectory, prompts: Sequence[Prompt]) -> None:
    """Writes the prompts of an evaluation down, unless that is done."""
    if run.result(POOL) is None:
        write_json_atomic(prompts_path(run), [*map(plain, prompts)])


def cell_path(run: RunDirectory, name: str) -> Path:
    """The file of a cell's lines."""
    return run.path / "data" / f"{name}.jsonl"


def load_pool(run: RunDirectory) -> Pool:
    """The pool of samples that a run has drawn.

    Raises:
        DamagedRunError: If a line is not as it was written.
    """
    path = cell_path(run, POOL)
    lines = read_lines(path, POOL_FIELDS)
    if not lines:
        raise DamagedRunError(f"{path}: found no lines; required: one a prompt. {REMEDY}")
    return Pool.of(lines)
