"""A reward model's head read at every token of a response.

The head of a sequence classifier was trained at last tokens only; before them it is a biased
estimate of the final score at no extra cost. A value head fitted for the purpose is in
`policies.planning.leaf_values`.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.data.text_rows import pair_rows
from rewardmodel.interface import Finished, require_finite
from rewardmodel.models.sequence import PlainRewardModel, load_scorer, open_encoder
from rewardmodel.prefix_cache.backbone import plain_model
from rewardmodel.prefix_cache.row_batches import row_batches
from rewardmodel.prefix_cache.sessions import head_of
from rewardmodel.pretrained.config_fields import shift_of
from rewardmodel.pretrained.tokenization import TextEncoder


class TokenValueModel(PlainRewardModel):
    """Values every token of a response; a `SessionRewardModel` by the last token."""

    def __init__(self, model: Any, encoder: TextEncoder, *, batch_size: int = 64) -> None:
        """Takes a loaded classifier.

        Args:
            model: Sequence classifier of one label whose score is one layer on the last hidden
                state.
            encoder: Its tokenization.
            batch_size: Rows per forward pass.

        Raises:
            ValueError: If its score is more than that, as an encoder's.
        """
        head = head_of(model)
        if head is None:
            raise ValueError(
                f"{type(model).__name__} does not score by one layer on its last token; required: "
                "a causal model that does, since a value is read at every token. Use "
                "SequenceRewardModel for whole responses"
            )
        self.model = model.eval()
        self.encoder = encoder
        self.batch_size = batch_size
        self._head = head
        self._shift = shift_of(model.config)

    @classmethod
    def load(cls, source: str, *, max_length: int | None = None, batch_size: int = 64) -> Self:
        """Loads a trained reward model by hub id or local folder.

        Raises:
            ValueError: If weights, tokenizer or head are missing, or the model is not causal.
        """
        model = load_scorer(source, init_head=False)
        return cls(model, open_encoder(source, model, max_length), batch_size=batch_size)

    def token_values(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> list[Tensor]:
        """Values after each token of the responses, float32 [T_i] on the CPU for each.

        Finished responses are valued at their end token, too.

        Raises:
            ValueError: If a value is not finite; the message names the row.
        """
        return self._token_values(prompts, responses, finished=finished)[0]

    def _score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[Tensor, int]:
        values, tokens = self._token_values(prompts, responses, finished=finished)
        for row, mine in enumerate(values):
            if not len(mine):
                raise ValueError(
                    f"row {row}: the unfinished response has no tokens; required: at least one, "
                    "at which a value is read. Score it as finished, or give it a text"
                )
        return torch.tensor([float(row[-1]) for row in values]), tokens

    @torch.inference_mode()
    def _token_values(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished
    ) -> tuple[list[Tensor], int]:
        """Values, and the tokens given to the model."""
        pairs = pair_rows(self.encoder, prompts, responses, finished=finished)
        body = plain_model(self.model).base_model
        tokens = 0
        values: list[Tensor] = [torch.empty(0)] * len(pairs)
        for batch in row_batches(
            [prompt + response for prompt, response in pairs],
            batch_size=self.batch_size,
            pad_id=self.encoder.tokenizer.pad_token_id,
            device=self.model.device,
        ):
            states = body(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
            found = self._head(states)[..., 0].float().cpu() - self._shift  # [B, T]
            for line, i in enumerate(batch.rows):
                start = len(pairs[i][0])
                values[i] = found[line, start : start + len(pairs[i][1])].clone()
            tokens += batch.ids.numel()
        require_finite(torch.tensor([float(row.sum()) for row in values]), responses)
        return values, tokens
