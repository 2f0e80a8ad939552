"""LightZero's side of the Atari benchmark, run by the interpreter in .bench/lightzero_env.

    bash benchmarks/peers.sh        # installs it beside our own torch

Everything timed is its own code under its own Atari configurations (zoo/atari/config), changed in
sizes only: its environment and wrappers in DI-engine's environment managers, `_forward_collect` of
its MuZero and EfficientZero policies with the compiled trees, and their `_forward_learn`.

What was added:

- Its environment is written for gym 0.25, for which today's ale-py registers no games: `OldGymGame`
  offers the same ale-py's emulator under that interface, one call a frame, as ale-py's own did.
- Stacks of frames are laid out by numpy for all environments at once, which is faster than its
  collector's game segments, whose bookkeeping is not timed on either side.
"""

# pyright: reportMissingImports=false

import copy
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import ale_py
import gym
import numpy as np
import torch
from ale_py import roms
from ding.envs import create_env_manager
from ding.utils import ENV_MANAGER_REGISTRY, deep_merge_dicts
from easydict import EasyDict
from lzero.policy.efficientzero import EfficientZeroPolicy
from lzero.policy.muzero import MuZeroPolicy
from torch import Tensor
from zoo.atari.config import atari_efficientzero_config, atari_muzero_config
from zoo.atari.envs.atari_lightzero_env import AtariEnvLightZero

from benchmarks.atari import cells
from benchmarks.atari.cells import Cell
from benchmarks.atari.worker import network_facts
from benchmarks.harness.worker import Json

GAME_ID = f"{cells.GAME}NoFrameskip-v4"


class OldGymGame(gym.Env):
    """One game on ale-py's emulator under the interface of gym 0.25, a frame a step."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gym reads it off the class)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(str(roms.get_rom_path(cells.GAME.lower())))
        self._actions = self.ale.getMinimalActionSet()
        self.action_space = gym.spaces.Discrete(len(self._actions))
        self.observation_space = gym.spaces.Box(0, 255, (210, 160, 3), np.uint8)

    def get_action_meanings(self) -> list[str]:
        """Names of the actions."""
        return [action.name for action in self._actions]

    def seed(self, seed: int | None = None) -> None:
        """Nothing here is random."""

    def reset(self, **_: object) -> np.ndarray:
        """Begins a game; its first picture."""
        self.ale.reset_game()
        return self.ale.getScreenRGB()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, Json]:
        """One frame: picture, reward, whether the game is over, nothing."""
        reward = self.ale.act(self._actions[action])
        return self.ale.getScreenRGB(), float(reward), self.ale.game_over(), {}

    def render(self, mode: str = "rgb_array") -> np.ndarray:
        """The picture."""
        return self.ale.getScreenRGB()


class LightZeroSide:
    """Carries out one cell after another."""

    manager_type = "subprocess"  # as in its configurations

    def __init__(self, options: Json) -> None:
        torch.set_num_threads(options["threads"])
        gym.register(GAME_ID, entry_point=OldGymGame, disable_env_checker=True)
        self._environments: Environments | None = None
        self._run: Callable[[], int] | None = None

    def versions(self) -> dict[str, str]:
        """Of the packages a timing depends on."""
        found = {name: version(name) for name in ("LightZero", "DI-engine", "gym", "ale-py")}
        return {**found, "numpy": np.__version__, "torch": torch.__version__}

    def prepare(self, cell: Cell) -> Json:
        """Builds what the cell needs; returns facts about its networks."""
        self.close()
        np.random.seed(0)  # noqa: NPY002 (its own draws come from there)
        torch.manual_seed(0)
        if cell.kind == "environment":
            self._environments = Environments(cell, self.manager_type)
            self._run = self._environments.step_at_random
            return {"environments": self.manager_type}
        policy = build_policy(cell)
        model = policy._model
        match cell.kind:
            case "play":
                self._environments = environments = Environments(cell, self.manager_type)
                self._run = partial(environments.step, partial(search, policy))
            case "search":
                shape = (cell.size, *cell.stacked_shape)
                self._run = partial(
                    count_searched, policy, np.random.default_rng(0).random(shape, np.float32)
                )
            case "update":
                batch = random_batch(cell)
                self._run = partial(count_update, policy, batch)
            case unknown:
                raise ValueError(f"kind: found {unknown!r}; required one that LightZero has")
        return network_facts(model, *pieces(cell, model))

    def run(self) -> int:
        """One round of work; how many units it was."""
        assert self._run is not None
        return self._run()

    def close(self) -> None:
        """Ends the environments' processes."""
        if self._environments is not None:
            self._environments.close()
        self._environments = self._run = None


class OneProcessSide(LightZeroSide):
    """LightZero with DI-engine's other environment manager: one after another, no processes."""

    manager_type = "base"


