"""Time and regret of tree search with several leaves a step.

    python benchmarks/core/leaves_per_step.py        # about two minutes on two cores

Time: one tree (B = 1) of a network of EfficientZero's size (`benchmarks.core.network`) on the CPU,
one search each in turn, round after round. Regret: random MDPs whose optimal values are known by
value iteration; the search has the true model, noisy values and uniform priors, and regret is how
much worse its action is than the best one, at equal simulations. Intervals are 95 % bootstrap
intervals over MDPs. Writes `docs/results/leaves_per_step.json` and the README's table.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.core.network import CHANNELS, SIDE, Network
from benchmarks.core.table_model import TableModel
from benchmarks.harness.results import Results, benchmark_parser, table, wide_console
from benchmarks.harness.timing import interleaved, paired_ratio, spread, time_call
from benchmarks.harness.worker import Json
from prefsearch.statistics.intervals import bootstrap_interval
from search import GumbelMuZeroPlanner, MuZeroPlanner

NAME = "leaves_per_step"
WIDTHS = (1, 2, 4, 8, 16)
PLANNERS = {
    "muzero": (MuZeroPlanner, {"dirichlet_fraction": 0.0, "temperature": 0.0}),
    "gumbel": (GumbelMuZeroPlanner, {"gumbel_scale": 0.0}),
}


def noisy_worlds(seed: int, worlds: int) -> tuple[TableModel, Tensor]:
    """T random MDPs in one table, with noisy optimal values and uniform priors.

    Returns:
        The model, in which world t begins at state 60 t, and the exact values `[60 T, A]` of
        actions.
    """
    states, actions, discount = 60, 8, 0.9
    generator = torch.Generator().manual_seed(seed)
    shape = (worlds, states, actions)
    next_state = torch.randint(states, shape, generator=generator)
    next_state = (next_state + states * torch.arange(worlds).view(-1, 1, 1)).flatten(0, 1)
    reward = torch.rand(shape, generator=generator).flatten(0, 1)
    value, qvalues = torch.zeros(worlds * states), reward
    for _ in range(300):
        qvalues = reward + discount * value[next_state]
        value = qvalues.amax(dim=-1)
    noise = torch.randn((worlds, states), generator=generator).flatten()
    model = TableModel(
        next_state,
        reward,
        torch.full_like(reward, discount),
        torch.zeros_like(reward),
        torch.ones_like(reward, dtype=torch.bool),
        value + 0.5 * noise,
    )
    return model, qvalues


def measure_time(simulations: int, rounds: int) -> list[Json]:
    """Milliseconds a search by planner and width, all in turn."""
    torch.manual_seed(0)
    model, observation = Network(18).eval(), torch.rand(1, CHANNELS, SIDE, SIDE)
    planners = {
        f"{name} {width}": kind(simulations, leaves_per_step=width, **options)
        for name, (kind, options) in PLANNERS.items()
        for width in WIDTHS
    }
    times: dict[str, list[float]] = {side: [] for side in planners}
    for planner in planners.values():  # the first search compiles and allocates
        planner.plan(model, observation)
    for _, side in interleaved(planners, rounds):
        seconds = time_call(lambda side=side: planners[side].plan(model, observation))
        times[side].append(1e3 * seconds["wall"])
    rows = []
    for side, own in times.items():
        name, width = side.split()
        found = spread(own)
        rows.append(
            {
                "planner": name,
                "leaves_per_step": int(width),
                "milliseconds": found["median"],
                "range": [found["low"], found["high"]],
                "times_as_fast": paired_ratio(times[f"{name} 1"], own)["median"],
            }
        )
    return rows


def measure_regret(simulations: int, worlds: int, seed: int) -> list[Json]:
    """Regret of the chosen action by planner and width."""
    model, qvalues = noisy_worlds(seed, worlds)
    rows = torch.arange(worlds) * (len(qvalues) // worlds)
    best = qvalues[rows].amax(dim=-1)
    cells = []
    for name, (kind, options) in PLANNERS.items():
        for width in WIDTHS:
            planner = kind(simulations, leaves_per_step=width, **options)
            action = planner.plan(model, rows).action
            regret = (best - qvalues[rows, action]).tolist()
            mean = bootstrap_interval(regret, seed=0)
            cells.append(
                {
                    "planner": name,
                    "leaves_per_step": width,
                    "regret": [mean.estimate, mean.low, mean.high],
                }
            )
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--simulations", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--worlds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    file = Results(NAME, arguments, options.out, seeds=[options.seed], rounds=options.rounds)
    speed = measure_time(options.simulations, options.rounds)
    quality = measure_regret(options.simulations, options.worlds, options.seed)
    rows = []
    for fast, good in zip(speed, quality, strict=True):
        (least, most), (mean, low, high) = fast["range"], good["regret"]
        rows.append(
            [
                fast["planner"],
                str(fast["leaves_per_step"]),
                f"{fast['milliseconds']:.1f} [{least:.1f}, {most:.1f}]",
                f"{fast['times_as_fast']:.2f}",
                f"{mean:.4f} [{low:.4f}, {high:.4f}]",
            ]
        )
    columns = ("planner", "leaves", "ms a search [range]", "times as fast", "regret [95 %]")
    wide_console().print(table("Several leaves a step", columns, rows))
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    file.publish({"settings": settings, "time": speed, "regret": quality})


if __name__ == "__main__":
    main()
