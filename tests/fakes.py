"""Tiny models and fakes that several tests share."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from policies.language_model import Policy, TinyModel, build_tiny_model
from rewardmodel.simulated import demonstrations
from rewardmodel.tokenization import TextEncoder

TINY = TinyModel(vocabulary=400, hidden_size=32, layers=2, heads=2, context=256)


def build_untrained_policy(folder: Path) -> Path:
    """Writes an untrained tiny Llama whose tokenizer knows the embedded world."""
    data = demonstrations(60, seed=0)
    texts = [p + c for p, c in zip(data["prompt"], data["completion"], strict=True)]
    build_tiny_model(texts, folder, size=TINY, seed=0)
    return folder


def policy_of(config: PretrainedConfig, encoder: TextEncoder, *, seed: int = 0) -> Policy:
    """An untrained policy of any architecture, with a given tokenizer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return Policy(model, encoder, 256)


class CountingReward:
    """Scores a response by its characters; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        self.asked += len(responses)
        return torch.tensor([float(sum(map(ord, text)) % 997) / 100 for text in responses])
