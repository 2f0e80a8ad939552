"""Times the search on CUDA against the network's own calls: what does planning add to the model?

    python benchmarks/core/planning_cuda.py                        # B 1024, A 18, 50 simulations
    python benchmarks/core/planning_cuda.py --dtype bfloat16
    python benchmarks/core/planning_cuda.py --interpret            # no GPU: the equality part, tiny

First the trees of a random table model are compared with those of the CPU backend (float64; visits
must be equal). Then a network of EfficientZero's size (`benchmarks.core.network`) is timed by CUDA
events: one root and S step calls alone, and the whole search from latent to tree, each launched
from Python and replayed as a CUDA graph. The target is a graphed search of at most 1.3 times the
graphed network. Results go to `docs/results/planning_cuda.json`.

Exits with 2 where CUDA or triton is missing, with 1 where the trees differ.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.core.network import CHANNELS, DISCOUNT, SIDE, Network
from benchmarks.core.table_model import TableModel
from benchmarks.harness.results import Results, benchmark_parser, table, wide_console
from benchmarks.harness.timing import spread
from benchmarks.harness.worker import Json
from search import (
    GumbelMuZeroPlanner,
    MuZeroPlanner,
    PlanningModel,
    RootOutput,
    Tree,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from search.backends.rules import Rules, encode_rules
from search.halving import considered_visits_table
from search.selection import HalvingSelection, ImprovedPolicySelection, PuctSelection

NAME = "planning_cuda"
TARGET = 1.3
PLANNERS = ("muzero", "gumbel")


def random_table(*, states: int, actions: int, seed: int, device: str) -> TableModel:
    """The same random table for the same seed on every device; a tenth of the edges ends."""
    generator = torch.Generator().manual_seed(seed)
    edges = (states, actions)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    valid = uniform(*edges) < 0.8
    valid[:, 0] = True
    return TableModel(
        next_state=torch.randint(states, edges, generator=generator).to(device),
        reward=(2 * uniform(*edges) - 1).to(device),
        discount=torch.where(uniform(*edges) < 0.1, 0.0, DISCOUNT).double().to(device),
        prior_logits=(4 * uniform(*edges)).to(device),
        valid_actions=valid.to(device),
        value=(4 * uniform(states) - 2).to(device),
    )


def make_planner(name: str, simulations: int, backend: Any = "auto") -> Any:
    """The planner, without noise."""
    if name == "muzero":
        return MuZeroPlanner(simulations, dirichlet_fraction=0, temperature=0, backend=backend)
    return GumbelMuZeroPlanner(simulations, gumbel_scale=0, backend=backend)


def make_rules(name: str, root: RootOutput, simulations: int) -> Rules:
    """The same planner's rules for the kernels."""
    if name == "muzero":
        puct = PuctSelection(qtransform_by_parent_and_siblings)
        rules = encode_rules(puct, puct)
    else:
        table = considered_visits_table(min(16, root.prior_logits.shape[1]), simulations)
        considered = root.valid_actions.sum(dim=-1).clamp_max(len(table) - 1)
        rules = encode_rules(
            HalvingSelection(
                qtransform_completed_by_mix_value,
                gumbel=torch.zeros_like(root.prior_logits),
                schedule=table.to(considered.device)[considered],
            ),
            ImprovedPolicySelection(qtransform_completed_by_mix_value),
        )
    assert rules is not None
    return rules


def search(model: PlanningModel, root: RootOutput, rules: Rules, simulations: int) -> Tree:
    """The CUDA backend, as `run_mcts` calls it after its checks of the root."""
    from search.backends.triton_search import search_on_cuda

    return search_on_cuda(
        model,
        root,
        rules,
        num_simulations=simulations,
        max_depth=None,
        leaves_per_step=1,
        kept=None,
        generator=None,
    )


def compare_backends(device: str, *, batch: int, actions: int, simulations: int) -> Json:
    """Trees of the CPU backend and of the CUDA backend on `device`, by planner."""
    found: Json = {}
    observation = torch.arange(batch)
    for name in PLANNERS:
        sides = []
        for where in ("cpu", device):
            table = random_table(states=4 * batch, actions=actions, seed=0, device=where)
            if not sides:
                planner = make_planner(name, simulations, "numba")
                sides.append(planner.plan(table, observation).tree)
                continue
            with torch.inference_mode():
                root = table.root(observation.to(where))
                rules = make_rules(name, root, simulations)
                sides.append(search(table, root, rules, simulations))
        cpu, cuda = sides
        visits = torch.equal(cpu.children_visits, cuda.children_visits.cpu())
        difference = (cpu.node_values - cuda.node_values.cpu()).abs().max()
        found[name] = {"visits_equal": visits, "largest_value_difference": float(difference)}
    return found


