"""Sampled MuZero: planning over sampled actions, for large or continuous action spaces.

An adapter turns a model whose policy can be sampled into a `PlanningModel` over K candidates: each
node holds K actions drawn for it, and an action of the search is the index of a candidate. Any
planner works with it.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from search.model import Embedding, PlanningModel, RootOutput, StepOutput
from search.planners.action_distributions import ActionDistribution
from search.planners.base import Planner, SearchOutput, require_float, require_int

SAMPLED_ACTIONS = "sampled_actions"
"""Leaf `[M, K, ...]` of a node's embedding that holds its sampled actions; reserved."""


@dataclass(frozen=True)
class SampledRootOutput:
    """Outputs of a model with a policy over many actions for the state a search starts from.

    Attributes:
        policy: The policies of the B states, one a row.
        value: `[B]` float; expected discounted return, for the player to move.
        embedding: leaves `[B, ...]`, passed back to `SampledPlanningModel.step`. The name
            `sampled_actions` is reserved.
    """

    policy: ActionDistribution
    value: Tensor
    embedding: Embedding


@dataclass(frozen=True)
class SampledStepOutput:
    """Outputs of such a model for one transition and the child it leads to.

    Attributes:
        policy: The children's policies. A child whose samples all have log-probability `-inf` is
            terminal; one reached by discount 0 is too, whatever its policy.
        value: `[M]` float; the child's expected discounted return, for the child's player.
        embedding: leaves `[M, ...]`; the child's, with the root's names, dtypes and shapes.
        reward: `[M]` float; reward of the transition, for the parent's player.
        discount: `[M]` float; multiplies the child's value. 0 ends the episode, -1 alternates
            two players.
    """

    policy: ActionDistribution
    value: Tensor
    embedding: Embedding
    reward: Tensor
    discount: Tensor


class SampledPlanningModel(Protocol):
    """A model that can be planned with over actions sampled from its policy.

    As `PlanningModel`, but actions are the policy's own, of any dtype and trailing shape, and in
    place of logits over all actions there is a policy that can be sampled and scored. Rows are
    independent; both functions run under `torch.inference_mode`.
    """

    def root(
        self, observation: Any, *, generator: torch.Generator | None = None
    ) -> SampledRootOutput:
        """Evaluates a batch of B observations, of whatever kind the model takes."""
        ...

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> SampledStepOutput:
        """Takes `action` `[M, ...]` from the nodes of `embedding` `[M, ...]`."""
        ...


@dataclass(frozen=True)
class SampledModel:
    """A `PlanningModel` over K candidates, actions drawn from each node's policy.

    The prior of the candidates is the corrected one, (β̂/β)π, with π the policy, β the proposal the
    actions were drawn from and β̂ = n/K their frequencies. `exp(prior_logits)` is that
    product: an unbiased estimate of π, before planners normalize it over the candidates. Equal
    samples are merged: the first has their count n, the others are invalid. So are actions that
    cannot be taken. Trees cannot be kept for another search: a new root has new samples.

    Attributes:
        model: The user's.
        num_samples: K, at least 1.
        proposal_temperature: τ above 0, of the proposal; the ready policies have β = π^(1/τ),
            normalized. At 1 the candidates' prior is n/K, uniform where no samples coincide.

    Raises:
        ValueError: If a number is out of its range.

    Source: Hubert et al. 2021 (Sampled MuZero), Section 4 (β̂/β) and 5 (the prior of the search).
    """

    model: SampledPlanningModel
    _: KW_ONLY
    num_samples: int = 20
    proposal_temperature: float = 1.0

    def __post_init__(self) -> None:
        """Validates the numbers."""
        _require_numbers(self, self.num_samples, self.proposal_temperature)

    @property
    def num_actions(self) -> int:
        """K, the number of candidates."""
        return self.num_samples

    @property
    def append_only(self) -> bool:
        """Whether the user's model keeps every row it steps; see `ExactModel`."""
        return bool(getattr(self.model, "append_only", False))

    def root(self, observation: object, *, generator: torch.Generator | None = None) -> RootOutput:
        """Evaluates B observations and draws K actions for each."""
        output = self.model.root(observation, generator=generator)
        logits, valid, embedding = self._sample_actions(output, generator)
        return RootOutput(
            prior_logits=logits, value=output.value, valid_actions=valid, embedding=embedding
        )

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        """Takes the candidates `action` `[M]` int64, and draws K actions for each child."""
        own = dict(embedding)
        candidates = own.pop(SAMPLED_ACTIONS)  # [M, K, ...]
        taken = candidates[torch.arange(action.shape[0], device=action.device), action]  # [M, ...]
        output = self.model.step(own, taken, generator=generator)
        logits, valid, child = self._sample_actions(output, generator)
        return StepOutput(
            prior_logits=logits,
            value=output.value,
            valid_actions=valid,
            embedding=child,
            reward=output.reward,
            discount=output.discount,
        )

    def _sample_actions(
        self, output: SampledRootOutput | SampledStepOutput, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Embedding]:
        """Draws actions; returns corrected logits and validity `[M, K]`, and the full embedding."""
        owner = type(output).__name__
        if SAMPLED_ACTIONS in output.embedding:
            raise ValueError(
                f'{owner}.embedding: found a leaf "{SAMPLED_ACTIONS}"; required any other name, as '
                "each node's sampled actions are kept under this one. Rename the leaf."
            )
        policy, temperature = output.policy, self.proposal_temperature
        actions = policy.sample(self.num_samples, temperature=temperature, generator=generator)
        form = (output.value.shape[0], self.num_samples)
        _require_samples(owner, "policy.sample", tuple(actions.shape[:2]), form, "[M, K, ...]")
        log_prob = policy.log_prob(actions)
        proposal = policy.proposal_log_prob(actions, temperature=temperature)
        for name, found in (("log_prob", log_prob), ("proposal_log_prob", proposal)):
            _require_samples(owner, f"policy.{name}", tuple(found.shape), form, "[M, K]")
        logits, valid = correct_prior(actions, log_prob=log_prob, proposal_log_prob=proposal)
        return logits, valid, {**output.embedding, SAMPLED_ACTIONS: actions}


