"""Data exchange between the CPU kernels and the model: embeddings one way, outputs the other."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from search.backends.memory import Array, Memory
from search.model import Embedding, RootOutput, StepOutput, check_form


def as_tensor(array: Array) -> Tensor:
    """A tensor that shares the array's memory; torch's stub leaves the array's type open."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


class Pool:
    """One leaf of every node's embedding `[N * B, ...]`: column by column, and there tree by tree.

    torch cannot gather every dtype (float8, unsigned integers): such a leaf is stored as integers
    of the same size.
    """

    def __init__(self, memory: Array, leaf: Tensor, num_rows: int) -> None:
        self.dtype = leaf.dtype
        stored, shape = _stored_dtype(leaf.dtype), (num_rows, *leaf.shape[1:])
        self.rows = (
            as_tensor(memory).view(stored).view(shape)
            if memory.size > 0
            else torch.empty(shape, dtype=stored)  # no bytes can be seen as something else
        )

    def read(self, rows: Tensor) -> Tensor:
        """Gathers rows `[M]` int64: `[M, ...]`."""
        found = self.rows.index_select(0, rows)
        return found if found.dtype is self.dtype else found.view(self.dtype)

    def write(self, rows: Tensor, leaf: Tensor) -> None:
        """Writes `[M, ...]` to rows `[M]` int64."""
        self.rows.index_copy_(0, rows, leaf.view(self.rows.dtype))

    def write_first(self, leaf: Tensor) -> None:
        """Writes `[M, ...]` to the first M rows."""
        self.rows[: len(leaf)] = leaf.view(self.rows.dtype)

    def trees(self, num_trees: int) -> Tensor:
        """All nodes as `[B, N, ...]`, a view."""
        shape = self.rows.shape
        columns = self.rows.view(self.dtype).view(shape[0] // num_trees, num_trees, *shape[1:])
        return columns.transpose(0, 1)


@cache
def _stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself where torch gathers and writes rows of it, else integers of its size."""
    one = torch.zeros(1, dtype=torch.int64)
    try:
        torch.zeros(1, 1).to(dtype).index_copy_(0, one, torch.zeros(1, 1).to(dtype))
        torch.zeros(1, 1).to(dtype).index_select(0, one)
    except (RuntimeError, NotImplementedError):
        return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    return dtype


class PooledEmbeddings:
    """Embeddings of all nodes in pools: gathered by row, written by row."""

    def __init__(self, pools: Mapping[str, Pool], memory: Memory) -> None:
        self.pools = pools
        self.gather, self.scatter = memory.arrays["gather"], memory.arrays["scatter"]
        self.gather_rows = as_tensor(self.gather)
        self.scatter_rows = as_tensor(self.scatter)

    def read(self, count: int) -> dict[str, Tensor]:
        """Embeddings of the parents of `count` rows."""
        rows = self.gather_rows if count == len(self.gather) else self.gather_rows[:count]
        return {name: pool.read(rows) for name, pool in self.pools.items()}

    def write(self, column: int, count: int, embedding: Embedding) -> None:
        """Keeps the embeddings of `count` new nodes."""
        del column
        rows = self.scatter_rows if count == len(self.gather) else self.scatter_rows[:count]
        for name, pool in self.pools.items():
            pool.write(rows, embedding[name])

    def finish(self) -> None:
        """Does nothing; see `KeptEmbeddings.finish`."""


class KeptEmbeddings(PooledEmbeddings):
    """Embeddings of a single tree: the model's own tensors are kept and passed back.

    A gather and a write cost more than the walk of one tree. The pools are filled at the end.
    """

    def __init__(self, pools: Mapping[str, Pool], memory: Memory) -> None:
        super().__init__(pools, memory)
        self.columns: dict[int, Embedding] = {}

    def read(self, count: int) -> dict[str, Tensor]:
        """The parent's embedding."""
        kept = self.columns.get(int(self.gather[0]))
        return super().read(count) if kept is None else dict(kept)

    def write(self, column: int, count: int, embedding: Embedding) -> None:
        """Keeps the embedding of the node in `column`."""
        del count
        self.columns[column] = embedding

    def finish(self) -> None:
        """Copies all embeddings to the pools."""
        if not self.columns:
            return
        rows = torch.tensor(list(self.columns))
        for name, pool in self.pools.items():
            leaves = [embedding[name] for embedding in self.columns.values()]
            pool.write(rows, torch.cat(leaves))


class Outputs:
    """Reads the addresses of the model's numbers, after a check of their form."""

    def __init__(self, dtype: torch.dtype, num_actions: int) -> None:
        self.dtype = dtype
        self.num_actions = num_actions
        self.held: tuple[Tensor, ...] = ()

    def read_root(self, root: RootOutput) -> tuple[int, ...]:
        """Addresses of logits, value and mask, and of zeros for reward and discount."""
        zeros = root.value.new_zeros(root.value.shape, dtype=self.dtype)
        return self._convert((root.prior_logits, root.value, root.valid_actions, zeros, zeros))

    def read(self, step: StepOutput, count: int, parent: Embedding) -> tuple[int, ...]:
        """Addresses of logits, value, mask, reward and discount of `count` rows.

        Raises:
            ValueError: See `search.model.check_form`.
        """
        logits, value, valid = step.prior_logits, step.value, step.valid_actions
        reward, discount = step.reward, step.discount
        row, rows, dtype = (count,), (count, self.num_actions), self.dtype
        # Between two kernels of a single tree this is a third of all there is to do, so what is as
        # it should be is seen in one expression. All else is looked at again, and explained.
        if (
            logits.shape == rows == valid.shape
            and value.shape == row == reward.shape == discount.shape
            and logits.dtype is dtype is value.dtype is reward.dtype is discount.dtype
            and valid.dtype is torch.bool
            and logits.is_cpu
            and value.is_cpu
            and valid.is_cpu
            and reward.is_cpu
            and discount.is_cpu
            and logits.is_contiguous()
            and value.is_contiguous()
            and valid.is_contiguous()
            and reward.is_contiguous()
            and discount.is_contiguous()
            and _is_alike(step.embedding, parent)
        ):
            # Held until they are read: an address keeps nothing alive.
            self.held = (logits, value, valid, reward, discount)
            return (
                logits.data_ptr(),
                value.data_ptr(),
                valid.data_ptr(),
                reward.data_ptr(),
                discount.data_ptr(),
            )
        check_form(step, self.num_actions, num_rows=count, parent=parent)
        return self._convert((logits, value, valid, reward, discount))

    def _convert(self, tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
        for tensor in tensors:
            if not tensor.is_cpu:
                raise ValueError(
                    f"StepOutput: found a tensor on {tensor.device}; required the root's device, "
                    "cpu. Return the outputs of root and step on one device."
                )
        self.held = tuple(
            tensor.to(tensor.dtype if tensor.dtype is torch.bool else self.dtype).contiguous()
            for tensor in tensors
        )
        return tuple(tensor.data_ptr() for tensor in self.held)


def _is_alike(embedding: Embedding, parent: Embedding) -> bool:
    """Whether two embeddings have the same leaves, shapes and dtypes."""
    if embedding.keys() != parent.keys():
        return False
    for name, leaf in embedding.items():
        other = parent[name]
        if leaf.shape != other.shape or leaf.dtype is not other.dtype:
            return False
    return True
