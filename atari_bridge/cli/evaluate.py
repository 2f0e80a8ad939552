"""`prefsearch atari evaluate`: whole games, with the search at several budgets and without it."""

import hashlib
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.progress import Progress

from atari_bridge.acting.search_settings import eval_planner
from atari_bridge.cli.train import eval_environment_config
from atari_bridge.environments.opening import open_environment
from atari_bridge.evaluation.episodes import (
    Evaluation,
    PolicyOnly,
    RandomPolicy,
    SampledActions,
    evaluate_agent,
)
from atari_bridge.reference.scores import games, human_normalized
from atari_bridge.training.agent import Agent, load_agent
from prefsearch.cli.outputs import Output, expand_home, settle_outputs
from prefsearch.cli.overwriting import require_kept
from prefsearch.config.bounds import Count, Seed, Size, Threads, Within
from prefsearch.config.checks import check_types, require
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.json_reading import read_json
from prefsearch.storage.visible_text import visible
from search import Planner


@dataclass(frozen=True)
class EvaluateJob:
    """Play whole games with a trained agent, at several search budgets and without search.

    Attributes:
        checkpoint: A run's folder, whose newest checkpoint is taken, or a checkpoint.
        game: Its game. Needed only for one that names a module ("module:id"), which is imported.
        budgets: Simulations a decision; for each, the best action and one drawn by what was found.
        games: Whole games an evaluation.
        policy: GoldScorer the network's own policy as well: its best action, and a sample.
        random: GoldScorer random play as well.
        max_decisions: Games are broken off after so many; null: the environment's own limit.
        seed: Of games and draws; another than training's.
        out: JSON of all games, written after each evaluation; those that stand in it are not made
            again. Empty: none.
        threads: Of torch on the CPU; null: torch's choice.
    """

    checkpoint: str = ""
    game: str = ""
    budgets: list[Size] = field(default_factory=lambda: [16])
    games: Annotated[int, Within(least=2, most=2**16)] = 32
    policy: bool = True
    random: bool = True
    max_decisions: Count | None = None
    seed: Seed = 1_000
    out: str = ""
    threads: Threads | None = None

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.checkpoint), "checkpoint", self.checkpoint, "a run, by --checkpoint")
        any_asked = self.policy or self.random or bool(self.budgets)
        require(any_asked, "budgets", self.budgets, "some, if policy and random are false")
        expand_home(self, "checkpoint")
        for output in settle_outputs(self):
            require_kept({"checkpoint": self.checkpoint}, files=output.files)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out)] if self.out else []


def evaluate(job: EvaluateJob) -> None:
    """Judges an agent and prints a table."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    agent = load_agent(job.checkpoint, game=job.game or None)
    found = judge(job, agent)
    lines = [f"{agent.facts['game']}, {agent.facts['decisions']:,} decisions of training"]
    width = max(len(name) for name in found)
    for name, value in found.items():
        share = _share_of_human(agent, value)
        human = "" if share is None else f"  {share:6.1%} of human"
        lines.append(f"{name:<{width}}  {value.interval}{human}  ({value.seconds:.0f} s)")
    until = "" if job.max_decisions is None else f" of at most {job.max_decisions:,} decisions"
    scope = next(iter(found.values())).interval.scope
    lines.append(f"mean return of {job.games} games{until} [95 % interval {scope}]")
    sys.stdout.write(visible("\n".join(lines)) + "\n")


def judge(job: EvaluateJob, agent: Agent) -> dict[str, Evaluation]:
    """Every evaluation the job asks for, by name.

    Each is written to `out` as soon as it is made; those that stand there already are taken.

    Raises:
        ValueError: If `out` holds something else than evaluations of this agent on these games.
    """
    about = _about(job, agent) if job.out else {}
    found = _kept(Path(job.out), about) if job.out else {}
    planners: dict[str, Planner] = {}
    if job.random:
        planners["random"] = RandomPolicy(agent.facts["num_actions"])
    if job.policy:
        planners["policy, best action"] = PolicyOnly()
        planners["policy, sampled"] = PolicyOnly(sample=True)
    for budget in job.budgets:
        name = f"search, {budget} simulations"
        planners[name] = eval_planner(agent.search, num_simulations=budget)
        planners[f"{name}, sampled"] = SampledActions(planners[name])
    if planners.keys() <= found.keys():
        return {name: found[name] for name in planners}
    environment = open_environment(eval_environment_config(agent.environment), num_envs=job.games)
    try:
        with Progress(transient=True) as progress:
            for name, planner in planners.items():
                if name in found:
                    continue
                task = progress.add_task(name, total=job.games)
                found[name] = evaluate_agent(
                    environment,
                    agent.model,
                    planner,
                    frame_stack=agent.environment.frame_stack,
                    seed=job.seed,
                    max_decisions=job.max_decisions,
                    on_progress=lambda made, over, games, task=task: progress.update(
                        task, completed=over, total=games
                    ),
                )
                if job.out:
                    write_json_atomic(job.out, _results(agent, about, found))
    finally:
        environment.close()
    return {name: found[name] for name in planners}


def _share_of_human(agent: Agent, found: Evaluation) -> float | None:
    """The mean return between random play and a human's, where both are known."""
    game = agent.facts["game"]
    return human_normalized(game, found.interval.estimate) if game in games() else None


def _results(agent: Agent, about: dict[str, Any], found: dict[str, Evaluation]) -> dict[str, Any]:
    """What is kept of an evaluation, as JSON values; with the share of human where it is known."""
    return {
        "checkpoint": agent.folder.name,
        **about,
        "evaluations": {
            name: {
                **asdict(value),
                "interval": asdict(value.interval),
                "human_normalized": _share_of_human(agent, value),
            }
            for name, value in found.items()
        },
    }


def _about(job: EvaluateJob, agent: Agent) -> dict[str, Any]:
    """What evaluations must have in common to stand in one file, as JSON values."""
    return {
        "game": agent.facts["game"],
        "weights": _fingerprint(agent),
        "decisions": agent.facts["decisions"],
        "updates": agent.facts["updates"],
        "environment": asdict(agent.environment),
        "search": asdict(agent.search),
        "seed": job.seed,
        "games": job.games,
        "max_decisions": job.max_decisions,
    }


def _fingerprint(agent: Agent) -> str:
    """SHA-256 of the weights, however they lie on disk."""
    digest = hashlib.sha256()
    for name, tensor in agent.model.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kept(path: Path, about: dict[str, Any]) -> dict[str, Evaluation]:
    """The evaluations that stand in a file, which must be of what `about` says."""
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
