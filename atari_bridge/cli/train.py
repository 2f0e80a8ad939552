"""`prefsearch atari train`: training, with checkpoints and evaluations between its parts.

How an agent learns is in `atari_bridge.training.loop`.
"""

import logging
import time
from dataclasses import asdict, replace

import torch
from accelerate.utils import broadcast_object_list

from atari_bridge.acting.planners import eval_planner
from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.factory import open_environment
from atari_bridge.evaluation.episodes import Evaluation, PolicyOnly, SampledActions, evaluate_agent
from atari_bridge.evaluation.report import write_report
from atari_bridge.networks.building import compile_functions
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.loop import Training
from atari_bridge.training.run_state import load_training, save_training
from prefsearch.config.checks import require
from prefsearch.distributed import Processes, open_accelerator
from prefsearch.progress import Bar, progress
from prefsearch.run.directory import RunDirectory, step_seed
from search import Planner

logger = logging.getLogger(__name__)


def train(args: AtariTrainArgs) -> None:
    """Runs, or goes on with, a training run."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    accelerator = open_accelerator(args.precision)
    settings, workers = args.agent, args.workers
    main = accelerator.is_main_process
    share, rest = divmod(settings.environment.num_envs, accelerator.num_processes)
    require(rest == 0, "num_envs", settings.environment.num_envs, "a multiple of the processes")
    alone = accelerator.num_processes == 1 or not workers.play_workers
    require(alone, "play_workers", workers.play_workers, "0 with several processes")
    environment = open_environment(settings.environment, num_envs=share)
    training = None
    try:
        training = Training(settings, environment, accelerator, workers)
        if args.compile_network:
            compile_networks(training)
        # Last, so that a mistake in the settings leaves no folder behind.
        processes = Processes(accelerator.process_index, accelerator.num_processes)
        run = processes.open_run(args.out, args.kept(), resume=args.resume)
        load_training(run, training)
        total, game = settings.length.total_decisions, settings.environment.game
        with progress(game, total, enabled=main) as bar:
            training.on_progress = lambda training: _show(training, bar)
            _follow(args, run, training)
        if main:
            write_report(run)
    finally:
        environment.close()
        if training is not None:
            training.close()


def compile_networks(training: Training) -> None:
    """Compiles the networks that only this thread evaluates; see `compile_functions`."""
    compile_functions(training.network)
    if not training.settings.length.overlap:
        compile_functions(training.target_network)


def _follow(args: AtariTrainArgs, run: RunDirectory, training: Training) -> None:
    """The training loop, with checkpoints and evaluations."""
    started, main = time.monotonic(), training.accelerator.is_main_process
    part_bytes = None if args.max_shard_megabytes is None else int(args.max_shard_megabytes * 2**20)
    while True:
        made = training.counters.decisions
        late = args.minutes is not None and time.monotonic() - started > 60 * args.minutes
        # The main process's clock decides for all.
        if broadcast_object_list([late])[0]:
            if main:
                logger.warning("paused after %d decisions; go on with --resume", made)
            return
        if main and (training.is_done or _is_due(args, made)):
            _evaluate(args, run, training)
        training.accelerator.wait_for_everyone()
        if training.is_done:
            return
        summary = training.run_part()
        if main:
            run.finish(f"part-{_mark(training)}", summary)
        save_training(run, training, max_part_bytes=part_bytes)


def _mark(training: Training) -> str:
    """How far the run is, as a part of a step's name."""
    return f"{training.counters.decisions:09d}-{training.counters.updates:09d}"


def _is_due(args: AtariTrainArgs, decisions: int) -> bool:
    """Whether an evaluation on the way belongs at the end of the part that ended at `decisions`.

    After the last decision there are parts of updates alone; the evaluation at the end is theirs.
    """
    every = args.evaluate_every
    under_way = every > 0 and decisions < args.agent.length.total_decisions
    return (
        under_way and decisions // every > max(0, decisions - args.agent.length.save_every) // every
    )


def _evaluate(args: AtariTrainArgs, run: RunDirectory, training: Training) -> None:
    """Plays whole games with and without search, once for each number of decisions."""
    step = f"evaluation-{_mark(training)}"
    if run.result(step) is not None:
        return
    settings = training.settings
    environment = open_environment(
        eval_environment_config(settings.environment), num_envs=args.evaluation_games
    )
    model = NetworkModel(training.network, discount=settings.learning.discount)
    found: dict[str, Evaluation] = {}
    try:
        search = eval_planner(settings.search)
        planners: dict[str, Planner] = {
            "search": search,
            "sampled": SampledActions(search),
            "policy": PolicyOnly(sample=True),
        }
        for name, planner in planners.items():
            found[name] = evaluate_agent(
                environment,
                model,
                planner,
                frame_stack=settings.environment.frame_stack,
                seed=step_seed(args.seed, "evaluation"),
                max_decisions=args.evaluation_max_decisions,
            )
    finally:
        environment.close()
    result = {
        "decisions": training.counters.decisions,
        "frames": training.counters.decisions * training.environment.frame_skip,
        "updates": training.counters.updates,
        **{f"{name}_return": asdict(value.interval) for name, value in found.items()},
    }
    records = [{"agent": name, **asdict(value)} for name, value in found.items()]
    run.finish(step, result, records=records)


def eval_environment_config(config: EnvironmentConfig) -> EnvironmentConfig:
    """The environment of evaluation: raw rewards, and only the game itself ends a game.

    It goes on for half an hour of play (108,000 frames), however early training cuts games off.
    """
    frames = EnvironmentConfig.max_episode_frames
    return replace(
        config, terminal_on_life_loss=False, clip_rewards=False, max_episode_frames=frames
    )


def _show(training: Training, bar: Bar) -> None:
    """Brings the progress bar up to date: frames, updates, recent returns, the share of search."""
    clock, decisions = training.clock, training.counters.decisions
    spent = clock.play + clock.batches + clock.updates
    recent = sum(training.recent) / len(training.recent) if training.recent else float("nan")
    frames = decisions * training.environment.frame_skip
    state = (
        f"decisions, {frames:,} frames, {training.counters.updates:,}/{training.total_updates:,} "
        f"updates, return {recent:.1f}, search {clock.search / max(spent, 1e-9):.0%}"
    )
    bar.update(decisions, state=state)
