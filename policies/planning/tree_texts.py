"""Search trees over text with their texts: for files that are shown later, and for reports."""

from typing import Any

from policies.planning.context import TextContext
from search import Tree


def node_texts(tree: Tree, row: int, context: TextContext) -> dict[int, str]:
    """The text of each node of one search tree by column: its segment; at the root all so far."""
    handles = tree.embeddings["node"][row].tolist()
    texts = {
        column: context.tree.segment_text(handles[column])
        for column, parent in enumerate(tree.parents[row].tolist())
        if parent != Tree.NONE
    }
    root = handles[Tree.ROOT]
    prompt = context.prompts[context.tree.root(root)]
    return {Tree.ROOT: str(prompt) + context.tree.response_text(root), **texts}


def tree_with_texts(tree: Tree, row: int, context: TextContext) -> dict[str, Any]:
    """One search tree as a nested dict whose nodes carry their text."""
    handles = tree.embeddings["node"][row].tolist()

    def dress(entry: dict[str, Any]) -> dict[str, Any]:
        handle = handles[entry["node"]]
        is_root = entry["action"] is None
        return {
            "text": context.tree.response_text(handle)
            if is_root
            else context.tree.segment_text(handle),
            "visits": entry["visits"],
            "value": context.scores.get(handle, entry["value"]),
            "prior": entry["prior"],
            "reward": entry["reward"],
            "children": [dress(child) for child in entry["children"]],
        }

    dressed = dress(tree.to_dict(row))
    if not dressed["text"]:
        dressed["text"] = str(context.prompts[handles[0]]).strip()
    return dressed
