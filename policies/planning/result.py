"""Results of a search over text: the answer, its cost, other candidates, and the search tree."""

from dataclasses import dataclass
from typing import Any

from policies.generation.segment_tree import SegmentTree
from rewardmodel.data.conversation import Prompt
from search import Tree


@dataclass(frozen=True)
class Candidate:
    """A finished response that a search found.

    Attributes:
        text: Without special tokens.
        score: The reward model's.
        tokens: Its length, the end token included.
        log_probability: Under the policy, in nats.
        finished: Whether it ended by itself, not at `max_new_tokens`.
    """

    text: str
    score: float
    tokens: int
    log_probability: float
    finished: bool = True


@dataclass(frozen=True)
class SearchResult:
    """One searched response and what it cost.

    Attributes:
        prompt: The prompt.
        response: The answer, without special tokens.
        score: The reward model's score of it.
        tokens: Tokens sampled for this prompt, those of dropped branches included.
        forward_tokens: Tokens the policy was given for it, the prompt's own included.
        scored_tokens: Tokens that reward and value models were given, the batch's shared equally.
        seconds: Wall-clock, the batch's total shared equally.
        num_candidates: Finished responses that the search found, those cut off included.
        segments: Segments sampled.
        log_probability: Of the answer under the policy, in nats.
        kl_bound: Upper bound on the KL of the search from the policy's proposals, in nats: as if
            all proposals had been sampled beforehand, the answer is one of so many samples. None
            for ranked tokens, which are no samples.
        response_finished: Whether the answer ended by itself, and was not cut off at
            `max_new_tokens`.
        candidates: All of them, in the order in which they were found.
        tree: The first decision's search tree, a nested dict with texts, if it was kept.
    """

    prompt: Prompt
    response: str
    score: float
    tokens: int
    forward_tokens: int
    scored_tokens: float
    seconds: float
    num_candidates: int
    segments: int
    log_probability: float
    kl_bound: float | None
    response_finished: bool = True
    candidates: tuple[Candidate, ...] = ()
    tree: dict[str, Any] | None = None


def node_texts(tree: Tree, row: int, text: SegmentTree) -> dict[int, str]:
    """The text of each node of one search tree by column: its segment; at the root all so far."""
    handles = tree.embeddings["node"][row].tolist()
    texts = {
        column: text.segment_text(handles[column])
        for column, parent in enumerate(tree.parents[row].tolist())
        if parent != Tree.NONE
    }
    root = handles[Tree.ROOT]
    return {Tree.ROOT: str(text.prompt(root)) + text.response_text(root), **texts}


def tree_with_texts(tree: Tree, row: int, text: SegmentTree) -> dict[str, Any]:
    """One search tree as a nested dict whose nodes carry their text."""
    handles = tree.embeddings["node"][row].tolist()

    def attach_text(entry: dict[str, Any]) -> dict[str, Any]:
        handle = handles[entry["node"]]
        is_root = entry["action"] is None
        return {
            "text": text.response_text(handle) if is_root else text.segment_text(handle),
            "visits": entry["visits"],
            "value": entry["value"] if (score := text.segment(handle).score) is None else score,
            "prior": entry["prior"],
            "reward": entry["reward"],
            "children": [attach_text(child) for child in entry["children"]],
        }

    found = attach_text(tree.to_dict(row))
    if not found["text"]:
        found["text"] = str(text.prompt(handles[0])).strip()
    return found
