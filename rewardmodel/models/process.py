"""Process reward models: the probability that each step of a response is right.

A token classifier of two labels, the second for "right" (or of one, whose sigmoid is taken), read
at the last token of each step. All steps of a response come from one forward pass; responses to one
prompt share its computation where the model allows.

Source: Lightman et al. 2023 (https://arxiv.org/abs/2305.20050), whose score of a response is the
product of its steps'; the minimum is common, too, and depends less on their number.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from rewardmodel.choices import STEP_AGGREGATES, StepAggregate
from rewardmodel.data.conversation import Prompt, Reply, text_of
from rewardmodel.data.steps import SEPARATOR, StepIds, split_steps, step_ids
from rewardmodel.interface import Finished, require_finite
from rewardmodel.models.aggregation import combine_steps
from rewardmodel.models.sequence import PlainRewardModel, open_encoder
from rewardmodel.prefix_cache.backbone import Backbone
from rewardmodel.prefix_cache.row_batches import row_batches
from rewardmodel.prefix_cache.sessions import head_of, worth_sharing
from rewardmodel.prefix_cache.tree import PrefixTree
from rewardmodel.pretrained.checkpoints import load_classifier
from rewardmodel.pretrained.compatibility import context_length
from rewardmodel.pretrained.tokenization import TextEncoder

_logger = logging.getLogger(__name__)
_ENDLESS = 2**30


class ProcessRewardModel(PlainRewardModel):
    """Scores steps; a `StepRewardModel` and a `SessionRewardModel`.

    `finished` has no effect: a step is scored at the separator that closes it, and the last one as
    if it were closed.
    """

    def __init__(
        self,
        model: Any,
        encoder: TextEncoder,
        *,
        separator: str = SEPARATOR,
        aggregate: StepAggregate = "min",
        batch_size: int = 64,
    ) -> None:
        """Takes a loaded token classifier.

        Args:
            model: Of one or two labels. In a bidirectional one, later steps affect earlier ones.
            encoder: Its tokenization, with the `max_length` it was trained with.
            separator: Text between steps, as in training.
            aggregate: How the scores of a response's steps become its own: "min" (default),
                "product", "mean" or "last". A search that sums the rewards of single steps
                (`policies.planning.segment_rewards.ProcessReward`) needs "last".
            batch_size: Rows per forward pass.

        Raises:
            ValueError: If there is no such aggregate.
        """
        if aggregate not in STEP_AGGREGATES:
            raise ValueError(
                f"aggregate: found {aggregate!r}; required: one of {', '.join(STEP_AGGREGATES)}"
            )
        if not separator:
            raise ValueError("separator: found an empty text; required: what stands between steps")
        self.model = model.eval()
        self.encoder = encoder
        self.separator = separator
        self.aggregate: StepAggregate = aggregate
        self.batch_size = batch_size

    @classmethod
    def load(
        cls,
        source: str,
        *,
        separator: str | None = None,
        aggregate: StepAggregate = "min",
        max_length: int | None = None,
        batch_size: int = 64,
    ) -> Self:
        r"""Loads a trained process reward model by hub id or local folder.

        `separator` and `max_length` default to those of the training, where the model has them,
        else to a blank line and the context; models of TRL were often trained with "\n".

        Raises:
            ValueError: If weights, tokenizer or head are missing, or it has other labels.
        """
        model = load_step_scorer(source, init_head=False)
        encoder = open_encoder(source, model, max_length, input_format="text")
        kept = getattr(model.config, "step_separator", None)
        return cls(
            model,
            encoder,
            separator=separator or kept or SEPARATOR,
            aggregate=aggregate,
            batch_size=batch_size,
        )

    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        """Probability that each step is right, float32 [T_i] a response; see `StepRewardModel`.

        Steps beyond `max_length` take the score of the last token that fits; their number is
        logged.
        """
        return self._step_scores(prompts, steps)[0]

    def _score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[Tensor, int]:
        texts = [text_of(response, "a process model") for response in responses]
        steps = [split_steps(text, self.separator) for text in texts]
        found, tokens = self._step_scores(prompts, steps)
        return torch.tensor([combine_steps(row, self.aggregate) for row in found]), tokens

    def _step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]
    ) -> tuple[list[Tensor], int]:
        """Scores of steps, and the tokens given to the model."""
        rows = []
        for row, (prompt, mine) in enumerate(zip(prompts, steps, strict=True)):
            try:
                rows.append(step_ids(self.encoder, prompt, mine, separator=self.separator))
            except ValueError as error:
                raise ValueError(f"row {row}: {error}") from error
        lost = sum(row.lost for row in rows)
        if lost:
            _logger.warning(
                "%d of %d steps lie beyond %s tokens and take the score of the last that fits",
                *(lost, sum(len(row.ends) for row in rows), self.encoder.max_length),
            )
        shared = worth_sharing([(row.prompt, row.steps) for row in rows])
        if self._backbone is None:
            shared = []
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        tokens = self._run_shared(rows, shared, found) if shared else 0
        together = set(shared)
        tokens += self._run_alone(rows, [i for i in range(len(rows)) if i not in together], found)
        firsts = torch.tensor([float(row.sum()) for row in found])
        require_finite(firsts, [" ".join(mine) for mine in steps])
        return found, tokens

    @functools.cached_property
    def _head(self) -> Callable[[Tensor], Tensor] | None:
        """The layer from hidden states to labels, if the model has no other part behind it."""
        return head_of(self.model, every_token=True)

    @functools.cached_property
    def _backbone(self) -> Backbone | None:
        """The backbone that shares prompts, or None; determined at first use."""
        if self._head is None:
            return None
        limit = self.encoder.max_length or context_length(self.model) or _ENDLESS
        backbone = Backbone(self.model, max_tokens=limit, language_head=False)
        return backbone if backbone.shares else None

    @torch.inference_mode()
    def _run_shared(
        self, rows: Sequence[StepIds], shared: Sequence[int], found: list[Tensor]
    ) -> int:
        """Scores responses whose prompts are run once; returns the tokens given to the model."""
        assert self._backbone is not None
        assert self._head is not None
        groups: dict[tuple[int, ...], list[int]] = {}
        for i in shared:
            groups.setdefault(tuple(rows[i].prompt), []).append(i)
        tokens = 0
        for prompt, lines in groups.items():
            for start in range(0, len(lines), self.batch_size):
                mine = lines[start : start + self.batch_size]
                tree = PrefixTree(self._backbone)
                (top,) = tree.add_prompts([prompt])
                _, states = tree.feed([top] * len(mine), [rows[i].steps for i in mine])
                offset = 0
                for i in mine:
                    at = torch.tensor(rows[i].ends, device=states.hidden.device) + offset
                    found[i] = probabilities(self._head(states.hidden[at]))
                    offset += len(rows[i].steps)
                tokens += sum(tree.forward_tokens.values()) + tree.padding_tokens
        return tokens

    @torch.inference_mode()
    def _run_alone(self, rows: Sequence[StepIds], alone: Sequence[int], found: list[Tensor]) -> int:
        """Scores whole texts the ordinary way; returns the tokens given to the model."""
        tokens = 0
        for batch in row_batches(
            [rows[i].prompt + rows[i].steps for i in alone],
            batch_size=self.batch_size,
            pad_id=self.encoder.tokenizer.pad_token_id,
            device=self.model.device,
        ):
            logits = self.model(input_ids=batch.ids, attention_mask=batch.mask).logits  # [B, T, L]
            for line, number in enumerate(batch.rows):
                row = rows[alone[number]]
                at = torch.tensor(row.ends, device=logits.device) + len(row.prompt)
                found[alone[number]] = probabilities(logits[line, at])
            tokens += batch.ids.numel()
        return tokens


def load_step_scorer(source: str, *, init_head: bool) -> Any:
    """Loads a token classifier that can score steps.

    Args:
        source: Hub id or local folder; a causal language model gets a new head of two labels.
        init_head: Whether the model may lack a head, as before training.

    Raises:
        ValueError: If nothing can be loaded there, or it has more than two labels.
    """
    labels = 2 if init_head else None
    model = load_classifier(source, task="TOKEN_CLS", labels=labels, init_head=init_head)
    if model.config.num_labels not in (1, 2):
        raise ValueError(
            f"{source} has {model.config.num_labels} labels; required: 2 (wrong, right) or 1. "
            "Train a process reward model from the base that it was trained from, with "
            "`prefsearch reward train_prm --model BASE`"
        )
    return model


def probabilities(logits: Tensor) -> Tensor:
    """Probabilities [T] on the CPU that steps are right, of logits [T, 2] or [T, 1]."""
    logits = logits.float().cpu()
    return logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(-1)[:, 1]
