"""The policy: a causal language model that answers prompts, loaded, built small, or fine-tuned.

This file does not know about search. `policies.generation.segment_tree` runs the model over a
search tree.
"""

import functools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from trl import SFTConfig, SFTTrainer

from policies.generation.proposals import Proposal
from policies.generation.tiny_model import TinyModel, Unfinished
from prefsearch.config.checks import require
from prefsearch.storage.folders import new_folder
from rewardmodel.data.conversation import Conversation, Prompt, Reply, prompts_of, replies_of
from rewardmodel.prefix_cache.backbone import Backbone
from rewardmodel.prefix_cache.base import Prefixes
from rewardmodel.prefix_cache.rerun import RerunTree
from rewardmodel.prefix_cache.tree import PrefixTree
from rewardmodel.pretrained.adapters import adapter_folder, load_causal
from rewardmodel.pretrained.compatibility import context_length, fit_embeddings
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.run import run_trainer, save_model

_logger = logging.getLogger(__name__)


class Policy:
    """A causal language model with its one way to token ids.

    Attributes:
        model: In evaluation mode, on the GPU where there is one.
        encoder: Prompt and response to ids.
        context: The most tokens the model can attend to.
        end_ids: Tokens that end a response; chat models may have several.
        turn_ends: Texts that end a response: what closes a turn of the chat template, where that
            is no token.
    """

    def __init__(self, model: Any, encoder: TextEncoder, context: int) -> None:
        """Takes a loaded model; use `load`."""
        self.model = model.eval()
        self.encoder = encoder
        self.context = context
        self._boundaries: dict[str, Tensor] = {}
        ends = getattr(model.generation_config, "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
        mark = encoder.template.frame.mark
        turn_end = encoder.text_ids(mark)[:1] if mark else []
        marked = bool(turn_end) and turn_end[0] in encoder.tokenizer.get_added_vocab().values()
        self.end_ids: frozenset[int] = frozenset(
            [encoder.end_id, *listed, *(turn_end if marked else [])]
        )
        self.turn_ends = () if marked or not mark else (mark,)

    def room_for_prompts(self, max_new_tokens: int) -> int:
        """The most tokens of a prompt beside a response of `max_new_tokens` and its end token."""
        return self.context - max_new_tokens - 1

    @functools.cached_property
    def _backbone(self) -> Backbone:
        return Backbone(self.model, max_tokens=self.context, language_head=True)

    def new_prefixes(self) -> Prefixes:
        """An empty store of prefixes: each computed once, or run again where that cannot be."""
        return PrefixTree(self._backbone) if self._backbone.shares else RerunTree(self._backbone)

    def reply(self, text: str, prompt: Prompt | None) -> str:
        """A response as plain text: to a conversation, without the chat template's markup.

        Args:
            text: As it was decoded.
            prompt: What it answers; None stands for text.
        """
        if not isinstance(prompt, Conversation):
            return text
        return self.encoder.template.content(text, prompt)

    def boundaries(self, proposal: Proposal) -> Tensor | None:
        """Which tokens end a segment by themselves, bool [V]; None where only its length does."""
        if proposal.unit not in ("sentence", "line"):
            return None
        if proposal.unit not in self._boundaries:
            rows = self.model.get_input_embeddings().weight.shape[0]
            size = max(rows, len(self.encoder.tokenizer))
            self._boundaries[proposal.unit] = proposal.boundaries(self.encoder.tokenizer, size)
        return self._boundaries[proposal.unit]

    @classmethod
    def load(cls, source: str) -> "Policy":
        """Loads a policy by hub id, folder, adapter folder of peft, package or GGUF file.

        Args:
            source: As `rewardmodel.pretrained.source.resolve_model` takes it.

        Raises:
            ValueError: If there are no weights or no tokenizer.
        """
        tokenizer = load_tokenizer(source)
        model = load_language_model(source)
        fit_embeddings(model, tokenizer)
        if torch.cuda.is_available():
            model = model.to("cuda")
        return cls(model, TextEncoder(tokenizer), context_length(model) or 2**20)


def load_language_model(source: str) -> Any:
    """Loads a causal language model's weights.

    Args:
        source: As `rewardmodel.pretrained.source.resolve_model` takes it.

    Raises:
        ValueError: If nothing can be loaded from `source`, or weights are missing, left over or not
            finite.
    """
    return load_causal(source, merge=True)


def build_tiny_model(texts: Iterable[str], folder: Path, *, size: TinyModel, seed: int) -> None:
    """Writes an untrained Llama and a tokenizer trained on `texts` to a folder.

    Args:
        texts: What the byte-level BPE is trained on.
        folder: Becomes an ordinary transformers folder.
        size: Of the model.
        seed: Of the weights.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|begin|>", "<|end|>"]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size.vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=special[0], bos_token=special[1], eos_token=special[2]
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden_size,
            intermediate_size=8 * size.hidden_size // 3 // 8 * 8,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=size.context,
            tie_word_embeddings=True,
            initializer_range=0.7 * size.hidden_size**-0.5,  # 0.02 is for wide models
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


def fine_tune(
    base: str,
    demonstrations: Dataset,
    folder: Path,
    *,
    optimization: OptimConfig,
    unfinished: Unfinished = "no_end",
    checkpoints: Path | None = None,
    keep_checkpoints: bool = False,
) -> dict[str, Any]:
    """Fine-tunes a policy on demonstrations through `trl.SFTTrainer` and saves it.

    The loss is over the completion alone, with its end token, or what closes a turn. A completion
    that was cut off, in the data or here at the most tokens of prompt and completion, is no example
    of how to end: it gets neither, or is left out.

    Args:
        base: Hub id, folder, package or GGUF file to begin from.
        demonstrations: Columns `prompt` and `completion`, text, or messages, which the chat
            template of the base renders; and where some were cut off `finished`.
        folder: Where the policy goes.
        optimization: How to train.
        unfinished: What becomes of completions that were cut off: "no_end" learns them without an
            end token, "leave_out" leaves them out.
        checkpoints: Where checkpoints go on the way, default `folder` with `-trainer` added.
        keep_checkpoints: Leave them there; the caller removes them once it has noted that the model
            is made.

    Returns:
        Counts and losses: `rows` (learned), `cut` (of them too long), `unfinished` (of all given,
        cut off there or here), `left_out`, `updates`, `seconds`...

    Raises:
        ValueError: If the data is empty, the base cannot be loaded or the loss diverges.
        StorageError: If the disk is full.
    """
    if len(demonstrations) == 0:
        raise ValueError("no demonstrations to train on; required: at least 1")
    known = get_args(Unfinished)
    require(unfinished in known, "unfinished", unfinished, f"one of {', '.join(known)}")
    torch.manual_seed(optimization.seed)
    tokenizer = load_tokenizer(base)
    model = load_language_model(base).float()
    fit_embeddings(model, tokenizer)
    limit = optimization.max_length or context_length(model)
    encoder = TextEncoder(tokenizer, limit)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    cut = open_ended = 0
    for prompt, completion, ended in _demonstrated(demonstrations):
        whole = encoder.whole(prompt, completion, finished=ended)
        too_long = limit is not None and sum(map(len, whole)) > limit
        if limit is not None and ended and len(whole[1]) >= limit:  # the prompt gives way first
            ended = False
            whole = encoder.whole(prompt, completion, finished=False)
        open_ended += not ended
        if not ended and unfinished == "leave_out":
            continue
        prompt_ids, completion_ids = encoder.cut(whole, prompt, completion, finished=ended)
        rows["input_ids"].append(prompt_ids + completion_ids)
        rows["labels"].append([-100] * len(prompt_ids) + completion_ids)
        cut += too_long
    learned = len(rows["labels"])
    if open_ended:
        _logger.warning(
            "%d of %d demonstrations were cut off and %s (unfinished: %s)",
            open_ended, len(demonstrations),
            "teach no end token" if unfinished == "no_end" else "are left out", unfinished,
        )  # fmt: skip
    if not learned:
        raise ValueError(
            f"all {len(demonstrations)} demonstrations were cut off and unfinished is "
            f'{unfinished!r}; required: a finished one. Take unfinished="no_end", or raise '
            "max_new_tokens where they were made, or max_length here"
        )
    if cut:
        _logger.warning(
            "%d of %d demonstrations are longer than %d tokens and were cut (prompt first)",
            cut, learned, encoder.max_length,
        )  # fmt: skip
    checkpoints = checkpoints or folder.with_name(folder.name + "-trainer")
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**optimization.trainer_arguments(checkpoints)),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        peft_config=optimization.adapters("CAUSAL_LM"),
    )
    outcome = run_trainer(trainer)
    # An adapter was merged when it was loaded: new adapters alone would forget it.
    save_model(
        trainer,
        tokenizer,
        folder,
        merge=bool(optimization.lora_rank) and adapter_folder(base) is not None,
        keep_checkpoints=keep_checkpoints,
    )
    left_out = len(demonstrations) - learned
    counts = {"rows": learned, "cut": cut, "unfinished": open_ended, "left_out": left_out}
    return {**counts, **outcome}


def _demonstrated(demonstrations: Dataset) -> Iterator[tuple[Prompt, Reply, bool]]:
    """Prompt, completion and whether that is finished, of each row."""
    columns = demonstrations.column_names
    ended = demonstrations["finished"] if "finished" in columns else [True] * len(demonstrations)
    yield from zip(
        prompts_of(demonstrations),
        replies_of(demonstrations, "completion"),
        [value is not False for value in ended],  # null where nothing is known
        strict=True,
    )
