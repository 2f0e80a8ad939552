"""Loads the prompts, models and searches that command arguments name."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.cli.args import PromptArgs, SearchArgs
from policies.generation.language_model import Policy
from policies.planning.leaf_values import LeafValue, PartialReward, Rollout
from policies.planning.methods import build_searcher
from policies.planning.options import MethodName
from policies.planning.searcher import SearchPolicy
from policies.planning.segment_rewards import (
    KLPenalty,
    ProcessReward,
    SegmentReward,
    SummedRewards,
)
from policies.planning.value_head import ValueHead
from rewardmodel.data.conversation import Prompt, plain
from rewardmodel.data.preferences import load_prompts
from rewardmodel.interface import RewardModel
from rewardmodel.models.loading import kind_of, load_reward_model
from rewardmodel.pretrained.digest import digest_model, digest_rows

_logger = logging.getLogger(__name__)


def prompts_for(args: PromptArgs, policy: Policy) -> list[Prompt]:
    """Loads the prompts; chat messages stay messages, for each model's own template.

    Raises:
        ValueError: If a prompt leaves no room for a response and is not to be skipped, or none
            is left.
    """
    found = load_prompts(
        args.dataset,
        split=args.split,
        tokenizer=policy.encoder.tokenizer,
        keep_messages=True,
        format=args.format,
        column=args.prompt_column,
        implicit_prompt=args.implicit_prompt,
        on_bad_row=args.on_bad_row,
        limit=args.limit,
    )
    room = policy.room_for_prompts(args.proposal.max_new_tokens)
    lengths = [len(policy.encoder.prompt_ids(prompt)) for prompt in found]
    fitting = [p for p, length in zip(found, lengths, strict=True) if length <= room]
    if (len(fitting) < len(found) and args.on_long_prompt == "error") or not fitting:
        row = next(i for i, length in enumerate(lengths) if length > room)
        raise ValueError(
            f"{args.dataset}: prompt {row} has {lengths[row]} tokens "
            f"({len(found) - len(fitting)} of {len(found)} prompts are too long); required: at "
            f"most {room}, the policy's context of {policy.context} less max_new_tokens and an "
            "end token. Lower max_new_tokens, or leave such prompts out with "
            'on_long_prompt="skip"'
        )
    if len(fitting) < len(found):
        _logger.warning("%d of %d prompts too long", len(found) - len(fitting), len(found))
    return fitting


@dataclass(frozen=True)
class SearchModels:
    """The models of a search.

    Attributes:
        policy: Proposes segments.
        reward_model: Scores finished responses.
        leaf_value: Values unfinished ones.
        segment_reward: What segments earn on the way, or None.
    """

    policy: Policy
    reward_model: RewardModel
    leaf_value: LeafValue
    segment_reward: SegmentReward | None = None


def search_models(args: SearchArgs) -> SearchModels:
    """Loads the models of a search.

    Raises:
        ValueError: If a model cannot be loaded.
    """
    policy = Policy.load(args.policy)
    leaves: dict[str, Callable[[], LeafValue]] = {
        "partial": PartialReward,
        "rollout": Rollout,
        "value_head": lambda: ValueHead.load(args.value_head or "").to(policy.model.device),
    }
    rewards: list[SegmentReward] = []
    if args.process_reward is not None:
        steps = kind_of(args.process_reward) == "process"
        scorer = load_reward_model(args.process_reward, aggregate="last" if steps else None)
        rewards.append(ProcessReward(scorer, weight=args.process_weight))
    if args.reference is not None:
        rewards.append(KLPenalty(Policy.load(args.reference), args.kl_coef))
    return SearchModels(
        policy,
        load_reward_model(args.reward_model, input_format=args.input_format),
        leaves[args.leaf or ("value_head" if args.value_head else "partial")](),
        SummedRewards(tuple(rewards)) if len(rewards) > 1 else next(iter(rewards), None),
    )


def searcher_for(
    args: SearchArgs, models: SearchModels, method: MethodName, budget: int
) -> SearchPolicy:
    """Makes the searching policy."""
    return build_searcher(
        method,
        budget,
        policy=models.policy,
        reward_model=models.reward_model,
        leaf_value=models.leaf_value,
        proposal=args.proposal,
        segment_reward=models.segment_reward,
        options=args.options,
    )


def digests_of(
    args: SearchArgs, prompts: Sequence[Prompt], gold: str | None = None
) -> dict[str, str | None]:
    """Digests of the prompts and models that a run begins with, for `RunDirectory.open`."""
    models = {
        "policy": args.policy,
        "reward_model": args.reward_model,
        "value_head": args.value_head,
        "process_reward": args.process_reward,
        "reference": args.reference,
        "gold": gold,
    }
    digests = {name: digest_model(source) for name, source in models.items()}
    return {**digests, "dataset": digest_rows(map(plain, prompts))}
