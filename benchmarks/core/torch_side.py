"""The sides of the planning-core benchmark that run on torch: ours, and LightZero's C++ tree.

Both call the same small model through the same tensors, so that what differs is the search.
"""

import glob
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.core.grid import Cell
from benchmarks.harness.worker import Json
from search import GumbelMuZeroPlanner, MuZeroPlanner, RootOutput
from search.model import StepOutput

DISCOUNT = 0.997


class LinearModel:
    """hidden' = tanh(hidden W + e[action]); value, reward, logits are linear in hidden.

    All actions are valid and nothing ends, so that mask and discount are kept from call to call.
    A call is a gather, two matrix products and a tanh.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.mixing, self.actions, self.heads, self.bias = (
            torch.from_numpy(weights[name]) for name in ("mixing", "actions", "heads", "bias")
        )
        self.num_actions = self.actions.shape[0]
        self._constants: dict[int, tuple[Tensor, Tensor]] = {}

    def predict(self, hidden: Tensor) -> Tensor:
        """`[B, D]` to `[B, 2 + A]`: value, reward, logits."""
        return torch.addmm(self.bias, hidden, self.heads)

    def transition(self, hidden: Tensor, action: Tensor) -> Tensor:
        """`[B, D]` and `[B]` int64 to `[B, D]`."""
        return torch.addmm(self.actions.index_select(0, action), hidden, self.mixing).tanh_()

    def root(self, observation: Tensor, *, generator: torch.Generator | None = None) -> RootOutput:
        """The observation is the hidden state."""
        heads = self.predict(observation)
        valid, _ = self._constants_of(observation.shape[0])
        return RootOutput(heads[:, 2:], heads[:, 0], valid, {"hidden": observation})

    def step(
        self,
        embedding: Mapping[str, Tensor],
        action: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        """See `search.model.PlanningModel.step`."""
        hidden = self.transition(embedding["hidden"], action)
        heads = self.predict(hidden)
        valid, discount = self._constants_of(action.shape[0])
        return StepOutput(
            prior_logits=heads[:, 2:],
            value=heads[:, 0],
            valid_actions=valid,
            embedding={"hidden": hidden},
            reward=heads[:, 1],
            discount=discount,
        )

    def _constants_of(self, rows: int) -> tuple[Tensor, Tensor]:
        """`[B, A]` of True and `[B]` of the discount."""
        if rows not in self._constants:
            valid = torch.ones(rows, self.num_actions, dtype=torch.bool)
            self._constants[rows] = valid, torch.full((rows,), DISCOUNT)
        return self._constants[rows]


class TorchSide:
    """A side that calls `LinearModel`."""

    def __init__(self, options: Json) -> None:
        torch.set_num_threads(options["model_threads"])

    def prepare(self, cell: Cell, weights: Mapping[str, np.ndarray]) -> None:
        """Builds the model of a cell."""
        self._cell, self._model = cell, LinearModel(weights)
        self._observation = torch.from_numpy(weights["observation"][: cell.batch])


class PrefsearchSide(TorchSide):
    """Our search, through the planners' public signature."""

    def versions(self) -> dict[str, str]:
        """Of the packages a timing depends on."""
        return _versions("prefsearch", "torch", "numba", "numpy")

    def prepare(self, cell: Cell, weights: Mapping[str, np.ndarray]) -> None:
        """Builds model and planner of a cell."""
        super().prepare(cell, weights)
        if cell.algorithm == "muzero":
            self._planner: Any = MuZeroPlanner(
                cell.simulations, dirichlet_fraction=0.0, temperature=0.0
            )
        else:
            self._planner = GumbelMuZeroPlanner(cell.simulations, gumbel_scale=0.0)

    def search(self) -> None:
        """One search."""
        self._planner.plan(self._model, self._observation)

    def evaluate(self) -> None:
        """The model's calls of one search, outside it: a root and all steps of the same shape."""
        action = torch.arange(self._cell.batch) % self._cell.actions
        with torch.inference_mode():
            embedding = self._model.root(self._observation).embedding
            for _ in range(self._cell.simulations):
                embedding = self._model.step(embedding, action).embedding

    def visits(self) -> list[list[int]]:
        """Visits of the roots' actions, `[B, A]`."""
        tree = self._planner.plan(self._model, self._observation).tree
        return tree.summary().visit_counts.tolist()


