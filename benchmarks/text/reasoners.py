"""llm-reasoners as a side of the text-search benchmark, in a process and environment of its own.

    bash benchmarks/peers.sh        # installs it into .bench/llm_reasoners, beside our own torch

Run by that interpreter as a worker, this file is llm-reasoners' MCTS with its own `HFModel`, as its
users write it. An action is one sampled token of K, drawn by one `generate` call; a state is a
text; the reward of a step is the value model's score of the text so far. It has no cache between
nodes, no batches of leaves and no priors without cost; its likelihoods of actions are left out,
which saves it a second forward pass for each node. An iteration continues down to `depth_limit`, so
that it expands more nodes than a simulation of ours does: nodes are counted.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness.worker import ROOT, Json, serve

PYTHON = ROOT / ".bench" / "llm_reasoners" / "bin" / "python"


def open_side(task: Json) -> Callable[[Json], Json]:
    """Loads libraries and models; returns what carries out the tasks `versions` and `decide`.

    Args:
        task: `folder` with the models `policy` and `value`, `prompt`, `iterations` of the MCTS,
            `num_actions` (K) and `threads` of torch.
    """
    import importlib.metadata

    import torch

    torch.set_num_threads(task["threads"])
    from reasoners import Reasoner, SearchConfig, WorldModel
    from reasoners.algorithm import MCTS
    from reasoners.lm import HFModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(task["folder"])
    num_actions: int = task["num_actions"]
    language_model = HFModel(
        str(folder / "policy"), str(folder / "policy"), device="cpu", max_batch_size=num_actions
    )
    value_model: Any = AutoModelForSequenceClassification.from_pretrained(folder / "value").eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "value")
    seen = {"nodes": 0, "policy_tokens": 0, "policy_forwards": 0, "value_tokens": 0}

    def count(module: object, args: tuple[Any, ...], kwargs: Json) -> None:
        ids = kwargs.get("input_ids")
        seen["policy_tokens"] += (args[0] if ids is None else ids).numel()
        seen["policy_forwards"] += 1

    language_model.model.base_model.register_forward_pre_hook(count, with_kwargs=True)

    class Text(WorldModel):
        """A state is the text so far."""

        def init_state(self) -> str:
            return self.example

        def step(self, state: str, action: str) -> tuple[str, Json]:
            return f"{state} {action}", {}

        def is_terminal(self, state: str) -> bool:
            return False

    class Tokens(SearchConfig):
        """Actions are sampled tokens, rewards the value model's scores."""

        def get_actions(self, state: str) -> list[str]:
            seen["nodes"] += 1
            found = language_model.generate(
                [state], max_new_tokens=1, do_sample=True, num_return_sequences=num_actions
            )
            words = [text.strip() for text in found.text]
            return list(dict.fromkeys(word for word in words if word))

        def reward(self, state: str, action: str, **kwargs: object) -> tuple[float, Json]:
            inputs = tokenizer(f"{state} {action}", return_tensors="pt")
            seen["value_tokens"] += inputs["input_ids"].numel()
            with torch.inference_mode():
                score = value_model(**inputs).logits[0, 0].item()
            return score, {}

    def handle(request: Json) -> Json:
        if request["task"] == "versions":
            names = ("llm-reasoners", "torch", "transformers")
            return {"versions": {name: importlib.metadata.version(name) for name in names}}
        for name in seen:
            seen[name] = 0
        torch.manual_seed(0)
        # Without fast rewards, children that were not visited come first.
        search = MCTS(
            n_iters=task["iterations"], output_strategy="follow_max", uct_with_fast_reward=False
        )
        began = time.process_time()
        Reasoner(Text(), Tokens(), search)(task["prompt"])
        cpu_seconds = time.process_time() - began
        return {"cpu_seconds": cpu_seconds, **seen, "depth_limit": search.depth_limit}

    return handle


if __name__ == "__main__":
    serve(open_side)
