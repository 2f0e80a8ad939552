"""The clusters of an evaluation: prompts that are no independent samples of each other."""

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prefsearch.storage.json_text import json_text
from rewardmodel.data.conversation import plain
from rewardmodel.synthetic.phrases import GENRES
from rewardmodel.synthetic.requests import assignment_of


def clusters_of(prompts: Sequence[Any]) -> list[str]:
    """The cluster of each prompt, the same name in every run that meets the prompt.

    Of a request of the synthetic task it is the set of things it requests, whatever the
    wording and whatever stands before it, such as instructions, examples and earlier turns: the
    last request counts, in a conversation the last one of the user. Other prompts share a cluster
    where they are equal but for case and white space at their ends.

    Args:
        prompts: P prompts: texts, conversations, or their lists of messages.
    """
    return [_cluster(plain(prompt)) for prompt in prompts]


def _cluster(prompt: Any) -> str:
    for text in reversed(_requested(prompt)):
        requests = list(_request_pattern().finditer(" ".join(text.split())))
        if requests:
            return assignment_of(requests[-1].group())
    folded = _folded(prompt)
    return _digest(
        folded if isinstance(folded, str) else json_text(folded, ascii_only=True, sort_keys=True)
    )


def _requested(prompt: Any) -> list[str]:
    """The user turns of a prompt, in order: a plain prompt, or messages of the user."""
    if isinstance(prompt, str):
        return [prompt]
    texts = []
    for message in prompt:
        content = message.get("content") or ""
        if message.get("role") == "user":
            # Content may be a list of parts, of which some are text.
            parts = [content] if isinstance(content, str) else [p.get("text") for p in content]
            texts.append(" ".join(part for part in parts if part))
    return texts


@functools.cache
def _request_pattern() -> re.Pattern[str]:
    """All requests of the synthetic task, in upper or lower case."""
    wordings: list[str] = []
    for genre in GENRES:
        nouns = dict(zip(genre.slots, genre.things, strict=True))
        for template in genre.requests:
            pieces = re.split(r"\{(\w+)\}", template)  # every other one names a field
            wordings.append(
                "".join(
                    f"(?:{'|'.join(map(re.escape, nouns[piece]))})" if i % 2 else re.escape(piece)
                    for i, piece in enumerate(pieces)
                )
            )
    return re.compile("|".join(wordings), re.I)


def _folded(value: object) -> object:
    """A prompt in which upper case and white space at the ends of texts make no difference."""
    if isinstance(value, str):
        return value.strip().casefold()
    if isinstance(value, Mapping):
        return {key: _folded(held) for key, held in value.items()}
    return [_folded(held) for held in value] if isinstance(value, list | tuple) else value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def with_clusters(
    records: Sequence[Mapping[str, Any]], clusters: Sequence[str]
) -> list[dict[str, Any]]:
    """Records with the `cluster` of the prompt that each names by its number."""
    return [{**record, "cluster": clusters[record["prompt"]]} for record in records]
