"""Our side of the Atari benchmark, run in a worker process.

Everything timed is what `prefsearch atari train` runs: `open_environment`, `SelfPlay`, the planners
of `search_settings`, `Learner` and, for where the time goes, `Training` itself.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from torch import Tensor

from atari_bridge.acting.config import SearchSettings
from atari_bridge.acting.planners import reanalyze_planner, self_play_planner
from atari_bridge.acting.self_play import SelfPlay
from atari_bridge.cli.args import AtariTrainArgs
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.factory import open_environment
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.learning.batches import Batch
from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.learner import Learner
from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.config import AgentSettings, TrainSchedule
from atari_bridge.training.loop import Training
from benchmarks.atari import cells
from benchmarks.atari.cells import Cell
from benchmarks.atari.worker import network_facts
from benchmarks.harness.worker import ROOT, Json
from prefsearch.config.settings import build

CONFIG = ROOT / "configs" / "atari_bridge" / "ale_cpu.yaml"
LEARNING_STARTS = 160  # of a profile, before its first update
PART_DECISIONS = 8


class OurSide:
    """Carries out one cell after another."""

    def __init__(self, options: Json) -> None:
        torch.set_num_threads(options["threads"])
        self._environment: VectorEnvironment | None = None
        self._run: Callable[[], int] | None = None

    def versions(self) -> dict[str, str]:
        """Of the packages a timing depends on."""
        return {"ale-py": version("ale-py"), "numpy": np.__version__, "torch": torch.__version__}

    def prepare(self, cell: Cell) -> Json:
        """Builds what the cell needs; returns facts about its networks."""
        self.close()
        torch.manual_seed(0)
        if cell.kind == "environment":
            self._run = RandomPlay(self._open(cell)).step
            return {"environments": "threads"}
        network = make_network(cell)
        generator = torch.Generator().manual_seed(0)
        settings = SearchSettings(search="efficientzero", num_simulations=max(1, cell.simulations))
        match cell.kind:
            case "play":
                play = SelfPlay(
                    self._open(cell),
                    NetworkModel(network, discount=cells.DISCOUNT),
                    lambda progress: self_play_planner(settings, progress=progress),
                    generator,
                    frame_stack=cells.FRAME_STACK,
                    seed=0,
                )
                decide = partial(play.play, decisions_made=0, progress=0.0)
                self._run = counted(decide, cell.size)
            case "search":
                model = NetworkModel(network, discount=cells.DISCOUNT)
                planner = reanalyze_planner(settings)
                seen = random_images((cell.size, *cell.stacked_shape))
                plan = partial(planner.plan, model, seen, generator=generator)
                self._run = counted(plan, cell.size)
            case "update":
                learner = make_learner(cell, network, generator)
                self._run = counted(partial(learner.update, random_batch(cell)), 1)
            case unknown:
                raise ValueError(f"kind: found {unknown!r}; required one that is run by `run`")
        return network_facts(network, *pieces(cell, network))

    def run(self) -> int:
        """One round of work; how many units it was."""
        assert self._run is not None
        return self._run()

    def close(self) -> None:
        """Ends the emulators."""
        if self._environment is not None:
            self._environment.close()
        self._environment = self._run = None

    def profile(self, cell: Cell, at_least: float) -> Json:
        """Profile of a training run: where its time goes.

        Args:
            cell: Of kind `step`; the settings are those of `training_settings`.
            at_least: Seconds that are measured.
        """
        del cell
        settings, named = training_settings()
        emulators = Timed(open_environment(settings.environment), ("step", "reset"))
        environment: Any = emulators
        training = Training(settings, environment, Accelerator(cpu=True))
        actors = training.actors
        assert isinstance(actors, SelfPlay)
        playing = Timed(actors.model, ("root", "step"))
        actors.model = cast(NetworkModel, playing)
        reanalyzer = training.batches.reanalyzer
        learning = Timed(reanalyzer.model, ("root", "step"))
        reanalyzer = replace(reanalyzer, model=cast(NetworkModel, learning))
        training.batches = replace(training.batches, reanalyzer=reanalyzer)
        while training.counters.decisions < LEARNING_STARTS:  # no update is made in here
            training.run_part()
        for one in (emulators, playing, learning):
            one.seconds = 0.0
        before = replace(training.counters)
        sums = dict.fromkeys(("seconds", "play_seconds", "batch_seconds", "update_seconds"), 0.0)
        while sums["seconds"] < at_least:
            summary = training.run_part()
            sums = {name: value + summary[name] for name, value in sums.items()}
        environment.close()
        trees = sums["play_seconds"] - emulators.seconds - playing.seconds
        return {
            "settings": named,
            "decisions": training.counters.decisions - before.decisions,
            "updates": training.counters.updates - before.updates,
            "seconds": sums["seconds"],
            "parts": {
                "play: emulators": emulators.seconds,
                "play: network": playing.seconds,
                "play: trees, stacks, rows": trees,
                "batches: network": learning.seconds,
                "batches: trees, replay, targets": sums["batch_seconds"] - learning.seconds,
                "updates": sums["update_seconds"],
            },
        }

    def _open(self, cell: Cell) -> VectorEnvironment:
        self._environment = open_environment(environment_config(cell))
        return self._environment


class RandomPlay:
    """Random actions in N environments, games begun anew when they end."""

    def __init__(self, environment: VectorEnvironment) -> None:
        self._environment = environment
        self._draw = np.random.default_rng(0)
        self._count = environment.num_envs
        environment.reset(np.arange(self._count), np.arange(self._count))

    def step(self) -> int:
        """One decision in each; how many were made."""
        environment = self._environment
        step = environment.step(self._draw.integers(environment.num_actions, size=self._count))
        over = np.flatnonzero(step.terminated | step.truncated)
        if len(over):
            environment.reset(over, self._draw.integers(2**31, size=len(over)))
        return self._count


class Timed:
    """An object some of whose methods are timed together."""

    def __init__(self, inner: object, methods: tuple[str, ...]) -> None:
        self._inner, self._methods, self.seconds = inner, methods, 0.0

    def __getattr__(self, name: str) -> Any:
        """That of the object; a timed method is wrapped."""
        found = getattr(self._inner, name)
        return partial(self._timed, found) if name in self._methods else found

    def _timed(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = call(*args, **kwargs)
        self.seconds += time.perf_counter() - began
        return result


def environment_config(cell: Cell) -> EnvironmentConfig:
    """N games of a cell."""
    return EnvironmentConfig(
        game=cells.GAME,
        num_envs=cell.size,
        frame_skip=cells.FRAME_SKIP,
        frame_stack=cells.FRAME_STACK,
        image_size=cell.image_size,
        grayscale=cell.grayscale,
    )


def network_config(cell: Cell) -> NetworkConfig:
    """The network of a cell."""
    return NetworkConfig(
        network="residual",
        channels=cells.CHANNELS,
        blocks=cells.BLOCKS,
        support=cells.SUPPORT,
        support_bins=2 * cells.SUPPORT + 1,
        value_prefix=cell.value_prefix,
        prefix_horizon=cells.PREFIX_HORIZON,
        lstm_size=cells.LSTM_SIZE,
        self_supervised="consistency" if cell.consistency else "none",
        projection_size=cells.PROJECTION,
        prediction_size=cells.PREDICTION,
    )


def learning_config(cell: Cell) -> LearningConfig:
    """Losses and optimizer of a cell."""
    return LearningConfig(
        unroll_steps=cells.UNROLL_STEPS,
        batch_size=cells.BATCH,
        learning_rate=1e-4,  # small, since the targets are noise
        discount=cells.DISCOUNT,
        augmentation="shift_intensity" if cell.consistency else "none",
        self_supervised_weight=2.0 if cell.consistency else 0.0,
    )


def make_network(cell: Cell) -> MuZeroNetwork:
    """A network with random weights."""
    return build_network(
        network_config(cell), frame_shape=cell.stacked_shape, num_actions=cells.NUM_ACTIONS
    )


def make_learner(cell: Cell, network: MuZeroNetwork, generator: torch.Generator) -> Learner:
    """The learner of a network."""
    return Learner(
        network,
        make_network(cell),
        learning_config(cell),
        accelerator=Accelerator(cpu=True),
        generator=generator,
    )


def random_images(shape: tuple[int, ...]) -> Tensor:
    """Noise as bytes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def random_batch(cell: Cell) -> Batch:
    """A batch of noise without masks."""
    generator = torch.Generator().manual_seed(0)
    rows, steps = cells.BATCH, cells.UNROLL_STEPS

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.bool)

    shape = cell.stacked_shape
    return Batch(
        observation=random_images((rows, *shape)),
        future=random_images((rows, steps, *shape)) if cell.consistency else None,
        weight=torch.ones(rows),
        action=torch.randint(cells.NUM_ACTIONS, (rows, steps), generator=generator),
        reward=normal(rows, steps),
        value=normal(rows, steps + 1),
        policy=normal(rows, steps + 1, cells.NUM_ACTIONS).softmax(-1),
        reward_mask=ones(rows, steps),
        value_mask=ones(rows, steps + 1),
        policy_mask=ones(rows, steps + 1),
        observed=ones(rows, steps + 1),
    )


def counted(run: Callable[[], object], units: int) -> Callable[[], int]:
    """The same call, which returns its units."""

    def call() -> int:
        run()
        return units

    return call


def pieces(cell: Cell, network: MuZeroNetwork) -> tuple[Callable[[], object], Callable[[], object]]:
    """The network's first step on one observation, and one step of its dynamics."""
    seen = torch.rand(1, *cell.stacked_shape)
    action = torch.zeros(1, dtype=torch.long)
    network.eval()
    with torch.no_grad():
        root = network.representation(seen)

    def first() -> object:
        return network.prediction(network.representation(seen))

    def next_() -> object:
        return network.prediction(network.dynamics(root, action).latent)

    return first, next_


def training_settings() -> tuple[AgentSettings, Json]:
    """Settings of configs/atari_bridge/ale_cpu.yaml with short parts, and their values."""
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings = build(AtariTrainArgs, **{**values, "out": "unused"}).agent
    length = TrainSchedule(
        total_decisions=10**6,
        learning_starts=LEARNING_STARTS,
        save_every=PART_DECISIONS,
        updates_per_decision=settings.length.updates_per_decision,
    )
    named = {"config": f"configs/atari_bridge/{CONFIG.name}", **values}
    return replace(settings, length=length), named
