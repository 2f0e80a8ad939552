"""The verb of `prefsearch policy` that measures: evaluate.

Started by `accelerate launch` or `torchrun` it deals batches of prompts to the processes; the
records are those of one process.
"""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, cast

from policies.cli.args import SearchSettings, digests_of
from policies.evaluation.clusters import clusters_of
from policies.evaluation.gain_report import write_gain_report
from policies.evaluation.gold_scorer import load_gold_scorer
from policies.evaluation.measuring import Measurement, keep_prompts
from policies.planning.methods import METHOD_NAMES, POOLED, MethodName, check_budget
from policies.planning.searcher import SearchPolicy
from prefsearch.cli.outputs import Output, settle_outputs
from prefsearch.cli.run_settings import settings_of
from prefsearch.config.bounds import Size, Within
from prefsearch.config.checks import require
from prefsearch.distributed import join_processes
from prefsearch.storage.json_text import json_text
from rewardmodel.models.verifiers import AnswerMatch
from search.planners.registry import ALIASES


@dataclass
class EvaluateJob(SearchSettings):
    """Measure what search gains: methods and budgets on the same prompts, with a report.

    Attributes:
        methods: What to measure beside best_of_n, which always is: some of weighted, majority,
            rejection, beam, dvts, muzero, gumbel_muzero, controlled_decoding; "all" takes every
            one.
        budgets: Of each of them.
        method: Not used here; see methods.
        budget: Not used here; see budgets.
        pool: Responses sampled to each prompt, at least the largest budget. From these best_of_n,
            weighted and majority are measured at every budget and power of two; the more, the
            farther searches can be compared at equal cost.
        gold: A scorer that the search never uses: "simulated" for the embedded world,
            "answers:FILE" for exact match with the reference answers of a file, a reward model or
            function as reward_model takes them, or null for none.
        out: Folder of the run.
        resume: Continue the run in that folder; finished batches are not done again.
    """

    methods: list[str] | None = None
    budgets: list[Size] | None = None
    pool: Annotated[int, Within(least=2, most=2**20)] = 16
    gold: str | None = None
    out: str = "runs/evaluate"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        methods = self.methods or ["beam", "gumbel_muzero"]
        self.methods = list(dict.fromkeys(ALIASES.get(method, method) for method in methods))
        if self.methods == ["all"]:
            self.methods = list(METHOD_NAMES)
        self.budgets = sorted(set(self.budgets or [4, 8]))
        for method in self.methods:
            known = ", ".join(METHOD_NAMES)
            require(method in METHOD_NAMES, "methods", method, f'some of {known}, or "all" alone')
            for budget in self.budgets:
                check_budget(cast(MethodName, method), budget)
        wanted = (
            f"at least {self.budgets[-1]}, the largest budget, which is compared with best-of-N"
        )
        require(self.pool >= self.budgets[-1], "pool", self.pool, wanted)
        settle_outputs(self)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ())]

    def pooled(self) -> list[MethodName]:
        """The methods that choose among the pool's responses, best-of-N first."""
        return [m for m in POOLED if m == "best_of_n" or m in (self.methods or ())]

    def counts(self) -> list[int]:
        """Their budgets: powers of two, the budgets of searches, and the whole pool."""
        powers = {2**i for i in range(self.pool.bit_length())}
        return sorted(powers | set(self.budgets or ()) | {self.pool})

    def searches(self) -> list[tuple[MethodName, int]]:
        """All other methods at each budget."""
        wanted = set(self.methods or ()) - set(POOLED)
        budgets = self.budgets or ()
        return [(method, budget) for method in METHOD_NAMES if method in wanted
                for budget in budgets]  # fmt: skip


def evaluate(job: EvaluateJob) -> None:
    """Measures and reports; see `EvaluateJob`."""
    processes = join_processes()
    judge = load_gold_scorer(job.gold, answer_form=job.answer_form, on_bad_row=job.on_bad_row)
    models = job.models()
    prompts = job.prompts(models.policy)
    wanted = "at least 2, since intervals are over prompts"
    require(len(prompts) >= 2, "dataset", f"{len(prompts)} prompt", wanted)
    if isinstance(judge, AnswerMatch):
        judge(prompts, [""] * len(prompts))  # a prompt without a reference stops the run here
    clusters = clusters_of(prompts)
    searchers: list[tuple[MethodName, int, SearchPolicy]] = [
        (method, budget, job.searcher(models, method, budget)) for method, budget in job.searches()
    ]
    run = processes.open_run(
        job.out, settings_of(job), resume=job.resume, inputs=digests_of(job, prompts, job.gold)
    )
    measurement = Measurement(
        run,
        prompts,
        clusters,
        judge,
        job.seed,
        batch_size=job.search_batch_size,
        processes=processes,
    )
    processes.on_main(lambda: keep_prompts(run, prompts))
    measurement.measure_pool(
        models.policy,
        models.reward_model,
        size=job.pool,
        proposal=job.proposal(),
        methods=job.pooled(),
        counts=job.counts(),
        form=job.answer_form,
        rows=job.max_rows,
    )
    for method, budget, searcher in searchers:
        measurement.measure_search(searcher, method, budget)
    if processes.main:
        console = processes.console()
        console.print(write_gain_report(run, json.loads(json_text(asdict(job)))))
        console.print(f"Open {run.report} in a browser.")
