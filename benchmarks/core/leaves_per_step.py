"""What several leaves a step gain in time and cost in quality.

    python benchmarks/core/leaves_per_step.py        # about two minutes on two cores

Time: one tree (B = 1) of a convolutional network of the size of EfficientZero's dynamics and heads
(64 channels, 6 x 6), on the CPU, one search each in turn, round after round. Quality: random MDPs
whose optimal values are known by value iteration; the search sees the true model with noisy values
and priors that know nothing, and regret is how much worse its action is than the best one, at equal
simulations. Intervals are 95 % bootstrap intervals over MDPs. Writes
`docs/results/leaves_per_step.json` and the README's table.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness.documents import update
from benchmarks.harness.provenance import ROOT, provenance
from prefsearch.statistics.metrics import bootstrap_interval
from prefsearch.storage.files import write_json_atomic
from search import GumbelMuZeroPlanner, MuZeroPlanner, RootOutput, StepOutput

WIDTHS = (1, 2, 4, 8, 16)
PLANNERS = {
    "muzero": (MuZeroPlanner, {"dirichlet_fraction": 0.0, "temperature": 0.0}),
    "gumbel": (GumbelMuZeroPlanner, {"gumbel_scale": 0.0}),
}


class ConvolutionalModel(nn.Module):
    """One residual block of dynamics and linear heads, random weights; A = 18."""

    num_actions = 18

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.heads = nn.Linear(channels * 36, self.num_actions + 2)

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """The observation is the hidden state."""
        heads = self.heads(observation.flatten(1))
        valid = torch.ones(len(observation), self.num_actions, dtype=torch.bool)
        return RootOutput(heads[:, 2:], heads[:, 0], valid, {"hidden": observation})

    def step(
        self,
        embedding: Mapping[str, Tensor],
        action: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        """See `search.model.PlanningModel.step`."""
        hidden = embedding["hidden"]
        plane = (action / self.num_actions).view(-1, 1, 1, 1).expand(-1, 1, 6, 6)
        entered = torch.relu(self.enter(torch.cat([hidden, plane], dim=1)) + hidden)
        hidden = torch.relu(self.block(entered) + entered)
        hidden = hidden / hidden.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-5)
        heads = self.heads(hidden.flatten(1))
        valid = torch.ones(len(action), self.num_actions, dtype=torch.bool)
        discount = torch.full_like(heads[:, 0], 0.997)
        embedding = {"hidden": hidden}
        return StepOutput(heads[:, 2:], heads[:, 0], valid, embedding, heads[:, 1], discount)


class NoisyWorlds:
    """T random MDPs of S states and A actions with their optimal values, seen through noise."""

    def __init__(self, seed: int, worlds: int, *, states: int = 60, actions: int = 8) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (worlds, states, actions)
        self.num_actions, self.discount = actions, 0.9
        self.next_state = torch.randint(states, shape, generator=generator)
        self.reward = torch.rand(shape, generator=generator)
        value = torch.zeros(worlds, states)
        rows = torch.arange(worlds).view(-1, 1, 1)
        for _ in range(300):
            qvalues = self.reward + self.discount * value[rows, self.next_state]
            value = qvalues.amax(dim=-1)
        self.qvalues = qvalues
        self.value = value + 0.5 * torch.randn(value.shape, generator=generator)

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """State 0 of each world named."""
        state = torch.zeros_like(observation)
        return RootOutput(
            torch.zeros(len(observation), self.num_actions),
            self.value[observation, state],
            torch.ones(len(observation), self.num_actions, dtype=torch.bool),
            {"world": observation, "state": state},
        )

    def step(
        self,
        embedding: Mapping[str, Tensor],
        action: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        """See `search.model.PlanningModel.step`."""
        world, state = embedding["world"], embedding["state"]
        child = self.next_state[world, state, action]
        root = self.root(world)
        value = self.value[world, child]
        return StepOutput(
            root.prior_logits,
            value,
            root.valid_actions,
            {"world": world, "state": child},
            self.reward[world, state, action],
            torch.full_like(value, self.discount),
        )


def measure_time(simulations: int, rounds: int) -> list[dict[str, object]]:
    """Seconds a search by planner and width, all in turn."""
    torch.manual_seed(0)
    model, observation = ConvolutionalModel(), torch.rand(1, 64, 6, 6)
    cells = [(name, width) for name in PLANNERS for width in WIDTHS]
    seconds: dict[tuple[str, int], list[float]] = {cell: [] for cell in cells}
    for round_ in range(rounds + 1):
        for name, width in cells:
            kind, options = PLANNERS[name]
            planner = kind(simulations, leaves_per_step=width, **options)
            began = time.perf_counter()
            planner.plan(model, observation)
            if round_ > 0:  # the first compiles and allocates
                seconds[name, width].append(time.perf_counter() - began)
    return [
        {
            "planner": name,
            "leaves_per_step": width,
            "milliseconds": 1e3 * statistics.median(seconds[name, width]),
            "range": [1e3 * min(seconds[name, width]), 1e3 * max(seconds[name, width])],
            "times_as_fast": statistics.median(
                one / several
                for one, several in zip(seconds[name, 1], seconds[name, width], strict=True)
            ),
        }
        for name, width in cells
    ]


def measure_regret(simulations: int, worlds: int, seed: int) -> list[dict[str, object]]:
    """Regret of the chosen action by planner and width."""
    model, rows = NoisyWorlds(seed, worlds), torch.arange(worlds)
    best = model.qvalues[:, 0].amax(dim=-1)
    cells = []
    for name, (kind, options) in PLANNERS.items():
        for width in WIDTHS:
            planner = kind(simulations, leaves_per_step=width, **options)
            action = planner.plan(model, rows).action
            regret = (best - model.qvalues[rows, 0, action]).tolist()
            mean = bootstrap_interval(regret, seed=0)
            cells.append(
                {
                    "planner": name,
                    "leaves_per_step": width,
                    "regret": [mean.estimate, mean.low, mean.high],
                }
            )
    return cells


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--worlds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/leaves_per_step.json")
    arguments = parser.parse_args()
    about = provenance(
        "leaves_per_step",
        ["python", "benchmarks/core/leaves_per_step.py", *sys.argv[1:]],
        seeds=[arguments.seed],
        rounds=arguments.rounds,
    )
    speed = measure_time(arguments.simulations, arguments.rounds)
    quality = measure_regret(arguments.simulations, arguments.worlds, arguments.seed)
    print("planner  leaves  ms a search [range]       times as fast  regret [95 %]")
    for fast, good in zip(speed, quality, strict=True):
        low, high = fast["range"]  # pyright: ignore
        mean, under, over = good["regret"]  # pyright: ignore
        print(
            f"{fast['planner']:8} {fast['leaves_per_step']:5}  {fast['milliseconds']:7.1f} "
            f"[{low:.1f}, {high:.1f}]  {fast['times_as_fast']:12.2f}  "
            f"{mean:.4f} [{under:.4f}, {over:.4f}]"
        )
    result = {
        "provenance": about,
        "settings": {key: value for key, value in vars(arguments).items() if key != "out"},
        "time": speed,
        "regret": quality,
    }
    write_json_atomic(arguments.out, result)
    update(arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
