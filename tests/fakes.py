"""Tiny models and fakes that several tests share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from policies.generation.language_model import Policy, TinyModel, build_tiny_model
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import LeafValue
from policies.planning.methods import build_searcher
from policies.planning.options import MethodName, SearchOptions
from policies.planning.searcher import SearchPolicy
from prefsearch.cli.commands import Command
from rewardmodel.interface import RewardModel
from rewardmodel.pretrained.tokenization import TextEncoder
from rewardmodel.synthetic.world import demonstrations

TINY = TinyModel(vocabulary=400, hidden_size=32, layers=2, heads=2, context=256)


def build_untrained_policy(folder: Path) -> Path:
    """Writes an untrained tiny Llama whose tokenizer knows the synthetic task."""
    data = demonstrations(60, seed=0)
    texts = [p + c for p, c in zip(data["prompt"], data["completion"], strict=True)]
    build_tiny_model(texts, folder, size=TINY, seed=0)
    return folder


def policy_of(config: PretrainedConfig, encoder: TextEncoder, *, seed: int = 0) -> Policy:
    """An untrained policy of any architecture, with a given tokenizer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    return Policy(model, encoder, 256)


class CountingReward:
    """Scores a response by its characters; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        self.asked += len(responses)
        return torch.tensor([float(sum(map(ord, text)) % 997) / 100 for text in responses])


def search_of(
    policy: Policy,
    method: MethodName,
    budget: int,
    proposal: Proposal,
    *,
    reward_model: RewardModel | None = None,
    leaf_value: LeafValue | None = None,
    **options: Any,
) -> SearchPolicy:
    """A search by its method's name against `CountingReward`, if no other model is given."""
    return build_searcher(
        method,
        budget,
        policy=policy,
        reward_model=reward_model or CountingReward(),
        leaf_value=leaf_value,
        proposal=proposal,
        options=SearchOptions(**options),
    )


def save_blank(figure: object, file: BinaryIO, **options: object) -> None:
    """Stands in for `Figure.savefig`, which takes most of the time of a small evaluation."""
    file.write(b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')


MICRO_DEMO = {
    "fast": True,
    "demonstrations": 100,
    "comparisons": 20,
    "few_labels": 10,
    "eval_prompts": 3,
    "pool": 16,
    "finetune_prompts": 8,
    "threads": 1,
}


def demo_words(out: Path, *flags: str) -> list[str]:
    """The words of a demo made as small as it goes, for `prefsearch`."""
    sizes = [word for name, value in MICRO_DEMO.items() for word in (f"--{name}", str(value))]
    return ["demo", "--out", str(out), *sizes, *flags]


class Words:
    """A tokenizer whose tokens are the words of a text, each a number, behind a begin token."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2
    cls_token_id = sep_token_id = None
    begins = True

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        begin = [self.bos_token_id] if add_special_tokens and self.begins else []
        return {"input_ids": [*begin, *map(int, text.split())]}


def local_command(args: type, run: Callable[[Any], None]) -> Command:
    """A command of a class and a function at hand."""

    class Local(Command):
        def load_args(self) -> type:
            return args

        def load_run(self) -> Callable[[Any], None]:
            return run

    return Local("", "")


class NumberReader:
    """Scores a reply by the number it ends in, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[str]]] = []

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        self.calls.append((list(prompts), list(responses)))
        return torch.tensor([float(response.split()[-1]) for response in responses])
