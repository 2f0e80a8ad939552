"""Models with random weights and prompts for the text-search benchmark.

The tokenizer has one token a word, so that every side reads the same ids, whether it keeps ids or
tokenizes texts again.
"""

import contextlib
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from benchmarks.harness.word_tokenizer import SPECIAL, word_tokenizer
from benchmarks.harness.worker import Json
from policies.generation.language_model import Policy
from policies.planning.value_head import ValueHead
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.pretrained.tokenization import TextEncoder

SIZES: dict[str, dict[str, int]] = {
    "tiny": {  # 6.6 million parameters
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
    },
    "135M": {  # the shape of SmolLM-135M
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "micro": {  # for tests
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
}
CONTEXT = 1024


@dataclass(frozen=True)
class Subject:
    """The models of one run.

    Attributes:
        policy: Proposes.
        value_model: A second model with a scalar head, which values unfinished and finished text.
        head: Values the policy's hidden states.
    """

    policy: Policy
    value_model: SequenceRewardModel
    head: ValueHead

    @property
    def parameters(self) -> int:
        """Of the policy."""
        return sum(weight.numel() for weight in self.policy.model.parameters())


def build_subject(size: str, *, seed: int = 0) -> Subject:
    """Draws the models of a size in `SIZES`."""
    shape = SIZES[size]
    tokenizer = word_tokenizer(shape["vocab_size"])
    # Wide initial weights: with a uniform policy there is nothing to search.
    options = {
        "max_position_embeddings": CONTEXT,
        "initializer_range": 1.5 * shape["hidden_size"] ** -0.5,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(seed)
    language_model = LlamaForCausalLM(LlamaConfig(**shape, **options))
    with torch.no_grad():  # tokens without text are unlikely, since decoding drops them
        language_model.get_input_embeddings().weight[:2] = 0
    torch.manual_seed(seed + 1)
    classifier = LlamaForSequenceClassification(LlamaConfig(**shape, **options, num_labels=1))
    torch.nn.init.normal_(classifier.score.weight, std=shape["hidden_size"] ** -0.5)
    torch.manual_seed(seed + 2)
    head = ValueHead(shape["hidden_size"]).eval()
    policy = Policy(language_model, TextEncoder(tokenizer), CONTEXT)
    value_model = SequenceRewardModel(classifier, TextEncoder(tokenizer, CONTEXT))
    # Both inspect their models at the first use, which is not to be timed.
    policy.new_prefixes()
    value_model.session()
    return Subject(policy, value_model, head)


def draw_prompts(subject: Subject, count: int, tokens: int, *, seed: int = 0) -> list[str]:
    """Prompts of random words, `tokens` long each."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = len(subject.policy.encoder.tokenizer)
    drawn = torch.randint(len(SPECIAL), vocabulary, (count, tokens), generator=generator)
    return [" ".join(f"w{token}" for token in row) for row in drawn.tolist()]


@contextlib.contextmanager
def counted_tokens(model: PreTrainedModel) -> Generator[list[int]]:
    """Counts the tokens that a model reads, padding included, as one number a forward pass."""
    seen: list[int] = []

    def hook(module: object, args: tuple[torch.Tensor, ...], kwargs: Json) -> None:
        ids = kwargs.get("input_ids")
        seen.append((args[0] if ids is None else ids).numel())

    handle = model.base_model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@contextlib.contextmanager
def saved_subject(subject: Subject) -> Generator[Path]:
    """Folders `policy` and `value` of ordinary transformers files, for other processes."""
    with tempfile.TemporaryDirectory() as folder:
        for name, one in (("policy", subject.policy), ("value", subject.value_model)):
            one.model.save_pretrained(Path(folder) / name)
            one.encoder.tokenizer.save_pretrained(Path(folder) / name)
        yield Path(folder)
