"""Our side of the Atari benchmark, run in a worker process.

Everything timed is what `prefsearch atari train` runs: `open_environment`, `SelfPlay`, the planners
of `search_settings`, `Learner` and, for where the time goes, `Training` itself.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from torch import Tensor

from atari_bridge.acting.players import LocalPlayers
from atari_bridge.acting.search_settings import SearchSettings, playing_planner, reanalysing_planner
from atari_bridge.acting.self_play import SelfPlay
from atari_bridge.cli.train import TrainJob, agent_settings
from atari_bridge.environments.config import EnvironmentConfig
from atari_bridge.environments.interface import VectorEnvironment
from atari_bridge.environments.opening import open_environment
from atari_bridge.learning.batches import Batch
from atari_bridge.learning.config import LearningConfig
from atari_bridge.learning.learner import Learner
from atari_bridge.networks.building import build_network
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.planning_model import NetworkModel
from atari_bridge.training.agent_settings import AgentSettings, RunLength
from atari_bridge.training.loop import Training
from benchmarks.atari.cells import (
    BATCH,
    BLOCKS,
    CHANNELS,
    DISCOUNT,
    FRAME_SKIP,
    FRAME_STACK,
    GAME,
    LSTM_SIZE,
    NUM_ACTIONS,
    PREDICTION,
    PREFIX_HORIZON,
    PROJECTION,
    SUPPORT,
    UNROLL_STEPS,
    Cell,
)
from benchmarks.atari.worker import network_facts
from benchmarks.harness.worker import ROOT

CONFIG = ROOT / "configs" / "atari_bridge" / "ale_cpu.yaml"
START_DECISIONS = 160  # of a profile, before its first update
PART_DECISIONS = 8


class OurSide:
    """Carries out one cell after another."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Sets threads."""
        torch.set_num_threads(options["threads"])
        self._environment: VectorEnvironment | None = None
        self._run: Callable[[], int] | None = None

    def versions(self) -> dict[str, str]:
        """Of the packages a timing depends on."""
        return {"ale-py": version("ale-py"), "numpy": np.__version__, "torch": torch.__version__}

    def prepare(self, cell: Cell) -> dict[str, Any]:
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
                play = SelfPlay(self._open(cell), frame_stack=FRAME_STACK, seed=0)
                model = NetworkModel(network, discount=DISCOUNT)
                planner = playing_planner(settings, progress=0.0)
                self._run = partial(count_played, play, model, planner, generator)
            case "search":
                model = NetworkModel(network, discount=DISCOUNT)
                planner = reanalysing_planner(settings)
                seen = random_images((cell.size, *stacked_shape(cell)))
                self._run = partial(count_searched, model, planner, seen, generator)
            case "update":
                learner = make_learner(cell, network, generator)
                self._run = partial(count_update, learner, random_batch(cell))
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

    def profile(self, cell: Cell, at_least: float) -> dict[str, Any]:
        """Where the time of training goes.

        Args:
            cell: Of kind `step`; the settings are those of `training_settings`.
            at_least: Seconds that are measured.
        """
        del cell
        settings, named = training_settings()
        emulators = Timed(open_environment(settings.environment), ("step", "reset"))
        environment: Any = emulators
        training = Training(settings, environment, Accelerator(cpu=True))
        players = training.players
        assert isinstance(players, LocalPlayers)
        playing = Timed(players._model, ("root", "step"))
        players._model = cast(NetworkModel, playing)
        learning = Timed(training.batches.model, ("root", "step"))
        training.batches = replace(training.batches, model=cast(NetworkModel, learning))
        while training.counters.decisions < START_DECISIONS:  # no update is made in here
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
        """Begins N games."""
        self._environment = environment
        self._draw = np.random.default_rng(0)
        self._count = environment.num_environments
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

    def __init__(self, inner: Any, methods: tuple[str, ...]) -> None:
        """Takes the object and the names of the methods."""
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
        game=GAME,
        num_environments=cell.size,
        frame_skip=FRAME_SKIP,
        frame_stack=FRAME_STACK,
        image_size=cell.image_size,
        grayscale=cell.grayscale,
    )


