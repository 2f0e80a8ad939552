"""Prefix caches of models whose branches cannot share a cache: each branch reruns its prefix.

Linear attention, state spaces and hybrids keep a running state, which cannot be masked. A branch
runs its whole prefix once, in a batch of prefixes of the same length so that nothing is padded, and
continues from the model's own cache; without one, every token reruns the prefix.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardmodel.prefix_cache.base import Prefixes
from rewardmodel.prefix_cache.states import States, joined, pick

_ROWS = 128  # of one forward pass over whole prefixes


class RerunTree(Prefixes[list[int]]):
    """Prefixes of any causal model, by their token ids."""

    def bytes_per_token(self) -> int:
        """See `Prefixes`."""
        return 0

    @torch.inference_mode()
    def add_prompts(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """See `Prefixes`."""
        handles = []
        for ids, states in zip(prompts, self._run(prompts), strict=True):
            self.forward_tokens[self._next] = len(ids)
            last = pick(states, slice(-1, None))
            handles.append(self._add(self._next, list(ids), self._kept.add(last)[0]))
        return handles

    @torch.inference_mode()
    def feed(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]]
    ) -> tuple[list[int], States]:
        """See `Prefixes`."""
        handles: list[int] = []
        tails = []
        origins, paths = self._paths(parents, runs)
        for prompt, run, ids, states in zip(origins, runs, paths, self._run(paths), strict=True):
            self.forward_tokens[prompt] += len(ids)
            place = self._kept.add(pick(states, slice(-1, None)))[0]
            handles.append(self._add(prompt, ids, place))
            tails.append(pick(states, slice(-len(run), None)))
        return handles, joined(tails)

    @torch.inference_mode()
    def read(self, parents: Sequence[int], runs: Sequence[Sequence[int]], *, rows: int) -> States:
        """See `Prefixes`."""
        origins, paths = self._paths(parents, runs)
        for prompt, ids in zip(origins, paths, strict=True):
            self.forward_tokens[prompt] += len(ids)
        return joined([pick(states, slice(-1, None)) for states in self._run(paths, rows=rows)])

    def branches(self, parents: Sequence[int], *, room: int) -> "RerunBranches":
        """See `Prefixes`; `room` has no effect."""
        return RerunBranches(self, parents)

    def keep(self, nodes: Iterable[int]) -> None:
        """See `Prefixes`."""
        self._keep_states(nodes)

    def _paths(
        self, parents: Sequence[int], runs: Sequence[Sequence[int]]
    ) -> tuple[list[int], list[list[int]]]:
        """The prompt of each run, and all tokens up to its end."""
        prompts: list[int] = []
        paths: list[list[int]] = []
        for parent, run in zip(parents, runs, strict=True):
            known = self._nodes[parent].path if parent >= 0 else paths[~parent]
            prompts.append(self._nodes[parent].prompt if parent >= 0 else prompts[~parent])
            paths.append([*known, *run])
        return prompts, paths

    def _run(self, paths: Sequence[Sequence[int]], *, rows: int = _ROWS) -> list[States]:
        """The states [tokens, ...] of whole prefixes, equally long ones in one batch."""
        found: list[States | None] = [None] * len(paths)
        groups = _by_length(paths)
        for lines in [g[at : at + rows] for g in groups for at in range(0, len(g), rows)]:
            ids = torch.tensor([list(paths[line]) for line in lines], device=self.backbone.device)
            hidden, logits, _ = self.backbone.run_alone(ids)
            for at, line in enumerate(lines):
                found[line] = States(hidden[at], None if logits is None else logits[at])
        return found  # type: ignore[return-value]


@dataclass
class _Group:
    """Equally long rows and the model's cache of them; a line of None is a dropped row."""

    lines: list[int | None]
    ids: Tensor
    cache: Any


class RerunBranches:
    """R rows that extend a prefix each; see `Branches`."""

    def __init__(self, tree: RerunTree, parents: Sequence[int]) -> None:
        self._tree = tree
        self._parents = list(parents)
        self._fed: list[list[int]] = [[] for _ in parents]
        self._groups: list[_Group] = []
        self._start(range(len(parents)))

    @torch.inference_mode()
    def feed(self, tokens: Tensor, *, live: Sequence[int]) -> States:
        """See `Branches`."""
        tree, alive = self._tree, set(live)
        for line, token in enumerate(tokens.tolist()):
            self._fed[line].append(token)
        states: dict[int, States] = {}
        for group in self._groups:
            own = [0 if line is None else line for line in group.lines]
            new = tokens[torch.tensor(own, device=tokens.device)][:, None]  # [G, 1]
            group.ids = torch.cat([group.ids, new], 1)
            fed = new if group.cache is not None else group.ids
            hidden, logits, cache = tree.backbone.run_alone(fed, past_key_values=group.cache)
            group.cache = cache
            for at, line in enumerate(group.lines):
                if line is None:
                    tree.padding_tokens += fed.shape[1]
                    continue
                last = None if logits is None else logits[at, -1:]
                states[line] = States(hidden[at, -1:], last)
                if line in alive:
                    prompt = tree._nodes[self._parents[line]].prompt
                    tree.forward_tokens[prompt] += fed.shape[1]
                else:
                    tree.padding_tokens += fed.shape[1]
        return joined([states[line] for line in range(len(self._parents))])

    def keep(self, lines: Sequence[int]) -> None:
        """See `Branches`."""
        place = {line: at for at, line in enumerate(lines)}
        for group in self._groups:
            group.lines = [None if line is None else place.get(line) for line in group.lines]
        self._groups = [g for g in self._groups if any(line is not None for line in g.lines)]
        self._parents = [self._parents[line] for line in lines]
        self._fed = [self._fed[line] for line in lines]

    @torch.inference_mode()
    def restart(self, lines: Sequence[int], parents: Sequence[int]) -> None:
        """See `Branches`."""
        for group in self._groups:
            group.lines = [None if line in set(lines) else line for line in group.lines]
        self._groups = [g for g in self._groups if any(line is not None for line in g.lines)]
        for line, parent in zip(lines, parents, strict=True):
            self._parents[line], self._fed[line] = parent, []
        self._start(lines)

    def commit(self, lines: Sequence[int], states: States) -> list[int]:
        """See `Branches`."""
        tree = self._tree
        handles = []
        for line, place in zip(lines, tree._kept.add(states), strict=True):
            parent = tree._nodes[self._parents[line]]
            handles.append(tree._add(parent.prompt, parent.path + self._fed[line], place))
        return handles

    @torch.inference_mode()
    def _start(self, lines: Sequence[int]) -> None:
        """Runs the prefixes of rows, equally long ones in one batch."""
        tree = self._tree
        paths = [tree._nodes[self._parents[line]].path for line in lines]
        for batch in _by_length(paths):
            ids = torch.tensor([paths[at] for at in batch], device=tree.backbone.device)
            cache = None
            if tree.backbone.has_cache:
                _, _, cache = tree.backbone.run_alone(ids)
                for at in batch:
                    prompt = tree._nodes[self._parents[lines[at]]].prompt
                    tree.forward_tokens[prompt] += ids.shape[1]
            self._groups.append(_Group([lines[at] for at in batch], ids, cache))


def _by_length(paths: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of equally long paths together."""
    groups: dict[int, list[int]] = {}
    for line, path in enumerate(paths):
        groups.setdefault(len(path), []).append(line)
    return list(groups.values())