class Environments:
    """Its environments in a manager of DI-engine's, driven as its collector drives them."""

    def __init__(self, cell: Cell, manager_type: str) -> None:
        shape = cell.stacked_shape
        settings = deep_merge_dicts(
            AtariEnvLightZero.default_config(),
            {**atari_efficientzero_config.main_config.env, "env_id": GAME_ID},
        )
        settings = deep_merge_dicts(
            settings,
            {
                "observation_shape": shape,
                "gray_scale": cell.grayscale,
                "collector_env_num": cell.size,
            },
        )
        each = AtariEnvLightZero.create_collector_env_cfg(EasyDict(settings))
        managed = ENV_MANAGER_REGISTRY.get(manager_type).default_config()
        managed.update(type=manager_type, shared_memory=False)  # as in its configurations
        self._manager = create_env_manager(
            managed, [partial(AtariEnvLightZero, one) for one in each]
        )
        self._manager.seed(0)
        self._manager.launch()
        self._stacks = np.zeros((cell.size, *shape), np.float32)
        self._channels = cell.channels
        self._draw = np.random.default_rng(0)
        for env, seen in self._manager.ready_obs.items():
            self._stacks[env] = np.tile(seen["observation"], (cells.FRAME_STACK, 1, 1))

    def step_at_random(self) -> int:
        """One decision in each environment that is ready; how many were made."""
        actions = {env: self._draw.integers(cells.NUM_ACTIONS) for env in self._manager.ready_obs}
        return len(self._manager.step(actions))

    def step(self, choose: Callable[[np.ndarray, np.ndarray], dict[int, int]]) -> int:
        """The same with actions that a search chooses from stacks of frames."""
        ready = self._manager.ready_obs
        envs = np.array(sorted(ready))
        channels = self._channels
        for env in envs:
            stack = self._stacks[env]
            stack[:-channels] = stack[channels:].copy()
            stack[-channels:] = ready[env]["observation"]
        return len(self._manager.step(choose(self._stacks[envs], envs)))

    def close(self) -> None:
        """Ends their processes."""
        self._manager.close()


def build_policy(cell: Cell) -> Any:
    """Its EfficientZero policy where there is a value prefix, else its MuZero policy."""
    chosen = EfficientZeroPolicy if cell.value_prefix else MuZeroPolicy
    its = atari_efficientzero_config if cell.value_prefix else atari_muzero_config
    settings = deep_merge_dicts(chosen.default_config(), copy.deepcopy(its.main_config.policy))
    sizes = {
        "model": {
            "observation_shape": cell.stacked_shape,
            "image_channel": cell.channels,
            "action_space_size": cells.NUM_ACTIONS,
            "num_res_blocks": cells.BLOCKS,
            "num_channels": cells.CHANNELS,
            "lstm_hidden_size": cells.LSTM_SIZE,
            "support_scale": cells.SUPPORT,
            "reward_support_size": 2 * cells.SUPPORT + 1,
            "value_support_size": 2 * cells.SUPPORT + 1,
            "proj_hid": cells.PROJECTION,
            "proj_out": cells.PROJECTION,
            "pred_hid": cells.PREDICTION,
            "pred_out": cells.PROJECTION,
            "self_supervised_learning_loss": cell.consistency,
        },
        "cuda": False,
        "device": "cpu",
        "batch_size": cells.BATCH,
        "num_unroll_steps": cells.UNROLL_STEPS,
        "lstm_horizon_len": cells.PREFIX_HORIZON,
        "discount_factor": cells.DISCOUNT,
        "num_simulations": max(1, cell.simulations),
        "ssl_loss_weight": 2 if cell.consistency else 0,
        "gray_scale": cell.grayscale,
        "use_augmentation": cell.consistency,
        # Small, since the targets are noise.
        "learning_rate": 1e-4,
    }
    settings = EasyDict(deep_merge_dicts(settings, sizes))
    return chosen(settings, enable_field=["learn", "collect"])


def search(policy: Any, stacks: np.ndarray, envs: np.ndarray) -> dict[int, int]:
    """Actions of environments whose stacks [M, S*C, H, W] are given."""
    mask = np.ones((len(envs), cells.NUM_ACTIONS))
    output = policy._forward_collect(
        torch.from_numpy(stacks), mask, 1.0, [-1] * len(envs), 0.0, envs
    )
    return {env: found["action"] for env, found in output.items()}


def count_searched(policy: Any, stacks: np.ndarray) -> int:
    """One search of all roots."""
    return len(search(policy, stacks, np.arange(len(stacks))))


def random_batch(cell: Cell) -> tuple[list[Any], list[Any]]:
    """A batch as its game buffer makes them, of noise."""
    frames = (cells.FRAME_STACK + cells.UNROLL_STEPS) * cell.channels
    draw = np.random.default_rng(0)
    steps = (cells.BATCH, cells.UNROLL_STEPS + 1)
    policy = draw.dirichlet(np.ones(cells.NUM_ACTIONS), steps).astype(np.float32)
    current = [
        draw.random((cells.BATCH, frames, cell.image_size, cell.image_size), np.float32),
        draw.integers(0, cells.NUM_ACTIONS, (cells.BATCH, cells.UNROLL_STEPS)),
        np.ones(steps, np.float32),
        np.arange(cells.BATCH),
        np.ones(cells.BATCH, np.float32),
        np.zeros(cells.BATCH),
    ]
    target = [
        draw.standard_normal(steps).astype(np.float32),
        draw.standard_normal(steps).astype(np.float32),
        policy,
    ]
    return current, target


def count_update(policy: Any, batch: tuple[list[Any], list[Any]]) -> int:
    """One update."""
    policy._forward_learn(batch)
    return 1


def pieces(cell: Cell, model: Any) -> tuple[Callable[[], object], Callable[[], object]]:
    """The network's first step on one observation, and one step of its dynamics."""
    seen = torch.rand(1, *cell.stacked_shape)
    action = torch.zeros(1, dtype=torch.long)

    def first() -> Any:
        return model.initial_inference(seen)

    def next_() -> Any:
        root = first_output.latent_state
        if not cell.value_prefix:
            return model.recurrent_inference(root, action)
        hidden: tuple[Tensor, Tensor] = first_output.reward_hidden_state
        return model.recurrent_inference(root, hidden, action)

    model.eval()
    with torch.no_grad():
        first_output = first()
    return first, next_
