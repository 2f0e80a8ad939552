"""`prefsearch atari train`: plays, learns, and judges itself on the way.

This file knows the order of a run's steps and what is shown of them; how an agent learns is in
`atari_bridge.training.loop`.
"""

import logging
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import torch
from accelerate import Accelerator, AutocastKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from atari_bridge.acting.search_settings import SearchSettings, eval_planner
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.opening import open_environment
from atari_bridge.evaluation.episodes import Evaluation, PolicyOnly, SampledActions, evaluate_agent
from atari_bridge.evaluation.report import write_report
from atari_bridge.learning.config import LearningConfig
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import compile_functions
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.replay.config import ReplayConfig
from atari_bridge.training.config import AgentSettings, RunLength, WorkerSettings
from atari_bridge.training.loop import Training
from atari_bridge.training.run_state import load_training, save_training
from prefsearch.cli.outputs import Output, settle_outputs
from prefsearch.cli.run_settings import fields_of, settings_of
from prefsearch.config.bounds import Count, CountOrZero, Seed, Threads, Within
from prefsearch.config.checks import check_types, require
from prefsearch.run.directory import RunDirectory, step_seed
from search import Planner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """Where a run is, how it is judged on the way, and when it pauses.

    Attributes:
        out: The run's folder.
        resume: Go on with the run in that folder; begin it where there is none.
        seed: Of everything random.
        minutes: Pause at the first checkpoint after so many, and begin no evaluation after them;
            go on later with --resume. null: never.
        evaluate_every: Decisions between evaluations, rounded up to the end of a part; 0: only at
            the end.
        evaluation_games: Whole games an evaluation.
        evaluation_max_decisions: Games are broken off after so many; null: the environment's limit.
        precision: "no" is float32; "bf16" halves what a GPU has to move.
        compile_network: Compile the network by torch.compile, which takes a minute or two; not with
            workers. With --overlap the target network stays as it is. A run that is resumed is then
            the same up to rounding only.
        max_part_megabytes: Largest file of a checkpoint; null: no bound.
        threads: Of torch on the CPU; null: torch's choice.
    """

    out: str = ""
    resume: bool = False
    seed: Seed = 0
    minutes: Annotated[float, Within(above=0, most=10_000_000)] | None = None
    evaluate_every: CountOrZero = 0
    evaluation_games: Annotated[int, Within(least=2, most=2**16)] = 32
    evaluation_max_decisions: Count | None = None
    precision: Literal["no", "bf16"] = "no"
    compile_network: bool = False
    max_part_megabytes: Annotated[float, Within(least=1, most=10_000_000)] | None = None
    threads: Threads | None = None

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(bool(self.out), "out", self.out, "a folder for the run, by --out")
        settle_outputs(self)

    def outputs(self) -> list[Output]:
        """What it writes."""
        return [Output("out", self.out, ())]


@dataclass(frozen=True)
class TrainJob(
    RunSettings,
    RunLength,
    LearningConfig,
    ReplayConfig,
    SearchSettings,
    NetworkConfig,
    WorkerSettings,
    EnvironmentConfig,
):
    """Train an agent of the MuZero family on a game, with checkpoints to go on from."""

    def __post_init__(self) -> None:
        """Checks every room's settings."""
        RunSettings.__post_init__(self)
        alone = not (self.compile_network and (self.play_workers or self.reanalyze_workers))
        require(alone, "compile_network", self.compile_network, "false with workers")
        agent_settings(self)


# How a run is watched, stored and computed, on which its numbers depend by rounding at most:
# --resume may change these.
_FREE = ("minutes", "threads", "compile_network", "max_part_megabytes", "keep_checkpoints")


def agent_settings(job: TrainJob) -> AgentSettings:
    """The settings by room; each checks its own."""
    return AgentSettings(
        environment=fields_of(EnvironmentConfig, job),
        network=fields_of(NetworkConfig, job),
        search=fields_of(SearchSettings, job),
        replay=fields_of(ReplayConfig, job),
        learning=fields_of(LearningConfig, job),
        length=fields_of(RunLength, job),
        seed=job.seed,
    )


def open_accelerator(precision: str) -> Accelerator:
    """Devices and processes of a run: GPUs if there are any."""
    return Accelerator(
        mixed_precision=precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            # The others wait while the main process plays whole games.
            InitProcessGroupKwargs(timeout=timedelta(hours=6)),
            # The cache of cast weights is the process's: the thread that makes batches would empty
            # it in the middle of an update, and gradients would depend on which was faster.
            AutocastKwargs(cache_enabled=False),
        ],
    )


