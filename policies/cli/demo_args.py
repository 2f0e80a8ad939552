"""Arguments of `prefsearch demo`."""

from dataclasses import dataclass
from typing import Annotated

from policies.planning.options import MethodName
from prefsearch.config.bounds import Count, Seed, Threads, Within
from prefsearch.config.checks import require
from rewardmodel.cli.data_args import CheckedArgs
from rewardmodel.synthetic.requests import count_held_out


@dataclass
class DemoArgs(CheckedArgs):
    """Train, search, fine-tune and report in the synthetic task, in minutes.

    Attributes:
        out: The run's folder.
        resume: Continue the run in that folder.
        fast: A much smaller run, about a minute, for trying it out; its figures mean little.
        seed: Of everything.
        demonstrations: Texts the policy learns to write from.
        comparisons: Prompts with four responses each, compared two by two by the human.
        few_labels: Comparisons for a second reward model, small enough to be over-optimized.
        eval_prompts: Held-out prompts that everything is measured on.
        pool: Responses to each held-out prompt, the largest N of best-of-N.
        finetune_prompts: Training prompts searched for fine-tuning.
        threads: Torch threads.
    """

    out: str = "runs/demo"
    resume: bool = False
    fast: bool = False
    seed: Seed = 0
    demonstrations: Annotated[int, Within(ge=100, le=10_000_000)] = 5000
    comparisons: Annotated[int, Within(ge=20, le=10_000_000)] = 1000
    few_labels: Annotated[int, Within(ge=10, le=10_000_000)] = 100
    eval_prompts: Count = 48
    pool: Annotated[int, Within(ge=16, le=2**20)] = 64
    finetune_prompts: Annotated[int, Within(ge=2, le=10_000_000)] = 128
    threads: Threads = 2

    def check(self) -> None:
        """Shrinks the run where `fast` is given, and checks that there are so many prompts."""
        if self.fast:
            self.demonstrations = min(self.demonstrations, 1600)
            self.comparisons = min(self.comparisons, 150)
            self.few_labels = min(self.few_labels, 50)
            self.eval_prompts = min(self.eval_prompts, 12)
            self.pool = min(self.pool, 16)
            self.finetune_prompts = min(self.finetune_prompts, 24)
        most = count_held_out()
        bounds = f"2 to {most}, the held-out assignments of the synthetic task"
        require(2 <= self.eval_prompts <= most, "eval_prompts", self.eval_prompts, bounds)

    @property
    def sweep(self) -> list[tuple[MethodName, int]]:
        """The methods and budgets that are measured beside best-of-N."""
        budgets = (4,) if self.fast else (4, 8, 16)
        return [(method, b) for method in ("beam", "muzero", "gumbel_muzero") for b in budgets]
