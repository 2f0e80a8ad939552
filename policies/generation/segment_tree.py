"""A tree of text: segments under prompts, each sampled or ranked by the policy and run once.

Long segments are sampled in rows of their own, ranked tokens of all prompts and branches take one
forward pass (`rewardmodel.prefix_cache`). Random numbers are keyed by prompt and actions
(`policies.generation.counter_rng`), so a segment does not depend on what else is sampled. A search
leaves its scores, values and rewards on the segments; this file makes none of them.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from policies.generation.counter_rng import child_key, root_key
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.sampling import PendingSegment, Sampling
from policies.generation.segment import Segment, SegmentEnds
from rewardmodel.data.conversation import Prompt
from rewardmodel.data.text_rows import require_rows

ROLLOUT = -1
"""The action that samples an unfinished response to its end."""


class SegmentTree:
    """Segments by handle, and the policy's state at the end of each unfinished one.

    Attributes:
        policy: The language model.
        proposal: How segments are made.
        prefixes: The prefix cache of the model.
        generated_tokens: Tokens sampled or ranked into the tree, by the prompt's handle.
        max_rows: The most segments that are sampled side by side; others wait for a free row.
    """

    def __init__(
        self, policy: Policy, proposal: Proposal, *, seed: int = 0, max_rows: int = 256
    ) -> None:
        """Makes an empty tree; `seed` is that of all random numbers."""
        self.policy = policy
        self.proposal = proposal
        self.max_rows = max_rows
        self.generated_tokens: dict[int, int] = {}
        self._seed = seed
        self._segments: dict[int, Segment] = {}
        self._next = 0
        self._prefix_of_root: dict[int, int] = {}
        self._number_of_root: dict[int, int] = {}
        self._prompts: dict[int, Prompt] = {}
        self._finished: dict[int, list[int]] = {}
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

    def prompt(self, node: int) -> Prompt:
        """The prompt that a node belongs to."""
        root = self.root(node)
        if root in self._prompts:
            return self._prompts[root]
        ids = self._segments[root].ids
        return self.policy.encoder.tokenizer.decode(ids, skip_special_tokens=True)

    def describe(self, node: int) -> str:
        """The number and beginning of a node's prompt, for messages."""
        return f"prompt {self._number_of_root[self.root(node)]} ({str(self.prompt(node))[:60]!r})"

    def score(self, node: int) -> float:
        """The score of a finished and scored node."""
        score = self._segments[node].score
        assert score is not None, "the node is not scored"
        return score

    def candidates(self, root: int) -> list[int]:
        """The finished and scored nodes under a prompt, in the order they were scored."""
        return self._finished[root]

    def best_finished(self, root: int) -> int | None:
        """The candidate with the highest score, the earliest of equals; None without any."""
        return max(self._finished[root], key=self.score, default=None)

    def unfinished_below(self, node: int) -> Iterable[int]:
        """A node, if it is unfinished, and all its unfinished descendants."""
        waiting = [node]
        while waiting:
            segment = self._segments[at := waiting.pop()]
            if not segment.finished:
                yield at
                waiting += set(segment.children.values())

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
        return self.policy.reply(text, self._prompts.get(self.root(node)))

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
    def padding_tokens(self) -> int:
        """Tokens that the model was given only to fill batches up."""
        return self.prefixes.padding_tokens

    def bytes_per_token(self) -> int:
        """Bytes of keys and values that a token takes; 0 where none are kept."""
        return self.prefixes.bytes_per_token()

    # ------------------------------------------------------------------------------------ growing

    def add_prompts(
        self, prompts: Sequence[Prompt], *, numbers: Sequence[int] | None = None
    ) -> list[int]:
        """Tokenizes prompts as the policy reads them; see `add_ids`."""
        require_rows(prompts)
        ids = [self.policy.encoder.prompt_ids(prompt) for prompt in prompts]
        return self.add_ids(ids, numbers=numbers, prompts=prompts)

    def add_ids(
        self,
        ids: Sequence[list[int]],
        *,
        numbers: Sequence[int] | None = None,
        prompts: Sequence[Prompt] | None = None,
    ) -> list[int]:
        """Runs the model over prompts, all in one batch.

        Args:
            ids: Token ids; none may be empty, and each needs room for a response.
            numbers: Keys each prompt's random numbers and names it in errors; None counts from 0.
            prompts: What the ids stand for; None decodes them.

        Returns:
            A handle for each.

        Raises:
            ValueError: If a prompt is empty or leaves no room in the model's context.
        """
        room = self.policy.room_for_prompts(self.proposal.max_new_tokens)
        for row, prompt in enumerate(ids):
            if not prompt:
                raise ValueError(f"prompt {row} is empty; required: at least one token")
            if len(prompt) > room:
                raise ValueError(
                    f"prompt {row} has {len(prompt)} tokens; required: at most {room}, since the "
                    f"model's context is {self.policy.context} and max_new_tokens is "
                    f"{self.proposal.max_new_tokens}. Shorten the prompt or lower max_new_tokens"
                )
        handles = []
        numbers = range(len(ids)) if numbers is None else numbers
        prefixes = self.prefixes.add_prompts(ids)
        for prompt, number, prefix in zip(ids, numbers, prefixes, strict=True):
            key = root_key(self._seed, number)
            segment = Segment(-1, self._next, list(prompt), key, length=0, prefix=prefix)
            handles.append(self._add(segment))
            self._finished[handles[-1]] = []
            self._prefix_of_root[handles[-1]] = prefix
            self._number_of_root[handles[-1]] = number
            self.generated_tokens[handles[-1]] = 0
        if prompts is not None:
            self._prompts |= dict(zip(handles, prompts, strict=True))
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
            log_probabilities: Theirs under the policy, as from `ranked`.

        Returns:
            A handle for each.
        """
        made = []
        for node, token, chance in zip(nodes, tokens, log_probabilities, strict=True):
            segment = self._open(node, child_key(self._segments[node].key, token))
            segment.take(token, chance)
            self._ends.finish(segment, self._tail_of(node))
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
        actions: Sequence[int],
        *,
        attempts: Sequence[int] | None = None,
    ) -> list[int]:
        """Samples one more segment after each of some unfinished nodes.

        Args:
            nodes: R handles; one may stand there several times.
            actions: For each the index of the segment among the node's proposals; with the node it
                keys the random numbers. `ROLLOUT` samples to the response's end.
            attempts: For each how often it was sampled before; None stands for never.

        Returns:
            A handle for each new segment.

        Raises:
            ValueError: If the policy's logits are not finite.
        """
        if not nodes:
            return []
        attempts = [0] * len(nodes) if attempts is None else attempts
        pending = []
        for node, action, attempt in zip(nodes, actions, attempts, strict=True):
            source = self._segments[node]
            assert not source.finished, "a finished node cannot be extended"
            ends = self._whole if action == ROLLOUT else self._ends
            pending.append(
                PendingSegment(
                    self._open(node, child_key(source.key, action, attempt)),
                    ends,
                    prefix=self.prefixes_of([node])[0],
                    prefix_tokens=len(self._segments[source.root].ids) + source.length,
                    tail=self._tail_of(node),
                )
            )
        Sampling(
            self.prefixes, self.proposal, pending, max_rows=self.max_rows, describe=self.describe
        ).run()
        return [self._add(one.segment) for one in pending]

    def add_scores(self, nodes: Sequence[int], scores: Sequence[float]) -> None:
        """Puts scores on finished responses, which become `candidates` of their prompts."""
        for node, score in zip(nodes, scores, strict=True):
            segment = self._segments[node]
            if segment.score is None:
                self._finished[segment.root].append(node)
            segment.score = score

    def keep(self, nodes: Iterable[int]) -> None:
        """Frees the keys and values of all other nodes, and forgets the children between them.

        Texts and scores stay readable; sampled again, an action gives the same segment.

        Args:
            nodes: Handles of all nodes that will be extended, or whose states will be read.
        """
        kept = {node for node in nodes if self._segments[node].prefix is not None}
        self.prefixes.keep(self.prefixes_of(sorted(kept)))
        for node, segment in self._segments.items():
            if node not in kept:
                segment.prefix = None
                segment.children = {}
            else:
                segment.children = {
                    action: child
                    for action, child in segment.children.items()
                    if child in kept or self._segments[child].finished
                }

    # ----------------------------------------------------------------------------------- internals

    def prefixes_of(self, nodes: Sequence[int]) -> list[int]:
        """Handles of nodes among the prefixes."""
        found = [self._segments[node].prefix for node in nodes]
        assert all(prefix is not None for prefix in found), "the model did not see these nodes' end"
        return found  # type: ignore[return-value]

    def _tail_of(self, node: int) -> list[int]:
        """The last tokens of a response before a new segment, as far as stop strings reach."""
        tail: list[int] = []
        while len(tail) < self._ends.reach and self._segments[node].parent >= 0:
            tail = self._segments[node].ids + tail
            node = self._segments[node].parent
        return tail

    def _add(self, segment: Segment) -> int:
        self._segments[self._next] = segment
        if segment.parent >= 0:
            self.generated_tokens[segment.root] += len(segment.ids)
        self._next += 1
        return self._next - 1

    def _open(self, node: int, key: int) -> Segment:
        source = self._segments[node]
        return Segment(node, source.root, [], key, length=source.length)
