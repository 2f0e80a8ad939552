"""A search tree's keys and values: segments of text under prompts, every prefix computed once.

Segments are sampled row by row behind copies of their prefixes, finished rows giving place to
those that wait; ranked tokens of all prompts and branches go through the model in one forward pass
(`rewardmodel.prefixes`). Draws are keyed by prompt and slots (`policies.generation.random`), so a
segment is the same in whatever company it is drawn.

This file does not know about values, rewards or search.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.random import child_key, root_key
from policies.generation.sampling import Sampling
from policies.generation.stopping import SegmentEnds
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.text_rows import require_rows

ROLLOUT = -1
"""The slot of a response that is sampled to its end from an unfinished node."""


@dataclass
class Segment:
    """One run of tokens in the tree.

    Attributes:
        parent: Its handle, -1 at a prompt.
        root: Handle of the prompt it answers.
        ids: Its own tokens.
        key: Of its draws.
        length: Tokens of the response up to and including this segment.
        finished: Whether the response ends here.
        cut: Whether it ends here only because it has `max_new_tokens`.
        log_probability: Of its tokens under the policy, summed.
        prefix: Handle of its state among the prefixes; None where the model did not see its end.
    """

    parent: int
    root: int
    ids: list[int]
    key: int
    length: int
    finished: bool = False
    cut: bool = False
    log_probability: float = 0.0
    prefix: int | None = None


class SegmentTree:
    """Segments under prompts, and the model's state at the end of each unfinished one.

    Attributes:
        policy: Whose model runs.
        proposal: How segments are made.
        prefixes: The model's states and their keys and values.
        generated_tokens: Tokens sampled or ranked into the tree, by the prompt's handle.
        max_rows: The most segments that are sampled side by side; others wait for a free row.
    """

    def __init__(
        self, policy: Policy, proposal: Proposal, *, seed: int = 0, max_rows: int = 256
    ) -> None:
        """Makes an empty tree; `seed` is that of all draws."""
        self.policy = policy
        self.proposal = proposal
        self.max_rows = max_rows
        self.generated_tokens: dict[int, int] = {}
        self._seed = seed
        self._segments: dict[int, Segment] = {}
        self._next = 0
        self._prefix_of_root: dict[int, int] = {}
        self._number_of_root: dict[int, int] = {}
        self._asked: dict[int, Prompt] = {}
        self.prefixes = policy.new_prefixes()
        self._ends = SegmentEnds(policy, proposal)
        self._whole = SegmentEnds(policy, proposal, whole=True)

    # ------------------------------------------------------------------------------------ reading

    def segment(self, node: int) -> Segment:
        """A node's run of tokens."""
        return self._segments[node]

    def finished(self, node: int) -> bool:
        """Whether the response ends at this node."""
        return self._segments[node].finished

    def cut(self, node: int) -> bool:
        """Whether the response at this node was cut off at `max_new_tokens`."""
        return self._segments[node].cut

    def root(self, node: int) -> int:
        """The handle of the prompt that a node belongs to."""
        return self._segments[node].root

    def path(self, node: int) -> list[int]:
        """The nodes of a response, from its first segment to this one."""
        nodes = []
        while self._segments[node].parent >= 0:
            nodes.append(node)
            node = self._segments[node].parent
        return nodes[::-1]

    def response_ids(self, node: int) -> list[int]:
        """The tokens from the prompt's end to this node."""
        return [token for one in self.path(node) for token in self._segments[one].ids]

    def response_text(self, node: int) -> str:
        """The text from the prompt's end to this node.

        Without special tokens, stop strings or, in reply to a conversation, a template's markup.
        A NUL character becomes U+FFFD, as bytes that are no text do: no file of data may hold it.
        """
        ids = self.response_ids(node)
        if ids and ids[-1] in self.policy.end_ids:  # which need not be a special token
            ids = ids[:-1]
        text = self.policy.encoder.tokenizer.decode(ids, skip_special_tokens=True)
        text = self._ends.before_stop(text).replace("\0", "\ufffd")
        return self.policy.reply(text, self._asked.get(self.root(node)))

    def segment_text(self, node: int) -> str:
        """The text of one node alone."""
        ids = self._segments[node].ids
        text = self.policy.encoder.tokenizer.decode(ids, skip_special_tokens=True)
        return text.replace("\0", "\ufffd")

    def log_probability(self, node: int) -> float:
        """Of the response up to this node under the policy, in nats."""
        return sum(self._segments[one].log_probability for one in self.path(node))

    def hidden(self, nodes: Sequence[int]) -> Tensor:
        """Last hidden states [R, d] after the last token of unfinished nodes."""
        return self.prefixes.hidden(self.prefixes_of(nodes))

    def log_probabilities(self, nodes: Sequence[int]) -> Tensor:
        """Next-token log-probabilities [R, V] of the policy after unfinished nodes, float32."""
        return self.prefixes.logits(self.prefixes_of(nodes)).log_softmax(-1)

    def forward_tokens(self, root: int) -> int:
        """Tokens that the model was given for a prompt, the prompt's own included."""
        return self.prefixes.forward_tokens[self._prefix_of_root[root]]

    @property
    def idle_tokens(self) -> int:
        """Tokens that the model was given only to fill batches up."""
        return self.prefixes.idle_tokens

    def bytes_per_token(self) -> int:
        """Bytes of keys and values that a token takes; 0 where none are kept."""
        return self.prefixes.bytes_per_token()

    # ------------------------------------------------------------------------------------ growing

    def ask(self, prompts: Sequence[Prompt], *, numbers: Sequence[int] | None = None) -> list[int]:
        """Runs the policy over prompts as it reads them itself; see `add_prompts`."""
        require_rows(prompts)
        ids = [self.policy.encoder.prompt_ids(prompt) for prompt in prompts]
        handles = self.add_prompts(ids, numbers=numbers)
        self._asked |= dict(zip(handles, prompts, strict=True))
        return handles

    def add_prompts(
        self, prompts: Sequence[list[int]], *, numbers: Sequence[int] | None = None
    ) -> list[int]:
        """Runs the model over prompts, all in one batch.

        Args:
            prompts: Token ids; none may be empty, and each needs room for a response.
            numbers: What keys each prompt's draws and names it in errors; None counts from 0.

        Returns:
            A handle for each.

        Raises:
            ValueError: If a prompt is empty or leaves no room in the model's context.
        """
        room = self.policy.room_for_prompts(self.proposal.max_new_tokens)
        for row, prompt in enumerate(prompts):
            if not prompt:
                raise ValueError(f"prompt {row} is empty; required: at least one token")
            if len(prompt) > room:
                raise ValueError(
                    f"prompt {row} has {len(prompt)} tokens; required: at most {room}, since the "
                    f"model's context is {self.policy.context} and max_new_tokens is "
                    f"{self.proposal.max_new_tokens}. Shorten the prompt or lower max_new_tokens"
                )
        handles = []
        numbers = range(len(prompts)) if numbers is None else numbers
        prefixes = self.prefixes.add_prompts(prompts)
        for prompt, number, prefix in zip(prompts, numbers, prefixes, strict=True):
            key = root_key(self._seed, number)
            segment = Segment(-1, self._next, list(prompt), key, length=0, prefix=prefix)
            handles.append(self._add(segment))
            self._prefix_of_root[handles[-1]] = prefix
            self._number_of_root[handles[-1]] = number
            self.generated_tokens[handles[-1]] = 0
        return handles

    def ranked(self, nodes: Sequence[int], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest next tokens of unfinished nodes.

        Args:
            nodes: R handles.
            count: K, or fewer where the vocabulary is smaller.

        Returns:
            Tokens int64 [R, K], their log weights [R, K], -inf where the proposal has no more, and
            their log-probabilities under the policy [R, K].
        """
        policy = self.log_probabilities(nodes)
        lengths = [self._segments[node].length for node in nodes]
        allowed = self._ends.allowed(policy, lengths)
        tokens, weights = self.proposal.rank(allowed, min(count, policy.shape[-1]))
        return tokens, weights, policy.gather(-1, tokens)

    @torch.inference_mode()
    def append(
        self, nodes: Sequence[int], tokens: Sequence[int], log_probabilities: Sequence[float]
    ) -> list[int]:
        """Puts one given token behind each of some unfinished nodes, in one forward pass.

        Args:
            nodes: R handles; one may stand there several times.
            tokens: R tokens.
            log_probabilities: Theirs under the policy, as `ranked` says.

        Returns:
            A handle for each.
        """
        made = []
        for node, token, chance in zip(nodes, tokens, log_probabilities, strict=True):
            segment = self._open(node, child_key(self._segments[node].key, token))
            self.take(segment, token, chance)
            self._ends.finish(segment, self.tail_of(node))
            made.append(segment)
        going = [segment for segment in made if not segment.finished]
        if going:
            parents = self.prefixes_of([segment.parent for segment in going])
            fed, _ = self.prefixes.feed(parents, [segment.ids for segment in going])
            for segment, prefix in zip(going, fed, strict=True):
                segment.prefix = prefix
        return [self._add(segment) for segment in made]

    def extend(
        self,
        nodes: Sequence[int],
        slots: Sequence[int],
        *,
        attempts: Sequence[int] | None = None,
    ) -> list[int]:
        """Samples one more segment after each of some unfinished nodes.

        Args:
            nodes: R handles; one may stand there several times.
            slots: For each the slot that the segment fills; with the node it keys the draws.
                `ROLLOUT` samples to the response's end.
            attempts: For each how often its slot was drawn before; None stands for never.

        Returns:
            A handle for each new segment.
        """
        if not nodes:
            return []
        attempts = [0] * len(nodes) if attempts is None else attempts
        made = []
        for node, slot, attempt in zip(nodes, slots, attempts, strict=True):
            source = self._segments[node]
            assert not source.finished, "a finished node cannot be extended"
            made.append(self._open(node, child_key(source.key, slot, attempt)))
        ends = [self._whole if slot == ROLLOUT else self._ends for slot in slots]
        Sampling(self, made, ends).run()
        return [self._add(segment) for segment in made]

    def keep(self, nodes: Iterable[int]) -> None:
        """Frees the keys and values of all other nodes; their texts stay readable.

        Args:
            nodes: Handles of all nodes that will be extended or asked for states again.
        """
        kept = {node for node in nodes if self._segments[node].prefix is not None}
        self.prefixes.keep(self.prefixes_of(sorted(kept)))
        for node, segment in self._segments.items():
            if node not in kept:
                segment.prefix = None

    def require_finite(
        self, segments: Sequence[Segment], log_probabilities: Sequence[Sequence[float]]
    ) -> None:
        """Refuses to go on from logits that are NaN or infinite.

        Either makes all log-probabilities of its row NaN; -inf alone forbids a token. Asked of
        numbers that are on the host already.

        Args:
            segments: R segments, as far as they are made.
            log_probabilities: Of some tokens that could follow each.

        Raises:
            ValueError: Naming the prompt and the token of the response.
        """
        for segment, chances in zip(segments, log_probabilities, strict=True):
            if any(map(math.isnan, chances)):
                raise ValueError(
                    f"{self.describe(segment.root)}: the policy's logits for token "
                    f"{segment.length + 1} of the response are not finite; required: finite "
                    "logits. The model diverged in training or overflows in its dtype: take "
                    "another checkpoint, or another dtype"
                )

    def describe(self, root: int) -> str:
        """A prompt's number and beginning, for messages."""
        prompt = self._asked.get(root)
        if prompt is None:
            ids = self._segments[root].ids
            prompt = self.policy.encoder.tokenizer.decode(ids, skip_special_tokens=True)
        return f"prompt {self._number_of_root[root]} ({str(prompt)[:60]!r})"

    # ---- for `policies.generation.sampling`

    def prefixes_of(self, nodes: Sequence[int]) -> list[int]:
        """Handles of nodes among the prefixes."""
        found = [self._segments[node].prefix for node in nodes]
        assert all(prefix is not None for prefix in found), "the model did not see these nodes' end"
        return found  # type: ignore[return-value]

    def take(self, segment: Segment, token: int, log_probability: float) -> None:
        """Adds one token to a segment that is being made."""
        segment.ids.append(token)
        segment.length += 1
        segment.log_probability += log_probability
        self.generated_tokens[segment.root] += 1

    def tail_of(self, node: int) -> list[int]:
        """The last tokens of a response before a new segment, as far as stop strings reach."""
        tail: list[int] = []
        while len(tail) < self._ends.reach and self._segments[node].parent >= 0:
            tail = self._segments[node].ids + tail
            node = self._segments[node].parent
        return tail

    def path_tokens(self, node: int) -> int:
        """Tokens from the prompt's first to a node's last."""
        segment = self._segments[node]
        return len(self._segments[segment.root].ids) + segment.length

    # ----------------------------------------------------------------------------------- internals

    def _add(self, segment: Segment) -> int:
        self._segments[self._next] = segment
        self._next += 1
        return self._next - 1

    def _open(self, node: int, key: int) -> Segment:
        source = self._segments[node]
        return Segment(node, source.root, [], key, length=source.length)