class LightZeroSide(TorchSide):
    """LightZero's C++ trees, driven as its own search drives them: one model call a simulation.

    Latent states are gathered from a list of arrays, and the model's outputs become Python lists,
    which the extensions require.
    """

    def __init__(self, options: Json) -> None:
        super().__init__(options)
        folder = Path(options["lightzero"])
        self._trees = {
            "muzero": _load_extension(folder, "ctree_muzero", "mz_tree"),
            "gumbel": _load_extension(folder, "ctree_gumbel_muzero", "gmz_tree"),
        }
        self._folder = folder

    def versions(self) -> dict[str, str]:
        """Of the packages a timing depends on."""
        found = importlib.metadata.distributions(name="LightZero", path=[str(self._folder)])
        return _versions("torch", "numpy") | {d.name.lower(): d.version for d in found}

    def prepare(self, cell: Cell, weights: Mapping[str, np.ndarray]) -> None:
        """Builds the model of a cell; trees are built by each search."""
        super().prepare(cell, weights)
        self._tree = self._trees[cell.algorithm]

    def search(self) -> None:
        """One search."""
        self._search()

    def evaluate(self) -> None:
        """The model's calls of one search, outside it."""
        action = torch.arange(self._cell.batch) % self._cell.actions
        with torch.inference_mode():
            hidden = self._observation
            self._model.predict(hidden)
            for _ in range(self._cell.simulations):
                hidden = self._model.transition(hidden, action)
                self._model.predict(hidden)

    def visits(self) -> list[list[int]]:
        """Visits of the roots' actions, `[B, A]`."""
        return self._search()

    def _search(self) -> list[list[int]]:
        cell, tree, batch = self._cell, self._tree, self._cell.batch
        no_player = [-1] * batch  # single player
        with torch.inference_mode():
            heads = self._model.predict(self._observation).numpy()
            pool = [self._observation.numpy()]
            roots = tree.Roots(batch, [list(range(cell.actions)) for _ in range(batch)])
            # Its gumbel tree takes the roots' values too.
            values = [heads[:, 0].tolist()] if cell.algorithm == "gumbel" else []
            roots.prepare_no_noise([0.0] * batch, *values, heads[:, 2:].tolist(), no_player)
            bounds = tree.MinMaxStatsList(batch)
            bounds.set_delta(0.01)
            for simulation in range(cell.simulations):
                results = tree.ResultsWrapper(batch)
                steps, rows, actions, players = self._traverse(roots, bounds, results, no_player)
                parents = np.asarray([pool[s][r] for s, r in zip(steps, rows, strict=True)])
                hidden = self._model.transition(
                    torch.from_numpy(parents), torch.from_numpy(np.asarray(actions)).long()
                )
                heads = self._model.predict(hidden).numpy()
                pool.append(hidden.numpy())
                self._back_up(
                    simulation + 1,
                    DISCOUNT,
                    heads[:, 1].tolist(),
                    heads[:, 0].tolist(),
                    heads[:, 2:].tolist(),
                    bounds,
                    results,
                    players,
                )
        roots.get_values()
        return roots.get_distributions()

    def _traverse(self, roots: Any, bounds: Any, results: Any, no_player: list[int]) -> Any:
        """Walks down all trees; constants are LightZero's defaults, 16 actions considered."""
        if self._cell.algorithm == "muzero":
            return self._tree.batch_traverse(
                roots, 19652, 1.25, DISCOUNT, bounds, results, list(no_player)
            )
        considered = min(16, self._cell.actions)
        return self._tree.batch_traverse(
            roots, self._cell.simulations, considered, DISCOUNT, results, list(no_player)
        )

    def _back_up(self, *arguments: Any) -> None:
        """The name of the function differs between the two trees."""
        if self._cell.algorithm == "muzero":
            self._tree.batch_backpropagate(*arguments)
        else:
            self._tree.batch_back_propagate(*arguments)


def _load_extension(folder: Path, package: str, name: str) -> ModuleType:
    """Loads one compiled module by its file: importing its package would import all of LightZero.

    Raises:
        FileNotFoundError: If the installed wheel has none.
    """
    found = glob.glob(str(folder / "lzero" / "mcts" / "ctree" / package / f"{name}.*.so"))
    if not found:
        raise FileNotFoundError(f"found no compiled {name} of LightZero; run benchmarks/peers.sh")
    spec = importlib.util.spec_from_file_location(name, found[0])
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{name} of LightZero cannot be loaded by this Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _versions(*packages: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}