def correct_prior(
    actions: Tensor, *, log_prob: Tensor, proposal_log_prob: Tensor
) -> tuple[Tensor, Tensor]:
    """The prior a search should have over sampled actions: (β̂/β)π, as logarithms.

    Args:
        actions: `[M, K, ...]`, drawn from β; equal ones count as one action.
        log_prob: `[M, K]`, log π of each; `-inf` where it cannot be taken.
        proposal_log_prob: `[M, K]`, log β of each.

    Returns:
        Logits `[M, K]`, log(n/K) + log π - log β with n the number of equal samples, and validity
        `[M, K]` bool: False, and the logit `-inf`, for all but the first of equal samples and
        where π is 0.

    Source: Hubert et al. 2021, Section 4: the expectation over samples of sum (β̂/β)π f is
    sum π f, which sum π f over the samples alone is not.
    """
    num_samples = actions.shape[1]
    flat = actions.reshape(*actions.shape[:2], -1)  # [M, K, D]
    same = (flat.unsqueeze(2) == flat.unsqueeze(1)).all(dim=-1)  # [M, K, K]
    repeated = same.tril(diagonal=-1).any(dim=-1)  # equal to an earlier sample
    log_frequency = (same.sum(dim=-1).to(log_prob.dtype) / num_samples).log()
    # Only an impossible action is invalid; NaN is kept, to be reported by the core.
    valid = ~repeated & (log_prob != -torch.inf)
    # Two impossible events have no ratio: -inf - -inf must not leave NaN behind.
    return (log_frequency + log_prob - proposal_log_prob).masked_fill(~valid, -torch.inf), valid


@dataclass(frozen=True)
class SampledOutput:
    """The decision of a planner over sampled actions for each of B observations.

    Attributes:
        action: `[B, ...]`, the action to take.
        actions: `[B, K, ...]`, the root's sampled actions; column k of `search` belongs
            to `actions[:, k]`.
        search: The planner's output over the K candidates. Its `action` is the one taken, and its
            `action_weights` `[B, K]` with `actions` are the policy's target: store both, and
            train on `sampled_policy_loss`. Weights are 0 where one repeats another.
    """

    action: Tensor
    actions: Tensor
    search: SearchOutput


