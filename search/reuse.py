"""Subtree reuse: continue a search from the subtree below the action that was taken.

`keep_subtree` cuts a subtree out; `replace_roots` puts the model's outputs for the new observation
at its root.
"""

from dataclasses import fields

import torch
from torch import Tensor

from search.model import RootOutput, to_list
from search.tree import Tree, mask_logits, tree_dtype

_FILLS = {"parents": Tree.NONE, "action_from_parent": Tree.NONE, "children_index": Tree.NONE}
"""What unused columns hold, where it is not 0."""

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def keep_subtree(tree: Tree, action: Tensor) -> Tree:
    """The subtrees below one root action a row, compacted.

    Args:
        tree: B trees; they stay as they are.
        action: `[B]` int64, the actions taken. A row whose action was never visited keeps nothing:
            all its columns are unused.

    Returns:
        Trees of K nodes, K the most any row keeps (at least 1). Column 0 is the child the action
        leads to; its descendants follow in the order in which they were found.

    Raises:
        ValueError: If `action` is not one action a row.
    """
    if action.shape != tree.rows.shape or action.dtype not in _INTEGERS:
        raise ValueError(
            f"keep_subtree.action: found shape {list(action.shape)} and dtype {action.dtype}; "
            f"required shape {list(tree.rows.shape)}, one whole number a row. Pass "
            "SearchOutput.action, or the actions that were taken instead."
        )
    if bool(((action < 0) | (action >= tree.num_actions)).any()):
        raise ValueError(
            f"keep_subtree.action: found {to_list(action)}; required 0 to {tree.num_actions - 1}. "
            "Pass the index of an action for each row."
        )
    with torch.inference_mode():
        # As int64: torch indexes by few other dtypes, and reads uint8 as a mask.
        child = tree.children_index[tree.rows, Tree.ROOT, action.long()].unsqueeze(-1)  # [B, 1]
        columns = torch.arange(tree.num_nodes, device=child.device).expand_as(tree.parents)
        stops = (columns == child) | (tree.parents == Tree.NONE)
        return _compact(tree, _nearest_ancestor(tree, stops) == child)


def replace_roots(kept: Tree, root: RootOutput) -> Tree:
    """Puts the model's outputs for new observations at the roots of kept subtrees.

    Logits, raw value, valid actions and embedding become those of `root`. Visits and values of the
    children stay, but for actions that are no longer valid, which lose their subtrees. The root's
    value is the mean of its new raw value, weighted by its own visits, and of the returns kept.

    Args:
        kept: B trees of `keep_subtree`; they stay as they are.
        root: Validated output of B rows.

    Returns:
        Trees of at most as many nodes, whose roots have at least one visit.

    Raises:
        ValueError: If the batch, the number of actions or the embedding differ.
    """
    _require_match(kept, root)
    with torch.inference_mode():
        rows = kept.rows.unsqueeze(-1)
        below_root = kept.parents == Tree.ROOT
        top = _nearest_ancestor(
            kept, below_root | (kept.parents == Tree.NONE)
        )  # [B, N], child of the root
        lost = ~root.valid_actions[rows, kept.action_from_parent[rows, top].clamp_min(0)]
        columns = torch.arange(kept.num_nodes, device=top.device)
        tree = _compact(kept, ((kept.node_visits > 0) & ~lost) | (columns == Tree.ROOT))
        gone = ~root.valid_actions
        for name, fill in (("children_index", Tree.NONE), ("children_visits", 0)):
            getattr(tree, name)[:, Tree.ROOT].masked_fill_(gone, fill)
        for name in ("children_rewards", "children_discounts", "children_values"):
            getattr(tree, name)[:, Tree.ROOT].masked_fill_(gone, 0.0)
        before = kept.node_visits[:, Tree.ROOT] - kept.children_visits[:, Tree.ROOT].sum(dim=-1)
        own = before.clamp_min(1)  # visits that ended at the root itself
        visits = tree.children_visits[:, Tree.ROOT]
        raw = root.value.to(tree.raw_values.dtype)
        returns = (visits * tree.qvalues(tree.roots)).sum(dim=-1)
        total = own + visits.sum(dim=-1)
        tree.node_visits[:, Tree.ROOT] = total
        tree.raw_values[:, Tree.ROOT] = raw
        tree.node_values[:, Tree.ROOT] = (own * raw + returns) / total
        logits = root.prior_logits.to(tree.raw_values.dtype)
        tree.children_prior_logits[:, Tree.ROOT] = mask_logits(logits, root.valid_actions)
        tree.valid_actions[:, Tree.ROOT] = root.valid_actions
        tree.terminal[:, Tree.ROOT] = False
        for name, leaf in root.embedding.items():
            tree.embeddings[name][:, Tree.ROOT] = leaf
    return tree


def _nearest_ancestor(tree: Tree, stops: Tensor) -> Tensor:
    """The nearest column at or above each where `stops` `[B, N]` is True: `[B, N]` int64.

    Each pass doubles the distance climbed.
    """
    columns = torch.arange(tree.num_nodes, device=stops.device).expand_as(tree.parents)
    above = torch.where(stops, columns, tree.parents.clamp_min(0))
    for _ in range(tree.num_nodes.bit_length()):
        above = above.gather(1, above)
    return above


def _compact(tree: Tree, keep: Tensor) -> Tree:
    """A copy with the columns of `keep` `[B, N]` bool only; the first one kept becomes the root."""
    rows = tree.rows.unsqueeze(-1)  # [B, 1]
    # Host synchronization: how much is kept decides the new shape.
    num_kept = max(1, int(keep.sum(dim=-1).max()))
    new_column = keep.cumsum(dim=-1) - 1  # [B, N], of each kept column
    row, column = keep.nonzero(as_tuple=True)
    source = column.new_zeros((tree.batch_size, num_kept))
    source[row, new_column[row, column]] = column
    order = torch.arange(num_kept, device=keep.device)
    used = order < keep.sum(dim=-1, keepdim=True)  # [B, K]

    def take(name: str) -> Tensor:
        taken = getattr(tree, name)[rows, source]
        if name in ("parents", "children_index"):
            known = taken != Tree.NONE
            places = taken.clamp_min(0).flatten(1)
            moved = new_column.gather(1, places).view_as(taken)
            stays = keep.gather(1, places).view_as(taken)
            taken = torch.where(known & stays, moved, Tree.NONE)
        mask = used.view(*used.shape, *[1] * (taken.ndim - 2))
        return taken.masked_fill(~mask, _FILLS.get(name, 0))

    moved = {field.name: take(field.name) for field in fields(tree) if field.name != "embeddings"}
    moved["action_from_parent"][:, Tree.ROOT] = Tree.NONE
    leaves = {name: leaf[rows, source] for name, leaf in tree.embeddings.items()}
    return Tree(**moved, embeddings=leaves)


def _require_match(kept: Tree, root: RootOutput) -> None:
    """Checks that kept trees fit a root output."""
    leaves = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in root.embedding.items()}
    stored = {name: (leaf.shape[2:], leaf.dtype) for name, leaf in kept.embeddings.items()}
    for name, found, required in (
        ("rows and actions", [kept.batch_size, kept.num_actions], list(root.prior_logits.shape)),
        ("dtype", kept.raw_values.dtype, tree_dtype(root)),
        ("embedding", stored, leaves),
    ):
        if found != required:
            raise ValueError(
                f"kept: found trees with {name} {found}; required {required}, as in the model's "
                "outputs. Keep trees of the same model, and drop finished rows from trees and "
                "observations alike."
            )
