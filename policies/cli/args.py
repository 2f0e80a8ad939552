"""Settings that several verbs of `prefsearch policy` share: prompts, sampling, search.

Settings hold values and load what they name; the jobs are in the other doors.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal, Unit
from policies.planning.leaf_values import LeafValue, PartialReward, Rollout
from policies.planning.methods import (
    MethodName,
    SearchOptions,
    build_searcher,
    check_budget,
    method_name,
)
from policies.planning.searcher import SearchPolicy
from policies.planning.segment_rewards import KLPenalty, SegmentReward
from policies.planning.value_head import ValueHead
from prefsearch.config.bounds import (
    Count,
    CountOrZero,
    KLWeight,
    ModelText,
    NonNegative,
    Positive,
    PositiveFraction,
    Rows,
    Seed,
    Size,
    Temperature,
    Tokens,
    Within,
)
from prefsearch.config.checks import check_types, require
from rewardmodel.data.conversation import Prompt, plain
from rewardmodel.data.formats.table import FormatName
from rewardmodel.data.preferences import load_prompts
from rewardmodel.data.rows import OnBadRow
from rewardmodel.interface import RewardModel
from rewardmodel.models.answers import extract_answer
from rewardmodel.models.loading import load_reward_model
from rewardmodel.pretrained.digest import digest_model, digest_rows
from rewardmodel.pretrained.input_format import ChosenFormat

_logger = logging.getLogger(__name__)


@dataclass
class ProposalSettings:
    r"""Where prompts come from and how segments are sampled.

    Attributes:
        policy: A causal language model: hub id, folder, .gguf file, or package:NAME/FOLDER or
            package:NAME/FILE.gguf of an installed package that carries one.
        dataset: Prompts: hub id, folder, file with a prompt column, preferences, or .txt.
        split: Split of a hub dataset or folder.
        format: What preferences are, as for `prefsearch reward train`: auto, plain or a format's
            name.
        prompt_column: The prompt's column, or several joined by "+".
        implicit_prompt: Of preferences: take the beginning that chosen and rejected share for the
            prompt, in plain text without turn markers, too.
        limit: Use this many prompts; null takes all.
        on_bad_row: "error" stops at the first bad row, "skip" leaves bad rows out and counts them.
        on_long_prompt: "error" stops at a prompt that leaves no room for a response in the policy's
            context, "skip" leaves such prompts out and counts them.
        unit: What a search tries at a time, ended by: "token", one token, the likeliest first and
            not sampled; "sentence", the end of a sentence or line; "line", a line break; "step",
            the delimiter; "block", segment_tokens tokens; "response", the end of the response.
            Best-of-N and votes take whole responses whatever it says.
        segment_tokens: The most tokens of a segment.
        max_new_tokens: The most tokens of a response.
        min_new_tokens: The fewest tokens before a response may end by itself.
        delimiter: What ends a "step", a blank line by default; in a shell write $'\n\n'.
        stop: Strings that end a response and do not belong to it, such as "Human:".
        temperature: Of sampling; 1 is the policy itself, less is likelier text and less variety.
        top_k: Sample among the k likeliest tokens; 0 takes all.
        top_p: Sample within this much probability mass; 1 takes all.
        search_batch_size: Prompts searched side by side. It decides what is done between two saves
            of a run and what processes are dealt; results of one size repeat exactly.
        max_rows: The most responses or segments that are sampled side by side; lower it where
            memory is short.
        seed: Of everything random.
    """

    # How the loaders' keyword arguments are given to a command where the name is another.
    FLAGS = MappingProxyType({"tokenizer": "policy", "column": "prompt_column"})

    policy: str = ""
    dataset: str = ""
    split: str = "train"
    format: FormatName = "auto"
    prompt_column: str = "prompt"
    implicit_prompt: bool = False
    limit: Rows | None = None
    on_bad_row: OnBadRow = "error"
    on_long_prompt: OnBadRow = "error"
    unit: Unit = "sentence"
    segment_tokens: Tokens = 64
    max_new_tokens: Tokens = 128
    min_new_tokens: Annotated[int, Within(least=0, most=2**24)] = 0
    delimiter: ModelText = "\n\n"
    stop: list[ModelText] | None = None
    temperature: Temperature = 1.0
    top_k: CountOrZero = 0
    top_p: PositiveFraction = 1.0
    search_batch_size: Size = 32
    max_rows: Size = 256
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        check_types(self)
        require(
            bool(self.policy),
            "policy",
            self.policy,
            "a hub id, folder, package or .gguf file, by --policy",
        )
        require(bool(self.dataset), "dataset", self.dataset, "a hub id or file, by --dataset")
        self.proposal()

    def proposal(self) -> Proposal:
        """How segments are sampled."""
        return Proposal(
            unit=self.unit,
            segment_tokens=self.segment_tokens,
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            delimiter=self.delimiter,
            stop=tuple(self.stop or ()),
        )

    def prompts(self, policy: Policy) -> list[Prompt]:
        """Loads the prompts; chat messages stay messages, for each model's own template.

        Raises:
            ValueError: If a prompt leaves no room for a response and is not to be skipped, or none
                is left.
        """
        found = load_prompts(
            self.dataset,
            split=self.split,
            tokenizer=policy.encoder.tokenizer,
            keep_messages=True,
            format=self.format,
            column=self.prompt_column,
            implicit_prompt=self.implicit_prompt,
            on_bad_row=self.on_bad_row,
            limit=self.limit,
        )
        room = policy.room_for_prompts(self.max_new_tokens)
        lengths = [len(policy.encoder.prompt_ids(prompt)) for prompt in found]
        fitting = [p for p, length in zip(found, lengths, strict=True) if length <= room]
        if (len(fitting) < len(found) and self.on_long_prompt == "error") or not fitting:
            row = next(i for i, length in enumerate(lengths) if length > room)
            raise ValueError(
                f"{self.dataset}: prompt {row} has {lengths[row]} tokens "
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
    """What a search runs, loaded.

    Attributes:
        policy: Proposes.
        reward_model: Judges finished responses.
        leaf_value: Values unfinished ones.
        segment_reward: What segments earn on the way, or None.
    """

    policy: Policy
    reward_model: RewardModel
    leaf_value: LeafValue
    segment_reward: SegmentReward | None = None


@dataclass
class SearchSettings(ProposalSettings):
    """What a search plans against and how far.

    Attributes:
        reward_model: Hub id, folder or package:NAME/FOLDER of a reward model; or a function of
            prompts and responses, python:package.module:name or python:path/to/file.py:name; or
            several of them, ensemble:NAME,NAME. A model reads messages by its own chat template,
            and of what the policy writes the text without markup.
        input_format: Whether it is given prompt and response as one "text" or as a "pair" of
            segments, as encoders are; "auto" takes what it was trained on, or looks.
        leaf: How unfinished text is valued: "partial", the reward model's score of the text so far
            as if it ended there; "value_head", a head on the policy's own hidden state, which
            costs nothing (fit it with `prefsearch policy value`); "rollout", the score of the text
            as the policy finishes it, which costs tokens. Null takes the value head where a folder
            of one is given, and else "partial".
        value_head: Folder of a value head.
        method: best_of_n; weighted or majority, a vote of N responses, by score or by count;
            rejection, best-of-N that gives up on bad beginnings; beam; dvts, several small beams;
            muzero or gumbel_muzero, tree searches; controlled_decoding, one token at a time
            by the value of what it leads to.
        budget: Responses of best_of_n, weighted, majority and rejection; segments a step of beam
            and dvts; simulations a decision of muzero and gumbel_muzero; tokens considered of
            controlled_decoding.
        leaves_per_step: Tree search: leaves of each tree that go through the models at once. More
            is faster on large models and searches a little less well.
        c_puct: muzero: the weight of exploration, c1 of its rule; null takes 1.25 for
            ranked tokens and 10 for samples, whose prior is uniform.
        value_scale: gumbel_muzero: weight of values against the prior, per visit of a node's most
            visited slot; more follows the best slot found so far sooner and tries the others later.
            Null takes 0.1 for ranked tokens and log(1 + budget) / (2 * budget) for samples.
        maxvisit_init: gumbel_muzero: visits added to those that value_scale multiplies: the product
            of both is what values weigh at a new node. Null takes 50 for ranked tokens, and for
            samples what gives the best of K slots odds of 1 + 8 K / budget to 1 there against all
            others together.
        token_budget: The most tokens sampled for a prompt, at least max_new_tokens; null sets no
            limit.
        answer_form: Votes and references: how an answer is read from a response: "gsm8k", what
            follows the last ####; "boxed"; "number", the last one; "auto", the first of these that
            is there; "regex:PATTERN", the one group of the last match.
        kl_weight: Controlled decoding: cost of one nat of divergence from the policy; less follows
            the reward model further.
        rejection_keep: Speculative rejection: the share of responses that goes on after each
            segment; null takes the planner's default.
        kl_beta: Price of a nat of drift from the reference, taken from each segment's reward; 0
            for none.
        reference: Policy to stay near, named as policy is, with the policy's vocabulary; required
            where kl_beta is above 0.
    """

    reward_model: str = ""
    input_format: ChosenFormat = "auto"
    leaf: Literal["partial", "value_head", "rollout"] | None = None
    value_head: str | None = None
    method: MethodName = "gumbel_muzero"
    budget: Size = 8
    leaves_per_step: Size = 1
    c_puct: NonNegative | None = None
    value_scale: Positive | None = None
    maxvisit_init: NonNegative | None = None
    token_budget: Count | None = None
    answer_form: str = "auto"
    kl_weight: KLWeight = 0.3
    rejection_keep: PositiveFraction | None = None
    kl_beta: NonNegative = 0.0
    reference: str | None = None

    def __post_init__(self) -> None:
        """Checks types and bounds."""
        super().__post_init__()
        require(bool(self.reward_model), "reward_model", self.reward_model, "a reward model")
        self.method = method_name(self.method)
        check_budget(self.method, self.budget)
        if self.leaf == "value_head":
            wanted = 'the folder of a value head, since leaf is "value_head"'
            require(bool(self.value_head), "value_head", self.value_head, wanted)
        elif self.leaf is not None:
            wanted = f'null, since leaf is "{self.leaf}" and would leave it unused'
            require(self.value_head is None, "value_head", self.value_head, wanted)
        if self.token_budget is not None:
            wanted = f"at least {self.max_new_tokens}, the max_new_tokens of one response"
            enough = self.token_budget >= self.max_new_tokens
            require(enough, "token_budget", self.token_budget, wanted)
        if self.kl_beta > 0:
            wanted = "a policy's hub id or folder, since kl_beta is above 0"
            require(bool(self.reference), "reference", self.reference, wanted)
        else:
            wanted = "null, since kl_beta is 0 and would leave it unused"
            require(self.reference is None, "reference", self.reference, wanted)
        extract_answer("", self.answer_form)  # refuses a form that does not exist
        self.options()

    def options(self) -> SearchOptions:
        """How methods search, beside their budgets."""
        return SearchOptions(
            leaves_per_step=self.leaves_per_step,
            c_puct=self.c_puct,
            value_scale=self.value_scale,
            maxvisit_init=self.maxvisit_init,
            token_budget=self.token_budget,
            answer_form=self.answer_form,
            kl_weight=self.kl_weight,
            rejection_keep=self.rejection_keep,
            batch_size=self.search_batch_size,
            max_rows=self.max_rows,
        )

    def models(self) -> SearchModels:
        """Loads all that the search runs.

        Raises:
            ValueError: If a model cannot be loaded.
        """
        policy = Policy.load(self.policy)
        leaves: dict[str, Callable[[], LeafValue]] = {
            "partial": PartialReward,
            "rollout": Rollout,
            "value_head": lambda: ValueHead.load(self.value_head or "").to(policy.model.device),
        }
        penalty = None
        if self.reference is not None:
            penalty = KLPenalty(Policy.load(self.reference), self.kl_beta)
        return SearchModels(
            policy,
            load_reward_model(self.reward_model, input_format=self.input_format),
            leaves[self.leaf or ("value_head" if self.value_head else "partial")](),
            penalty,
        )

    def searcher(self, models: SearchModels, method: MethodName, budget: int) -> SearchPolicy:
        """Makes the searching policy."""
        return build_searcher(
            method,
            budget,
            policy=models.policy,
            reward_model=models.reward_model,
            leaf_value=models.leaf_value,
            proposal=self.proposal(),
            segment_reward=models.segment_reward,
            options=self.options(),
        )


def digests_of(
    job: SearchSettings, prompts: Sequence[Prompt], gold: str | None = None
) -> dict[str, str | None]:
    """Digests of the prompts and models that a run begins with, for `RunDirectory.open`."""
    models = {
        "policy": job.policy,
        "reward_model": job.reward_model,
        "value_head": job.value_head,
        "reference": job.reference,
        "gold": gold,
    }
    digests = {name: digest_model(source) for name, source in models.items()}
    return {**digests, "dataset": digest_rows(map(plain, prompts))}
