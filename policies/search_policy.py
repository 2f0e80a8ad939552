"""A policy that plans: prompts in, the best responses that a search found out.

One loop serves every planner. Plan from where the response stands, commit the chosen segment, plan
again from there; segments drawn before are remembered and cost nothing the second time. Best-of-N
and beam search reach finished text in one plan and stop there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track

from policies.kv_tree import KVTree
from policies.language_model import Policy
from policies.leaf_values import LeafValue
from policies.proposals import Proposal
from policies.text_planning import TextPlanningModel
from rewardmodel.interface import RewardModel
from search import Planner, Tree
from search.evaluation.run_directory import step_seed
from search.tree_file import save_tree


@dataclass(frozen=True)
class SearchResult:
    """One searched response and what it cost.

    Attributes:
        prompt: The prompt.
        response: The answer, without special tokens.
        score: The reward model's score of it.
        tokens: Tokens sampled for this prompt, those of dropped branches included.
        forward_tokens: Tokens the model was given, the batch's total shared equally.
        seconds: Wall-clock, the batch's total shared equally.
        finished: How many finished responses the search saw.
        segments: Segments drawn.
        tree: The first decision's search tree (nested dict with texts) if it was asked for.
    """

    prompt: str
    response: str
    score: float
    tokens: int
    forward_tokens: float
    seconds: float
    finished: int
    segments: int
    tree: dict[str, Any] | None = None


@dataclass(frozen=True)
class SearchPolicy:
    """Plans every response against a reward model.

    Attributes:
        policy: Proposes segments.
        reward_model: Judges finished responses.
        leaf_value: Values unfinished ones.
        planner: Any `search.Planner`.
        proposal: Where segments end and how they are sampled.
        num_slots: K, segments a node can hold; best-of-N needs N.
        replan: Whether to plan again after each committed segment, as a tree search does, until the
            committed line is finished. Beam search, which looks at whole responses in one plan,
            stops with the first plan that saw a finished one.
        answer: `"best"` answers with the highest score seen, `"committed"` with the line that
            the plans committed to.
        batch_size: Prompts searched side by side.
    """

    policy: Policy
    reward_model: RewardModel
    leaf_value: LeafValue
    planner: Planner
    proposal: Proposal
    num_slots: int
    replan: bool = True
    answer: Literal["best", "committed"] = "best"
    batch_size: int = 64

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        keep_trees: int = 0,
        save_trees: Path | None = None,
        progress: str | None = None,
    ) -> list[SearchResult]:
        """Searches a response to each prompt.

        Args:
            prompts: Prompts; a batch of them is searched at a time.
            seed: Of everything drawn.
            keep_trees: For how many of the first prompts to keep the search tree.
            save_trees: Folder for the trees of all prompts: one file for each decision of each
                batch, named by its first prompt; `prefsearch tree show` opens them.
            progress: Label of a progress bar, or None for none.

        Returns:
            One result a prompt, in order.

        Raises:
            ValueError: If a prompt is empty or too long for the policy's context, or the reward
                model gives a score that is not finite.
        """
        starts = range(0, len(prompts), self.batch_size)
        shown = track(starts, progress, transient=True) if progress else starts
        results: list[SearchResult] = []
        for start in shown:
            generator = torch.Generator(self.policy.model.device)
            generator.manual_seed(step_seed(seed, f"batch-{start}"))
            batch = prompts[start : start + self.batch_size]
            kept = max(0, min(len(batch), keep_trees - start))
            results += self._search(
                batch, generator, keep_trees=kept, save_trees=save_trees, first=start
            )
        return results

    def _search(
        self,
        prompts: Sequence[str],
        generator: torch.Generator,
        *,
        keep_trees: int,
        save_trees: Path | None,
        first: int,
    ) -> list[SearchResult]:
        began = time.perf_counter()
        tree = KVTree(self.policy, self.proposal)
        ids = [self.policy.encoder.prompt_ids(prompt) for prompt in prompts]
        try:
            roots = tree.add_prompts(ids)
        except ValueError as error:
            raise ValueError(f"{error} (counted from prompt {first})") from error
        model = TextPlanningModel(
            tree, dict(zip(roots, prompts, strict=True)), self.reward_model, self.leaf_value,
            self.num_slots,
        )  # fmt: skip
        standing = list(roots)  # the committed node of each prompt
        drawn: list[dict[str, Any] | None] = [None] * len(roots)
        alive = list(range(len(roots)))
        decision = 0
        while alive:
            output = self.planner.plan(
                model, torch.tensor([standing[row] for row in alive]), generator=generator
            )
            if output.tree is not None and None in drawn[:keep_trees]:
                for line, row in enumerate(alive):
                    if row < keep_trees and drawn[row] is None:
                        drawn[row] = tree_with_texts(output.tree, line, model)
            if output.tree is not None and save_trees is not None:
                save_tree(
                    output.tree,
                    save_trees / f"prompt-{first}-decision-{decision}.safetensors",
                    labels=[node_texts(output.tree, line, model) for line in range(len(alive))],
                    title=f"Prompts {first} to {first + len(roots) - 1}, decision {decision}",
                    embeddings=False,  # handles, which mean nothing outside this process
                )
            chosen = output.action.tolist()
            untried = [
                line
                for line, row in enumerate(alive)
                if not model.drawn(standing[row], chosen[line])
            ]
            if untried:
                nodes = torch.tensor([standing[alive[line]] for line in untried])
                slots = torch.tensor([chosen[line] for line in untried])
                model.step({"node": nodes}, slots, generator=generator)
            for line, row in enumerate(alive):
                standing[row] = model.child(standing[row], chosen[line])
            seen = set() if self.replan else {tree.root(node) for node in model.scores}
            alive = [r for r in alive if not tree.finished(standing[r]) and roots[r] not in seen]
            decision += 1
        seconds = (time.perf_counter() - began) / len(roots)
        counts = dict.fromkeys(roots, 0)
        for node in model.scores:
            counts[tree.root(node)] += 1
        segments = model.segments()
        results = []
        for row, root in enumerate(roots):
            best = model.best_finished(root)
            assert best is not None
            if self.answer == "committed" and tree.finished(standing[row]):
                best = standing[row]
            results.append(
                SearchResult(
                    prompt=prompts[row],
                    response=tree.response_text(best),
                    score=model.scores[best],
                    tokens=tree.generated_tokens[root],
                    forward_tokens=tree.forward_tokens / len(roots),
                    seconds=seconds,
                    finished=counts[root],
                    segments=segments[root],
                    tree=drawn[row],
                )
            )
        return results


def node_texts(tree: Tree, row: int, model: TextPlanningModel) -> dict[int, str]:
    """The text of each node of one search tree by column: its segment; at the root all so far."""
    handles = tree.embeddings["node"][row].tolist()
    texts = {
        column: model.tree.segment_text(handles[column])
        for column, parent in enumerate(tree.parents[row].tolist())
        if parent != Tree.NONE
    }
    root = handles[Tree.ROOT]
    prompt = model.prompts[model.tree.root(root)]
    return {Tree.ROOT: prompt + model.tree.response_text(root), **texts}


def tree_with_texts(tree: Tree, row: int, model: TextPlanningModel) -> dict[str, Any]:
    """One search tree as a nested dict whose nodes carry their text."""
    handles = tree.embeddings["node"][row].tolist()

    def dress(entry: dict[str, Any]) -> dict[str, Any]:
        handle = handles[entry["node"]]
        is_root = entry["action"] is None
        return {
            "text": model.tree.response_text(handle)
            if is_root
            else model.tree.segment_text(handle),
            "visits": entry["visits"],
            "value": model.scores.get(handle, entry["value"]),
            "prior": entry["prior"],
            "reward": entry["reward"],
            "children": [dress(child) for child in entry["children"]],
        }

    dressed = dress(tree.to_dict(row))
    if not dressed["text"]:
        dressed["text"] = model.prompts[handles[0]].strip()
    return dressed
