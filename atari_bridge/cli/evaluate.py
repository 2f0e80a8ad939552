"""`prefsearch atari evaluate`: whole games, with the search at several budgets and without it."""

import hashlib
import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch

from atari_bridge.acting.planners import eval_planner
from atari_bridge.cli.args import AtariEvaluateArgs
from atari_bridge.cli.train import eval_environment_config
from atari_bridge.environments.factory import open_environment
from atari_bridge.evaluation.episodes import (
    Evaluation,
    PolicyOnly,
    RandomPolicy,
    SampledActions,
    evaluate_agent,
)
from atari_bridge.reference.scores import games, human_normalized
from atari_bridge.training.agent import Agent, load_agent
from prefsearch.progress import progress
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.json_text import read_json
from prefsearch.storage.visible_text import visible
from search import Planner


def evaluate(args: AtariEvaluateArgs) -> None:
    """Evaluates an agent and prints a table."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    agent = load_agent(args.checkpoint, game=args.game or None)
    found = evaluate_all(args, agent)
    lines = [f"{agent.facts['game']}, {agent.facts['decisions']:,} decisions of training"]
    width = max(len(name) for name in found)
    for name, value in found.items():
        share = _human_normalized(agent, value)
        human = "" if share is None else f"  {share:6.1%} of human"
        lines.append(f"{name:<{width}}  {value.interval}{human}  ({value.seconds:.0f} s)")
    until = "" if args.max_decisions is None else f" of at most {args.max_decisions:,} decisions"
    scope = next(iter(found.values())).interval.scope
    lines.append(f"mean return of {args.games} games{until} [95 % interval {scope}]")
    sys.stdout.write(visible("\n".join(lines)) + "\n")


def evaluate_all(args: AtariEvaluateArgs, agent: Agent) -> dict[str, Evaluation]:
    """The evaluations that the arguments select, by name.

    Each is written to `out` as soon as it is made; those that stand there already are taken.

    Raises:
        ValueError: If `out` holds something else than evaluations of this agent on these games.
    """
    about = _about(args, agent) if args.out else {}
    found = _kept(Path(args.out), about) if args.out else {}
    planners: dict[str, Planner] = {}
    if args.random:
        planners["random"] = RandomPolicy(agent.facts["num_actions"])
    if args.policy:
        planners["policy, best action"] = PolicyOnly()
        planners["policy, sampled"] = PolicyOnly(sample=True)
    for budget in args.budgets:
        name = f"search, {budget} simulations"
        planners[name] = eval_planner(agent.search, num_simulations=budget)
        planners[f"{name}, sampled"] = SampledActions(planners[name])
    if planners.keys() <= found.keys():
        return {name: found[name] for name in planners}
    environment = open_environment(eval_environment_config(agent.environment), num_envs=args.games)
    try:
        for name, planner in planners.items():
            if name in found:
                continue
            with progress(name, args.games) as bar:
                found[name] = evaluate_agent(
                    environment,
                    agent.model,
                    planner,
                    frame_stack=agent.environment.frame_stack,
                    seed=args.seed,
                    max_decisions=args.max_decisions,
                    on_progress=lambda made, over, games, bar=bar: bar.update(over, total=games),
                )
            if args.out:
                write_json_atomic(args.out, _results(agent, about, found))
    finally:
        environment.close()
    return {name: found[name] for name in planners}


def _human_normalized(agent: Agent, found: Evaluation) -> float | None:
    """The mean return between random play and a human's, where both are known."""
    game = agent.facts["game"]
    return human_normalized(game, found.interval.estimate) if game in games() else None


def _results(
    agent: Agent, about: dict[str, object], found: dict[str, Evaluation]
) -> dict[str, object]:
    """What is kept of an evaluation, as JSON values; with the share of human where it is known."""
    return {
        "checkpoint": agent.folder.name,
        **about,
        "evaluations": {
            name: {
                **asdict(value),
                "interval": asdict(value.interval),
                "human_normalized": _human_normalized(agent, value),
            }
            for name, value in found.items()
        },
    }


def _about(args: AtariEvaluateArgs, agent: Agent) -> dict[str, object]:
    """What evaluations must have in common to stand in one file, as JSON values."""
    return {
        "game": agent.facts["game"],
        "weights": _fingerprint(agent),
        "decisions": agent.facts["decisions"],
        "updates": agent.facts["updates"],
        "environment": asdict(agent.environment),
        "search": asdict(agent.search),
        "seed": args.seed,
        "games": args.games,
        "max_decisions": args.max_decisions,
    }


def _fingerprint(agent: Agent) -> str:
    """SHA-256 of the weights, however they lie on disk."""
    digest = hashlib.sha256()
    for name, tensor in agent.model.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kept(path: Path, about: dict[str, object]) -> dict[str, Evaluation]:
    """The evaluations of an earlier run with the same `about`; none where there is no file."""
    if not path.exists():
        return {}
    remedy = (
        "required: a new file, or one of this agent on these games. Take another --out, or move "
        "that file away"
    )
    try:
        kept = read_json(path)
        cells = kept["evaluations"]
        odd = [name for name, value in about.items() if kept.get(name) != value]
        names = [f.name for f in fields(Evaluation)]
        found = {
            cell: Evaluation(**{name: value[name] for name in names})
            for cell, value in cells.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: found no evaluations ({what}); {remedy}") from error
    if odd:
        raise ValueError(f"{path}: found evaluations with other or no {', '.join(odd)}; {remedy}")
    return found
