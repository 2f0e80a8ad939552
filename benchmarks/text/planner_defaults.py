"""The study behind the defaults of tree search over samples in `policies.planning.methods`.

    python benchmarks/text/planner_defaults.py    # about ten minutes on one core

Planners answer enumerable prompts (`benchmarks.text.planner_toys`), whose best response is known,
as a search over text does: plan, commit to a segment, plan again; the answer is the best response
seen. Regret is how far the answer's score is below the best response's, as a share of the best
response's lead over the mean of all responses. Gains are paired by prompt, in regret, against the
same planner with Gumbel MuZero's numbers of self-play (`value_scale` 0.1, `maxvisit_init` 50) or
with an exploration constant of 5, with 95 % bootstrap intervals over prompts.

`--policy FOLDER` adds the synthetic task: training prompts, a policy fine-tuned on its
demonstrations (`prefsearch demo` leaves one in `checkpoints/sft`) and the simulated human itself as
reward model, so that gains are in gold. No prompt here is an evaluation prompt: defaults are chosen
on it. Writes `docs/results/text_planner_defaults.json` and the table of docs/text_search.md.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.harness.results import Results, benchmark_parser
from benchmarks.harness.worker import Json
from benchmarks.text.planner_toys import Toy, ToyTexts, search_toys
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.methods import build_searcher, method_planner
from policies.planning.options import MethodName, SearchOptions
from prefsearch.statistics.intervals import bootstrap_interval
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.requests import sample_requests

NAME = "text_planner_defaults"
SENTENCES = Proposal(unit="sentence", max_new_tokens=128)
SELF_PLAY = SearchOptions(value_scale=0.1, maxvisit_init=50.0)
VARIANTS: dict[str, tuple[MethodName, SearchOptions]] = {
    "gumbel, self-play": ("gumbel_muzero", SELF_PLAY),
    "gumbel, 0.02": ("gumbel_muzero", SearchOptions(value_scale=0.02, maxvisit_init=50.0)),
    "gumbel, default": ("gumbel_muzero", SearchOptions()),
    "muzero, exploration 5": ("muzero", SearchOptions(c_puct=5.0)),
    "muzero, default": ("muzero", SearchOptions()),
}
BASE = {
    name: "gumbel, self-play" if method == "gumbel" else "muzero, exploration 5"
    for name, (method, _) in VARIANTS.items()
}
TOYS = (
    Toy("additive", 3, 4, "additive", actions=8),
    Toy("additive, noisy values", 3, 4, "additive", value_noise=1.0, actions=8),
    Toy("additive, no values", 3, 4, "additive", blind=True, actions=8),
    Toy("random", 3, 4, "random", actions=8),
    Toy("mixed", 3, 4, "mixed", actions=8),
    Toy("ties", 3, 4, "ties", actions=8),
    Toy("mixed, wide", 2, 8, "mixed"),
    Toy("additive, 512", 3, 8, "additive", value_noise=0.5),
    Toy("mixed, 512", 3, 8, "mixed"),
    Toy("deep", 6, 3, "additive", value_noise=0.5, actions=8),
    Toy("rising", 4, 5, "additive", drift=1.0, actions=8),
    Toy("rising, noisy values", 4, 5, "additive", drift=1.0, value_noise=1.0, actions=8),
    Toy("rising, early ends", 5, 4, "additive", drift=0.7, ends=0.2, actions=8),
)


def study_toys(budgets: Sequence[int], prompts: int, seed: int) -> list[Json]:
    """Regret and gain of every variant, toy and budget, and over all toys."""
    texts = ToyTexts(TOYS, prompts, seed=seed)
    cells = []
    for budget in budgets:
        found: dict[str, dict[str, Tensor]] = {}
        for name, (method, options) in VARIANTS.items():
            planner = method_planner(method, budget, SENTENCES, options)
            outcome = search_toys(texts, planner)
            found[name] = {"answered": outcome.answered, "committed": outcome.committed}
        for name, regret in found.items():
            cell = {"variant": name, "budget": budget, "toy": "all"}
            cells.append(cell | _measured(regret, found[BASE[name]], slice(None)))
            _show(cells[-1])
            for i, toy in enumerate(TOYS):
                own = slice(i * prompts, (i + 1) * prompts)
                cells.append(cell | {"toy": toy.name} | _measured(regret, {}, own))
    return cells


def _measured(regret: dict[str, Tensor], base: dict[str, Tensor], rows: slice) -> Json:
    """Means, and gains with their intervals against the base if there is one."""
    measured: Json = {"optimal": float((regret["answered"][rows] < 1e-5).float().mean())}
    for what, found in regret.items():
        measured[what] = round(float(found[rows].mean()), 5)
        if what in base:
            gain = bootstrap_interval((base[what][rows] - found[rows]).tolist(), seed=0)
            measured[f"{what}_gain"] = [gain.estimate, gain.low, gain.high]
    return measured


class _HumanReward:
    """The simulated human as a reward model without error."""

    def __init__(self) -> None:
        self.human = SimulatedHuman()

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        """See `rewardmodel.interface.RewardModel`."""
        return torch.tensor(self.human.utilities(prompts, responses))


def study_world(folder: str, budgets: Sequence[int], prompts: int, seed: int) -> list[Json]:
    """Gold and gain of the defaults on training prompts of the synthetic task."""
    policy = Policy.load(folder)
    requests = [request.prompt for request in sample_requests(prompts, seed=seed)]
    cells = []
    for budget in budgets:
        found: dict[str, Tensor] = {}
        for name, (method, options) in VARIANTS.items():
            if name == "gumbel, 0.02":
                continue
            searcher = build_searcher(
                method, budget, policy=policy, reward_model=_HumanReward(), leaf_value=None,
                proposal=SENTENCES, options=options,
            )  # fmt: skip
            results = searcher.generate(requests, seed=seed, progress=f"{name}, {budget}")
            found[name] = torch.tensor([result.score for result in results])
            gain = bootstrap_interval((found[name] - found[BASE[name]]).tolist(), seed=0)
            cells.append(
                {
                    "variant": name,
                    "budget": budget,
                    "gold": float(found[name].mean()),
                    "gain": [gain.estimate, gain.low, gain.high],
                    "tokens": sum(result.tokens for result in results) / prompts,
                }
            )
            _show(cells[-1])
    return cells


def _show(cell: Json) -> None:
    """Prints a cell as soon as it is measured."""
    figures = {name: value for name, value in cell.items() if name not in ("variant", "budget")}
    shown = [
        f"{name} {value:.3f}" if isinstance(value, float)
        else f"{name} {value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]"
        for name, value in figures.items()
        if not isinstance(value, str)
    ]  # fmt: skip
    print(f"{cell['variant']:22} {cell['budget']:4}  {', '.join(shown)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--budgets", type=int, nargs="+", default=[4, 8, 16, 32, 64, 512])
    parser.add_argument("--prompts", type=int, default=30, help="of each toy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", help="folder of a policy of the synthetic task")
    parser.add_argument("--world_budgets", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--world_prompts", type=int, default=96)
    options = parser.parse_args(arguments)
    file = Results(NAME, arguments, options.out, seeds=[options.seed])
    torch.set_num_threads(1)
    toys = study_toys(options.budgets, options.prompts, options.seed)
    world = []
    if options.policy:
        world = study_world(
            options.policy, options.world_budgets, options.world_prompts, options.seed
        )
    file.publish(
        {
            "toy_prompts": options.prompts * len(TOYS),
            "world_prompts": options.world_prompts,
            "toys": toys,
            "world": world,
        }
    )


if __name__ == "__main__":
    main()
