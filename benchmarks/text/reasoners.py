"""llm-reasoners as a side of the text-search benchmark, in a process and environment of its own.

    bash benchmarks/peers.sh        # installs it into .bench/llm_reasoners, beside our own torch

`ReasonersSide` is our end; run by the other interpreter, this file is the other end:
llm-reasoners' MCTS with its own `HFModel`, as its users write it. An action is one sampled token of
K, drawn by one `generate` call; a state is a text; the reward of a step is the value model's score
of the text so far. What it does not offer (a cache between nodes, batches of leaves, priors that
cost nothing) it is not given; its likelihoods of actions are left out, which spares it a second
forward pass for each node. An iteration goes on down to `depth_limit`, so that it expands more
nodes than a simulation of ours does: nodes are counted.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".bench" / "llm_reasoners" / "bin" / "python"


class ReasonersSide:
    """A process that decides with llm-reasoners, one decision a call."""

    def __init__(
        self, folder: Path, *, prompt: str, iterations: int, slots: int, threads: int
    ) -> None:
        """Starts the process and waits until its libraries and models are loaded.

        Args:
            folder: With the models, `policy` and `value`.
            prompt: To decide after.
            iterations: Of its MCTS.
            slots: K.
            threads: Of torch.

        Raises:
            RuntimeError: If it cannot be started; the message is its last line of error.
        """
        if not PYTHON.exists():
            raise RuntimeError("not installed; run bash benchmarks/peers.sh")
        task = {
            "folder": str(folder),
            "prompt": prompt,
            "iterations": iterations,
            "slots": slots,
            "threads": threads,
        }
        # A file: nobody reads a pipe of warnings while a decision is made, and it would fill up.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [str(PYTHON), __file__, json.dumps(task)],
            cwd=ROOT,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.versions = self._answer()

    def decide(self) -> dict[str, Any]:
        """One decision: CPU seconds, nodes, calls and tokens."""
        assert self._process.stdin is not None
        self._process.stdin.write("decide\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=30)
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(timeout=30)
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ["ended without a word"]
            raise RuntimeError(lines[-1])
        return json.loads(line)


def main() -> None:
    """The other end: answers each line of its input with one decision."""
    task = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print

    import importlib.metadata

    import torch

    torch.set_num_threads(task["threads"])
    from reasoners import Reasoner, SearchConfig, WorldModel
    from reasoners.algorithm import MCTS
    from reasoners.lm import HFModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(task["folder"])
    slots: int = task["slots"]
    language_model = HFModel(
        str(folder / "policy"), str(folder / "policy"), device="cpu", max_batch_size=slots
    )
    judge: Any = AutoModelForSequenceClassification.from_pretrained(folder / "value").eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "value")
    seen = {"nodes": 0, "policy_tokens": 0, "policy_forwards": 0, "value_tokens": 0}

    def count(module: Any, args: Any, kwargs: Any) -> None:
        ids = kwargs.get("input_ids")
        seen["policy_tokens"] += (args[0] if ids is None else ids).numel()
        seen["policy_forwards"] += 1

    language_model.model.base_model.register_forward_pre_hook(count, with_kwargs=True)

    class Text(WorldModel):
        """A state is the text so far."""

        def init_state(self) -> str:
            return self.example

        def step(self, state: str, action: str) -> tuple[str, dict[str, Any]]:
            return f"{state} {action}", {}

        def is_terminal(self, state: str) -> bool:
            return False

    class Tokens(SearchConfig):
        """Actions are sampled tokens, rewards the value model's scores."""

        def get_actions(self, state: str) -> list[str]:
            seen["nodes"] += 1
            found = language_model.generate(
                [state], max_new_tokens=1, do_sample=True, num_return_sequences=slots
            )
            words = [text.strip() for text in found.text]
            return list(dict.fromkeys(word for word in words if word))

        def reward(self, state: str, action: str, **kwargs: Any) -> tuple[float, dict[str, Any]]:
            inputs = tokenizer(f"{state} {action}", return_tensors="pt")
            seen["value_tokens"] += inputs["input_ids"].numel()
            with torch.inference_mode():
                score = judge(**inputs).logits[0, 0].item()
            return score, {}

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    names = ("llm-reasoners", "torch", "transformers")
    say({name: importlib.metadata.version(name) for name in names})
    for _ in sys.stdin:
        for name in seen:
            seen[name] = 0
        torch.manual_seed(0)
        # No fast rewards are given, so children that were not visited come first.
        search = MCTS(
            n_iters=task["iterations"], output_strategy="follow_max", uct_with_fast_reward=False
        )
        began = time.process_time()
        Reasoner(Text(), Tokens(), search)(task["prompt"])
        say({"cpu_seconds": time.process_time() - began, **seen, "depth_limit": search.depth_limit})


if __name__ == "__main__":
    main()