def capture(function: Callable[[], object]) -> Callable[[], object]:
    """The function's launches as a CUDA graph; it ran before, so that all is compiled."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = function()
    # What was captured writes into the outputs' memory: they live as long as the graph.
    graph.held = held  # pyright: ignore[reportAttributeAccessIssue]
    return graph.replay


def time_milliseconds(function: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and range of the time of a call between two CUDA events."""
    for _ in range(3):
        function()
    samples = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end))
    return spread(samples)


def measure(options: argparse.Namespace) -> Json:
    """All times of one network, in milliseconds."""
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    # Weights in the dtype itself: autocast would convert them again in every captured call.
    network = Network(options.actions).cuda().eval().to(dtype)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    shape = (options.batch, CHANNELS, SIDE, SIDE)
    latent = torch.rand(shape, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
    action = torch.randint(options.actions, (options.batch,), device="cuda")

    def call_network() -> list[object]:
        root = network.root(latent)
        held: list[object] = [root]
        held.extend(network.step(root.embedding, action) for _ in range(options.simulations))
        return held[-1:]

    with torch.inference_mode():
        found: Json = {
            "network": {
                "eager": time_milliseconds(call_network, options.repeats),
                "graph": time_milliseconds(capture(call_network), options.repeats),
            }
        }
        for name in PLANNERS:
            planner = make_planner(name, options.simulations)
            rules = make_rules(name, network.root(latent), options.simulations)

            def whole(rules: Rules = rules) -> Tree:
                return search(network, network.root(latent), rules, options.simulations)

            times = {
                "planner": time_milliseconds(
                    lambda planner=planner: planner.plan(network, latent), options.repeats
                ),
                "eager": time_milliseconds(whole, options.repeats),
                "graph": time_milliseconds(capture(whole), options.repeats),
            }
            alone = found["network"]["graph"]["median"]
            found[name] = times | {"ratio": times["graph"]["median"] / alone}
    return found


def describe(options: argparse.Namespace) -> Json:
    """The device and the settings."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "device_memory_gb": properties.total_memory / 1e9,
        "capability": f"{properties.major}.{properties.minor}",
        "settings": {k: v for k, v in vars(options).items() if k not in ("out", "interpret")},
        "target": TARGET,
    }


def times_table(times: Json) -> Table:
    """The times of a run."""
    rows = []
    for name in ("network", *PLANNERS):
        cells = [times[name].get(kind) for kind in ("planner", "eager", "graph")]
        ratio = times[name].get("ratio")
        medians = ["" if cell is None else f"{cell['median']:.2f}" for cell in cells]
        rows.append([name, *medians, "" if ratio is None else f"{ratio:.2f} (target {TARGET})"])
    return table(
        "Milliseconds (median)", ("", "planner.plan", "eager", "CUDA graph", "ratio"), rows
    )


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = benchmark_parser(__doc__, NAME)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--actions", type=int, default=18)
    parser.add_argument("--simulations", type=int, default=50)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--interpret", action="store_true", help="equality only, on the CPU")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares, measures, prints and writes."""
    options, console = parse_options(arguments), wide_console()
    if importlib.util.find_spec("triton") is None:
        console.print("triton is missing; it comes with torch's CUDA builds on Linux.")
        return 2
    if options.interpret:
        os.environ["TRITON_INTERPRET"] = "1"
        device, size = "cpu", {"batch": 3, "actions": 5, "simulations": 12}
    elif torch.cuda.is_available():
        size = {name: getattr(options, name) for name in ("batch", "actions", "simulations")}
        device = "cuda"
    else:
        console.print("No CUDA device was found; run this where there is one, or --interpret.")
        return 2
    versions = {"triton": importlib.metadata.version("triton"), "cuda": torch.version.cuda}
    file = Results(
        NAME, arguments, options.out, seeds=[0], rounds=options.repeats, versions=versions
    )
    agreement = compare_backends(device, **size)
    for name, found in agreement.items():
        console.print(f"{name}: visits equal to the CPU's: {found['visits_equal']}", end="; ")
        console.print(f"values differ by at most {found['largest_value_difference']:.1e}")
    if not all(found["visits_equal"] for found in agreement.values()):
        return 1
    if options.interpret:
        return 0
    times = measure(options)
    console.print(times_table(times))
    file.publish(describe(options) | {"agreement": agreement, "milliseconds": times})
    return 0


if __name__ == "__main__":
    sys.exit(main())
