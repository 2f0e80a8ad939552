"""Monte Carlo estimate of the KL divergence of a policy from another."""

from collections.abc import Hashable, Sequence

import torch

from policies.finetuning.samples import Samples
from policies.generation.language_model import Policy
from prefsearch.statistics.seed_intervals import SeedInterval, interval_over_seeds


@torch.inference_mode()
def kl_to(
    reference: Policy,
    samples: Samples,
    *,
    clusters: Sequence[Hashable] | None = None,
    batch_size: int = 64,
) -> SeedInterval:
    """Estimates KL(policy || reference) in nats a response from the policy's own samples.

    The Monte Carlo estimate, the mean of log(policy / reference) of the tokens as they were drawn,
    with an interval over prompts. The policy's part was kept when it drew them, so only
    the reference is run. A response that was cut off counts as far as it goes.

    Args:
        reference: With the policy's tokenizer.
        samples: Responses of the policy, drawn at temperature 1 and without cuts.
        clusters: Of each prompt; prompts of one are no independent samples. None: none share one.
        batch_size: Rows a forward pass.

    Raises:
        ValueError: If there are fewer than two prompts.
    """
    device = reference.model.device
    rows = [
        (reference.encoder.prompt_ids(prompt), ids)
        for prompt, responses in zip(samples.prompts, samples.ids, strict=True)
        for ids in responses
    ]
    found = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        width = max(len(prompt) + len(response) for prompt, response in batch)
        # Padding lies on the right, where a causal model does not look.
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        inside = torch.zeros(len(batch), width, dtype=torch.bool)
        for line, (prompt, response) in enumerate(batch):
            ids[line, : len(prompt) + len(response)] = torch.tensor(prompt + response)
            inside[line, len(prompt) : len(prompt) + len(response)] = True
        logits = reference.model(input_ids=ids.to(device)).logits[:, :-1].float()
        taken = logits.log_softmax(-1).gather(-1, ids[:, 1:, None].to(device))[..., 0]
        sums = taken.cpu().where(inside[:, 1:], 0.0).sum(1)
        if not sums.isfinite().all():
            line = int((~sums.isfinite()).nonzero()[0])
            raise ValueError(
                f"the reference's log-probability of response {start + line} is {sums[line]}; "
                "required: finite logits. Take another reference, or another dtype"
            )
        found.append(sums)
    own = torch.tensor([log for row in samples.log_probabilities for log in row])
    gaps = (own - torch.cat(found)).reshape(len(samples.prompts), -1).mean(1)
    known = None if clusters is None else [clusters]
    return interval_over_seeds([gaps.numpy()], clusters=known, kind="score")
