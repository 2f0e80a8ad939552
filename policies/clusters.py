"""The clusters of an evaluation: prompts that are no independent samples of each other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rewardmodel.data.conversation import plain
from rewardmodel.simulated_requests import assignment_of, holds_request


def clusters_of(prompts: Sequence[Any]) -> list[str]:
    """The cluster of each prompt, the same name in every run that meets the prompt.

    Of a request of the embedded world it is the set of things that is asked for, whatever the
    wording; of other prompts equal ones share a cluster.

    Args:
        prompts: P prompts: texts, conversations, or their lists of messages.
    """
    shown = map(plain, prompts)
    texts = [p if isinstance(p, str) else json.dumps(p, sort_keys=True) for p in shown]
    return [assignment_of(text) if holds_request(text) else _digest(text) for text in texts]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def with_clusters(
    records: Sequence[Mapping[str, Any]], clusters: Sequence[str]
) -> list[dict[str, Any]]:
    """Records with the `cluster` of the prompt that each names by its number."""
    return [{**record, "cluster": clusters[record["prompt"]]} for record in records]