def network_config(cell: Cell) -> NetworkConfig:
    """The network of a cell."""
    return NetworkConfig(
        network="residual",
        channels=CHANNELS,
        blocks=BLOCKS,
        support=SUPPORT,
        support_bins=2 * SUPPORT + 1,
        value_prefix=cell.value_prefix,
        prefix_horizon=PREFIX_HORIZON,
        lstm_size=LSTM_SIZE,
        self_supervised="consistency" if cell.consistency else "none",
        projection_size=PROJECTION,
        prediction_size=PREDICTION,
    )


def learning_config(cell: Cell) -> LearningConfig:
    """Losses and optimizer of a cell."""
    return LearningConfig(
        unroll_steps=UNROLL_STEPS,
        batch_size=BATCH,
        learning_rate=1e-4,  # small, since the targets are noise
        discount=DISCOUNT,
        augmentation="shift_intensity" if cell.consistency else "none",
        self_supervised_weight=2.0 if cell.consistency else 0.0,
    )


def stacked_shape(cell: Cell) -> tuple[int, int, int]:
    """Of an observation, [S*C, H, W]."""
    return FRAME_STACK * cell.channels, cell.image_size, cell.image_size


def make_network(cell: Cell) -> MuZeroNetwork:
    """A network with random weights."""
    return build_network(
        network_config(cell), observation_shape=stacked_shape(cell), num_actions=NUM_ACTIONS
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
    steps = UNROLL_STEPS + 1

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    shape = stacked_shape(cell)
    return Batch(
        observation=random_images((BATCH, *shape)),
        future=random_images((BATCH, UNROLL_STEPS, *shape)) if cell.consistency else None,
        weight=torch.ones(BATCH),
        action=torch.randint(NUM_ACTIONS, (BATCH, UNROLL_STEPS), generator=generator),
        reward=normal(BATCH, UNROLL_STEPS),
        value=normal(BATCH, steps),
        policy=normal(BATCH, steps, NUM_ACTIONS).softmax(-1),
        reward_mask=torch.ones(BATCH, UNROLL_STEPS, dtype=torch.bool),
        value_mask=torch.ones(BATCH, steps, dtype=torch.bool),
        policy_mask=torch.ones(BATCH, steps, dtype=torch.bool),
        observed=torch.ones(BATCH, steps, dtype=torch.bool),
    )


def count_played(
    play: SelfPlay, model: NetworkModel, planner: Any, generator: torch.Generator
) -> int:
    """One decision in each environment."""
    play.play(model, planner, decisions_made=0, generator=generator)
    return play.environment.num_environments


def count_searched(
    model: NetworkModel, planner: Any, seen: Tensor, generator: torch.Generator
) -> int:
    """One search of all roots."""
    planner.plan(model, seen, generator=generator)
    return len(seen)


def count_update(learner: Learner, batch: Batch) -> int:
    """One update."""
    learner.update(batch)
    return 1


def pieces(cell: Cell, network: MuZeroNetwork) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The network's first step on one observation, and one step of its dynamics."""
    seen = torch.rand(1, *stacked_shape(cell))
    action = torch.zeros(1, dtype=torch.long)
    network.eval()
    with torch.no_grad():
        root = network.represent(seen)

    def first() -> Any:
        return network.predict(network.represent(seen))

    def next_() -> Any:
        return network.predict(network.imagine(root, action).latent)

    return first, next_


def training_settings() -> tuple[AgentSettings, dict[str, Any]]:
    """Settings of configs/atari_bridge/ale_cpu.yaml with short parts, and their values."""
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings = agent_settings(TrainJob(**{**values, "out": "unused"}))
    length = RunLength(
        total_decisions=10**6,
        start_decisions=START_DECISIONS,
        part_decisions=PART_DECISIONS,
        updates_per_decision=settings.length.updates_per_decision,
    )
    named = {"config": f"configs/atari_bridge/{CONFIG.name}", **values}
    return replace(settings, length=length), named
