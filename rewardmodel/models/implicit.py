"""DPO's implicit reward: the log ratio of a policy's and its reference's probabilities.

A policy trained by direct preference optimization is optimal for the reward
`beta * log(pi(y|x) / pi_ref(y|x))`, up to a term of the prompt alone, so policy and reference are a
reward model, with a score for every token as well.

Source: Rafailov et al. 2023 (https://arxiv.org/abs/2305.18290), equation 5; for tokens, Rafailov et
al. 2024 (https://arxiv.org/abs/2404.12358). Dividing by the length, and leaving the reference out,
is the reward of SimPO, Meng et al. 2024 (https://arxiv.org/abs/2405.14734).
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.data.text_rows import pair_rows
from rewardmodel.interface import Finished, require_finite
from rewardmodel.models.sequence import PlainRewardModel
from rewardmodel.prefix_cache.row_batches import row_batches
from rewardmodel.pretrained.adapters import adapter_folder, load_causal
from rewardmodel.pretrained.compatibility import check_vocabulary, context_length
from rewardmodel.pretrained.tokenization import TextEncoder, load_tokenizer

TokenAggregate = Literal["sum", "mean"]
TOKEN_AGGREGATES: tuple[str, ...] = get_args(TokenAggregate)
WITHOUT_ADAPTER: Literal["without_adapter"] = "without_adapter"
"""The reference of a policy that is an adapter: its base."""


class ImplicitRewardModel(PlainRewardModel):
    """Scores responses by a policy's log probability ratio; a `SessionRewardModel`."""

    def __init__(
        self,
        policy: Any,
        reference: Any,
        encoder: TextEncoder,
        *,
        beta: float = 0.1,
        length_normalized: bool = False,
        batch_size: int = 16,
    ) -> None:
        """Takes loaded models.

        Args:
            policy: Causal language model.
            reference: Another one of the same vocabulary; `WITHOUT_ADAPTER` for the base of a
                policy that is an adapter; None for no reference, which scores
                `beta * log pi(y|x)`.
            encoder: Their tokenization.
            beta: Of the training; a scale.
            length_normalized: Whether the score is the mean over tokens instead of the sum.
            batch_size: Rows per forward pass.

        Raises:
            ValueError: If `beta` is not positive, or the policy has no adapter to disable.
        """
        if beta <= 0:
            raise ValueError(f"beta: found {beta}; required: more than 0")
        if reference == WITHOUT_ADAPTER and not hasattr(policy, "disable_adapter"):
            raise _no_adapter(type(policy).__name__)
        self.policy = policy.eval()
        self.reference = reference if reference in (None, WITHOUT_ADAPTER) else reference.eval()
        self.encoder = encoder
        self.beta = beta
        self.length_normalized = length_normalized
        self.batch_size = batch_size

    @classmethod
    def load(
        cls,
        policy: str,
        *,
        reference: str | None = WITHOUT_ADAPTER,
        beta: float = 0.1,
        length_normalized: bool = False,
        max_length: int | None = None,
        batch_size: int = 16,
    ) -> Self:
        """Loads policy and reference by hub id, folder, package or GGUF file.

        Raises:
            ValueError: If one cannot be loaded, or their vocabularies differ.
        """
        if reference == WITHOUT_ADAPTER and adapter_folder(policy) is None:
            raise _no_adapter(policy)
        model = load_causal(policy, merge=False)
        encoder = _open_encoder(policy, model, max_length)
        other: Any = reference
        if reference is not None and reference != WITHOUT_ADAPTER:
            other = load_causal(reference, merge=False)
            theirs = _open_encoder(reference, other, None)
            if not theirs.shares_vocabulary(encoder):
                raise ValueError(
                    f"the reference {reference} has a vocabulary of {len(theirs.tokenizer)} tokens "
                    f"that is not the policy's ({len(encoder.tokenizer)}); required: the same, "
                    "since the reward is a ratio of token probabilities. Take the model that the "
                    "policy was trained from"
                )
        return cls(
            model,
            other,
            encoder,
            beta=beta,
            length_normalized=length_normalized,
            batch_size=batch_size,
        )

    def token_scores(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> list[Tensor]:
        """Rewards of the responses' tokens, the end token's included.

        Args:
            prompts: B prompts, none without tokens.
            responses: B responses.
            finished: Whether the responses end here, with an end token.

        Returns:
            float32 [T_i] on the CPU for each response, `beta * (log pi - log pi_ref)`.

        Raises:
            ValueError: If a prompt has no tokens, or a reward is not finite; the message names the
                row.
        """
        return self._token_scores(prompts, responses, finished=finished)[0]

    def _score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[Tensor, int]:
        """Scores, and the tokens given to both models."""
        found, tokens = self._token_scores(prompts, responses, finished=finished)
        sums = torch.tensor([float(row.sum()) for row in found])
        if self.length_normalized:
            sums = sums / torch.tensor([max(1.0, len(row)) for row in found])
        return sums, tokens

    @torch.inference_mode()
    def _token_scores(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[list[Tensor], int]:
        encoder = self.encoder
        pairs = pair_rows(encoder, prompts, responses, finished=finished)
        for row, (prompt, _) in enumerate(pairs):
            if not prompt:
                raise ValueError(
                    f"the prompt of row {row} has no tokens; required: at least one, since the "
                    "first token of a response is predicted from what is before it. Give it a text"
                )
        found: list[Tensor] = [torch.empty(0)] * len(pairs)
        tokens = 0
        for batch in row_batches(
            [prompt + response for prompt, response in pairs],
            batch_size=self.batch_size,
            pad_id=0,  # on the right, which a causal model does not read
            device=self.policy.device,
        ):
            # Rows and places of the response tokens, and of the tokens that predict them.
            spans = [(len(pairs[i][0]), len(pairs[i][0]) + len(pairs[i][1])) for i in batch.rows]
            lines = torch.tensor([n for n, (a, b) in enumerate(spans) for _ in range(a, b)])
            places = torch.tensor([place for a, b in spans for place in range(a, b)])
            inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
            at = (lines.long(), places.long())
            scores = _log_probabilities(self.policy, inputs, at)
            tokens += batch.ids.numel()
            if self.reference is not None:
                same = self.reference == WITHOUT_ADAPTER
                model = self.policy if same else self.reference
                with self.policy.disable_adapter() if same else contextlib.nullcontext():
                    scores = scores - _log_probabilities(model, inputs, at)
                tokens += batch.ids.numel()
            pieces = (self.beta * scores).cpu().split([b - a for a, b in spans])
            for i, piece in zip(batch.rows, pieces, strict=True):
                found[i] = piece
        require_finite(torch.tensor([float(row.sum()) for row in found]), responses)
        return found, tokens


def _no_adapter(policy: str) -> ValueError:
    return ValueError(
        f"reference: {policy} is no adapter whose base could be the reference; required: the model "
        "that the policy was trained from. Name both, implicit:POLICY,REFERENCE, or pass reference "
        "in Python, None to score without one"
    )


def _open_encoder(source: str, model: Any, max_length: int | None) -> TextEncoder:
    """A model's tokenization. Embeddings are not resized: a new token would get probability."""
    tokenizer = load_tokenizer(source)
    check_vocabulary(model, tokenizer, source=source, unused={tokenizer.pad_token})
    if torch.cuda.is_available():
        model.to("cuda")
    return TextEncoder(tokenizer, max_length or context_length(model))


def _log_probabilities(model: Any, inputs: dict[str, Tensor], at: tuple[Tensor, Tensor]) -> Tensor:
    """Log probabilities, float32 [n], of the tokens at (rows, places) under a model."""
    lines, places = (index.to(inputs["input_ids"].device) for index in at)
    logits = model(**inputs).logits[lines, places - 1].float()  # [n, V]
    taken = inputs["input_ids"][lines, places]
    return logits.gather(-1, taken[:, None])[:, 0] - logits.logsumexp(-1)