@dataclass(frozen=True)
class SampledPlanner:
    """Any planner, over K actions sampled at each node.

    A wrapper rather than a planner of its own, because sampling changes the model and not the
    search: with `MuZeroPlanner` it is Sampled MuZero, with `GumbelMuZeroPlanner` its Gumbel
    variant, with `BestOfNPlanner` of N = K it tries all samples of the root. Exploration is the
    wrapped planner's: MuZero's Dirichlet noise is drawn over the valid candidates of the root.

    With few simulations a candidate, MuZero's rule settles on the first good one, as it scores
    unvisited ones lowest; Gumbel MuZero's tries `max_num_considered_actions` of them: give it K.

    Attributes:
        planner: Searches over the candidates.
        num_samples: K, at least 1.
        proposal_temperature: Above 0; above 1 proposes more widely than the policy.

    Raises:
        ValueError: If a number is out of its range.

    Source: Hubert et al. 2021, "Learning and planning in complex action spaces".
    """

    planner: Planner
    _: KW_ONLY
    num_samples: int = 20
    proposal_temperature: float = 1.0

    def __post_init__(self) -> None:
        """Validates the numbers."""
        _require_numbers(self, self.num_samples, self.proposal_temperature)

    @property
    def num_simulations(self) -> int:
        """The wrapped planner's budget."""
        return self.planner.num_simulations

    def plan(
        self,
        model: SampledPlanningModel,
        observation: object,
        *,
        generator: torch.Generator | None = None,
    ) -> SampledOutput:
        """Searches from each observation.

        Args:
            model: The planning model, its policy sampled.
            observation: Passed to `model.root` as it is.
            generator: Source of all randomness: sampled actions, the planner's and the model's.

        Returns:
            The decision; device and dtype follow the model's outputs.

        Raises:
            ValueError: If the model's outputs break the contract.
        """
        sampled = SampledModel(
            model,
            num_samples=self.num_samples,
            proposal_temperature=self.proposal_temperature,
        )
        with torch.inference_mode():
            root = sampled.root(observation, generator=generator)
        output = self.planner.plan(_FromRoot(sampled, root), observation, generator=generator)
        # Copied outside inference mode: stored actions are trained on.
        actions = root.embedding[SAMPLED_ACTIONS].clone()
        rows = torch.arange(actions.shape[0], device=actions.device)
        return SampledOutput(action=actions[rows, output.action], actions=actions, search=output)


@dataclass(frozen=True)
class _FromRoot:
    """A planning model with a given root, so that the root is known for planners without a tree."""

    model: PlanningModel
    known_root: RootOutput

    @property
    def num_actions(self) -> int:
        return self.model.num_actions

    @property
    def append_only(self) -> bool:
        return bool(getattr(self.model, "append_only", False))

    def root(self, observation: object, *, generator: torch.Generator | None = None) -> RootOutput:
        return self.known_root

    def step(
        self, embedding: Embedding, action: Tensor, *, generator: torch.Generator | None = None
    ) -> StepOutput:
        return self.model.step(embedding, action, generator=generator)


def sampled_policy_loss(
    policy: ActionDistribution, actions: Tensor, *, action_weights: Tensor
) -> Tensor:
    """Cross-entropy of a policy against what a search over sampled actions found.

    `-sum_k weights[k] * log π(actions[k])`, the part with gradients of the KL divergence from the
    search's improved policy. The weights need no importance correction: the search's prior had it.

    Args:
        policy: The policies of the B states as they are now, built with gradients.
        actions: `[B, K, ...]`, `SampledOutput.actions`.
        action_weights: `[B, K]`, `SampledOutput.search.action_weights`.

    Returns:
        `[B]`.

    Source: Hubert et al. 2021, Section 5 (the search's policy projected onto the network's).
    """
    log_prob = policy.log_prob(actions)
    # Candidates without weight may hold impossible actions: 0 * -inf must be 0.
    return -(action_weights * log_prob.masked_fill(action_weights == 0, 0.0)).sum(dim=-1)


def _require_numbers(owner: object, num_samples: int, proposal_temperature: float) -> None:
    name = type(owner).__name__
    require_int(name, "num_samples", num_samples, minimum=1)
    require_float(name, "proposal_temperature", proposal_temperature, above=True)


def _require_samples(
    owner: str, field: str, found: tuple[int, ...], required: tuple[int, int], form: str
) -> None:
    """Checks that something a policy returned has one entry per row and sample."""
    if found != required:
        raise ValueError(
            f"{owner}.{field}: found leading shape {list(found)}; required {list(required)} of "
            f"{form}, one per row of the value and sample. Return a policy with one row a state."
        )
