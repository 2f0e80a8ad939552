"""The side of the planning-core benchmark that runs mctx, in an environment of its own.

Imports jax and mctx, which are no dependencies of the project: only the worker in that
environment imports this file.
"""

import importlib.metadata
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from benchmarks.core.grid import Cell
from benchmarks.harness.worker import Json

DISCOUNT = 0.997


def predict(weights: Json, hidden: Any) -> Any:
    """`[B, D]` to `[B, 2 + A]`: value, reward, logits."""
    return hidden @ weights["heads"] + weights["bias"]


def recurrent_fn(weights: Json, key: Any, action: Any, hidden: Any) -> Any:
    """The same model as `benchmarks.core.torch_side.LinearModel`."""
    del key
    hidden = jnp.tanh(hidden @ weights["mixing"] + weights["actions"][action])
    heads = predict(weights, hidden)
    output = mctx.RecurrentFnOutput(
        reward=heads[:, 1],
        discount=jnp.full_like(heads[:, 1], DISCOUNT),
        prior_logits=heads[:, 2:],
        value=heads[:, 0],
    )
    return output, hidden


def search(
    weights: Json, key: Any, hidden: Any, *, algorithm: str, simulations: int
) -> tuple[Any, ...]:
    """One search; returns what is needed to act and to learn, without the tree."""
    heads = predict(weights, hidden)
    root = mctx.RootFnOutput(prior_logits=heads[:, 2:], value=heads[:, 0], embedding=hidden)
    if algorithm == "muzero":
        policy = partial(mctx.muzero_policy, dirichlet_fraction=0.0, temperature=0.0)
    else:
        policy = partial(mctx.gumbel_muzero_policy, gumbel_scale=0.0)
    output = policy(weights, key, root, recurrent_fn, num_simulations=simulations)
    summary = output.search_tree.summary()
    return output.action, output.action_weights, summary.value, summary.visit_counts


def evaluate(weights: Json, key: Any, hidden: Any, *, simulations: int) -> Any:
    """The model's calls of one search, outside it, in one compiled loop.

    All outputs are carried along, so that none is optimized away.
    """
    batch, actions = hidden.shape[0], weights["actions"].shape[0]
    action = jnp.arange(batch) % actions

    def body(_: Any, carry: Any) -> Any:
        output, hidden = recurrent_fn(weights, key, action, carry[1])
        return output, hidden

    heads = predict(weights, hidden)
    first = mctx.RecurrentFnOutput(
        reward=heads[:, 1],
        discount=jnp.full_like(heads[:, 1], DISCOUNT),
        prior_logits=heads[:, 2:],
        value=heads[:, 0],
    )
    return jax.lax.fori_loop(0, simulations, body, (first, hidden))


class MctxSide:
    """mctx's policies, compiled for each cell."""

    def __init__(self, options: Json) -> None:
        del options

    def versions(self) -> dict[str, str]:
        """Of the packages a timing depends on."""
        names = ("mctx", "jax", "jaxlib", "numpy")
        return {name: importlib.metadata.version(name) for name in names}

    def prepare(self, cell: Cell, weights: Mapping[str, np.ndarray]) -> None:
        """Drops earlier cells' programs and makes new ones, compiled at their first call."""
        jax.clear_caches()
        arrays = {name: jnp.asarray(array) for name, array in weights.items()}
        hidden = arrays.pop("observation")[: cell.batch]
        self._arguments = (arrays, jax.random.PRNGKey(0), hidden)
        named = {"algorithm": cell.algorithm, "simulations": cell.simulations}
        self._search = jax.jit(partial(search, **named))
        self._evaluate = jax.jit(partial(evaluate, simulations=cell.simulations))

    def search(self) -> None:
        """One search."""
        jax.block_until_ready(self._search(*self._arguments))

    def evaluate(self) -> None:
        """The model's calls of one search, outside it."""
        jax.block_until_ready(self._evaluate(*self._arguments))

    def planned_megabytes(self) -> float | None:
        """Memory of one search as XLA laid it out: temporaries and outputs.

        Read off the program that is timed (lowering it again finds it in jax's cache), since a
        process that keeps freed memory shows nothing at the second search.
        """
        plan = self._search.lower(*self._arguments).compile().memory_analysis()
        if plan is None:
            return None
        return (plan.temp_size_in_bytes + plan.output_size_in_bytes) / 1e6

    def visits(self) -> list[list[int]]:
        """Visits of the roots' actions, `[B, A]`."""
        return np.asarray(self._search(*self._arguments)[3]).tolist()
