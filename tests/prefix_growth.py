"""Grows trees of prefixes at random and holds every state to a plain run over the whole text."""

import random
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    Olmo3Config,
    OlmoConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from rewardmodel.prefix_cache.backbone import Backbone
from rewardmodel.prefix_cache.rerun import RerunTree
from rewardmodel.prefix_cache.states import States, pick
from rewardmodel.prefix_cache.tree import PrefixTree

VOCABULARY = 420
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.3,  # attention is all but uniform, so that a wrong mask shows
}
GROUPED: dict[str, Any] = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}
WINDOW = 6
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
SHARING: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=None),
    "mistral, a window": MistralConfig(**GROUPED, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen2, mixed": Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=WINDOW, layer_types=MIXED
    ),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "gemma": GemmaConfig(**GROUPED, head_dim=8),
    "gemma2": Gemma2Config(**GROUPED, head_dim=8, sliding_window=WINDOW),
    "gemma3": Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=WINDOW, layer_types=MIXED),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3
    ),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=64),
    "olmo": OlmoConfig(**GROUPED),
    "olmo2": Olmo2Config(**GROUPED),
    "olmo3": Olmo3Config(**GROUPED, sliding_window=WINDOW, layer_types=MIXED),
    "phi3": Phi3Config(**GROUPED, pad_token_id=0),
    "cohere": CohereConfig(**GROUPED, logit_scale=0.3),  # logits are not the head's output alone
}
RERUNNING: dict[str, PretrainedConfig] = {
    "mamba": MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
    "qwen3_next": Qwen3NextConfig(
        **{**GROUPED, "num_hidden_layers": 4},  # the fourth layer is full attention
        head_dim=8,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        max_position_embeddings=512,
    ),
    "bloom": BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
}


def language_model(config: PretrainedConfig, *, attention: str | None = None) -> Any:
    """An untrained language model in evaluation mode."""
    torch.manual_seed(0)
    options = {} if attention is None else {"attn_implementation": attention}
    return AutoModelForCausalLM.from_config(config, **options).eval()


class Growth:
    """A tree and, by handle, the whole text of each node that has a state."""

    def __init__(self, model: Any, *, seed: int = 0, language_head: bool = True) -> None:
        self.model = model
        self.backbone = Backbone(model, max_tokens=200, language_head=language_head)
        self.tree: Any = (
            PrefixTree(self.backbone) if self.backbone.shares else RerunTree(self.backbone)
        )
        self.texts: dict[int, list[int]] = {}
        self.worst = 0.0
        self._random = random.Random(seed)

    def tokens(self, count: int) -> list[int]:
        return [self._random.randrange(VOCABULARY) for _ in range(count)]

    def add_prompts(self, *lengths: int) -> list[int]:
        prompts = [self.tokens(length) for length in lengths]
        handles = self.tree.add_prompts(prompts)
        self.texts.update(zip(handles, prompts, strict=True))
        self.compare(handles)
        return handles

    def parents(self, count: int) -> list[int]:
        return [self._random.choice(list(self.texts)) for _ in range(count)]

    def feed(self, count: int, *, rows: bool) -> list[int]:
        """Feeds runs behind random nodes and one behind the first run of the same call."""
        if isinstance(self.tree, PrefixTree):
            self.tree._rows_pay = lambda parents, runs: rows  # type: ignore[method-assign]
        parents = [*self.parents(count), ~0]
        runs = [self.tokens(self._random.randrange(1, 5)) for _ in parents]
        handles, states = self.tree.feed(parents, runs)
        at = 0
        for handle, parent, run in zip(handles, parents, runs, strict=True):
            known = self.texts[handles[~parent] if parent < 0 else parent]
            self.texts[handle] = known + run
            self._hold(pick(states, slice(at, at + len(run))), known + run, len(run))
            at += len(run)
        self.compare(handles)
        return handles

    def read(self, count: int) -> None:
        parents = self.parents(count)
        runs = [self.tokens(self._random.randrange(1, 9)) for _ in parents]
        states = self.tree.read(parents, runs, rows=3)
        for i, (parent, run) in enumerate(zip(parents, runs, strict=True)):
            self._hold(pick(states, slice(i, i + 1)), self.texts[parent] + run, 1)

    def branch(self) -> list[int]:
        """Four rows; one is dropped, one ends and starts again elsewhere, three are kept."""
        parents = sorted(self.parents(5), key=lambda node: -len(self.texts[node]))
        *parents, later = parents  # a row that is given another prefix has room for it
        branches = self.tree.branches(parents, room=6)
        paths = [list(self.texts[parent]) for parent in parents]

        def step(live: list[int]) -> States:
            new = self.tokens(len(paths))
            for path, token in zip(paths, new, strict=True):
                path.append(token)
            states = branches.feed(torch.tensor(new), live=live)
            for line in live:
                self._hold(pick(states, slice(line, line + 1)), paths[line], 1)
            return states

        step([0, 1, 2, 3])
        states = step([0, 2, 3])
        made = branches.commit([2], pick(states, torch.tensor([2])))
        self.texts[made[0]] = list(paths[2])
        branches.restart([2], [later])
        paths[2] = list(self.texts[later])
        branches.keep([0, 2, 3])
        del paths[1]
        step([0, 1, 2])
        states = step([0, 1, 2])
        more = branches.commit([1, 2], pick(states, torch.tensor([1, 2])))
        self.texts.update(zip(more, map(list, paths[1:]), strict=True))
        self.compare([*made, *more])
        return [*made, *more]

    def divide(self) -> int:
        """Goes on from the middle of a node."""
        node = max(self.texts, key=lambda one: len(self.texts[one]))
        middle = len(self.texts[node]) - 1
        handle = self.tree.ancestor(node, middle)
        run = self.tokens(2)
        (made,), _ = self.tree.feed([handle], [run])
        self.texts[made] = self.texts[node][:middle] + run
        self.compare([made])
        return handle

    def keep(self, count: int) -> None:
        nodes = self._random.sample(list(self.texts), count)
        self.tree.keep(nodes)
        self.texts = {node: self.texts[node] for node in nodes}
        self.compare(nodes)

    @torch.inference_mode()
    def compare(self, nodes: list[int]) -> None:
        """The kept states of nodes."""
        for node in nodes:
            states = States(self.tree.hidden([node]), None)
            self._hold(states, self.texts[node], 1)
            if self.model.get_output_embeddings() is not None:
                _, logits = self.plain(self.texts[node])
                self._note(self.tree.logits([node]), logits[-1:])

    def plain(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [T, d] and logits [T, V] of one plain run over everything."""
        with torch.inference_mode():
            out = self.model(
                input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True
            )
        return out.hidden_states[-1][0], out.logits[0].float()

    def _hold(self, states: States, ids: list[int], count: int) -> None:
        """Compares states after the last `count` tokens of a text."""
        hidden, logits = self.plain(ids)
        self._note(states.hidden, hidden[-count:])
        if states.logits is not None:
            self._note(self.tree.logits_of(states), logits[-count:])

    def _note(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        assert found.shape == expected.shape
        assert found.isfinite().all()
        self.worst = max(self.worst, float((found.float() - expected.float()).abs().max()))

    def at_random(self, rounds: int = 3) -> float:
        """Everything in turn; returns the largest error of any number."""
        self.add_prompts(13, 5, 9)
        for number in range(rounds):
            self.feed(5, rows=bool(number % 2))
            self.branch()
            self.read(4)
            self.divide()
            if number == 0:
                self.add_prompts(7, 18)
            if number == 1:
                self.keep(6)
        return self.worst