def train(job: TrainJob) -> None:
    """Runs, or goes on with, a training run."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    accelerator = open_accelerator(job.precision)
    settings = agent_settings(job)
    main = accelerator.is_main_process
    share, rest = divmod(settings.environment.num_envs, accelerator.num_processes)
    require(rest == 0, "num_envs", job.num_envs, "a multiple of the processes")
    alone = accelerator.num_processes == 1 or not job.play_workers
    require(alone, "play_workers", job.play_workers, "0 with several processes")
    environment = open_environment(settings.environment, num_envs=share)
    training = None
    try:
        workers = fields_of(WorkerSettings, job)
        training = Training(settings, environment, accelerator, workers)
        if job.compile_network:
            compile_networks(training)
        # Last, so that a mistake in the settings leaves no folder behind.
        with accelerator.main_process_first():  # the first makes the folder, the others find it
            kept = {k: v for k, v in settings_of(job).items() if k not in _FREE}
            if main:
                run = RunDirectory.open(job.out, kept, resume=job.resume)
            else:
                run = RunDirectory(Path(job.out))
        load_training(run, training)
        with _Display(training, enabled=main) as display:
            training.on_progress = display.show
            _follow(job, run, training)
        if main:
            write_report(run)
    finally:
        environment.close()
        if training is not None:
            training.close()


def compile_networks(training: Training) -> None:
    """Compiles what one thread asks; batches may have a thread of their own, and two must not."""
    compile_functions(training.network)
    if not training.settings.length.overlap:
        compile_functions(training.target_network)


def _follow(job: TrainJob, run: RunDirectory, training: Training) -> None:
    """Part after part, with what belongs between them."""
    started, main = time.monotonic(), training.accelerator.is_main_process
    part_bytes = None if job.max_part_megabytes is None else int(job.max_part_megabytes * 2**20)
    while True:
        made = training.counters.decisions
        late = job.minutes is not None and time.monotonic() - started > 60 * job.minutes
        # The main process's clock decides for all.
        if broadcast_object_list([late])[0]:
            if main:
                logger.warning("paused after %d decisions; go on with --resume", made)
            return
        if main and (training.is_done or _is_due(job, made)):
            _judge(job, run, training)
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


def _is_due(job: TrainJob, decisions: int) -> bool:
    """Whether an evaluation on the way belongs at the end of the part that ended at `decisions`.

    After the last decision there are parts of updates alone; the evaluation at the end is theirs.
    """
    every = job.evaluate_every
    under_way = every > 0 and decisions < job.total_decisions
    return under_way and decisions // every > max(0, decisions - job.part_decisions) // every


def _judge(job: TrainJob, run: RunDirectory, training: Training) -> None:
    """Plays whole games with and without search, once for each number of decisions."""
    step = f"evaluation-{_mark(training)}"
    if run.result(step) is not None:
        return
    settings = training.settings
    environment = open_environment(
        eval_environment_config(settings.environment), num_envs=job.evaluation_games
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
                seed=step_seed(job.seed, "evaluation"),
                max_decisions=job.evaluation_max_decisions,
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
    return replace(config, life_loss_ends=False, clip_rewards=False, max_episode_frames=frames)


class _Display:
    """A progress bar: decisions, frames, updates, recent returns, and the share of search."""

    def __init__(self, training: Training, *, enabled: bool) -> None:
        length = training.settings.length
        self._training, self._shown = training, 0.0
        self._progress = Progress(
            TextColumn("{task.fields[game]}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:,}/{task.total:,} decisions"),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=not enabled,
        )
        self._task = self._progress.add_task(
            "play",
            total=length.total_decisions,
            game=training.settings.environment.game,
            state="",
            completed=training.counters.decisions,
        )

    def __enter__(self) -> "_Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show(self._training)
        self._progress.stop()

    def show(self, training: Training) -> None:
        """Brings the bar up to date, some four times a second."""
        if time.monotonic() - self._shown >= 0.25:
            self._shown = time.monotonic()
            self._show(training)

    def _show(self, training: Training) -> None:
        clock = training.clock
        spent = clock.play + clock.batches + clock.updates
        recent = sum(training.recent) / len(training.recent) if training.recent else float("nan")
        frames = training.counters.decisions * training.environment.frame_skip
        state = (
            f"{frames:,} frames, {training.counters.updates:,}/{training.total_updates:,} updates, "
            f"return {recent:.1f}, search {clock.search / max(spent, 1e-9):.0%}"
        )
        self._progress.update(self._task, completed=training.counters.decisions, state=state)
