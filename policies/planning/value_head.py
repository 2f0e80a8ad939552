"""A value head: from the policy's last hidden state to the expected final score.

The forward pass that sampled a segment computed its hidden state, so a value costs nothing. The
head is fitted to the final scores of sampled responses: controlled decoding of Mudgal et al. 2023
(https://arxiv.org/abs/2310.17022), CD-FUDGE.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.planning.scoring import TreeScorer
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.folders import new_folder
from prefsearch.storage.json_text import read_object
from prefsearch.storage.weights import load_tensor_file, load_weights
from rewardmodel.data.conversation import Prompt
from rewardmodel.interface import Finished, each_finished
from rewardmodel.pretrained.source import resolve_model


class ValueHead(nn.Module):
    """A small network from the policy's last hidden state to the expected final score.

    Attributes:
        shift: Mean of the scores it was fitted to.
        scale: Their standard deviation.
    """

    samples: ClassVar[bool] = False

    shift: Tensor
    scale: Tensor

    def __init__(self, hidden_size: int, width: int = 256) -> None:
        """Makes an unfitted head for hidden states of `hidden_size`."""
        super().__init__()
        self.sizes = {"hidden_size": hidden_size, "width": width}
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 1),
        )
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps hidden states [R, d] to standardized values [R]."""
        return self.layers(hidden.float())[:, 0]

    @torch.inference_mode()
    def values(self, scorer: TreeScorer, nodes: Sequence[int]) -> Tensor:
        """See `LeafValue`."""
        hidden = scorer.tree.hidden(nodes).to(self.scale.device)
        return (self(hidden) * self.scale + self.shift).cpu()

    def save(self, folder: Path) -> None:
        """Writes `value_head.safetensors` and its sizes, in one rename."""
        with new_folder(folder, over="value_head") as scratch:
            save_file(self.state_dict(), scratch / "value_head.safetensors")
            write_json_atomic(scratch / "value_head.json", self.sizes)

    @classmethod
    def load(cls, folder: str | Path) -> "ValueHead":
        """Loads a fitted head from a folder, which may lie in a package.

        Raises:
            ValueError: If the folder holds none, or it is not whole.
        """
        folder = Path(resolve_model(folder))
        if not (folder / "value_head.json").is_file():
            raise ValueError(
                f"{folder} holds no value head; required: value_head.json and "
                "value_head.safetensors, as `prefsearch policy value` writes them"
            )
        sizes, path = read_object(folder / "value_head.json"), folder / "value_head.safetensors"
        try:
            head = cls(**sizes)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"{folder / 'value_head.json'}: found {sizes}; required: hidden_size and width, "
                "positive whole numbers. Fit the head again with `prefsearch policy value`"
            ) from error
        load_weights(path, load_tensor_file(path), head, remedy="Fit the head again")
        return head.eval()


@torch.inference_mode()
def boundary_states(
    policy: Policy,
    proposal: Proposal,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    finished: Finished = True,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Hidden states at the ends of the prompts and of all unfinished segments.

    Args:
        policy: Whose hidden states.
        proposal: Where segments end.
        prompts: M prompts.
        responses: M responses.
        finished: Whether they ended by themselves; those cut off have no end token.
        batch_size: Rows a forward pass.

    Returns:
        Hidden states [S, d] and for each the row int64 [S] it belongs to.
    """
    encoder, device = policy.encoder, policy.model.device
    ends = policy.boundaries(proposal)
    whole = each_finished(finished, len(responses))
    states, owners = [], []
    for start in range(0, len(prompts), batch_size):
        pairs = [
            encoder.pair(p, r, finished=f)
            for p, r, f in zip(
                prompts[start : start + batch_size],
                responses[start : start + batch_size],
                whole[start : start + batch_size],
                strict=True,
            )
        ]
        width = max(len(p) + len(r) for p, r in pairs)
        ids = torch.zeros(len(pairs), width, dtype=torch.long)
        wanted = torch.zeros(len(pairs), width, dtype=torch.bool)
        for line, (prompt, response) in enumerate(pairs):
            ids[line, : len(prompt) + len(response)] = torch.tensor(prompt + response)
            wanted[line, len(prompt) - 1] = True
            segment = 0
            for place, token in enumerate(response[:-1]):
                segment += 1
                closes = ends is not None and bool(ends[token])
                if closes or segment == proposal.segment_limit:
                    wanted[line, len(prompt) + place] = True
                    segment = 0
        # Padding lies on the right, where a causal model does not look.
        hidden = policy.model(input_ids=ids.to(device), output_hidden_states=True).hidden_states[-1]
        states.append(hidden[wanted.to(device)].float().cpu())
        owners.append(wanted.nonzero()[:, 0] + start)
    return torch.cat(states), torch.cat(owners)


def fit_value_head(
    policy: Policy,
    proposal: Proposal,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    scores: Tensor,
    folder: Path,
    *,
    seed: int,
    finished: Finished = True,
    epochs: int = 12,
    learning_rate: float = 2e-3,
    batch_size: int = 512,
    holdout: float = 0.1,
) -> dict[str, Any]:
    """Fits a value head to the final scores of sampled responses and saves it.

    Args:
        policy: The policy that sampled them.
        proposal: Where segments end.
        prompts: M prompts.
        responses: M responses.
        scores: float [M], the reward model's.
        folder: Where the head goes.
        seed: Of weights and order.
        finished: Whether the responses ended by themselves, all or each.
        epochs: Passes over the states.
        learning_rate: Peak, of AdamW with a one-cycle schedule.
        batch_size: States a step.
        holdout: Share of the responses kept to measure the fit.

    Returns:
        Counts `responses` and `states`, and `explained_variance` on the held-out responses, None
        where these have no two targets that differ.

    Raises:
        ValueError: If there are too few responses to hold any out.
    """
    if len(prompts) < 10:
        raise ValueError(f"{len(prompts)} responses to fit a value head to; required: at least 10")
    torch.manual_seed(seed)
    states, owners = boundary_states(policy, proposal, prompts, responses, finished=finished)
    head = ValueHead(states.shape[1])
    head.shift, head.scale = scores.mean(), scores.std().clamp(min=1e-6)
    targets = (scores[owners] - head.shift) / head.scale
    # Responses to one prompt stay together: the last prompts are held out.
    first_held = owners.max() + 1 - max(1, int(holdout * len(prompts)))
    fitting, held = (owners < first_held).nonzero()[:, 0], (owners >= first_held).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(fitting) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for _ in range(epochs):
        for batch in fitting[torch.randperm(len(fitting))].split(batch_size):
            loss = nn.functional.mse_loss(head(states[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        error = nn.functional.mse_loss(head(states[held]), targets[held])
    head.save(folder)
    variance = float(targets[held].var()) if len(held) > 1 else 0.0
    return {
        "responses": len(prompts),
        "states": len(states),
        "explained_variance": round(1 - float(error / variance), 4) if variance > 0 else None,
    }
