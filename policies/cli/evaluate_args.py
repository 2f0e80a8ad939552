"""Arguments of the commands that measure searches."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from policies.cli.args import SearchArgs
from policies.planning.options import METHOD_NAMES, POOLED, MethodName, check_budget
from prefsearch.cli.outputs import home_expanded, require_outside
from prefsearch.config.bounds import Size, Within
from prefsearch.config.checks import require
from rewardmodel.cli.data_args import CheckedArgs
from search.planners.registry import ALIASES


@dataclass
class PolicyEvaluateArgs(SearchArgs):
    """Measure what search gains: methods and budgets on the same prompts, with a report.

    Attributes:
        methods: What to measure beside best_of_n, which always is: some of weighted, majority,
            rejection, beam, dvts, muzero, gumbel_muzero, controlled_decoding; "all" takes every
            one.
        budgets: Of each of them.
        pool: Responses sampled to each prompt, at least the largest budget. From these best_of_n,
            weighted and majority are measured at every budget and power of two; the more, the
            farther searches can be compared at equal cost.
        gold: A scorer that the search never uses: "simulated" for the synthetic task,
            "answers:FILE" for exact match with the reference answers of a file, a reward model or
            function as reward_model takes them, or null for none.
        out: Folder of the run.
        resume: Continue the run in that folder; finished batches are not done again.
    """

    methods: list[str] | None = None
    budgets: list[Size] | None = None
    pool: Annotated[int, Within(ge=2, le=2**20)] = 16
    gold: str | None = None
    out: str = "runs/evaluate"
    resume: bool = False

    def check(self) -> None:
        """Checks methods and budgets, too."""
        super().check()
        methods = self.methods or ["beam", "gumbel_muzero"]
        self.methods = list(dict.fromkeys(ALIASES.get(method, method) for method in methods))
        if self.methods == ["all"]:
            self.methods = list(METHOD_NAMES)
        self.budgets = sorted(set(self.budgets or [4, 8]))
        for method in self.methods:
            known = ", ".join(METHOD_NAMES)
            require(method in METHOD_NAMES, "methods", method, f'some of {known}, or "all" alone')
            for budget in self.budgets:
                check_budget(method, budget)
        largest = self.budgets[-1]
        wanted = f"at least {largest}, the largest budget, which is compared with best-of-N"
        require(self.pool >= largest, "pool", self.pool, wanted)

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


@dataclass
class CombineArgs(CheckedArgs):
    """Put evaluations of several seeds into one report, its intervals over the seeds.

    Attributes:
        runs: Folders of `prefsearch policy evaluate`, one a seed: best of policies and reward
            models that were trained anew with each. Methods and budgets are compared where all
            runs have them; the report names the others.
        other_prompts: Whether runs may take their prompts (and reference answers) from different
            files, each a sample of the same kind of prompts.
        out: Folder of the report.
        resume: Write the report again in that folder.
    """

    runs: list[str] = field(default_factory=list)
    other_prompts: bool = False
    out: str = "runs/combined"
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks that the report goes into none of the runs, too."""
        super().__post_init__()
        require_outside({"runs": self.runs}, self.out)

    def check(self) -> None:
        """Checks that there are several runs."""
        require(len(self.runs) >= 2, "runs", self.runs, "at least 2 folders of evaluations")
        self.runs = [home_expanded(run, "runs") for run in self.runs]
        once = len(set(self.runs)) == len(self.runs)
        require(once, "runs", self.runs, "different folders; name each folder once")

    def check_inputs(self) -> None:
        """Checks that the runs are finished."""
        for run in self.runs:
            require_finished(run)


def require_finished(run: str) -> None:
    """Refuses a folder that holds no finished evaluation.

    Raises:
        ValueError: Naming it.
    """
    if not Path(run, "summary.json").is_file():
        raise ValueError(
            f"{run} holds no summary.json, required: a finished `prefsearch policy evaluate`. "
            "Finish it with --resume, or name another folder in runs"
        )
