"""The clusters of an evaluation: prompts that are no independent samples of each other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rewardmodel.simulated_requests import assignment_of


def clusters_of(prompts: Sequence[Any], gold: str | None) -> list[str]:
    """The cluster of each prompt, the same name in every run that meets the prompt.

    In the embedded world it is the set of things that a prompt asks for, whatever its wording; of
    other prompts equal ones share a cluster.

    Args:
        prompts: P prompts, texts or messages.
        gold: The setting of the judge; `"simulated"` for prompts of the embedded world.

    Raises:
        ValueError: If the judge is the simulated human and a prompt is not of its world.
    """
    texts = [p if isinstance(p, str) else json.dumps(p, sort_keys=True) for p in prompts]
    if gold == "simulated":
        return [assignment_of(text) for text in texts]
    return [
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] for text in texts
    ]


def with_clusters(
    records: Sequence[Mapping[str, Any]], clusters: Sequence[str]
) -> list[dict[str, Any]]:
    """Records with the `cluster` of the prompt that each names by its number."""
    return [{**record, "cluster": clusters[record["prompt"]]} for record in records]
