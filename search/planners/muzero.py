"""MuZero: PUCT at every node, Dirichlet noise at the root, actions by visit counts."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from search.backends.dispatch import Backend
from search.mcts import grow_trees, require_search_numbers
from search.model import PlanningModel, RootOutput, check_root_form, validate_root
from search.planners.base import (
    SearchOutput,
    release_output,
    require_choice,
    require_float,
    require_noise,
)
from search.qtransforms import QTransform, qtransform_by_parent_and_siblings
from search.reuse import replace_roots
from search.selection import (
    ActionSelection,
    EfficientZeroSelection,
    PuctSelection,
    masked_argmax,
)
from search.tree import Tree, mask_logits

MuZeroMode: TypeAlias = Literal["mctx", "efficientzero"]


@dataclass(frozen=True)
class PuctPlanner:
    """Settings of a planner by PUCT with Dirichlet noise at the root.

    Attributes:
        num_simulations: The budget, at least 1.
        max_depth: Most edges between root and leaf; None for no limit.
        qtransform: Brings Q-values to [0, 1], beside the prior's scores.
        dirichlet_fraction: Share of noise in the root's prior, 0 (off) to 1.
        dirichlet_alpha: Concentration of the noise, above 0; smaller is peakier.
        pb_c_init: c1, weight of the prior against the values.
        pb_c_base: c2, visits at which that weight starts to grow.
        temperature: The action is sampled by visits ** (1 / temperature); 0 takes the most
            visited one, ties to the greatest value, then to the lowest index.
        leaves_per_step: Leaves of each tree that one call of the model expands (see `run_mcts`);
            more than 1 pays where the model is large and the trees are few.
        backend: Which form of the search loop runs: "auto" takes the fastest there is.

    Raises:
        ValueError: If a number is out of its range.
    """

    num_simulations: int
    _: KW_ONLY
    max_depth: int | None = None
    qtransform: QTransform = qtransform_by_parent_and_siblings
    dirichlet_fraction: float = 0.25
    dirichlet_alpha: float = 0.3
    pb_c_init: float = 1.25
    pb_c_base: float = 19652
    temperature: float = 1.0
    leaves_per_step: int = 1
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        """Validates the numbers."""
        owner = type(self).__name__
        require_search_numbers(
            owner, self.num_simulations, self.max_depth, self.leaves_per_step, self.backend
        )
        require_float(owner, "dirichlet_fraction", self.dirichlet_fraction, maximum=1.0)
        require_float(owner, "dirichlet_alpha", self.dirichlet_alpha, above=True)
        require_float(owner, "pb_c_init", self.pb_c_init)
        require_float(owner, "pb_c_base", self.pb_c_base, above=True)
        require_float(owner, "temperature", self.temperature)

    def puct(self) -> PuctSelection:
        """The selection rule."""
        return PuctSelection(self.qtransform, pb_c_init=self.pb_c_init, pb_c_base=self.pb_c_base)

    def mix_noise(
        self, root: RootOutput, noise: Tensor | None, *, generator: torch.Generator | None
    ) -> RootOutput:
        """Mixes Dirichlet noise into the priors of B roots; unchanged at `dirichlet_fraction` 0.

        Args:
            root: B roots.
            noise: `[B, A]` probabilities to use in place of drawn noise; renormalized over the
                valid actions.
            generator: Source of drawn noise.

        Raises:
            ValueError: If the noise has another shape or is no distribution; and see
                `search.model.validate_root`.
        """
        if noise is not None:
            require_noise(
                type(self).__name__,
                "dirichlet_noise",
                noise,
                valid=root.valid_actions,
                good=lambda x: torch.isfinite(x).all(-1) & (x >= 0).all(-1) & (x.sum(-1) > 0),
                required="finite probabilities, not negative, with a positive sum over "
                "valid_actions",
            )
        if self.dirichlet_fraction == 0:
            return root
        validate_root(root, root.prior_logits.shape[1])  # noise would hide numbers that are wrong
        probs = torch.softmax(mask_logits(root.prior_logits, root.valid_actions), dim=-1)
        if noise is None:
            alpha = self.dirichlet_alpha
            noise = sample_dirichlet(root.valid_actions, alpha=alpha, generator=generator)
        noise = noise.to(probs).masked_fill(~root.valid_actions, 0.0)
        noise = noise / noise.sum(dim=-1, keepdim=True)
        probs = (1 - self.dirichlet_fraction) * probs + self.dirichlet_fraction * noise
        log_probs = probs.clamp_min(torch.finfo(probs.dtype).tiny).log()
        return replace(root, prior_logits=mask_logits(log_probs, root.valid_actions))


@dataclass(frozen=True)
class MuZeroPlanner(PuctPlanner):
    """Plans with MuZero's search; with noise off, its trees equal those of mctx's `muzero_policy`.

    `action_weights` are the root's visit frequencies and `value` is the root's mean return.
    Deviations from mctx: score ties go to the lowest index (mctx adds random numbers below 1e-7);
    at temperature 0 ties of visits go to the greater Q-value (mctx draws among them); noise is
    drawn over the valid actions only; nodes that nothing can follow are not searched below (see
    `run_mcts`); actions may be invalid at every node.

    Attributes:
        mode: "mctx" scales Q-values by `qtransform`; "efficientzero" searches as EfficientZero's
            own tree does (`search.selection.EfficientZeroSelection`), without a `qtransform`.
        value_delta_max: Of "efficientzero": the least span that Q-values are scaled by.
        Others: As in `PuctPlanner`.

    Raises:
        ValueError: If a number is out of its range.

    Source: Schrittwieser et al. 2020 (MuZero), Appendix B equations 2 and 5, and Appendix D.
    """

    _: KW_ONLY
    mode: MuZeroMode = "mctx"
    value_delta_max: float = 0.01

    def __post_init__(self) -> None:
        """Validates the numbers."""
        super().__post_init__()
        owner = type(self).__name__
        require_choice(owner, "mode", self.mode, choices=get_args(MuZeroMode))
        require_float(owner, "value_delta_max", self.value_delta_max, above=True)

    def plan(
        self,
        model: PlanningModel,
        observation: object,
        *,
        generator: torch.Generator | None = None,
        dirichlet_noise: Tensor | None = None,
        kept: Tree | None = None,
    ) -> SearchOutput:
        """Searches from each observation; see `search.planners.base.Planner.plan`.

        Args:
            model: The planning model.
            observation: Passed to `model.root`.
            generator: Source of the noise, of sampled actions and of the model's randomness.
            dirichlet_noise: `[B, A]` probabilities to use in place of drawn noise (for tests).
            kept: Subtrees to reuse, of `search.reuse.keep_subtree`. Their visits count in
                `action_weights`; the budget counts new simulations.

        Returns:
            The decision, with its tree.

        Raises:
            ValueError: If the model's outputs break the contract, or the noise has another shape.
        """
        with torch.inference_mode():
            root = model.root(observation, generator=generator)
            check_root_form(root, model.num_actions)  # its numbers are checked by grow_trees
            noisy_root = self.mix_noise(root, dirichlet_noise, generator=generator)
            select = self._selection()
            tree = grow_trees(
                model,
                noisy_root,
                num_simulations=self.num_simulations,
                root_action_selection=select,
                interior_action_selection=select,
                max_depth=self.max_depth,
                leaves_per_step=self.leaves_per_step,
                kept=None if kept is None else replace_roots(kept, noisy_root),
                backend=self.backend,
                generator=generator,
            )
            summary = tree.summary()
            action = sample_by_visits(
                summary.visit_probs,
                temperature=self.temperature,
                qvalues=summary.qvalues,
                generator=generator,
            )
        return release_output(action, summary.visit_probs, summary.value, tree)

    def _selection(self) -> ActionSelection:
        """The rule of every node."""
        if self.mode == "efficientzero":
            return EfficientZeroSelection(
                self.value_delta_max, pb_c_init=self.pb_c_init, pb_c_base=self.pb_c_base
            )
        return self.puct()


def sample_by_visits(
    visit_probs: Tensor,
    *,
    temperature: float,
    qvalues: Tensor | None = None,
    generator: torch.Generator | None,
) -> Tensor:
    """Samples an action by `visit_probs ** (1 / temperature)`: `[B, A]` to `[B]` int64.

    Unvisited actions are never taken. Temperature 0 takes the most visited action, ties to the
    greatest of `qvalues` `[B, A]` where they are given, then to the lowest index. (mctx draws among
    ties. In small searches of many actions most are tied, and their values tell them apart.)
    """
    if temperature == 0:
        if qvalues is None:
            return visit_probs.argmax(dim=-1)
        return masked_argmax(qvalues, visit_probs == visit_probs.amax(dim=-1, keepdim=True))
    device = visit_probs.device if generator is None else generator.device
    log_probs = visit_probs.to(device, torch.float64).log()
    # Subtracting the greatest keeps a small temperature from overflowing.
    scaled = (log_probs - log_probs.amax(dim=-1, keepdim=True)) / temperature
    action = torch.multinomial(torch.softmax(scaled, dim=-1), 1, generator=generator)
    return action.squeeze(-1).to(visit_probs.device)


def sample_dirichlet(
    valid_actions: Tensor, *, alpha: float, generator: torch.Generator | None
) -> Tensor:
    """Draws symmetric Dirichlet noise over the valid actions: `[B, A]` bool to `[B, A]` float64.

    Deviation from mctx, which draws over all actions and masks afterwards: the noise that stays
    would then depend on how many actions are invalid.
    """
    device = valid_actions.device if generator is None else generator.device
    concentration = torch.full(valid_actions.shape, alpha, dtype=torch.float64, device=device)
    # torch.distributions.Dirichlet takes no generator; the sampler below it does.
    gamma = torch._standard_gamma(concentration, generator=generator)  # pyright: ignore
    # A small concentration underflows: clamped so that a row never sums to zero.
    gamma = gamma.clamp_min(torch.finfo(torch.float64).tiny).to(valid_actions.device)
    gamma = gamma.masked_fill(~valid_actions, 0.0)
    return gamma / gamma.sum(dim=-1, keepdim=True)
