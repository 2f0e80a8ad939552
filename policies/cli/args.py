"""Arguments of the commands that train policies and answer prompts."""

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from policies.generation.proposals import Proposal
from policies.generation.tiny_model import TinyModel, Unfinished
from policies.planning.options import MethodName, SearchOptions, check_budget, method_name
from prefsearch.cli.outputs import Output
from prefsearch.config.bounds import CountOrZero, NonNegative, Seed, Size
from prefsearch.config.checks import require
from rewardmodel.choices import ChosenFormat, OnBadRow
from rewardmodel.cli.data_args import DataArgs
from rewardmodel.data.formats.registry import FormatName
from rewardmodel.training.optim_config import OptimConfig

_BATCH = 32


def _command_options() -> SearchOptions:
    return SearchOptions(search_batch_size=_BATCH)


@dataclass
class SftArgs(DataArgs):
    """Fine-tune a policy on demonstrations, from a pretrained model or a tiny one from scratch.

    Attributes:
        model: Hub id, folder, .gguf file or package:NAME/FOLDER to begin from; null builds a Llama
            of the sizes below.
        dataset: Demonstrations (prompt and completion, messages) or preferences (the chosen reply).
        completion_column: The completion's column; null looks for completion, response,
            messages, conversations.
        implicit_prompt: Of preferences: take the beginning that chosen and rejected share for the
            prompt, in plain text without turn markers, too.
        unfinished: What becomes of demonstrations that were cut off, by their column finished or
            since they are longer than max_length: "no_end" learns them without an end token,
            "leave_out" leaves them out. Both are counted.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    MODELS: ClassVar = ("model",)

    model: str | None = None
    completion_column: str | None = None
    implicit_prompt: bool = False
    unfinished: Unfinished = "no_end"
    out: str = "runs/sft"
    resume: bool = False
    size: TinyModel = field(default_factory=TinyModel)
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass
class PromptArgs(DataArgs):
    """Prompts, and the policy that answers them.

    Attributes:
        policy: A causal language model: hub id, folder, .gguf file, or package:NAME/FOLDER or
            package:NAME/FILE.gguf of an installed package that carries one.
        dataset: Prompts: hub id, folder, file with a prompt column, preferences, or .txt.
        format: What preferences are, as for `prefsearch reward train`: auto, plain or a format's
            name.
        implicit_prompt: Of preferences: take the beginning that chosen and rejected share for the
            prompt, in plain text without turn markers, too.
        on_long_prompt: "error" stops at a prompt that leaves no room for a response in the policy's
            context, "skip" leaves such prompts out and counts them.
        seed: Of everything random.
    """

    FLAGS: ClassVar = MappingProxyType({"tokenizer": "policy", "column": "prompt_column"})
    REQUIRED: ClassVar = MappingProxyType(
        {"policy": "a hub id, folder, package or .gguf file, by --policy", **DataArgs.REQUIRED}
    )
    MODELS: ClassVar = ("policy",)

    policy: str = ""
    format: FormatName = "auto"
    implicit_prompt: bool = False
    on_long_prompt: OnBadRow = "error"
    seed: Seed = 0
    proposal: Proposal = field(default_factory=Proposal)


@dataclass
class SampleArgs(PromptArgs):
    """Sample whole responses of a policy, several to a prompt.

    Attributes:
        per_prompt: Responses to each prompt.
        search_batch_size: Prompts sampled side by side, by each process.
        max_rows: The most responses that are sampled side by side; lower it where memory is short.
        out: JSON lines of prompt, responses, and whether each is finished or was cut off at
            max_new_tokens.
    """

    WRITES: ClassVar = None

    per_prompt: Size = 4
    search_batch_size: Size = _BATCH
    max_rows: Size = 256
    out: str = "runs/samples.jsonl"


@dataclass
class RewardedArgs(PromptArgs):
    """Prompts, a policy, and the reward model of its responses.

    Attributes:
        reward_model: Hub id, folder or package:NAME/FOLDER of a reward model; or a function of
            prompts and responses, python:package.module:name or python:path/to/file.py:name; or
            several of them, ensemble:NAME,NAME. A model reads messages by its own chat template,
            and of what the policy writes the text without markup.
        input_format: Whether it is given prompt and response as one "text" or as a "pair" of
            segments, as encoders are; "auto" takes what it was trained on, or looks.
    """

    REQUIRED: ClassVar = MappingProxyType({**PromptArgs.REQUIRED, "reward_model": "a reward model"})
    MODELS: ClassVar = ("policy", "reward_model")

    reward_model: str = ""
    input_format: ChosenFormat = "auto"


@dataclass
class ValueArgs(RewardedArgs):
    """Fit a value head: the expected final reward of an unfinished response.

    Attributes:
        per_prompt: Responses sampled to each prompt to learn from.
        out: Folder for the head.
    """

    per_prompt: Size = 4
    out: str = "runs/value"

    def outputs(self) -> list[Output]:
        """What is written."""
        return [Output("out", self.out, (), replaced=True)]


@dataclass
class SearchArgs(RewardedArgs):
    """Arguments of leaf values, rewards and the KL penalty of a search.

    Attributes:
        leaf: How unfinished text is valued: "partial", the reward model's score of the text so far
            as if it ended there; "value_head", a head on the policy's own hidden state, which
            costs nothing (fit it with `prefsearch policy value`); "rollout", the score of the text
            as the policy finishes it, which costs tokens. Null takes the value head where a folder
            of one is given, and else "partial".
        value_head: Folder of a value head.
        process_reward: Process reward model, named as reward_model is, whose score of the last step
            each segment earns, beside the reward model's score at the end; of another kind of
            model, its score of the text so far. Null for none.
        process_weight: Multiplies the scores of process_reward.
        kl_coef: Penalty a nat of divergence from the reference, taken from each segment's reward;
            0 for none.
        reference: Policy to stay close to, of the policy's vocabulary, named as policy is; required
            where kl_coef is above 0.
    """

    MODELS: ClassVar = ("policy", "reward_model", "value_head", "process_reward", "reference")

    leaf: Literal["partial", "value_head", "rollout"] | None = None
    value_head: str | None = None
    process_reward: str | None = None
    process_weight: NonNegative = 1.0
    kl_coef: NonNegative = 0.0
    reference: str | None = None
    options: SearchOptions = field(default_factory=_command_options)

    def check(self) -> None:
        """Checks what settings require of each other."""
        if self.leaf == "value_head":
            wanted = 'the folder of a value head, since leaf is "value_head"'
            require(bool(self.value_head), "value_head", self.value_head, wanted)
        elif self.leaf is not None:
            wanted = f'null, since leaf is "{self.leaf}" and would leave it unused'
            require(self.value_head is None, "value_head", self.value_head, wanted)
        most, response = self.options.token_budget, self.proposal.max_new_tokens
        wanted = f"at least {response}, the max_new_tokens of one response"
        require(most is None or most >= response, "token_budget", most, wanted)
        if self.kl_coef > 0:
            wanted = "a policy's hub id or folder, since kl_coef is above 0"
            require(bool(self.reference), "reference", self.reference, wanted)
        else:
            wanted = "null, since kl_coef is 0 and would leave it unused"
            require(self.reference is None, "reference", self.reference, wanted)


@dataclass
class MethodArgs(SearchArgs):
    """Planner and budget of a search.

    Attributes:
        method: best_of_n; weighted or majority, a vote of N responses, by score or by count;
            speculative rejection, which drops low-scoring partial responses; beam; dvts, several
            small beams; muzero or gumbel_muzero, tree searches; controlled_decoding, one token at a
            time by the value of what it leads to.
        budget: Responses of best_of_n, weighted, majority and rejection; segments a step of beam
            and dvts; simulations a decision of muzero and gumbel_muzero; tokens considered of
            controlled_decoding.
    """

    method: MethodName = "gumbel_muzero"
    budget: Size = 8

    def check(self) -> None:
        """Checks the budget, too."""
        self.method = method_name(self.method)
        check_budget(self.method, self.budget)
        super().check()


@dataclass
class PlanArgs(MethodArgs):
    """Answer prompts with the best responses that a search finds.

    Attributes:
        keep_candidates: Whether to write all finished responses that the search saw, with scores.
        keep_trees: For how many of the first prompts to keep the search tree.
        save_trees: New or empty folder for all search trees, which `prefsearch tree show` opens;
            null saves none.
        out: JSON lines of prompt, response, score and cost.
    """

    keep_candidates: bool = False
    keep_trees: CountOrZero = 0
    save_trees: str | None = None
    out: str = "runs/planned.jsonl"

    def __post_init__(self) -> None:
        """Checks that no older trees lie where the new ones go, too."""
        super().__post_init__()
        if self.save_trees is not None:
            folder = Path(self.save_trees)
            free = folder.is_dir() and not any(folder.iterdir())
            wanted = "a new or empty folder, so that no older trees lie between the new ones"
            require(free or not folder.exists(), "save_trees", self.save_trees, wanted)

    def outputs(self) -> list[Output]:
        """What is written."""
        trees = [] if self.save_trees is None else [Output("save_trees", self.save_trees, ())]
        return [Output("out", self.out), *trees]


@dataclass
class FinetuneArgs(MethodArgs):
    """One round of search-based fine-tuning: search prompts, then learn from what was found.

    Attributes:
        unfinished: What becomes of answers that were cut off at max_new_tokens: "no_end" learns
            them without an end token, "leave_out" leaves them out. Both are counted.
        out: Folder of the run.
        resume: Continue the run in that folder.
    """

    unfinished: Unfinished = "no_end"
    out: str = "runs/finetune"
    resume: bool = False
    optim: OptimConfig = field(default_factory=OptimConfig)
